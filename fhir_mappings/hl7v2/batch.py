"""A batch or file of messages cut into its messages: HL7 v2 chapter 2.10.3, segments FHS, BHS, BTS and FTS.

The cut is made on bytes, so that each message keeps its own and is decoded by itself: a segment starts after a line
end, and neither a line end nor a capital letter behind one is part of a character in UTF-8 or GB 18030. One pass, no
recursion, and a cap on what is counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fhir_mappings.errors import MalformedError

#: Most messages, and most batches, of one file. Its sender waits for one answer to all of them, and at the hub's pace
#: of a hundred and fifty messages a second this many take several seconds.
MAX_MESSAGES = 1_000

_SEQUENCE_ERROR = 100
_DATA_ERROR = 102
_START = re.compile(rb"(?:\A|(?<=[\r\n]))(FHS|BHS|MSH|BTS|FTS)(?=[^A-Za-z0-9]|\Z)")
#: What senders put before the first segment.
_LEAD = b"\r\n"
_MARK = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Batch:
    """One batch.

    Attributes:
        header: its BHS as received, empty where the messages of a file stand in none.
        messages: each as received, with its line ends.
    """

    header: bytes = b""
    messages: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class File:
    """What one frame holds.

    Attributes:
        header: its FHS as received, empty where there is none.
    """

    header: bytes = b""
    batches: list[Batch] = field(default_factory=list)


def is_batch(raw: bytes) -> bool:
    """Return whether *raw* starts with a file or batch header, so that it is no message by itself."""
    return raw[:64].removeprefix(_MARK).lstrip(_LEAD)[:3] in {b"FHS", b"BHS"}


def first_header(raw: bytes) -> bytes:
    """Return the line of the FHS or BHS that *raw* starts with."""
    return re.split(rb"[\r\n]", raw.removeprefix(_MARK).lstrip(_LEAD), maxsplit=1)[0]


def split(raw: bytes) -> File:
    """Return the messages of *raw*, for which :func:`is_batch` holds.

    Raises:
        MalformedError: headers and trailers do not match (100), BTS-1 or FTS-1 is not the number that there is (102), or
            there are more than :data:`MAX_MESSAGES`; then nothing of it should be taken.
    """
    body = raw.removeprefix(_MARK).lstrip(_LEAD)
    cutter = _Cutter()
    open_at = open_name = None
    for found in _START.finditer(body):
        if open_at is not None and open_name is not None:
            cutter.take(open_name, body[open_at : found.start()])
        open_at, open_name = found.start(), found.group(1).decode("ascii")
    if open_at is not None and open_name is not None:
        cutter.take(open_name, body[open_at:])
    return cutter.finish()


def enveloped(message: bytes, *, charset: str, file: bool) -> bytes:
    """Return *message* as a batch of one (BHS, BTS), and that as a file (FHS, FTS) if *file*; its own bytes stay.

    Who sends, to whom and when are those of MSH (MSH-3 to MSH-7), and the control id is MSH-10.

    Raises:
        MalformedError: it does not begin with an MSH segment (100).
    """
    line = re.split(rb"[\r\n]", message, maxsplit=1)[0].decode(charset, "replace")
    if not line.startswith("MSH") or len(line) < 5:
        raise _wrong("What should stand in a batch is no message.", "MSH")
    separator = line[3]
    cells = [*line.split(separator), *[""] * 10]
    about = separator.join((*cells[1:7], "", "", "", cells[9])).rstrip(separator).encode(charset, "replace")
    mark = separator.encode(charset)
    inside = message.rstrip(b"\r\n") + b"\r"
    whole = b"BHS" + mark + about + b"\r" + inside + b"BTS" + mark + b"1\r"
    return b"FHS" + mark + about + b"\r" + whole + b"FTS" + mark + b"1\r" if file else whole


class _Cutter:
    """Where one pass over a file stands."""

    def __init__(self) -> None:
        self.file = File()
        self._open: Batch | None = None
        self._begun = False
        self._ended = False
        self._count = 0

    def take(self, name: str, data: bytes) -> None:
        if self._ended:
            raise _wrong(f"{name} follows the end of the file (FTS).", name)
        if name != "MSH":
            data = data.rstrip(b"\r\n")
            if b"\r" in data or b"\n" in data:
                raise _wrong(f"A segment that belongs to no message follows {name}.", name)
        match name:
            case "FHS":
                if self._begun:
                    raise _wrong("A file stands inside another one.", name)
                self.file.header = data
            case "BHS":
                self._begin(data)
            case "MSH":
                if self._open is None:
                    self._begin(b"")
                assert self._open is not None
                self._open.messages.append(data)
                self._count += 1
            case "BTS":
                if self._open is None or not self._open.header:
                    raise _wrong("BTS ends a batch that no BHS began.", name)
                _check(data, name, len(self._open.messages))
                self._open = None
            case _:
                if not self.file.header:
                    raise _wrong("FTS ends a file that no FHS began.", name)
                self._close_bare()
                _check(data, name, len(self.file.batches))
                self._ended = True
        self._begun = True
        if max(self._count, len(self.file.batches)) > MAX_MESSAGES:
            raise MalformedError(
                f"The batch holds more than {MAX_MESSAGES} messages.",
                where="BTS-1",
                remedy="Send several batches.",
                code=_DATA_ERROR,
            )

    def finish(self) -> File:
        self._close_bare()
        if self.file.header and not self._ended:
            raise _wrong("FTS is missing, so nobody can tell whether the file is whole.", "FTS")
        return self.file

    def _begin(self, header: bytes) -> None:
        if self._open is not None:
            raise _wrong("A batch stands inside another one, or BTS is missing.", "BHS")
        self._open = Batch(header=header)
        self.file.batches.append(self._open)

    def _close_bare(self) -> None:
        if self._open is not None and self._open.header:
            raise _wrong("BTS is missing, so nobody can tell whether the batch is whole.", "BTS")
        self._open = None


def _check(trailer: bytes, name: str, count: int) -> None:
    cells = trailer.split(trailer[3:4]) if len(trailer) > 3 else []
    stated = cells[1].strip() if len(cells) > 1 else b""
    if stated and not (stated.isdigit() and len(stated) < 10 and int(stated) == count):
        raise MalformedError(
            f"{name}-1 is not {count}, which is the number received.",
            where=f"{name}-1",
            remedy="Send the whole batch again, with the right number.",
            code=_DATA_ERROR,
        )


def _wrong(message: str, where: str) -> MalformedError:
    return MalformedError(
        message, where=where, remedy="Send [FHS] {BHS messages BTS} [FTS], not nested.", code=_SEQUENCE_ERROR
    )
