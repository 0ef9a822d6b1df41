"""Objects as one ZIP file (PS3.18 sections 8.6.1.3 and 8.7.3.5): what a browser can keep and a patient can carry home.

Written piece by piece, never whole in memory. The files are deflated at the fastest level rather than stored, because a
stored file whose length follows it cannot be read from a stream by common libraries. Their names are numbers: nothing that
was received becomes a path on the machine that unpacks them (PS3.10 section 8.2 allows eight characters for each step).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence

from adapters.dicomweb.multipart import Part
from hub.ports import InstanceRow

ZIP_TYPE = "application/zip"
#: The name by which browsers keep it; it tells nothing of the patient.
DISPOSITION = 'attachment; filename="dicom.zip"'
_FASTEST = 1
#: From here on a length may need the long form (ZIP64); the short one ends at 2 GiB, and noise grows when it is deflated.
_LONG_BYTES = 2_000_000_000


def at_most(row: InstanceRow) -> int:
    """Return a number of bytes that the instance does not exceed in any transfer syntax: twice all that it can hold.

    The long form is not chosen for whatever is made while it is sent, because streaming readers stumble over it (Java's,
    before version 23).
    """
    pixels = (row.NumberOfFrames or 1) * (row.Rows or 0) * (row.Columns or 0)
    # Four samples at most, as in ARGB (PS3.3 section C.7.6.3.1.2).
    return 2 * (row.size + pixels * 4 * max(row.BitsAllocated or 0, 8) // 8)


def named(rows: Sequence[InstanceRow], ending: str = ".dcm") -> list[str]:
    """Return a file name for each of *rows*: a folder for each series, in the order of *rows*.

    Without an *ending* each is a File ID of a file set, whose steps have no dot (PS3.10 section 8.5).
    """
    numbers: dict[str, int] = {}
    counts: dict[str, int] = {}
    names = []
    for row in rows:
        series = numbers.setdefault(row.SeriesInstanceUID, len(numbers) + 1)
        counts[row.SeriesInstanceUID] = count = counts.get(row.SeriesInstanceUID, 0) + 1
        names.append(f"DICOM/S{series:04}/I{count:05}{ending}")
    return names


class ZipBody:
    """A ZIP file over *files*, whose contents are fetched one by one as they are sent.

    Each is a name, a part, and a length that it does not exceed. Iterating raises what a content raises, without the directory that ends the file, so that what is cut off shows.
    """

    def __init__(self, files: Iterable[tuple[str, Part, int]]) -> None:
        self._files = files

    def __iter__(self) -> Iterator[bytes]:
        sink = _Sink()
        archive = zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=_FASTEST)
        for name, part, longest in self._files:
            # The first bytes are there before the head goes out, so that what cannot be had is known in time.
            content = iter(part.content())
            first = next(content, b"")
            with archive.open(name, "w", force_zip64=longest > _LONG_BYTES) as entry:
                entry.write(first)
                yield from sink.taken()
                for piece in content:
                    entry.write(piece)
                    yield from sink.taken()
        archive.close()
        yield from sink.taken()


class _Sink:
    """Where the ZIP file is written to; what was written is taken from it and forgotten. It cannot seek."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: what was written is taken, not flushed."""

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def taken(self) -> list[bytes]:
        """Return what was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return pieces
