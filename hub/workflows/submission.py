"""What a consortium checks before a request is sent: agreement, service, patient, consent, what is told, repetition.

The checks are named conditions like those of :mod:`hub.workflows.guards`; each table says which refuse and which only
advise. Institutions treat at a distance only under an agreement, with the patient's consent (远程医疗服务管理规范(试行)
2018), and a third party only offers what the operator has switched on.

A request that comes as an HL7 v2 message was released in the sender's own system, REF^I12 has no field for a consent,
and nobody waits at the other end to fill a gap. So the requesting institution vouches for consent and identity: what is
missing is written into the Task as advice, for the receiver to see, and nothing received is lost. Agreement and service
hold there too, because sending opens the record to the other institution; such a message is kept, refused with what is
wrong, and can be replayed when the operator has mended the directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_mappings.definitions.dates import range_us
from fhir_mappings.errors import MappingError
from hub.workflows.base import BASE, ENDED, Case, Resource
from hub.workflows.task import code_in, plain, recorded, reference_in, referred, workflow_code

SERVICE_SYSTEM = f"{BASE}/CodeSystem/service"
DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"

#: data-absent-reason codes that mean that nobody knows, as opposed to "not asked" or "masked".
_UNKNOWN = frozenset({"unknown", "asked-unknown", "temp-unknown"})
#: What hospitals call a patient whose name nobody knows.
_NAMELESS = ("无名氏", "无名男", "无名女")
#: Task.priority of work that cannot wait for a signature.
_EMERGENCY = frozenset({"stat", "asap"})

_SUMMARY_LENGTH = 20
_REPEATED = timedelta(hours=24)


def agreement_in_force(case: Case) -> str | None:
    """An active OrganizationAffiliation joins requester and owner now, and lists this service where they list services."""
    if case.parties.get("requester") == case.parties.get("owner"):
        return None
    standing = [one for one in case.known.agreements if _in_force(one, case.now)]
    if not standing:
        return (
            "申请方与受邀方之间没有生效的协作协议，请运营方登记。 "
            "No active OrganizationAffiliation joins the two institutions now; ask the operator to enter the agreement."
        )
    # Entries that have run out still count here: the end of an entry must close what it allowed, and not fall back to
    # the general agreement, which allows more.
    if not any(_services_of(one) for one in case.known.agreements):
        return None
    # Each agreement is between these two, so that who provides tells the direction.
    providers = {reference_in(one.get("providedBy")) for one in case.known.services}
    for one in standing:
        if case.service in _services_of(one) and reference_in(one.get("participatingOrganization")) in providers:
            return None
    return (
        f"双方的协作关系未包含此项服务（{case.service}），请运营方登记。 "
        f"The relation of the two institutions does not include {case.service} by the institution in Task.owner; "
        "ask the operator to enter it."
    )


def requester_is_in_office(case: Case) -> str | None:
    """The person in Task.requester is active there, with a role and a licence whose periods cover now."""
    held = case.resources.get(plain(reference_in(case.task.get("requester"))) or "")
    if held is None or held.resource.get("resourceType") not in ("PractitionerRole", "Practitioner"):
        return None
    licences = [one["period"] for one in held.resource.get("qualification") or () if one.get("period")]
    licensed = not licences or any(_covers(one, case.now) for one in licences)
    if licensed and _in_force(held.resource, case.now):
        return None
    return (
        "申请人的岗位或执业资质已失效，请运营方更新。 "
        "The role or licence of the person in Task.requester is not in force now; ask the operator to renew it."
    )


def service_is_on(case: Case) -> str | None:
    """The owner provides an active HealthcareService of this workflow's category."""
    for one in case.known.services:
        kinds = [code_in(concept, SERVICE_SYSTEM) for concept in one.get("category") or ()]
        if case.service in kinds and one.get("active", True) is True:
            return None
    return (
        f"受邀方未开通此项服务（{case.service}），请运营方开通。 "
        f"The institution in Task.owner has no active HealthcareService of category {case.service}; "
        "ask the operator to switch it on."
    )


