"""Which studies leave by C-STORE, where to, and what may still leave when its turn comes (PS3.4 annex B).

A study leaves by a rule of its own institution, or because a workflow gives it to somebody to read. What was queued
for a destination is known from the deliveries themselves, so each object is queued once for each destination, and a
late one alone. Another institution's AE gets what that institution may see by :mod:`hub.access`; this is asked when
the delivery is made and again when it is sent (DESIGN rule 5). What may not leave is kept as a skipped delivery.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import structlog

from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED, Scope
from hub.actor import HUB
from hub.attribute_matching import Match
from hub.clock import Clock
from hub.config import Settings
from hub.delivery import asks_for
from hub.imaging_ids import STUDY_QUIET
from hub.ports import AuditLine, Delivery, InstanceRow, Member, MemberEndpoint, NewDelivery, StudyKey, Timer, Tx

if TYPE_CHECKING:
    from hub.directory import Directory

log = structlog.get_logger("hub.routing")

#: The only moment at which rules are looked at.
ON_COMPLETE = "study-complete"
#: Begins the reason of a delivery that the hub itself withheld, so that a later grant can make it good.
WITHHELD = "无权查看 / not shared:"
#: Most deliveries of one study to one destination that are held against what is to be sent.
_DELIVERIES = 10_000
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:([a-z]{3}(?:[-,][a-z]{3})*) )?([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)", re.ASCII)
#: A pattern is tried against one short text; this is far more than anybody writes.
_PATTERN_CHARACTERS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time of day on some days of the week; one that ends before it begins lasts into the next day."""

    days: frozenset[int]
    start: time
    end: time

    @classmethod
    def of(cls, text: str) -> Window:
        """Return the window that *text* (``19:00-07:00``, ``mon-fri 18:00-24:00``, ``sat,sun 00:00-24:00``) means.

        Raises:
            ValueError: it means none.
        """
        found = _WINDOW.fullmatch(text.strip().lower())
        if found is None or (found[4] == "24" and found[5] != "00"):
            raise ValueError(text)
        days = _days(found[1]) if found[1] else frozenset(range(7))
        return cls(days=days, start=time(int(found[2]), int(found[3])), end=time(int(found[4]) % 24, int(found[5])))

    def opening(self, now: datetime, zone: ZoneInfo) -> datetime:
        """Return *now* while the window is open, else when it opens next."""
        today = now.astimezone(zone).date()
        # Yesterday's window may still be open; of eight days at least one is a day of this window.
        for back in range(-1, 8):
            day = today + timedelta(days=back)
            if day.weekday() not in self.days:
                continue
            start, end = self._on(day, zone)
            if now < end:
                return max(now, start)
        raise AssertionError("a window has at least one day of the week")

    def _on(self, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
        last = day if self.end > self.start else day + timedelta(days=1)
        return datetime.combine(day, self.start, zone), datetime.combine(last, self.end, zone)


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        names = part.split("-")
        if len(names) > 2 or not set(names) <= set(_DAYS):
            raise ValueError(text)
        first, last = _DAYS.index(names[0]), _DAYS.index(names[-1])
        found.update(day % 7 for day in range(first, last + 1 if last >= first else last + 8))
    return frozenset(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where studies of one institution go; a condition that is not given always holds.

    Attributes:
        to: id of a DICOM endpoint (``KN/dicom/archive``), or code of a member, which means its first DICOM endpoint.
        modalities: one of them is among (0008,0061) Modalities in Study.
        description: shell pattern over (0008,1030), in which case does not count.
        source: AE title that called the hub with what is to be sent.
        station: (0008,1010) Station Name.
        windows: when studies may be sent; what comes at another time waits for the next window.
    """

    name: str
    to: str
    modalities: frozenset[str] = frozenset()
    description: str = ""
    source: str = ""
    station: str = ""
    windows: tuple[Window, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Rule:
        """Return the rule that *values*, as kept in the member's settings, mean.

        Raises:
            ValueError: naming the part that is missing or cannot be used.
        """
        known = {"name", "to", "on", "modality", "description", "source", "station", "window"}
        if unknown := sorted(values.keys() - known):
            raise ValueError(unknown[0])
        for part in ("name", "to"):
            if not values.get(part):
                raise ValueError(part)
        if values.get("on", ON_COMPLETE) != ON_COMPLETE:
            raise ValueError("on")
        if len(str(values.get("description", ""))) > _PATTERN_CHARACTERS:
            raise ValueError("description")
        try:
            windows = tuple(Window.of(str(text)) for text in values.get("window", ()))
        except ValueError as error:
            raise ValueError("window") from error
        return cls(
            name=str(values["name"]),
            to=str(values["to"]),
            modalities=frozenset(str(one) for one in values.get("modality", ())),
            description=str(values.get("description", "")),
            source=str(values.get("source", "")),
            station=str(values.get("station", "")),
            windows=windows,
        )

    def fits(self, study: Mapping[str, Any]) -> bool:
        """Return whether what the study's row tells agrees; source and station are asked of its objects."""
        sent = set(str(study["ModalitiesInStudy"]).split("\\"))
        if self.modalities and not self.modalities & sent:
            return False
        described = str(study["StudyDescription"]).strip().casefold()
        return not self.description or fnmatchcase(described, self.description.casefold())

    def opening(self, now: datetime, zone: ZoneInfo) -> datetime:
        """Return *now* when studies may be sent now, else the next moment when they may."""
        return min((window.opening(now, zone) for window in self.windows), default=now)


def rules_of(member: Member | None) -> tuple[Rule, ...]:
    """Return the rules of a member as they were imported."""
    return tuple(Rule.of(one) for one in member.settings.get("routes", ())) if member is not None else ()


def may_leave(tx: Tx, directory: Directory, key: StudyKey, to: MemberEndpoint) -> bool:
    """Return whether the institution at *to* may see the study now: its own always, others by an open grant."""
    if to.member == key.owner:
        return True
    if directory.member(to.member) is None:
        return False
    uid = Match(keyword="StudyInstanceUID", vr="UI", kind="any", values=(key.StudyInstanceUID,))
    return bool(tx.imaging.studies(Scope(institution=to.member), [uid], limit=1, owner=key.owner))


def withhold(tx: Tx, delivery: Delivery, *, now: datetime) -> str:
    """Skip *delivery*, which may not leave (any more), with an audit line; returns the reason that operators read."""
    reason = f"{WITHHELD} {delivery.destination} 没有 {delivery.owner} 此检查的有效授权 / no open grant for this study."
    tx.outbox.skip(delivery.id, now=now, reason=reason)
    tx.audit.write(
        AuditLine(
            type="delivery",
            action="E",
            subtype="withheld",
            actor=HUB,
            recorded_at=now,
            # 4 = minor failure (AuditEvent.outcome): nothing left.
            outcome="4",
            patients=((delivery.owner, delivery.patient_id),),
            entities=(delivery.control_id, *((f"Task/{delivery.task_id}",) if delivery.task_id else ())),
            correlation_id=delivery.correlation_id,
            detail=f"delivery {delivery.id} to {delivery.destination}: no open grant",
        )
    )
    log.warning("study_withheld", destination=delivery.destination, owner=delivery.owner, delivery=delivery.id)
    return reason


def study_of(delivery: Delivery) -> StudyKey:
    """Return the study that a ``dimse`` delivery is about."""
    return StudyKey(owner=delivery.owner, StudyInstanceUID=delivery.control_id)


class Router:
    """Queues studies."""

    def __init__(self, settings: Settings, directory: Directory, clock: Clock) -> None:
        self._settings = settings
        self._directory = directory
        self._clock = clock

    # --- by the rules of the owner -------------------------------------------------------------------------------

    def completed(self, tx: Tx, study: Mapping[str, Any]) -> None:
        """Queue what is new in a study that has just become complete; repeating it queues nothing twice."""
        owner = str(study["owner"])
        member = self._directory.member(owner)
        for rule in rules_of(member):
            if rule.fits(study):
                self._by_rule(tx, rule, study, self._zone(member))
        self._again(tx, study)

    def _zone(self, member: Member | None) -> ZoneInfo:
        settings = member.settings if member is not None else {}
        return ZoneInfo(str(settings.get("time-zone", self._settings.time_zone)))

    def _by_rule(self, tx: Tx, rule: Rule, study: Mapping[str, Any], zone: ZoneInfo) -> None:
        to = self._directory.endpoint(rule.to) or self._directory.reach(rule.to, "dicom")
        if to is None:
            log.warning("rule_without_destination", owner=study["owner"], rule=rule.name, to=rule.to)
            return
        rows = self._unsent(tx, study, to)
        if not rows or not _from_there(tx, rule, study, rows[0]):
            return
        now = self._clock()
        opening = rule.opening(now, zone)
        if opening > now:
            tx.timers.set(_later(study, rule, opening))
            return
        self._queue(tx, study, to, rows)

    # --- to whoever is to read -----------------------------------------------------------------------------------

    def push(self, tx: Tx, references: Sequence[str], institution: str, *, task_id: str, correlation_id: str) -> None:
        """Queue the studies among *references* for the AE of *institution* that asks to be sent its work (``push``)."""
        for to in self._pushed_to(institution):
            for reference in references:
                study = _study(tx, reference)
                if study is None:
                    continue
                rows = self._unsent(tx, study, to)
                if rows:
                    self._queue(tx, study, to, rows, task_id=task_id, correlation_id=correlation_id)

    def _pushed_to(self, institution: str) -> list[MemberEndpoint]:
        points = self._directory.endpoints(institution, "dicom")
        return [one for one in points if one.active and one.address and asks_for(one, "push")]

    def _again(self, tx: Tx, study: Mapping[str, Any]) -> None:
        """Send late objects after those that a Task has already sent, to whoever may still see the study."""
        sent = tx.outbox.deliveries(_about(study), limit=_DELIVERIES)
        # The newest Task that sent the study to a destination speaks for it.
        tasks = {one.destination: one for one in reversed(sent) if one.task_id}
        for destination, last in sorted(tasks.items()):
            to = self._directory.endpoint(destination)
            if to is None or to not in self._pushed_to(to.member) or not self._may_leave(tx, study, to):
                continue
            rows = self._unsent(tx, study, to)
            if rows:
                self._queue(tx, study, to, rows, task_id=last.task_id, correlation_id=last.correlation_id)

    def withdraw(self, tx: Tx, task_id: str) -> None:
        """Skip what *task_id* has queued and its receiver may no longer see."""
        for state in ("pending", "dead"):
            criteria = {"task_id": task_id, "kind": "dimse", "state": state}
            for one in tx.outbox.deliveries(criteria, limit=_DELIVERIES):
                to = self._directory.endpoint(one.destination)
                if to is None or not may_leave(tx, self._directory, study_of(one), to):
                    withhold(tx, one, now=self._clock())

    # --- parts ---------------------------------------------------------------------------------------------------

    def _may_leave(self, tx: Tx, study: Mapping[str, Any], to: MemberEndpoint) -> bool:
        key = StudyKey(owner=study["owner"], StudyInstanceUID=study["StudyInstanceUID"])
        return may_leave(tx, self._directory, key, to)

    def _unsent(self, tx: Tx, study: Mapping[str, Any], to: MemberEndpoint) -> list[InstanceRow]:
        """Return the current objects of the study that no delivery to *to* holds yet."""
        held: set[tuple[str, str]] = set()
        allowed = self._may_leave(tx, study, to)
        for one in tx.outbox.deliveries({**_about(study), "destination": to.id}, limit=_DELIVERIES):
            # What the hub withheld is owed once it may leave; what a person skipped is not.
            if not (allowed and one.state == "skipped" and WITHHELD in one.last_error):
                held.update(_named(one.payload))
        key = StudyKey(owner=study["owner"], StudyInstanceUID=study["StudyInstanceUID"])
        rows = tx.imaging.instances_of(key)
        return [row for row in rows if (row.SOPInstanceUID, row.digest) not in held]

    def _queue(
        self,
        tx: Tx,
        study: Mapping[str, Any],
        to: MemberEndpoint,
        rows: Sequence[InstanceRow],
        *,
        task_id: str = "",
        correlation_id: str = "",
    ) -> None:
        named = [
            {
                "digest": row.digest,
                "SOPClassUID": row.SOPClassUID,
                "SOPInstanceUID": row.SOPInstanceUID,
                "TransferSyntaxUID": row.TransferSyntaxUID,
            }
            for row in rows
        ]
        number = tx.outbox.enqueue(
            NewDelivery(
                destination=to.id,
                lane=f"{to.id}|{study['patient_id']}",
                kind="dimse",
                payload=dumps({"instances": named}),
                owner=study["owner"],
                control_id=study["StudyInstanceUID"],
                content_type="application/dicom",
                correlation_id=correlation_id or study["correlation_id"],
                task_id=task_id,
                patient_id=study["patient_id"],
            )
        )
        if not self._may_leave(tx, study, to):
            delivery = tx.outbox.get(number)
            assert delivery is not None
            withhold(tx, delivery, now=self._clock())


def _about(study: Mapping[str, Any]) -> dict[str, str]:
    return {"control_id": str(study["StudyInstanceUID"]), "kind": "dimse", "owner": str(study["owner"])}


def _named(payload: bytes) -> Iterator[tuple[str, str]]:
    for row in loads(payload)["instances"]:
        yield row["SOPInstanceUID"], row["digest"]


def _study(tx: Tx, reference: str) -> Mapping[str, Any] | None:
    kind, _, id_ = reference.partition("/")
    stored = tx.records.get(kind, id_, UNRESTRICTED) if kind == "ImagingStudy" else None
    if stored is None or stored.deleted:
        return None
    return tx.imaging.study_by_resource(stored.owner, id_)


def _from_there(tx: Tx, rule: Rule, study: Mapping[str, Any], first: InstanceRow) -> bool:
    """Return whether the first object to be sent came from the rule's AE and station."""
    if rule.source:
        came = tx.journal.search({"control_id": first.SOPInstanceUID, "institution": study["owner"]}, limit=100)
        if not any(one.digest == first.digest and one.sending_application == rule.source for one in came):
            return False
    if rule.station:
        key = StudyKey(owner=study["owner"], StudyInstanceUID=study["StudyInstanceUID"])
        for row in tx.imaging.instances_of(key, SOPInstanceUID=first.SOPInstanceUID, attributes=True):
            values = loads(row.attributes).get("00081010", {}).get("Value", [""])
            return str(values[0]).strip() == rule.station
        return False
    return True


def _later(study: Mapping[str, Any], rule: Rule, due_at: datetime) -> Timer:
    """Return a timer that completes the study again when the window opens, which sends what is then unsent."""
    owner, uid = str(study["owner"]), str(study["StudyInstanceUID"])
    return Timer(
        kind=STUDY_QUIET, key=f"{owner}|{uid}|{rule.name}", due_at=due_at, payload={"owner": owner, "study": uid}
    )
