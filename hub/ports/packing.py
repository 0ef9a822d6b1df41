"""Packed objects: the same bytes in less room, because their frames are compressed without loss.

The digest of an object goes on naming its original bytes. A packed form is an object of its own, under its own digest, out
of which a store rebuilds the original byte for byte; a :class:`Packing` says which belongs to which.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol, runtime_checkable

from hub.ports.objects import ObjectRef


class NotPackableError(Exception):
    """The object stays as it is.

    Attributes:
        reason: a few words of :data:`hub.recompression.REASONS`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Where the frames of an uncompressed object lie, and what they are.

    Attributes:
        offset: of the first frame, in bytes from the start of the object.
        frame_bytes: size of each frame; frames follow one another without a gap.
        image: what the codec must know of a frame, as plain values.
    """

    offset: int
    frame_bytes: int
    frames: int
    image: Mapping[str, int | str | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedFrame:
    """One frame as a code stream.

    Attributes:
        base: what was taken from every sample before it was encoded, so that all are small and none is negative.
        bits: of the widest sample after that; 0 when the frame itself is kept, because it does not get smaller.
    """

    base: int
    bits: int
    data: bytes


class FrameCodec(Protocol):
    """Frames to lossless code streams and back; the work is done in processes with bounds of their own."""

    def shape(self, source: BinaryIO) -> Shape:
        """Return where the frames of a Part 10 file lie; raises NotPackableError where there are none to pack."""
        ...

    def encode(self, shape: Shape, syntax: str, frame: bytes) -> CodedFrame:
        """Return *frame* in the transfer syntax *syntax*; raises NotPackableError where the codec cannot."""
        ...

    def decode(self, shape: Shape, syntax: str, coded: CodedFrame) -> bytes:
        """Return the bytes of a frame; raises HubError when they cannot be had."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """What became of one object.

    Attributes:
        digest, size: the original bytes.
        packed: the packed form; ``None`` for an object that stays as it is.
        syntax: transfer syntax of the packed form's frames, or that was tried.
        reason: why the object stays as it is; empty for a packed one.
        settled: the original bytes are gone from the store, and the packed form stands for them.
        at: when the packed form was made or refused, or last stood beside its original.
    """

    digest: str
    size: int
    packed: ObjectRef | None
    syntax: str
    at: datetime
    reason: str = ""
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Objects that a member's policy wants packed, out of a stretch of the index.

    Attributes:
        upto: the last row that was looked at; ``None`` when there are no more.
    """

    objects: Sequence[ObjectRef]
    upto: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTotals:
    """How far packing has come.

    Attributes:
        settled, waiting: packed objects whose originals are gone, and those whose originals still stand beside them.
        original_bytes, packed_bytes: of the settled ones.
        refused: number of objects that stay as they are, by reason.
    """

    settled: int
    waiting: int
    original_bytes: int
    packed_bytes: int
    refused: Mapping[str, int]

    @property
    def saved_bytes(self) -> int:
        """How much room the settled ones save."""
        return self.original_bytes - self.packed_bytes


class Packings(Protocol):
    """Which objects are packed, and which stay as they are and why."""

    def find(self, digest: str) -> Packing | None:
        """Return the packed form of an object, if it has one."""
        ...

    def record(self, packing: Packing) -> None: ...
    def unsettled(self, *, before: datetime, limit: int) -> Sequence[Packing]:
        """Return packed objects whose originals have stood beside them since *before*, the oldest first."""
        ...

    def candidates(
        self,
        owner: str,
        *,
        syntax: str,
        modalities: Sequence[str],
        received_before: datetime,
        retry_before: datetime,
        after: int,
        span: int,
    ) -> Candidates:
        """Return what the policy of *owner* wants packed among the *span* rows after row *after*.

        Args:
            retry_before: what the codec failed at before then is tried again.
        """
        ...

    def busy(self, *, now: datetime, since: datetime) -> bool:
        """Return whether anything was received, sent or retrieved since *since*, or is being sent now."""
        ...

    def totals(self) -> PackedTotals: ...


@runtime_checkable
class PackingStore(Protocol):
    """An object store that keeps objects packed."""

    def pack(self, digest: str, syntax: str, stop: threading.Event) -> tuple[ObjectRef, ObjectRef]:
        """Make the packed form of an object, prove that it gives the original back, and return both, the original first.

        The original stays. On return the packed form would survive a power cut.

        Raises:
            NotPackableError: when the object is to stay as it is.
            HubError: not-found when this node does not see the object; interrupted when *stop* is set; else transient.
        """
        ...

    def settle(self, packing: Packing, *, idle_s: float) -> bool:
        """Prove the packed form again and remove the original; returns whether the original is gone.

        It stays when it was put again within *idle_s*, and as long as other nodes cannot see the packed form.

        Raises:
            NotPackableError: when the packed form does not give the original back, which is there and stays.
            HubError: fault when it does not, and the original is gone; else transient.
        """
        ...
