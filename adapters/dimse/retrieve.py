"""What C-MOVE and C-GET share: the identifier they are asked with, and the count of their sub-operations (PS3.4 annex C.4.2, C.4.3)."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeVar

import structlog

from adapters.dimse import command as dimse
from adapters.dimse import metrics, status
from adapters.dimse.exchange import Exchange, Message, too_busy
from adapters.dimse.upper_layer import ConnectionEnd, ProtocolError
from fhir_mappings.dicom import identifier
from fhir_mappings.dicom.scanner import valid_uid
from fhir_mappings.errors import MappingError
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.retrieval import UNIQUE_KEYS, Item, Level, Selection

_log = structlog.get_logger("adapters.dimse")

_ROOT = "1.2.840.10008.5.1.4.1.2"
#: Levels by information model: Patient Root, Study Root, Patient/Study Only (PS3.4 section C.6.1 to C.6.3).
_LEVELS: Mapping[str, tuple[Level, ...]] = {
    f"{_ROOT}.1": ("PATIENT", "STUDY", "SERIES", "IMAGE"),
    f"{_ROOT}.2": ("STUDY", "SERIES", "IMAGE"),
    f"{_ROOT}.3": ("PATIENT", "STUDY"),
}
_LEVEL, _ISSUER, _FAILED = "00080052", "00100021", "00080058"
_TAGS: Mapping[str, str] = {
    "PatientID": "00100020",
    "StudyInstanceUID": "0020000D",
    "SeriesInstanceUID": "0020000E",
    "SOPInstanceUID": "00080018",
}
#: A Pending goes out after so many sub-operations, or so many seconds, whichever comes first.
_EVERY, _EVERY_S = 20, 3.0
#: A UI value of Explicit VR has at most 65,534 bytes, so a longer list of failures is cut (PS3.5 section 7.1.2).
_FAILED_BYTES = 0xFFFE
_MOST = 0xFFFF

T = TypeVar("T")


class RequestorGoneError(Exception):
    """Carries the end of the asker's own association through the handling of another one."""

    def __init__(self, end: ConnectionEnd | ProtocolError) -> None:
        super().__init__()
        self.end = end


def question(message: Message, data: bytes, *, charset: str | None = None) -> tuple[Level, dict[str, Sequence[str]]]:
    """Return (level, values by keyword) of the identifier of a retrieval.

    The Study Instance UID is needed below its level; of the other keys above the level asked for, those that are given
    narrow the answer (PS3.4 section C.4.2.2.1).

    Raises:
        HubError: incorrect.
        MappingError: the identifier is no data set.
    """
    asked = identifier.read(data, message.context.transfer_syntax, charset_override=charset).attributes
    levels = _LEVELS[message.context.abstract_syntax.rpartition(".")[0]]
    level = next((one for one in levels if [one] == _values(asked, _LEVEL)), None)
    if level is None:
        raise _mismatch("Query/Retrieve Level is not one of this model.", "(0008,0052)")
    keys: dict[str, Sequence[str]] = {}
    for one, keyword in UNIQUE_KEYS.items():
        values = _values(asked, _TAGS[keyword])
        if keyword != "PatientID" and not all(map(valid_uid, values)):
            raise _mismatch("A unique key is not a UID.", keyword)
        if values:
            keys[keyword] = values
        if one == level:
            break
    needed = {UNIQUE_KEYS[level]} | ({"StudyInstanceUID"} if level in {"SERIES", "IMAGE"} else set())
    if missing := sorted(needed - keys.keys()):
        raise _mismatch("A unique key is missing.", missing[0])
    if len(keys.get("PatientID", ())) > 1:
        raise _mismatch("Patient ID must be a single value.", "(0010,0020)")
    if issuer := _values(asked, _ISSUER):
        keys["IssuerOfPatientID"] = issuer
    return level, keys


def _values(asked: Mapping[str, Mapping[str, Sequence[object]]], tag: str) -> list[str]:
    given = (str(value).strip() for value in asked.get(tag, {}).get("Value", ()) if value is not None)
    return list(dict.fromkeys(value for value in given if value))


def _mismatch(message: str, where: str) -> HubError:
    return HubError(Category.INCORRECT, message, where=where)


