"""The rules of picking files up: when one is whole, what becomes of it, and what a crash between two steps leaves.

Theory of operation. The order is: read, hand to the intake (durable on return), write the answer, move the file. The
intake knows a message by its control id and bytes (a clinical document by its id and bytes), and the names of answers and moved files follow from their content, so
every step done twice gives what it gave once; a crash anywhere is mended by taking the file again. Nothing is ever removed:
a file ends in ``done`` or ``refused``, there with a text that says why. HL7 v2 chapter 2.10.3 for files and batches.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from adapters.folder.documents import Documents, is_document
from adapters.folder.place import Place, Seen
from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2 import batch
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import Message, parse

log = structlog.get_logger("adapters.folder")

#: How long a file must not have changed before it is whole, where no marker says so; writers over a network pause.
QUIET_S = 5.0
#: What programs call a file that they are still writing.
_UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".filepart", ".writing", ".lock", ".swp", "~")
_FRAME = b"\x0b\x1a\x1c\r\n\x00"
_TAKEN = frozenset({"AA", "CA"})
_ODD = re.compile(r"[^A-Za-z0-9._-]")

#: Returns 0 where a file may be taken now, which then counts; else the seconds after which it is to be asked again.
Permit = Callable[[bytes], float]
#: Takes one message, batch or file of messages; returns the acknowledgement once everything is durable.
Intake = Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How one partner's files are taken.

    Attributes:
        marker: what is appended to a file's name to name the empty file that says that it is whole; empty = none.
        quiet_s: without a marker, how long a file must have stayed as it is.
    """

    max_bytes: int
    marker: str = ""
    quiet_s: float = QUIET_S


class PickUp:
    """Takes the files of one place; remembers between turns only how long each has stayed as it is.

    Args:
        clock: seconds that never go back.
        permit: asked before each file; one that may not be taken now stays, and so do those behind it.
        documents: takes clinical documents; without it *take* gets them like any other file, and says what it thinks.
    """

    def __init__(
        self,
        place: Place,
        rules: Rules,
        take: Intake,
        clock: Callable[[], float],
        documents: Documents | None = None,
        permit: Permit | None = None,
    ) -> None:
        self._place = place
        self._rules = rules
        self._take = take
        self._clock = clock
        self._documents = documents
        self._permit = permit
        self._rests_until = clock()
        self._stable: dict[str, tuple[Seen, float]] = {}
        self._barred: set[Seen] = set()

    def turn(self) -> int:
        """Take every file that is whole, oldest first; return how many.

        Raises:
            HubError: transient, when the intake cannot keep anything now; the file stays for the next turn.
            OSError: the place is away.
        """
        taken = 0
        for one in self._whole():
            if self._clock() < self._rests_until:
                # Not read over and over meanwhile: each reading of a file on a server is a transfer.
                break
            taken += self._one(one)
        return taken

    def _whole(self) -> list[Seen]:
        now, rules = self._clock(), self._rules
        seen = self._place.seen()
        names = {one.name for one in seen}
        before, self._stable = self._stable, {}
        self._barred &= set(seen)
        whole: list[Seen] = []
        for one in seen:
            if one.name.startswith(".") or one.name.lower().endswith(_UNFINISHED):
                continue
            if rules.marker and one.name.endswith(rules.marker):
                if one.name.removesuffix(rules.marker) not in names and self._quiet(one, before, now):
                    # Its file went in a turn that ended before the marker did; a later file must not inherit it.
                    self._place.remove(one.name)
                continue
            if rules.marker:
                if one.name + rules.marker in names:
                    whole.append(one)
            elif self._quiet(one, before, now):
                whole.append(one)
        return whole

    def _quiet(self, one: Seen, before: dict[str, tuple[Seen, float]], now: float) -> bool:
        known, since = before.get(one.name, (None, now))
        if known != one:
            since = now
        self._stable[one.name] = (one, since)
        return known == one and now - since >= self._rules.quiet_s

    def _one(self, one: Seen) -> int:
        safe = _ODD.sub("_", one.name)[:80].lstrip(".") or "file"
        if not one.regular:
            return self._refused(one, safe, "不是普通文件（链接、管道或设备） / It is no ordinary file.")
        if one.size > self._rules.max_bytes:
            reason = f"文件超过 {self._rules.max_bytes} 字节 / The file is larger than {self._rules.max_bytes} bytes."
            return self._refused(one, f"{safe}.{one.changed}", reason)
        try:
            data = self._place.read(one)
        except OSError as error:
            if error.errno != errno.EACCES:
                raise
            if one not in self._barred:
                # Told once, and by no name, which may be a patient's; it stays, and holds up no other.
                self._barred.add(one)
                log.warning("file_unreadable", size=one.size, changed=one.changed)
            return 0
        if data is None:
            # Still being written after all, or gone: the next turn sees what it is then.
            return 0
        name = f"{safe}.{hashlib.sha256(data).hexdigest()[:12]}"
        if not data.strip(_FRAME):
            return self._refused(one, name, "文件为空 / The file is empty.")
        if self._permit is not None and (rest_s := self._permit(data)):
            self._rests_until = self._clock() + rest_s
            return 0
        if self._documents is not None and is_document(data):
            told = self._documents(data)
            self._place.put("answers", f"{name}.json", told.answer())
            return self._refused(one, name, told.refusal) if told.refusal else self._done(one, name, 1)
        answers = [self._take(message) for message in messages_of(data)]
        acks = b"".join(answer if answer.endswith(b"\r") else answer + b"\r" for answer in answers if answer)
        if acks:
            self._place.put("answers", f"{name}.ack", acks)
        problems = list(_problems(answers))
        if problems:
            return self._refused(one, name, "\n".join(problems))
        return self._done(one, name, len(answers))

    def _done(self, one: Seen, name: str, messages: int) -> int:
        self._place.move(one.name, "done", name)
        self._unmark(one)
        log.info("file_taken", size=one.size, messages=messages)
        return 1

    def _refused(self, one: Seen, name: str, reason: str) -> int:
        text = f"{reason}\n文件已移至 refused，修改后请重新放入 in / Mend it and put it into `in` again.\n"
        self._place.put("refused", f"{name}.err", text.encode())
        self._place.move(one.name, "refused", name)
        self._unmark(one)
        log.warning("file_refused", size=one.size)
        return 1

    def _unmark(self, one: Seen) -> None:
        self._stable.pop(one.name, None)
        if self._rules.marker:
            self._place.remove(one.name + self._rules.marker)


