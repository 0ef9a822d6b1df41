"""Pictures as a VP9 stream, by the libvpx that OpenCV's wheel brings; runs in a child process only.

*Theory of operation.* OpenCV's own writer knows neither speed nor quality of this encoder and writes to files, which a
child may not. So the library is called directly (libvpx, ``vpx/vpx_encoder.h`` and ``vpx/vp8cx.h``): one pass, constant
quality, one thread, in memory. Its interface has a version number that covers the layout of all structures, which it
checks itself; a library with another one is refused before anything is laid out wrongly.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from hub.errors import Category, HubError

Array = np.ndarray[Any, np.dtype[Any]]

#: VPX_ENCODER_ABI_VERSION of the library whose structures are as below (libvpx 1.15); it refuses any other number.
_ABI_VERSION = 37
_ONE_PASS, _CONSTANT_QUALITY, _REALTIME = 0, 3, 1
_I420, _KEY_FRAME, _FRAME_PACKET = 0x102, 1, 0
#: Control numbers of ``vp8cx.h``.
_CPU_USED, _CQ_LEVEL, _COLOR_SPACE = 13, 25, 46
#: Of 0 (best) to 63; what is visible is kept, a clip of 100 frames is some megabytes.
_QUALITY = 20
#: Of 0 (slowest) to 9 with the realtime deadline.
_SPEED = 7
_BT_601 = 1
#: A player that jumps decodes at most so many frames.
_KEY_FRAME_DISTANCE = 50


class _Rational(ctypes.Structure):
    _fields_ = (("num", ctypes.c_int), ("den", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (("buf", ctypes.c_void_p), ("sz", ctypes.c_size_t))


_UINTS_TO_TIMEBASE = ("g_usage", "g_threads", "g_profile", "g_w", "g_h", "g_bit_depth", "g_input_bit_depth")
_UINTS_TO_END_USAGE = (
    "g_error_resilient", "g_pass", "g_lag_in_frames", "rc_dropframe_thresh", "rc_resize_allowed", "rc_scaled_width",
    "rc_scaled_height", "rc_resize_up_thresh", "rc_resize_down_thresh", "rc_end_usage",
)  # fmt: skip
_UINTS_TO_KEY_FRAMES = (
    "rc_target_bitrate", "rc_min_quantizer", "rc_max_quantizer", "rc_undershoot_pct", "rc_overshoot_pct", "rc_buf_sz",
    "rc_buf_initial_sz", "rc_buf_optimal_sz", "rc_2pass_vbr_bias_pct", "rc_2pass_vbr_minsection_pct",
    "rc_2pass_vbr_maxsection_pct", "rc_2pass_vbr_corpus_complexity", "kf_mode", "kf_min_dist", "kf_max_dist",
)  # fmt: skip


class _Config(ctypes.Structure):
    """``vpx_codec_enc_cfg``; what follows key frames (layers) stays as the library fills it."""

    _fields_ = (
        *((name, ctypes.c_uint) for name in _UINTS_TO_TIMEBASE),
        ("g_timebase", _Rational),
        *((name, ctypes.c_uint) for name in _UINTS_TO_END_USAGE),
        ("rc_twopass_stats_in", _Buffer),
        ("rc_firstpass_mb_stats_in", _Buffer),
        *((name, ctypes.c_uint) for name in _UINTS_TO_KEY_FRAMES),
        ("rest", ctypes.c_char * 4096),
    )


class _Packet(ctypes.Structure):
    """The beginning of ``vpx_codec_cx_pkt`` of a frame."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("buf", ctypes.c_void_p),
        ("sz", ctypes.c_size_t),
        ("pts", ctypes.c_int64),
        ("duration", ctypes.c_ulong),
        ("flags", ctypes.c_uint32),
    )