def patient_is_identified(case: Case) -> str | None:
    """The patient has an identifier of a named authority, sex and birth date, or is flagged unknown (无名氏)."""
    held = case.resources.get(plain(reference_in(case.task.get("for"))) or "")
    patient: Resource = held.resource if held is not None else {}
    if _is_nameless(patient):
        return None
    missing = []
    if not any(one.get("system") and one.get("value") for one in patient.get("identifier") or ()):
        missing.append(("标识号", "an identifier with its system"))
    if patient.get("gender") not in ("male", "female", "other"):
        missing.append(("性别", "gender"))
    if not patient.get("birthDate"):
        missing.append(("出生日期", "birthDate"))
    if not missing:
        return None
    return (
        f"患者缺少{'、'.join(zh for zh, _ in missing)}，身份不明者请登记为“无名氏”。 "
        f"The Patient lacks {', '.join(en for _, en in missing)}; "
        "name a patient whom nobody knows 无名氏, or give the name a data-absent-reason."
    )


def patient_is_identified_unless_by_message(case: Case) -> str | None:
    """A request is sent for an identified patient only; for one that came as a message its sender vouches."""
    # Who uses FHIR is there to mend it; a message is received and kept.
    return None if case.known.by_message else patient_is_identified(case)


def diagnosis_or_reason_given(case: Case) -> str | None:
    """A diagnosis or reason is given, coded or as text."""
    request = case.request or {}
    places = (request.get("reasonCode"), request.get("reasonReference"), request.get("supportingInfo"))
    if any(places) or case.task.get("reasonCode") or case.task.get("reasonReference"):
        return None
    return (
        "请填写诊断或申请原因。 "
        "A diagnosis or reason must be given in ServiceRequest.reasonCode or reasonReference, or Task.reasonCode."
    )


def purpose_given(case: Case) -> str | None:
    """What the request is for is said in reasonCode of the ServiceRequest or the Task."""
    if (case.request or {}).get("reasonCode") or case.task.get("reasonCode"):
        return None
    return "未填写申请目的。 No purpose is in reasonCode of the ServiceRequest or the Task."


def summary_given(case: Case) -> str | None:
    """A summary of at least 20 characters is given."""
    request = case.request or {}
    texts = [str(case.task.get("description") or ""), str(request.get("patientInstruction") or "")]
    texts += [str(note.get("text") or "") for holder in (case.task, request) for note in holder.get("note") or ()]
    if max(len(text.strip()) for text in texts) >= _SUMMARY_LENGTH:
        return None
    return (
        f"病历摘要不足{_SUMMARY_LENGTH}字。 "
        f"No summary of at least {_SUMMARY_LENGTH} characters is in Task.description or a note of the request."
    )


def consent_given(case: Case) -> str | None:
    """The patient's active Consent that covers now is given, or stat or asap priority and Task.statusReason excuse it."""
    if _has_consent(case) or _is_excused(case):
        return None
    return (
        "缺少患者的有效知情同意；紧急情况请设 stat 或 asap 并说明原因。 "
        "No active Consent of the patient that covers now is among the inputs; "
        "in an emergency set the priority stat or asap and give the reason."
    )


def consent_given_if_awaited(case: Case) -> str | None:
    """If the Task waited for consent, `consent_given` must hold."""
    return consent_given(case) if case.old == "consent-pending" else None


