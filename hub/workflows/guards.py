"""Named conditions that workflow tables refer to.

A guard returns what is wrong as one sentence without patient data, or ``None``. The first line of each docstring is
printed in the workflow's page, so it says what must hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from hub.workflows.base import BASE, Case, Due, Guard, Resource
from hub.workflows.task import (
    authors,
    code_in,
    expected_at,
    marks,
    moment,
    newest,
    plain,
    recorded,
    reference_in,
    referred,
)

#: Flag of a Task whose order its requester holds (HL7 v2 table 0119, HD).
ON_HOLD = "on-hold"

#: https://terminology.hl7.org/CodeSystem-v3-ObservationInterpretation.html: critically high, critically low, critical.
CRITICAL = frozenset({"HH", "LL", "AA"})


def _report(case: Case) -> Resource:
    held = case.resources.get(newest(case.task, "output", "DiagnosticReport"))
    return held.resource if held is not None else {}


def _report_status(allowed: frozenset[str], name: str, says: str) -> Guard:
    def guard(case: Case) -> str | None:
        status = _report(case).get("status")
        if status in allowed:
            return None
        return f"The DiagnosticReport in Task.output must have status {' or '.join(sorted(allowed))}, not {status!r}."

    guard.__name__ = name
    guard.__doc__ = says
    return guard


report_is_preliminary = _report_status(
    frozenset({"registered", "partial", "preliminary"}),
    "report_is_preliminary",
    "The newest report is registered, partial or preliminary.",
)
report_is_ready = _report_status(
    frozenset({"preliminary", "final"}), "report_is_ready", "The newest report is preliminary or final."
)
report_is_final = _report_status(frozenset({"final"}), "report_is_final", "The newest report is final.")
report_is_issued = _report_status(
    frozenset({"final", "amended", "corrected", "appended"}), "report_is_issued", "The newest report is final or later."
)
report_is_amended = _report_status(
    frozenset({"amended", "corrected", "appended"}),
    "report_is_amended",
    "The newest report is amended, corrected or appended.",
)


def request_has_patient(case: Case) -> str | None:
    """Task.focus is a ServiceRequest, and both speak of the same patient."""
    if not (plain(reference_in(case.task.get("focus"))) or "").startswith("ServiceRequest/") or case.request is None:
        return "Task.focus 须指向枢纽中已有的申请单。 Task.focus must refer to a ServiceRequest that the hub holds."
    patient = plain(reference_in(case.task.get("for")))
    if not patient:
        return "Task.for 须指向患者。 Task.for must refer to the Patient."
    if plain(reference_in(case.request.get("subject"))) != patient:
        return "Task.for 与申请单须为同一患者。 Task.for and the subject of Task.focus must be the same Patient."
    return None


def request_is_open(case: Case) -> str | None:
    """The ServiceRequest is draft, active or on hold."""
    status = (case.request or {}).get("status")
    if status in ("draft", "active", "on-hold"):
        return None
    return f"申请单已不再有效。 The ServiceRequest must be draft, active or on-hold, not {status!r}."


def images_are_available(case: Case) -> str | None:
    """Every ImagingStudy in Task.input is available and is of the patient."""
    patient = plain(reference_in(case.task.get("for")))
    for reference in referred(case.task, "input"):
        if reference.startswith("ImagingStudy/"):
            held = case.resources.get(reference)
            study = held.resource if held is not None else {}
            if study.get("status") != "available":
                status = study.get("status")
                return f"影像尚未到齐。 {reference} in Task.input must have status available, not {status!r}."
            if plain(reference_in(study.get("subject"))) not in {patient, *case.persons}:
                return f"影像不属于该患者。 {reference} in Task.input is not of the Patient in Task.for."
    return None


def priors_are_the_patients(case: Case) -> str | None:
    """Every study that is added is available, the requester's own and of the patient."""
    patient = plain(reference_in(case.task.get("for")))
    for reference in referred({"input": case.inputs.inputs}, "input"):
        held = case.resources.get(reference)
        if held is None or held.institution != case.parties.get("requester"):
            return f"影像不属于申请方。 {reference} is not the requester's own."
        if held.resource.get("status") != "available":
            return f"影像尚未到齐。 {reference} is not available."
        if plain(reference_in(held.resource.get("subject"))) not in {patient, *case.persons}:
            return f"影像不属于该患者。 {reference} is not of the Patient in Task.for."
    return None


def acts_as_assignee(case: Case) -> str | None:
    """The acting person is the one to whom the work was assigned."""
    if case.actor.practitioner and recorded(case.task, "assignee")[1] == case.actor.practitioner:
        return None
    return "Only the person to whom the work was assigned may do this."


def is_not_the_writer(case: Case) -> str | None:
    """The acting person did not write the report."""
    if case.actor.practitioner and recorded(case.task, "writer")[1] != case.actor.practitioner:
        return None
    return "The writer of a report may not review it."


def writer_has_signed(case: Case) -> str | None:
    """A person is on record as having written and signed the report."""
    return None if recorded(case.task, "writer")[1] else "No writer has signed the report yet."


def report_answers_request(case: Case) -> str | None:
    """The report answers this request, if it says which request it answers."""
    named = [plain(reference_in(r)) for r in _report(case).get("basedOn") or ()]
    if not named or plain(reference_in(case.task.get("focus"))) in named:
        return None
    return "The report in Task.output answers another request than Task.focus."