def messages_of(data: bytes) -> list[bytes]:
    """Return what *data* hands to the intake one after the other: a batch or wrapped message whole, bare messages each.

    MLLP's block bytes around the whole, which some exports leave, are no part of it.
    """
    body = data.removeprefix(b"\x0b")
    tail = len(body.rstrip(_FRAME))
    if body[tail:].strip(b"\r\n"):
        # Block bytes or a DOS end of file stand behind the last segment, which keeps its own end.
        body = body[:tail] + b"\r"
    bare = body.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    if not bare.startswith(b"MSH") or batch.is_batch(body):
        return [body]
    try:
        found = [message for part in batch.split(bare).batches for message in part.messages]
    except MappingError:
        # Trailers without headers: the intake refuses the whole, and keeps it.
        return [body]
    return found if len(found) > 1 else [body]


def _problems(answers: list[bytes | None]) -> Iterator[str]:
    """Yield a line for every message that was not taken; the hub's own words, which quote nothing of a message."""
    number = 0
    for answer in answers:
        inside = [answer]
        if answer is not None and batch.is_batch(answer):
            inside = [message for part in batch.split(answer).batches for message in part.messages]
        for one in inside:
            number += 1
            if one is None:
                continue
            ack = parse(decode_message(one).text)
            code = ack.get("MSA-1")
            if code not in _TAKEN:
                yield f"第 {number} 条消息未被接受 / Message {number} was not taken: {code} {_reason(ack)}".rstrip()


def _reason(ack: Message) -> str:
    error = ack.first("ERR")
    if error is None:
        return ack.get("MSA-3")
    # ERR-3 and ERR-8 since v2.5; before that ERR-1 has place and code, and MSA-3 the words.
    return " ".join(filter(None, (error.get(3), error.get(2), error.get(8) or error.get(1, 4, 2) or ack.get("MSA-3"))))
