"""Earlier studies of a patient, fetched from a member's own archive (C-FIND, then C-MOVE or C-GET; PS3.4 annex C).

What is fetched becomes the member's own, as if its archive had sent it unasked: it is journalled, audited and completed by
the same rules, and whoever reads for the member sees it as far as a grant reaches. Instances that are here are not fetched
again, so that the same pull may be repeated at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Protocol, Self
from zoneinfo import ZoneInfo

import structlog

from fhir_mappings.identifiers import patient_key, resource_id
from hub.actor import Actor
from hub.envelope import new_correlation_id
from hub.errors import Category, HubError
from hub.ports import AuditLine, MemberEndpoint, StudyKey, Tx

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("hub.priors")

#: One answer of an archive: texts by keyword.
Found = Mapping[str, tuple[str, ...]]

#: Each series by its UID: its modality, and the SOP class, empty where the archive does not tell, of each instance.
_Series = dict[str, tuple[str, dict[str, str]]]
_Request = tuple[str, Mapping[str, "str | Sequence[str]"], Sequence[str]]

#: A UI value of Explicit VR holds 65,534 bytes, which is a thousand UIDs (PS3.5 section 7.1.2).
_UIDS = 500
_STUDY_KEYS = ("StudyInstanceUID", "StudyDate", "ModalitiesInStudy", "PatientID", "IssuerOfPatientID")
_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: What series of a modality are made of, for archives that do not tell SOP classes (PS3.3 section A.1.4; SOP Class UID is
#: optional in the answers of an archive, Modality is not: PS3.4 tables C.6-3 and C.6-4).
_BY_MODALITY: Mapping[str, tuple[str, ...]] = {
    "CR": ("1", "1.1", "1.1.1"),
    "CT": ("2", "2.1"),
    "DX": ("1.1", "1.1.1", "1"),
    "ES": ("77.1.1", "77.1.1.1"),
    "KO": ("88.59",),
    "MG": ("1.2", "1.2.1", "13.1.3"),
    "MR": ("4", "4.1"),
    "NM": ("20",),
    "PR": ("11.1", "11.2"),
    "PT": ("128", "130"),
    "RF": ("12.2", "12.2.1"),
    "SR": ("88.11", "88.22", "88.33", "88.67"),
    "US": ("6.1", "3.1", "6.2"),
    "XA": ("12.1", "12.1.1"),
}
_CAPTURES = ("7", "7.1", "7.2", "7.3", "7.4", "104.1")
_IMAGE_KEYS = ("SOPInstanceUID", "SOPClassUID")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a retrieval went.

    Attributes:
        status: the archive's last status; 0 is success (PS3.4 tables C.4-2 and C.4-3).
        completed: instances that were sent.
        failed: instances that were not, or that the hub refused.
    """

    status: int
    completed: int = 0
    failed: int = 0
    comment: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, as far as both sides know."""
        return self.status == 0 and not self.failed


class Archive(Protocol):
    """A member's archive; every method raises HubError when it does not do its part."""

    def find(self, level: str, keys: Mapping[str, str], wanted: Sequence[str]) -> Sequence[Found]: ...
    def move(self, level: str, keys: Mapping[str, str | Sequence[str]]) -> Outcome: ...
    def get(self, level: str, keys: Mapping[str, str | Sequence[str]], classes: Sequence[str]) -> Outcome: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which earlier studies are wanted, as an Endpoint's setting ``priors`` says it.

    Attributes:
        modalities: one of them is in the study; empty for any.
        years: how old a study may be; 0 for any age.
        months: the same in months, in place of *years*, where it is not 0.
        most: that many of the newest.
        via: ``get`` on the hub's own association, or ``move`` to its AE title.
        on_acceptance: they are also fetched when a reading that the member asked for is accepted (``on=acceptance``).
        shown: what was fetched so is shown to the reader while the Task is open (``show=task``).
    """

    modalities: frozenset[str] = frozenset()
    years: int = 5
    months: int = 0
    most: int = 10
    via: str = "get"
    on_acceptance: bool = False
    shown: bool = False

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the rule that *text* (``modality=CT,MR months=24 max=3 on=acceptance``, every part optional) means.

        Raises:
            ValueError: naming the part that cannot be used.
        """
        found = cls()
        for part in text.split():
            name, _, value = part.partition("=")
            if name == "modality" and value:
                found = replace(found, modalities=frozenset(value.split(",")))
            elif name == "years" and value.isascii() and value.isdigit() and int(value) <= 200:
                found = replace(found, years=int(value))
            elif name == "months" and value.isascii() and value.isdigit() and 1 <= int(value) <= 2400:
                found = replace(found, months=int(value))
            elif name == "max" and value.isascii() and value.isdigit() and 1 <= int(value) <= 1000:
                found = replace(found, most=int(value))
            elif name == "via" and value in {"get", "move"}:
                found = replace(found, via=value)
            elif (name, value) == ("on", "acceptance"):
                found = replace(found, on_acceptance=True)
            elif (name, value) == ("show", "task"):
                found = replace(found, shown=True)
            else:
                raise ValueError(part)
        return found

    def chosen(self, studies: Iterable[Found], *, today: date) -> list[Found]:
        """Return those of *studies* that are wanted, newest first."""
        months = self.months or 12 * self.years
        year, month = divmod(today.year * 12 + today.month - 1 - months, 12)
        # The 29th of February has no anniversary in most years, but its text has a place among the dates.
        oldest = f"{max(year, 0):04d}{month + 1:02d}{today:%d}" if months else ""
        fit = [
            one
            for one in studies
            if one["StudyInstanceUID"]
            and (not self.modalities or self.modalities & set(one["ModalitiesInStudy"]))
            and "".join(one["StudyDate"][:1]) >= oldest
        ]
        return sorted(fit, key=lambda one: one["StudyDate"], reverse=True)[: self.most]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What came of one study.

    Attributes:
        present: instances that were here before.
        fetched: instances that are here now and were not.
        missing: instances that the archive has and did not give.
        why: what it said about that.
    """

    StudyInstanceUID: str
    StudyDate: str
    present: int
    fetched: int
    missing: int
    why: str = ""


class Priors:
    """Pulls earlier studies.

    Args:
        open_archive: returns the archive behind an endpoint.
    """

    def __init__(self, services: Services, open_archive: Callable[[Services, MemberEndpoint], Archive]) -> None:
        self._services = services
        self._open = open_archive

    def endpoint(self, member: str) -> MemberEndpoint:
        """Return the archive of *member*: the first DICOM endpoint with ``priors``, else the first that is reached.

        Raises:
            HubError: not-found when it has none.
        """
        points = [
            one
            for one in self._services.database.read(lambda tx: tx.members.endpoints(member=member, kind="dicom"))
            if one.active and one.address
        ]
        if self._services.directory.member(member) is None or not points:
            raise HubError(
                Category.NOT_FOUND,
                "The member has no DICOM endpoint with an address.",
                where=member,
                remedy="Import one with `hub members import`; `hub members list` shows what there is.",
            )
        return min(points, key=lambda one: (not one.settings.get("priors"), one.id))

    def rule(self, member: str) -> Rule:
        """Return what the setting ``priors`` of *member*'s archive asks for; raises as :meth:`endpoint`."""
        return Rule.of(str(self.endpoint(member).settings.get("priors", "")))

    def pull(
        self,
        actor: Actor,
        member: str,
        patient_id: str,
        *,
        rule: Rule | None = None,
        issuer: str = "",
        endpoint: MemberEndpoint | None = None,
        apart: Collection[str] = (),
        task_id: str = "",
    ) -> list[Pulled]:
        """Fetch what is not here of the earlier studies of *member*'s patient; returns one line for each study.

        One study that fails does not keep the others; its line says why. The audit line is durable before the archive is
        asked.

        Args:
            rule: what to fetch; the endpoint's setting ``priors`` unless given.
            issuer: the patient of this Issuer of Patient ID alone.
            endpoint: the archive to ask, where it is not :meth:`endpoint`.
            apart: studies that are no earlier ones, and neither fetched nor counted.
            task_id: the Task for which it is done, for the audit line.

        Raises:
            HubError: not-found without an archive, incorrect for a bad Patient ID, unavailable when the archive cannot be
                asked.
        """
        patient_id = patient_id.strip()
        if not patient_id or len(patient_id) > 64 or any(char in patient_id for char in "*?\\"):
            raise HubError(
                Category.INCORRECT,
                "A Patient ID is wanted, without wildcards.",
                where="(0010,0020)",
                remedy="Give one.",
            )
        endpoint = endpoint or self.endpoint(member)
        wanted = rule if rule is not None else self.rule(member)
        correlation_id = new_correlation_id()
        self._audit(actor, member, patient_id, issuer, endpoint, correlation_id, task_id)
        archive = self._open(self._services, endpoint)
        zone = ZoneInfo(self._services.settings.time_zone)
        found = archive.find("STUDY", {"PatientID": patient_id}, _STUDY_KEYS)
        # Some archives ignore a key that they do not know, or match it loosely: another patient's study is not taken.
        own = [
            one
            for one in found
            if "".join(one["PatientID"][:1]).strip() == patient_id
            and (not issuer or "".join(one["IssuerOfPatientID"][:1]).strip() in {"", issuer})
            and not set(one["StudyInstanceUID"]) & set(apart)
        ]
        done = []
        for study in wanted.chosen(own, today=self._services.clock().astimezone(zone).date()):
            done.append(self._study(archive, endpoint, study, wanted.via))
        log.info(
            "priors_pulled",
            endpoint=endpoint.id,
            correlation_id=correlation_id,
            answers=len(found),
            studies=len(done),
            fetched=sum(one.fetched for one in done),
            missing=sum(one.missing for one in done),
        )
        return done

    def _study(self, archive: Archive, endpoint: MemberEndpoint, study: Found, via: str) -> Pulled:
        uid, why = study["StudyInstanceUID"][0], ""
        there: _Series = {}
        present: set[str] = set()
        key = StudyKey(owner=endpoint.member, StudyInstanceUID=uid)
        try:
            # A hierarchical query names one series at a time (PS3.4 section C.4.1.2.1).
            for one in archive.find("SERIES", {"StudyInstanceUID": uid}, ("SeriesInstanceUID", "Modality")):
                for series in one["SeriesInstanceUID"][:1]:
                    images = archive.find("IMAGE", {"StudyInstanceUID": uid, "SeriesInstanceUID": series}, _IMAGE_KEYS)
                    classes = {
                        image["SOPInstanceUID"][0]: "".join(image["SOPClassUID"][:1])
                        for image in images
                        if image["SOPInstanceUID"]
                    }
                    there[series] = "".join(one["Modality"][:1]), classes
            present = self._held(key) & _all(there)
            for level, keys, wanted in _requests(uid, there, present):
                outcome = archive.move(level, keys) if via == "move" else archive.get(level, keys, wanted)
                if not outcome.complete:
                    why = f"{outcome.status:04X} {outcome.comment}".strip()
        except HubError as error:
            why = error.message
        left = _all(there) - self._held(key)
        return Pulled(
            StudyInstanceUID=uid,
            StudyDate="".join(study["StudyDate"][:1]),
            present=len(present),
            fetched=len(_all(there)) - len(present) - len(left),
            missing=len(left),
            why=why or ("The archive did not send them." if left else ""),
        )

    def _held(self, key: StudyKey) -> set[str]:
        """Return what is here of a study; what is marked deleted is, and need not be fetched again."""

        def work(tx: Tx) -> set[str]:
            shown = {row.SOPInstanceUID for row in tx.imaging.instances_of(key)}
            return shown | {mark.SOPInstanceUID for mark in tx.imaging.deletions.of_study(key)}

        return self._services.database.read(work)

    def _audit(
        self,
        actor: Actor,
        member: str,
        patient_id: str,
        issuer: str,
        endpoint: MemberEndpoint,
        correlation_id: str,
        task_id: str,
    ) -> None:
        authority = "patient-id" if issuer in {"", member} else f"patient-id:{issuer}"
        line = AuditLine(
            type="dicom",
            action="E",
            subtype="priors",
            actor=actor,
            recorded_at=self._services.clock(),
            patients=((member, resource_id(member, authority, "Patient", patient_key(patient_id))),),
            entities=(f"Task/{task_id}",) if task_id else (),
            query=f"study?PatientID={patient_id}",
            correlation_id=correlation_id,
            detail=f"asked {endpoint.id}",
        )
        self._services.database.write(lambda tx: tx.audit.write(line))