def two_signatories_named(case: Case) -> str | None:
    """The report names two different people: who reviewed as interpreter, and who wrote as interpreter or author."""
    report = _report(case)
    interpreters = {reference_in(r) or str(r.get("identifier")) for r in report.get("resultsInterpreter") or ()}
    # HL7 v2 names the writer in OBR-33, which stands in DiagnosticReport.performer with the function of author.
    if interpreters and len(interpreters.union(authors(report))) > 1:
        return None
    return (
        "A final report from another system must name writer and reviewer in DiagnosticReport.resultsInterpreter, or the"
        " writer in DiagnosticReport.performer as author (OBR-32 and OBR-33)."
    )


def cancel_was_asked(case: Case) -> str | None:
    """The other party asked to cancel, and has not been answered yet."""
    return None if "cancel-asked" in marks(case.task) else "Nobody has asked to cancel."


def cancel_is_not_asked(case: Case) -> str | None:
    """No question to cancel waits for its answer."""
    return "The question to cancel already waits for its answer." if "cancel-asked" in marks(case.task) else None


def is_held(case: Case) -> str | None:
    """The requester holds the order."""
    return None if ON_HOLD in marks(case.task) else "申请未暂停。 The order is not on hold."


def is_not_held(case: Case) -> str | None:
    """The requester does not hold the order."""
    return (
        "申请已暂停，须先恢复。 The order is on hold until its requester releases it."
        if ON_HOLD in marks(case.task)
        else None
    )


def other_hospital_named(case: Case) -> str | None:
    """A rejection that suggests another hospital names it in Task.output."""
    code = code_in(case.inputs.reason, f"{BASE}/CodeSystem/referral-rejection-reason")
    if code != "other-hospital" or newest(case.task, "output", "Organization", "HealthcareService"):
        return None
    return "A rejection that suggests another hospital must name its Organization in Task.output."


def proposal_is_based_on_request(case: Case) -> str | None:
    """The ServiceRequest of the down-referral is based on the one of the up-referral."""
    held = case.resources.get(newest(case.task, "output", "ServiceRequest"))
    based_on = [plain(reference_in(r)) for r in (held.resource.get("basedOn") or ())] if held is not None else []
    if plain(reference_in(case.task.get("focus"))) in based_on:
        return None
    return "The ServiceRequest in Task.output must have Task.focus in its basedOn."


def results_are_final(case: Case) -> str | None:
    """Every Observation of the report that the hub holds is final, amended, corrected or cancelled."""
    for observation in _observations(case):
        status = observation.get("status")
        if status not in ("final", "amended", "corrected", "cancelled", "entered-in-error"):
            return f"Every Observation of a final report must be final or cancelled; one is {status!r}."
    return None


def has_critical_value(case: Case) -> bool:
    """An Observation of the report is flagged critical (HH, LL or AA)."""
    return any(_is_critical(observation) for observation in _observations(case))


def critical_values(case: Case) -> str:
    """Name the critical values, so that the same value raises one alarm and a corrected value another."""
    found = []
    for reference, observation in _held_observations(case):
        if _is_critical(observation):
            quantity = observation.get("valueQuantity") or {}
            value = observation.get("valueString") or f"{quantity.get('comparator', '')}{quantity.get('value', '')}"
            found.append(f"{reference}={value}")
    return ",".join(sorted(found))


def _is_critical(observation: Resource) -> bool:
    if observation.get("status") in ("cancelled", "entered-in-error"):
        return False
    return any(
        coding.get("code") in CRITICAL
        for concept in observation.get("interpretation") or ()
        for coding in concept.get("coding") or ()
    )


def _held_observations(case: Case) -> Iterator[tuple[str, Resource]]:
    named = [plain(reference_in(r)) or "" for r in _report(case).get("result") or ()]
    named += [r for r in referred(case.task, "output") if r.startswith("Observation/")]
    for reference in dict.fromkeys(named):
        held = case.resources.get(reference)
        if held is not None:
            yield reference, held.resource


def _observations(case: Case) -> Iterator[Resource]:
    for _, observation in _held_observations(case):
        yield observation


# --- When timers are due ----------------------------------------------------------------------------------------


def after(seconds: int, name: str) -> Due:
    """Return a rule: *seconds* after the move that starts the timer."""

    def due(case: Case) -> datetime | None:
        return case.now + timedelta(seconds=seconds)

    due.__name__ = name
    due.__doc__ = f"{_spell(seconds)} after the state is entered."
    return due


def within(seconds: dict[str, int], name: str) -> Due:
    """Return a rule: as long as Task.priority, or else the request's, allows."""

    def due(case: Case) -> datetime | None:
        priority = case.task.get("priority") or (case.request or {}).get("priority") or "routine"
        return case.now + timedelta(seconds=seconds.get(str(priority), seconds["routine"]))

    due.__name__ = name
    due.__doc__ = f"By priority: {', '.join(f'{priority} {_spell(s)}' for priority, s in seconds.items())}."
    return due


def by_priority(seconds: dict[str, int], name: str) -> Due:
    """Return a rule: Task.restriction.period.end if given, else as :func:`within`."""
    allowed = within(seconds, name)

    def due(case: Case) -> datetime | None:
        return deadline(case) or allowed(case)

    due.__name__ = name
    due.__doc__ = f"Task.restriction.period.end if given. {allowed.__doc__}"
    return due


def deadline(case: Case) -> datetime | None:
    """At Task.restriction.period.end, if that is given."""
    return moment(((case.task.get("restriction") or {}).get("period") or {}).get("end"))


def not_arrived(case: Case) -> datetime | None:
    """48 h after the expected arrival: as promised, else the start of the booked Appointment, else now."""
    held = case.resources.get(newest(case.task, "output", "Appointment"))
    booked = moment(held.resource.get("start")) if held is not None else None
    return (expected_at(case.task) or booked or case.now) + timedelta(hours=48)


def _spell(seconds: int) -> str:
    return f"{seconds // 3600} h" if seconds % 3600 == 0 else f"{seconds // 60} min"
