"""What is checked before a request is sent."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hub.errors import Category, HubError
from hub.workflows import HUB_ACTOR, WORKFLOWS, Earlier, Known, references
from hub.workflows.base import BASE
from hub.workflows.task import advice
from tests.support.workflows import DESK, LIU, NOW, PATIENT, SONG_PARTY, Play, entry, make

SERVICES = {"remote-reading": "imaging-read", "referral": "referral", "lab-outsourcing": "lab"}
ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


def drafted(code: str, **change: Any) -> Play:
    play = make(code)
    play.create(LIU, owner=owner_of(code), status="draft", input=[entry("ImagingStudy/is1")], **change)
    return play


def owner_of(code: str) -> str:
    return "QM" if code == "lab-outsourcing" else "YL"


def sent(play: Play, **inputs: Any) -> list[str]:
    """Send the draft and return the codes of the advice."""
    return [finding.code for finding in play.do(play.workflow.submit, LIU, **inputs).warnings]


def affiliation(**change: Any) -> dict[str, Any]:
    return {"resourceType": "OrganizationAffiliation", "active": True, **change}


def with_agreement(play: Play, *agreements: dict[str, Any]) -> Play:
    play.known = replace(play.known, agreements=agreements)
    return play


# --- agreement and service ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", WORKFLOWS)
def test_nothing_is_sent_without_an_agreement_of_the_two_institutions(code: str) -> None:
    play = with_agreement(drafted(code))

    with pytest.raises(HubError, match=r"没有生效的协作协议.*No active OrganizationAffiliation") as caught:
        sent(play)

    assert (caught.value.category, caught.value.status) == (Category.INCORRECT, 422)
    assert caught.value.remedy == f"Allowed events: {', '.join(allowed(play))}."
    assert play.task["status"] == "draft"


def allowed(play: Play) -> list[str]:
    return [t.event for t in play.workflow.leaving("draft")]


@pytest.mark.parametrize(
    "change",
    [
        {"active": False},
        {"period": {"start": "2025-06-12"}},
        {"period": {"end": "2025-06-10"}},
        {"period": {"start": "2024-01-01", "end": "2025-05"}},
        {"period": {"end": "some day"}},
        {"period": "always"},
    ],
)
def test_an_agreement_that_is_not_in_force_now_counts_for_nothing(change: dict[str, Any]) -> None:
    with pytest.raises(HubError, match="No active OrganizationAffiliation"):
        with_agreement(make("referral"), affiliation(**change)).create(LIU)


@pytest.mark.parametrize(
    "change",
    [{}, {"period": {"start": "2025-06-11"}}, {"period": {"end": "2025-06-11"}}, {"period": {"end": "2025"}}],
)
def test_an_agreement_lasts_to_the_end_of_its_last_day(change: dict[str, Any]) -> None:
    with_agreement(make("referral"), affiliation(active=False), affiliation(**change)).create(LIU)


def test_an_institution_needs_no_agreement_with_itself() -> None:
    with_agreement(make("referral")).create(LIU, owner="KN")


@pytest.mark.parametrize("code", WORKFLOWS)
@pytest.mark.parametrize("change", [{"active": False}, {"category": []}, {"category": [{"coding": [{"code": "x"}]}]}])
def test_nothing_is_sent_to_an_institution_whose_service_is_off(code: str, change: dict[str, Any]) -> None:
    play = drafted(code)
    play.known = replace(play.known, services=tuple({**one, **change} for one in play.known.services))

    with pytest.raises(HubError, match=f"未开通此项服务（{SERVICES[code]}）.*of category {SERVICES[code]};"):
        sent(play)


def test_agreement_and_service_hold_for_a_message_too() -> None:
    play = make("referral")
    play.known = Known(by_message=True)

    with pytest.raises(HubError, match="协作协议") as caught:
        play.create(LIU)

    assert "HealthcareService" in caught.value.message


def test_a_redirected_draft_is_judged_by_what_is_known_of_its_new_owner() -> None:
    play = with_agreement(drafted("referral"))
    elsewhere = replace(SONG_PARTY, reference="Organization/YJ", institution="YJ")

    with pytest.raises(HubError, match="No active OrganizationAffiliation"):
        play.put(LIU, elsewhere, owner={"reference": "Organization/YJ"}, **play.step("requested", "submitted"))


# --- the patient -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", WORKFLOWS)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"identifier": []}, "标识号.*an identifier with its system;"),
        ({"identifier": [{"value": "10086"}]}, "标识号"),
        ({"gender": "unknown"}, "性别.*lacks gender;"),
        ({"birthDate": None}, "出生日期.*lacks birthDate;"),
        ({"gender": None, "birthDate": None}, "性别、出生日期.*lacks gender, birthDate;"),
    ],
)
def test_a_draft_is_not_sent_for_a_patient_who_is_not_identified(code: str, change: dict[str, Any], says: str) -> None:
    play = drafted(code)
    play.hold("Patient/p1", "KN", **{**PATIENT, **change})

    with pytest.raises(HubError, match=says):
        sent(play)


@pytest.mark.parametrize(
    "name",
    [
        {"text": "无名氏"},
        {"text": "无名男20250611"},
        {"family": "无名氏"},
        {"extension": [{"url": ABSENT, "valueCode": "unknown"}]},
    ],
)
def test_a_patient_whom_nobody_knows_is_sent_when_flagged_so(name: dict[str, Any]) -> None:
    play = drafted("referral")
    play.hold("Patient/p1", "KN", name=[name])
    assert "patient_is_identified" not in sent(play)


@pytest.mark.parametrize("name", [{"text": "郑伟"}, {"extension": [{"url": ABSENT, "valueCode": "masked"}]}])
def test_a_name_that_is_only_withheld_is_no_flag(name: dict[str, Any]) -> None:
    play = drafted("referral")
    play.hold("Patient/p1", "KN", name=[name])
    with pytest.raises(HubError, match="The Patient lacks"):
        sent(play)


@pytest.mark.parametrize("code", WORKFLOWS)
def test_a_request_that_comes_as_a_message_is_kept_and_told_what_the_patient_lacks(code: str) -> None:
    play = make(code)
    play.known = replace(play.known, by_message=True)
    play.hold("Patient/p1", "KN", name=[{"text": "郑伟"}])

    decision = play.create(LIU, owner=owner_of(code), input=[entry("ImagingStudy/is1")])

    assert "patient_is_identified" in [finding.code for finding in decision.warnings]


@pytest.mark.parametrize("code", WORKFLOWS)
def test_a_task_that_is_created_as_requested_needs_what_a_draft_needs(code: str) -> None:
    play = make(code)
    play.hold("Patient/p1", "KN", name=[{"text": "郑伟"}])

    with pytest.raises(HubError, match="The Patient lacks"):
        play.create(LIU, owner=owner_of(code), input=[entry("ImagingStudy/is1")])


def test_a_message_that_sends_a_draft_is_not_held_up_by_the_patient() -> None:
    play = drafted("referral")
    play.known = replace(play.known, by_message=True)
    play.hold("Patient/p1", "KN")
    assert "patient_is_identified" in sent(play)


# --- consent -----------------------------------------------------------------------------------------------------

CONSENT: dict[str, Any] = {"status": "active", "patient": {"reference": "Patient/p1"}}


@pytest.mark.parametrize(
    ("institution", "change"),
    [
        ("KN", {"status": "inactive"}),
        ("KN", {"patient": {"reference": "Patient/p2"}}),
        ("KN", {"provision": {"period": {"end": "2025-06-10"}}}),
        ("KN", {"provision": {"period": {"start": "2025-07-01"}}}),
        ("QH", {}),
    ],
)
def test_a_consent_that_is_not_the_patients_or_not_of_now_is_none(institution: str, change: dict[str, Any]) -> None:
    play = drafted("referral")
    play.request["supportingInfo"] = [{"reference": "Consent/c1"}]
    play.hold("Consent/c1", institution, **{**CONSENT, **change})
    play.do("ask-consent", LIU)
    with pytest.raises(HubError, match=r"缺少患者的有效知情同意.*No active Consent"):
        sent(play)


@pytest.mark.parametrize("place", ["input", "supportingInfo"])
def test_a_consent_in_force_is_found_in_the_inputs_and_in_the_request(place: str) -> None:
    play = drafted("referral")
    play.do("ask-consent", LIU)
    play.hold("Consent/c1", "KN", **CONSENT, provision={"period": {"start": "2025-06-11", "end": "2025-06-12"}})
    if place == "supportingInfo":
        play.request["supportingInfo"] = [{"reference": "Consent/c1"}]
    advised = sent(play, **({"inputs": (entry("Consent/c1"),)} if place == "input" else {}))
    assert "consent_given" not in advised


@pytest.mark.parametrize(("priority", "reason", "goes"), [
    ("stat", {"text": "抢救，家属未到"}, True),
    ("asap", {"coding": [{"code": "rescue"}]}, True),
    ("stat", None, False),
    ("stat", {}, False),
    ("urgent", {"text": "抢救"}, False),
    ("routine", {"text": "抢救"}, False),
])  # fmt: skip
def test_an_emergency_with_a_reason_excuses_the_consent(
    priority: str, reason: dict[str, Any] | None, goes: bool
) -> None:
    play = drafted("referral", priority=priority)
    play.do("ask-consent", LIU)
    if goes:
        sent(play, reason=reason)
        assert play.task["statusReason"] == reason
    else:
        with pytest.raises(HubError, match="No active Consent"):
            sent(play, reason=reason)


def test_the_reason_of_a_task_that_is_created_as_requested_is_kept() -> None:
    decision = make("referral").create(LIU, priority="stat", statusReason={"text": "抢救"})
    assert "consent_given" not in [finding.code for finding in decision.warnings]
    assert decision.task["statusReason"] == {"text": "抢救"}


@pytest.mark.parametrize("by_message", [True, False])
def test_a_referral_that_awaited_no_consent_is_only_advised(by_message: bool) -> None:
    play = make("referral")
    play.known = replace(play.known, by_message=by_message)
    assert "consent_given" in [finding.code for finding in play.create(LIU).warnings]


# --- what is told ------------------------------------------------------------------------------------------------


def test_a_purpose_and_a_summary_are_advised() -> None:
    play = make("referral")
    play.request["reasonReference"] = [{"reference": "Condition/x"}]
    del play.request["reasonCode"]
    advised = [finding.code for finding in play.create(LIU).warnings]
    assert {"purpose_given", "summary_given"} <= set(advised)

    told = make("referral").create(LIU, description="胸痛4小时，心电图II、III、aVF导联ST段抬高")
    assert {"purpose_given", "summary_given"}.isdisjoint(finding.code for finding in told.warnings)


@pytest.mark.parametrize("code", ["remote-reading", "lab-outsourcing"])
def test_a_missing_reason_is_advised_where_it_does_not_refuse(code: str) -> None:
    play = drafted(code)
    del play.request["reasonCode"]
    assert {"diagnosis_or_reason_given", "purpose_given"} <= set(sent(play))


def test_blanks_are_no_summary() -> None:
    decision = make("referral").create(LIU, description=" " * 30)
    assert "summary_given" in [finding.code for finding in decision.warnings]


def test_advice_stands_in_the_task_for_both_parties_and_stays() -> None:
    play = make("referral")
    decision = play.create(LIU)
    written = advice(play.task)
    assert written == tuple((finding.code, finding.message) for finding in decision.warnings)
    assert all(ord(text[0]) > 0x3000 or text[:2].isdigit() for _, text in written)
    play.do("cancel", LIU)
    assert advice(play.task) == written


def test_no_sender_writes_advice() -> None:
    forged = [{"url": f"{BASE}/StructureDefinition/task-advice", "extension": []}]
    with pytest.raises(HubError, match="hub alone"):
        make("referral").create(LIU, extension=forged)


def test_a_request_without_an_available_study_is_no_reading() -> None:
    play = make("remote-reading")
    play.create(LIU, status="draft")
    with pytest.raises(HubError, match="must hold ImagingStudy"):
        sent(play)
    play.hold("ImagingStudy/is1", "KN", status="registered", subject={"reference": "Patient/p1"})
    with pytest.raises(HubError, match=r"影像尚未到齐.*status available"):
        sent(play, inputs=(entry("ImagingStudy/is1"),))


# --- repetition --------------------------------------------------------------------------------------------------


def earlier(workflow: str, *, request: dict[str, Any] | None = None, **change: Any) -> Earlier:
    """Return a Task that was sent an hour before, as the hub would find it."""
    play = make(workflow)
    play.now = NOW - timedelta(hours=1)
    play.create(LIU, owner=owner_of(workflow), id="t0", input=[entry("ImagingStudy/is1")])
    return Earlier(task={**play.task, **change}, request={**play.request, **(request or {})})


def advised(play: Play, *known: Earlier) -> list[str]:
    play.known = replace(play.known, earlier=known)
    decision = play.create(LIU, owner=owner_of(play.workflow.code), input=[entry("ImagingStudy/is1")])
    return [finding.message for finding in decision.warnings if finding.code == "is_not_repeated"]


@pytest.mark.parametrize("code", WORKFLOWS)
def test_the_same_request_within_a_day_is_sent_and_told(code: str) -> None:
    [text] = advised(make(code), earlier(code))
    assert text.startswith("24小时内已有相同患者、项目和受邀方的申请 Task/t0。 ")
    assert "郑伟" not in text


@pytest.mark.parametrize(
    "change",
    [
        {"id": "t1"},
        {"status": "completed"},
        {"status": "rejected"},
        {"status": "draft"},
        {"authoredOn": "2025-06-10T08:29:59Z"},
        {"authoredOn": "someday"},
        {"for": {"reference": "Patient/p2"}},
        {"code": {"coding": [{"system": f"{BASE}/CodeSystem/workflow", "code": "lab-outsourcing"}]}},
        {"extension": []},
    ],
)
def test_another_an_ended_or_an_older_request_is_no_repetition(change: dict[str, Any]) -> None:
    assert advised(make("referral"), earlier("referral", **change)) == []


def coded(code: str, text: str = "") -> dict[str, Any]:
    return {"code": {"coding": [{"system": "urn:x", "code": code}], **({"text": text} if text else {})}}


@pytest.mark.parametrize(
    ("before", "now", "repeated"),
    [
        (coded("LAB001"), coded("LAB001"), True),
        (coded("LAB001"), coded("LAB002"), False),
        ({"code": {"text": "电解质四项"}}, {"code": {"text": "血常规"}}, False),
        ({"code": {"text": "电解质四项"}}, coded("LAB001", "电解质四项"), True),
        ({}, coded("LAB001"), True),
    ],
)
def test_two_different_services_are_no_repetition(before: dict[str, Any], now: dict[str, Any], repeated: bool) -> None:
    play = make("lab-outsourcing")
    play.request.update(now)
    assert bool(advised(play, earlier("lab-outsourcing", request=before))) is repeated


def test_the_hub_and_the_owner_send_nothing() -> None:
    play = drafted("referral")
    for actor in (HUB_ACTOR, DESK):
        with pytest.raises(HubError) as caught:
            play.do("submit", actor)
        assert caught.value.category is Category.CONFLICT


# --- the relation matrix -----------------------------------------------------------------------------------------


def relation(provider: str, *services: str, **change: Any) -> dict[str, Any]:
    """Return an entry of the matrix: *provider* may be asked for *services* by the other institution."""
    codes = [{"coding": [{"system": f"{BASE}/CodeSystem/service", "code": one}]} for one in services]
    return affiliation(participatingOrganization={"reference": f"Organization/{provider}"}, code=codes, **change)


def offered_by(play: Play, organization: str) -> Play:
    services = tuple(
        {**one, "providedBy": {"reference": f"Organization/{organization}"}} for one in play.known.services
    )
    play.known = replace(play.known, services=services)
    return play


def test_an_agreement_that_names_no_service_covers_every_service() -> None:
    general = affiliation(code=[{"coding": [{"system": f"{BASE}/CodeSystem/affiliation", "code": "cooperation"}]}])
    with_agreement(offered_by(make("referral"), "yl"), general).create(LIU)


@pytest.mark.parametrize(
    "entries",
    [
        [relation("yl", "referral")],
        [relation("yl", "imaging-read"), relation("yl", "lab", "referral")],
        [affiliation(), relation("kn", "imaging-read"), relation("yl", "referral")],
    ],
)
def test_a_relation_that_names_the_service_of_the_owner_lets_the_request_go(entries: list[dict[str, Any]]) -> None:
    with_agreement(offered_by(make("referral"), "yl"), *entries).create(LIU)


@pytest.mark.parametrize(
    "entries",
    [
        # Another service, and the same service in the other direction.
        [affiliation(), relation("yl", "imaging-read")],
        [affiliation(), relation("kn", "referral")],
        # An entry that has run out or was switched off closes; it does not fall back to the general agreement.
        [affiliation(), relation("yl", "referral", period={"end": "2025-06-10"})],
        [affiliation(), relation("yl", "referral", active=False)],
    ],
)
def test_where_two_institutions_list_services_only_what_is_listed_may_be_asked(entries: list[dict[str, Any]]) -> None:
    play = with_agreement(offered_by(make("referral"), "yl"), *entries)

    with pytest.raises(HubError, match=r"协作关系未包含此项服务（referral）.*relation .* does not include referral"):
        play.create(LIU)


# --- who asks ----------------------------------------------------------------------------------------------------

OFFICE: dict[str, Any] = {"active": True, "practitioner": {"reference": "Practitioner/liu-min"}}


def asked_by(play: Play, reference: str, **body: Any) -> Play:
    play.hold(reference, "YY", **body)
    play.create(LIU, requester={"reference": reference})
    return play


@pytest.mark.parametrize("code", WORKFLOWS)
@pytest.mark.parametrize(
    "change",
    [{"active": False}, {"period": {"end": "2025-06-10"}}, {"period": {"start": "2025-06-12"}}, {"period": "always"}],
)
def test_nothing_is_sent_in_the_name_of_a_person_whose_role_has_ended(code: str, change: dict[str, Any]) -> None:
    play = make(code)
    play.hold("PractitionerRole/kn-liumin", "YY", **{**OFFICE, **change})

    with pytest.raises(HubError, match=r"申请人的岗位或执业资质已失效.*not in force"):
        play.create(
            LIU,
            owner=owner_of(code),
            requester={"reference": "PractitionerRole/kn-liumin"},
            input=[entry("ImagingStudy/is1")],
        )


@pytest.mark.parametrize("change", [{}, {"period": {"start": "2025-01-01"}}, {"period": {"end": "2025-06-11"}}])
def test_a_role_lasts_to_the_end_of_its_last_day(change: dict[str, Any]) -> None:
    asked_by(make("referral"), "PractitionerRole/kn-liumin", **{**OFFICE, **change})


@pytest.mark.parametrize(
    ("qualifications", "goes"),
    [
        ([], True),
        ([{"code": {"text": "医师执业证书"}}], True),
        ([{"code": {"text": "医师执业证书"}, "period": {"end": "2026-01-01"}}], True),
        ([{"period": {"end": "2025-01-01"}}, {"period": {"start": "2025-01-01"}}], True),
        ([{"code": {"text": "医师执业证书"}, "period": {"end": "2025-06-10"}}], False),
    ],
)
def test_a_licence_that_has_run_out_sends_nothing(qualifications: list[dict[str, Any]], goes: bool) -> None:
    play = make("referral")
    if goes:
        asked_by(play, "Practitioner/liu-min", active=True, qualification=qualifications)
        return
    with pytest.raises(HubError, match="执业资质已失效"):
        asked_by(play, "Practitioner/liu-min", active=True, qualification=qualifications)


def test_a_requester_whom_the_hub_does_not_hold_is_not_asked_for_a_licence() -> None:
    make("referral").create(LIU, requester={"reference": "PractitionerRole/elsewhere"})


def test_the_role_in_whose_name_a_request_is_made_is_loaded_with_it() -> None:
    task = {"requester": {"reference": "PractitionerRole/kn-liumin"}, "owner": {"reference": "Organization/yl"}}
    assert references(task) == {"PractitionerRole/kn-liumin"}


def test_what_is_missing_is_told_in_chinese_first() -> None:
    for change in ({"input": []}, {"input": [entry("ImagingStudy/is1")], "owner": None}):
        with pytest.raises(HubError) as caught:
            make("remote-reading").create(LIU, **change)
        for text in (caught.value.message, caught.value.issues[0].message):
            assert "\u4e00" <= text[0] <= "\u9fff", text
