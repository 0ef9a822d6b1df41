"""The frame codec of packed objects (:class:`hub.ports.packing.FrameCodec`), over child processes with bounds."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, BinaryIO

from adapters.pixels.pool import Pool
from adapters.pixels.stored import StoredPixels
from adapters.pixels.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE, JPEG_2000
from fhir_mappings.errors import MalformedError
from hub.errors import Category, HubError
from hub.ports.packing import CodedFrame, NotPackableError, Shape

if TYPE_CHECKING:
    from hub.config import Settings

#: The JPEG 2000 encoder makes six resolutions, each half of the one before.
_LEAST_SIDE = 32
#: Frames of one object; each costs some bytes of the index, which is held while the object is read.
_MAX_FRAMES = 65_536


class PooledCodec:
    """Encodes and decodes in the children of a pool, which is made at the first frame."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._pool: Pool | None = None

    def shape(self, source: BinaryIO) -> Shape:
        """Return where the frames of an uncompressed Part 10 file lie.

        Raises:
            NotPackableError: where there are none to pack, or none that can be packed.
        """
        try:
            stored = StoredPixels(source, max_frame_bytes=self._settings.max_frame_bytes)
            pixels = stored.pixels
        except MalformedError:
            raise NotPackableError("unreadable") from None
        except HubError as error:
            if error.transient:
                raise
            raise NotPackableError("no-pixels" if error.category is Category.NOT_FOUND else "unreadable") from None
        if stored.syntax not in {IMPLICIT_LITTLE, EXPLICIT_LITTLE} or pixels.fragments:
            raise NotPackableError("transfer-syntax")
        try:
            image = stored.image
        except HubError:
            raise NotPackableError("pixels-unsupported") from None
        by_halves = image.photometric == "YBR_FULL_422" and image.samples == 3
        if image.bits_allocated not in {8, 16} or image.samples not in {1, 3} or by_halves:
            raise NotPackableError("pixels-unsupported")
        frames = stored.count
        if frames > _MAX_FRAMES:
            raise NotPackableError("pixels-unsupported")
        if frames * image.frame_bytes > pixels.length:
            raise NotPackableError("pixels-short")
        return Shape(offset=pixels.offset, frame_bytes=image.frame_bytes, frames=frames, image=image.as_json())

    def encode(self, shape: Shape, syntax: str, frame: bytes) -> CodedFrame:
        """Return *frame* as a code stream; raises NotPackableError where the codec cannot make one."""
        if syntax == JPEG_2000 and min(int(shape.image["rows"]), int(shape.image["columns"])) < _LEAST_SIDE:
            raise NotPackableError("too-small")
        try:
            answer, data = self._children().run({"do": "squeeze", "image": dict(shape.image), "target": syntax}, frame)
        except HubError as error:
            if error.transient:
                raise
            raise NotPackableError("codec") from None
        return CodedFrame(base=int(answer["base"]), bits=int(answer["bits"]), data=data)

    def decode(self, shape: Shape, syntax: str, coded: CodedFrame) -> bytes:
        """Return the bytes of a frame.

        Raises:
            HubError: busy when too many wait, unavailable when the frame cannot be decoded here and now.
        """
        if not coded.bits:
            return coded.data
        head: dict[str, Any] = {"do": "restore", "image": dict(shape.image), "syntax": syntax}
        try:
            _, frame = self._children().run({**head, "base": coded.base, "bits": coded.bits}, coded.data)
        except HubError as error:
            if error.transient:
                raise
            raise HubError(
                Category.FAULT,
                f"A packed object cannot be unpacked: {error.message}",
                where="object store",
                remedy="Raise HUB_PIXEL_DEADLINE_S and HUB_PIXEL_MEMORY_BYTES, or run: hub fsck",
            ) from error
        return frame

    def close(self) -> None:
        """End the children."""
        with self._lock:
            if self._pool is not None:
                self._pool.close()
                self._pool = None

    def _children(self) -> Pool:
        with self._lock:
            if self._pool is None:
                self._pool = Pool.of(self._settings)
            return self._pool


def open_codec(settings: Settings) -> PooledCodec:
    """Return the codec of one process; nothing runs until a frame is asked for."""
    return PooledCodec(settings)
