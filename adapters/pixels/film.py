"""Frames of a video stream, and streams made of pictures; runs in a child process only (PS3.5 sections 8.2.5 to 8.2.10).

*Theory of operation.* OpenCV's FFmpeg reads the stream out of memory: there is no file, and whatever a stream says of
other places, nothing is opened. Two lists hold that: of demuxers, in which none follows references, and of protocols,
in which there is none. Frames are counted by decoding from the first on, because containers tell times and not numbers,
and a jump by time may land beside. Bounds of memory and time are those of the process.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image as Pictures

from adapters.pixels import mp4
from adapters.pixels.image import Image
from hub.errors import Category, HubError

Array = np.ndarray[Any, np.dtype[Any]]

#: Streams of PS3.5 and the containers that it allows: MPEG-2 transport and program streams, MP4, and bare streams.
_DEMUXERS = "mpegts,mpeg,mpegvideo,mov,mp4,h264,hevc"
#: FFmpeg takes the list for names of protocols; there is none of this name.
_OPTIONS = f"format_whitelist;{_DEMUXERS}|protocol_whitelist;nothing"
#: What a film is shown with where neither header nor stream says a rate.
_DEFAULT_RATE = 25.0
_RATES = (1.0, 240.0)
_MICROSECONDS = 1_000_000


class Film:
    """A stream that is decoded from its beginning, once.

    Args:
        stream: elementary stream or container.
        image: the object's description of a frame, which the stream must agree with.

    Raises:
        HubError: unsupported where OpenCV is missing, the stream is none of a kind that is decoded, or of another size.
    """

    def __init__(self, stream: bytes, image: Image) -> None:
        cv2 = opencv()
        self._cv2, self._image = cv2, image
        #: Frames decoded so far.
        self.count = 0
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = _OPTIONS
        settings = [cv2.CAP_PROP_N_THREADS, 1, cv2.CAP_PROP_HW_ACCELERATION, cv2.VIDEO_ACCELERATION_NONE]
        try:
            self._capture = cv2.VideoCapture(io.BytesIO(stream), cv2.CAP_FFMPEG, settings)
        except cv2.error:
            self._capture = None
        if self._capture is None or not self._capture.isOpened():
            raise HubError(
                Category.UNSUPPORTED, "The video stream cannot be decoded: it is no MPEG-2, H.264 or HEVC in a container"
                " that PS3.5 names.", where="(7FE0,0010)",
            )  # fmt: skip
        # Rows and Columns are those of the coded picture, whichever way up its container shows it.
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        size = tuple(int(self._capture.get(one)) for one in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        if size != (image.rows, image.columns):
            raise HubError(
                Category.UNSUPPORTED,
                f"The video is {size[0]} x {size[1]}, the header says {image.rows} x {image.columns}.",
                where="(7FE0,0010)",
            )

    @property
    def rate(self) -> float:
        """Frames of a second, as the stream says."""
        said = float(self._capture.get(self._cv2.CAP_PROP_FPS))
        return said if _RATES[0] <= said <= _RATES[1] else _DEFAULT_RATE

    @property
    def shown(self) -> Image:
        """What decoded frames are: RGB, or grey where the object says that it has one sample."""
        colour = self._image.samples > 1
        return replace(
            self._image, samples=3 if colour else 1, bits_allocated=8, bits_stored=8, high_bit=7, signed=False, planar=0,
            photometric="RGB" if colour else "MONOCHROME2",
        )  # fmt: skip

    def frames(self, numbers: Sequence[int]) -> Iterator[tuple[int, Array]]:
        """Yield the frames of *numbers* (from 1, rising) as far as the stream has them."""
        cv2 = self._cv2
        for number in numbers:
            while self.count < number:
                if not self._capture.grab():
                    return
                self.count += 1
            held, picture = self._capture.retrieve()
            if not held or picture.shape[:2] != (self._image.rows, self._image.columns):
                raise HubError(
                    Category.UNSUPPORTED, f"Frame {number} of the video cannot be decoded.", where="(7FE0,0010)"
                )
            to = cv2.COLOR_BGR2RGB if self._image.samples > 1 else cv2.COLOR_BGR2GRAY
            yield number, cv2.cvtColor(picture, to)

    def rest(self) -> int:
        """Decode to the end; returns how many frames the stream has."""
        while self._capture.grab():
            self.count += 1
        return self.count


def opencv() -> Any:
    """Return OpenCV; raises HubError(unsupported) where the extra ``video`` is not installed."""
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise HubError(
            Category.UNSUPPORTED,
            "Videos are neither decoded nor made here: opencv-python-headless is not installed;"
            " the operator can install it with the extra `video`.",
            where="video",
        ) from error
    except ImportError as error:
        raise HubError(
            Category.UNSUPPORTED, "OpenCV cannot be loaded; it may need more memory than pixel_memory_bytes.",
            where="video",
        ) from error  # fmt: skip
    cv2.setNumThreads(1)
    return cv2


def short(count: int, number: int, said: int) -> HubError:
    """Return the error of a frame that the header promises and the stream has not."""
    return HubError(
        Category.UNSUPPORTED,
        f"There is no frame {number}: NumberOfFrames says {said}, the video has {count}.",
        where="(0028,0008)",
    )


def clip(pictures: Iterator[Pictures.Image], durations_us: Sequence[int]) -> bytes:
    """Return *pictures* as an MP4 with VP9; each is shown for its duration.

    All are put on a canvas of the first one's size (sides made even, as half of the colour samples needs): a larger one
    is made to fit, a smaller one stands in its middle.
    """
    cv2 = opencv()
    from adapters.pixels.vp9 import Encoder

    first = next(pictures)
    width, height = first.width + first.width % 2, first.height + first.height % 2
    frames: list[tuple[bytes, bool]] = []
    with Encoder(width, height) as encoder:
        for picture in chain([first], pictures):
            shown = picture if picture.mode == "RGB" else picture.convert("RGB")
            if shown.size != first.size:
                shown = _fitted(shown, first.size)
            sides = ((0, height - first.height), (0, width - first.width), (0, 0))
            frames.append(
                encoder.encode(cv2.cvtColor(np.pad(np.asarray(shown), sides, "edge"), cv2.COLOR_RGB2YUV_I420))
            )
    return mp4.write(frames, durations_us[: len(frames)], width, height)


def even(rate: float, count: int) -> list[int]:
    """Return *count* durations in microseconds at *rate* frames a second."""
    return [round(_MICROSECONDS / rate)] * count


def _fitted(picture: Pictures.Image, size: tuple[int, int]) -> Pictures.Image:
    canvas = Pictures.new("RGB", size)
    if picture.width > size[0] or picture.height > size[1]:
        picture.thumbnail(size)
    canvas.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    return canvas