def is_not_repeated(case: Case) -> str | None:
    """No open request for the same patient, service and institution was made in the last 24 hours."""
    since = case.now - _REPEATED
    for one in case.known.earlier:
        task = one.task
        if (
            task.get("id") != case.task.get("id")
            and task.get("status") not in (*ENDED, "draft", "entered-in-error")
            and workflow_code(task) == workflow_code(case.task)
            and reference_in(task.get("for")) == reference_in(case.task.get("for"))
            and recorded(task, "owner")[0] == case.parties.get("owner")
            and _moment_of(task.get("authoredOn")) >= since
            and _same_service(one.request or {}, case.request or {})
        ):
            return (
                f"24小时内已有相同患者、项目和受邀方的申请 Task/{task.get('id')}。 "
                f"Task/{task.get('id')} asks the same institution for the same service for this patient "
                "and was made in the last 24 hours."
            )
    return None


def consents_named(request: Resource | None) -> Iterator[str]:
    """Yield ``Consent/id`` of every Consent in the supporting information of *request*."""
    for one in (request or {}).get("supportingInfo") or ():
        reference = plain(reference_in(one)) or ""
        if reference.startswith("Consent/"):
            yield reference


def _in_force(resource: Resource, now: datetime) -> bool:
    return resource.get("active", True) is True and _covers(resource.get("period"), now)


def _services_of(agreement: Resource) -> set[str]:
    """Return the services that an OrganizationAffiliation lists, which its participating organization provides."""
    return {code for concept in agreement.get("code") or () if (code := code_in(concept, SERVICE_SYSTEM))}


def _has_consent(case: Case) -> bool:
    patient = plain(reference_in(case.task.get("for")))
    for reference in (*referred(case.task, "input"), *consents_named(case.request)):
        held = case.resources.get(reference) if reference.startswith("Consent/") else None
        if held is None or held.institution != case.parties.get("requester"):
            continue
        consent = held.resource
        if (
            consent.get("status") == "active"
            and plain(reference_in(consent.get("patient"))) == patient
            and _covers((consent.get("provision") or {}).get("period"), case.now)
        ):
            return True
    return False


def _is_excused(case: Case) -> bool:
    # The diagnosis is no reason for going without consent, so only the reason of this very move counts.
    reason = case.inputs.reason or {}
    priority = case.task.get("priority") or (case.request or {}).get("priority")
    return priority in _EMERGENCY and bool(reason.get("text") or reason.get("coding"))


def _is_nameless(patient: Resource) -> bool:
    for name in patient.get("name") or ():
        text = name.get("text") or f"{name.get('family') or ''}{''.join(name.get('given') or ())}"
        if str(text).strip().startswith(_NAMELESS):
            return True
        if any(e.get("url") == DATA_ABSENT and e.get("valueCode") in _UNKNOWN for e in name.get("extension") or ()):
            return True
    return False


def _same_service(one: Resource, other: Resource) -> bool:
    """Whether two requests ask for the same; one that does not say what it asks for is taken for the same."""
    codes = [_codings(request) for request in (one, other)]
    if all(codes):
        return bool(codes[0] & codes[1])
    texts = [str((request.get("code") or {}).get("text") or "").strip() for request in (one, other)]
    return texts[0] == texts[1] if all(texts) else True


def _codings(request: Resource) -> set[tuple[Any, Any]]:
    return {(c.get("system"), c.get("code")) for c in (request.get("code") or {}).get("coding") or () if c.get("code")}


def _moment_of(value: Any) -> datetime:
    """Return the last moment of a FHIR dateTime; what cannot be read is taken for long ago."""
    try:
        return datetime.fromtimestamp((range_us(str(value))[1] - 1) / 1e6, UTC)
    except MappingError:
        return datetime.min.replace(tzinfo=UTC)


def _covers(period: Any, now: datetime) -> bool:
    """Whether a FHIR Period covers *now*; an end that only names a day lasts to its end, a date in error covers nothing."""
    if not isinstance(period, dict):
        return period is None
    at = int(now.timestamp() * 1_000_000)
    try:
        return not (
            (period.get("start") and at < range_us(str(period["start"]))[0])
            or (period.get("end") and at >= range_us(str(period["end"]))[1])
        )
    except MappingError:
        return False