def is_rule(text: str) -> bool:
    """Return whether :meth:`Rule.of` can read *text*."""
    try:
        Rule.of(text)
    except ValueError:
        return False
    return True


def _all(there: _Series) -> set[str]:
    return {instance for _, images in there.values() for instance in images}


def _requests(study: str, there: _Series, present: set[str]) -> Iterable[_Request]:
    """Yield the fewest requests for what is not here: the whole study, a whole series, or single instances of one."""
    if not present and _all(there):
        yield "STUDY", {"StudyInstanceUID": study}, _classes(there.values())
        return
    for series, (modality, images) in there.items():
        missing = sorted(images.keys() - present)
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
        if missing and len(missing) == len(images):
            yield "SERIES", keys, _classes([(modality, images)])
            continue
        for start in range(0, len(missing), _UIDS):
            part = missing[start : start + _UIDS]
            yield "IMAGE", {**keys, "SOPInstanceUID": part}, _classes([(modality, {one: images[one] for one in part})])


def _classes(series: Iterable[tuple[str, Mapping[str, str]]]) -> list[str]:
    """Return the SOP classes of *series*; where the archive does not tell, those that their modalities make likely."""
    told: dict[str, None] = {}
    likely: dict[str, None] = {}
    for modality, images in series:
        told.update(dict.fromkeys(sop_class for sop_class in images.values() if sop_class))
        if "" in images.values():
            likely.update(dict.fromkeys(_STORAGE + one for one in (*_BY_MODALITY.get(modality, ()), *_CAPTURES)))
    return [*sorted(told), *(one for one in likely if one not in told)]