class Progress:
    """The sub-operations of one retrieval, told to the asker as they go.

    What goes wrong on the asker's own association is raised as :class:`RequestorGoneError`.
    """

    def __init__(self, exchange: Exchange, message: Message, selection: Selection) -> None:
        self._exchange = exchange
        self._message = message
        self._total = len(selection.items) + len(selection.withheld)
        self._completed = self._warned = self._failed = 0
        self._failures: list[str] = []
        self._failures_bytes = 0
        self._told_at = time.monotonic()
        self._told = 0
        self._cancelled = False
        self.why = ""
        for uid in selection.withheld:
            self._fail(uid, "The destination may not have some of the instances.")

    @property
    def done(self) -> int:
        """Sub-operations that are over."""
        return self._completed + self._warned + self._failed

    def goes_on(self) -> bool:
        """Return whether the next sub-operation may begin."""
        self._cancelled = self._cancelled or self._mine(lambda: self._exchange.cancelled(self._message))
        return not self._cancelled and not self._exchange.stopping()

    def note(self, item: Item, code: int) -> None:
        """Count what the receiver answered to *item*."""
        metrics.sub_operations.labels(f"{code:04X}").inc()
        if code == status.SUCCESS:
            self._completed += 1
        elif status.is_warning(code):
            self._warned += 1
        else:
            self._fail(item.SOPInstanceUID, f"A receiver answered {code:04X}.")
        self.tell()

    def failed(self, item: Item, why: str) -> None:
        """Count *item* as not sent."""
        metrics.sub_operations.labels("not-sent").inc()
        self._fail(item.SOPInstanceUID, why)
        self.tell()

    def tell(self, *, now: bool = False) -> None:
        """Send a Pending when the asker has heard nothing for a while."""
        if now or self.done - self._told >= _EVERY or time.monotonic() - self._told_at >= _EVERY_S:
            self._told, self._told_at = self.done, time.monotonic()
            self._mine(lambda: self._exchange.answer(self._message, status.PENDING, more=self._counts(remaining=True)))

    def meanwhile(self) -> None:
        """Keep the asker informed inside a sub-operation; raises HubError(interrupted) when the hub goes down."""
        if self._exchange.stopping():
            raise too_busy()
        self.tell()

    def finish(self) -> int:
        """Send the final answer and return its status."""
        if self._cancelled:
            code = status.CANCELLED
        else:
            if self.done < self._total:
                self.why = "The hub is stopping."
            self._failed += self._total - self.done
            if self._failed == self._warned == 0:
                code = status.SUCCESS
            elif self._completed == self._warned == 0:
                code = status.NO_SUB_OPERATIONS
            else:
                code = status.SUB_OPERATIONS_WARNING
        data = None
        if self._failures and code != status.SUCCESS:
            data = identifier.write(
                {_FAILED: {"vr": "UI", "Value": self._failures}}, self._message.context.transfer_syntax
            )
        more = self._counts(remaining=code == status.CANCELLED)
        comment = "" if code == status.SUCCESS else self.why
        self._mine(lambda: self._exchange.answer(self._message, code, comment=comment, data=data, more=more))
        return code

    def _fail(self, uid: str, why: str) -> None:
        self._failed += 1
        self.why = self.why or why
        if self._failures_bytes + len(uid) + 1 < _FAILED_BYTES:
            self._failures.append(uid)
            self._failures_bytes += len(uid) + 1

    def _counts(self, *, remaining: bool) -> dict[int, int | str]:
        """Return the counts of a response; they are US and stay at their highest value (PS3.7 table 9.1-4)."""
        counts = {
            dimse.COMPLETED_SUB_OPERATIONS: self._completed,
            dimse.FAILED_SUB_OPERATIONS: self._failed,
            dimse.WARNING_SUB_OPERATIONS: self._warned,
        }
        if remaining:
            counts[dimse.REMAINING_SUB_OPERATIONS] = self._total - self.done
        return {element: min(count, _MOST) for element, count in counts.items()}

    def _mine(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except (ConnectionEnd, ProtocolError) as end:
            raise RequestorGoneError(end) from end


class Retrieve(ABC):
    """The part of a service that is the same for both ways to retrieve."""

    kind: ClassVar[int]
    name: ClassVar[str]

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._charset: str | None = exchange.endpoint.settings.get("charset-in") or None

    def handle(self, message: Message) -> None:
        """Send what the message asks for, and answer how it went."""
        exchange = self._exchange
        if message.kind != self.kind or not message.has_data:
            exchange.unknown(message)
            return
        data = exchange.dataset(message, max_bytes=identifier.MAX_BYTES)
        try:
            level, keys = question(message, data, charset=self._charset)
            code = self._retrieve(message, exchange.envelope(self.name), level, keys)
        except RequestorGoneError as gone:
            self._count("gone")
            raise gone.end from gone
        except (HubError, MappingError) as error:
            code, comment = status.of_retrieval(error)
            exchange.answer(message, code, comment=comment)
        self._count(f"{code:04X}")

    def ended(self) -> None:  # noqa: B027 - a retrieval has nothing to do then, and this says so for both
        """Nothing is left to do."""

    @abstractmethod
    def _retrieve(self, message: Message, envelope: Envelope, level: Level, keys: Mapping[str, Sequence[str]]) -> int:
        """Send what *keys* name on *level*; return the final status, which the peer has been told.

        Raises:
            HubError: the request cannot be served; the peer is still to be told.
            RequestorGoneError: nobody is there to be told any more.
        """

    def _count(self, outcome: str) -> None:
        metrics.retrievals.labels(self.name, outcome).inc()
        _log.info(
            "retrieval_ended",
            service=self.name,
            status=outcome,
            calling_ae=self._exchange.calling_ae,
            correlation_id=self._exchange.correlation_id,
        )