class Encoder:
    """One stream of pictures of *width* and *height* pixels."""

    def __init__(self, width: int, height: int) -> None:
        self._library = _library()
        # Larger than the library's own contexts and images of any version.
        self._context = ctypes.create_string_buffer(1024)
        self._image = ctypes.create_string_buffer(1024)
        self._width, self._height = width, height
        self._count = 0
        interface = self._library.vpx_codec_vp9_cx()
        config = _Config()
        self._check(self._library.vpx_codec_enc_config_default(interface, ctypes.byref(config), 0))
        config.g_w, config.g_h, config.g_threads = width, height, 1
        config.g_timebase = _Rational(1, 1000)
        config.g_pass, config.g_lag_in_frames = _ONE_PASS, 0
        config.rc_end_usage, config.kf_max_dist = _CONSTANT_QUALITY, _KEY_FRAME_DISTANCE
        options = (self._context, interface, ctypes.byref(config), 0, _ABI_VERSION)
        self._check(self._library.vpx_codec_enc_init_ver(*options))
        self._open = True
        for control, value in ((_CPU_USED, _SPEED), (_CQ_LEVEL, _QUALITY), (_COLOR_SPACE, _BT_601)):
            self._check(self._library.vpx_codec_control_(self._context, control, ctypes.c_int(value)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._open:
            self._open = False
            self._library.vpx_codec_destroy(self._context)

    def encode(self, planes: Array) -> tuple[bytes, bool]:
        """Return one picture as a frame of the stream, and whether it is a key frame.

        Args:
            planes: Y, then Cb and Cr of half the sides, as bytes one after the other (I420); both sides are even.
        """
        data = np.ascontiguousarray(planes, dtype="u1")
        if data.size != self._width * self._height * 3 // 2:
            raise ValueError("The planes are not of this stream's size.")
        self._library.vpx_img_wrap(self._image, _I420, self._width, self._height, 1, data.ctypes.data)
        self._check(self._library.vpx_codec_encode(self._context, self._image, self._count, 1, 0, _REALTIME))
        self._count += 1
        packets = list(self._packets())
        if not packets:
            raise HubError(Category.FAULT, "The encoder gave no frame.", where="libvpx")
        return b"".join(data for data, _ in packets), packets[0][1]

    def _packets(self) -> Iterator[tuple[bytes, bool]]:
        place = ctypes.c_void_p()
        while packet := self._library.vpx_codec_get_cx_data(self._context, ctypes.byref(place)):
            if packet.contents.kind == _FRAME_PACKET:
                data = ctypes.string_at(packet.contents.buf, packet.contents.sz)
                yield data, bool(packet.contents.flags & _KEY_FRAME)

    def _check(self, status: int) -> None:
        if status:
            raise HubError(
                Category.UNSUPPORTED, f"The VP9 encoder refuses with status {status}.", where="libvpx",
                remedy="Install the version of opencv-python-headless that requirements.txt names.",
            )  # fmt: skip


@cache
def _library() -> Any:
    """Return the libvpx of OpenCV's wheel, with the types of what is called."""
    import cv2

    folder = Path(cv2.__file__).parent.parent / "opencv_python_headless.libs"
    found = sorted(folder.glob("libvpx*.so*"))
    if not found:
        raise HubError(
            Category.UNSUPPORTED, "No films are made: this build of OpenCV brings no libvpx.", where="video/mp4",
            remedy="Install the wheel of opencv-python-headless for Linux.",
        )  # fmt: skip
    library = ctypes.CDLL(str(found[0]))
    pointer, number, long = ctypes.c_void_p, ctypes.c_uint, ctypes.c_ulong
    for name, result, arguments in (
        ("vpx_codec_vp9_cx", pointer, ()),
        ("vpx_codec_enc_config_default", ctypes.c_int, (pointer, pointer, number)),
        ("vpx_codec_enc_init_ver", ctypes.c_int, (pointer, pointer, pointer, ctypes.c_long, ctypes.c_int)),
        ("vpx_codec_control_", ctypes.c_int, (pointer, ctypes.c_int)),
        ("vpx_codec_encode", ctypes.c_int, (pointer, pointer, ctypes.c_int64, long, ctypes.c_long, long)),
        ("vpx_codec_get_cx_data", ctypes.POINTER(_Packet), (pointer, pointer)),
        ("vpx_codec_destroy", ctypes.c_int, (pointer,)),
        ("vpx_img_wrap", pointer, (pointer, ctypes.c_int, number, number, number, pointer)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
