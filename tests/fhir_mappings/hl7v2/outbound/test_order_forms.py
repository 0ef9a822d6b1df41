"""Orders as OML^O21, OMG^O19 and OMI^O23 and the answers to orders, judged by hl7apy and read back by the hub itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from fhir_mappings.hl7v2.ack import AckError
from fhir_mappings.hl7v2.base import Upsert
from fhir_mappings.hl7v2.dialects import HIS_CN, STANDARD
from fhir_mappings.hl7v2.outbound.order_forms import OrderedStudy, ordered_study
from fhir_mappings.hl7v2.outbound.orr_o02 import ANSWERS
from fhir_mappings.hl7v2.outbound.target import OutboundTarget
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.hl7v2.translate import translate
from tests.fhir_mappings.hl7v2.golden import context
from tests.fhir_mappings.hl7v2.outbound import samples as s

TIMED = {**s.REQUEST, "occurrenceDateTime": "2025-06-12T09:00:00+08:00"}
FIRST = {"OML^O21": "2.4", "OMG^O19": "2.4", "OMI^O23": "2.5"}
REFUSED = AckError(location="ORC-1", code=206, text="The work is done.")
PROCEDURE = {1: "ACC0001", 2: ["RP1", "HIS"], 3: "1.2.3", 4: "SPS1"}
SPECIMEN = [("SPM", {1: "1", 2: [["KNSP1"]], 4: ["SER", "血清", "HL70487"]}), ("SAC", {3: "TUBE1"})]
MAKERS: dict[str, Callable[[OutboundTarget], str]] = {
    "OML^O21": lambda target: s.order(target, TIMED, form="OML^O21"),
    "OMG^O19": lambda target: s.order(target, TIMED, form="OMG^O19"),
    "OMI^O23": lambda target: s.order(target, TIMED, form="OMI^O23", studies=[s.STUDY, OrderedStudy(uid="1.2.3")]),
    "ORR^O02": s.order_answer,
    "ORL^O22": lambda target: s.order_answer(target, asked_by="OML^O21"),
    "ORL^O34": lambda target: s.order_answer(target, asked_by="OML^O33", specimens=SPECIMEN),
    "ORL^O36": lambda target: s.order_answer(target, asked_by="OML^O35", specimens=SPECIMEN, errors=[REFUSED]),
    "ORG^O20": lambda target: s.order_answer(target, asked_by="OMG^O19"),
    "ORI^O24": lambda target: s.order_answer(target, asked_by="OMI^O23", procedures=[PROCEDURE]),
}

#: An answer is in the version of the order, so it is never in one that does not have the order.
SINCE = {"ORL^O22": "2.4", "ORG^O20": "2.4", "ORI^O24": "2.5", "ORL^O34": "2.5", "ORL^O36": "2.5"}
CASES = [
    (event, version)
    for event in MAKERS
    for version in ("2.3.1", "2.4", "2.5", "2.5.1", "2.6")
    if version >= SINCE.get(event, "2")
]


def target(version: str, base: str = "standard") -> OutboundTarget:
    return replace(s.KN, dialect=replace(HIS_CN if base == "his-cn" else STANDARD, version_out=version))


@pytest.mark.parametrize("base", ["standard", "his-cn"])
@pytest.mark.parametrize(("event", "version"), CASES)
def test_every_segment_and_structure_is_valid_for_hl7apy(event: str, version: str, base: str) -> None:
    text = MAKERS[event](target(version, base))
    sent = parse(text)
    assert f"{sent.get('MSH-9.1')}^{sent.get('MSH-9.2')}" == event
    assert sent.get("MSH-12") == max(version, FIRST.get(event, version))
    flat = parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
    assert [one.name for one in flat.children] == [one.name for one in sent.segments]
    for one in flat.children:
        one.validate()
    fields = text.split("|")
    fields[8] = f"{event}^{event.replace('^', '_')}"
    if not event.startswith("ORR"):
        # hl7apy takes the alternatives of the choice group of ORR for required all at once.
        parse_message("|".join(fields), validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=True).validate()


@pytest.mark.parametrize("form", ["OML^O21", "OMG^O19", "OMI^O23"])
@pytest.mark.parametrize("version", ["2.4", "2.5.1"])
def test_an_order_says_the_same_in_every_form(form: str, version: str) -> None:
    there = replace(s.KN, dialect=replace(s.KN.dialect, version_out=version))
    made = []
    for one in ("ORM^O01", form):
        text = s.order(there, s.REQUEST, conditions=[], form=one, studies=[s.STUDY])
        translation = translate(parse(text), replace(context("KN"), dialect=there.dialect))
        (event,) = translation.workflow_events
        assert event.kind == "order.new"
        assert event.placer_number == "KN20250611001"
        [request] = [
            change.resource
            for change in translation.changes
            if isinstance(change, Upsert) and change.resource["resourceType"] == "ServiceRequest"
        ]
        made.append(request)
    ordered, again = made
    for element in ("id", "code", "priority", "note", "authoredOn", "requester", "subject"):
        assert again.get(element) == ordered.get(element), element


def test_priority_and_time_stand_in_tq1_from_v25_on() -> None:
    before = parse(s.order(target("2.4"), TIMED, form="OMG^O19"))
    after = parse(s.order(target("2.5"), TIMED, form="OMG^O19"))
    assert (before.get("ORC-7.6"), before.first("TQ1")) == ("A", None)
    assert (after.get("ORC-7.6"), after.get("TQ1-7"), after.get("TQ1-9")) == ("", "20250612090000", "A")


def test_the_study_stands_in_ipc_of_omi_and_in_zds_of_the_others_where_that_is_read() -> None:
    omi = parse(s.order(target("2.5.1"), form="OMI^O23", studies=[s.STUDY], with_zds=True))
    assert [omi.get(f"IPC-{number}.1") for number in (1, 2, 3, 4, 5)] == [
        "ACC0001",
        "KN20250611001",
        "1.2.826.0.1.3680043.9.1",
        "KN20250611001",
        "CT",
    ]
    assert omi.first("ZDS") is None
    for form in ("ORM^O01", "OMG^O19"):
        zds = parse(s.order(target("2.4"), form=form, studies=[s.STUDY], with_zds=True)).get
        assert [zds(f"ZDS-1.{number}") for number in (1, 2, 3, 4)] == [s.STUDY.uid, "YIXIE", "Application", "DICOM"]
        assert parse(s.order(target("2.4"), form=form, studies=[s.STUDY])).first("ZDS") is None


def test_what_a_form_requires_and_nobody_knows_is_not_made_up() -> None:
    assert parse(s.order(target("2.5"), form="OMI^O23")).get("MSH-9.2") == "O19"
    numbered = {key: value for key, value in s.REQUEST.items() if key != "code"}
    sent = parse(s.order(target("2.5"), numbered, form="OMG^O19", control="CA"))
    assert (sent.get("MSH-9.1"), sent.get("ORC-1"), sent.first("OBR")) == ("ORM", "CA", None)


def test_a_study_is_known_by_its_uid_alone() -> None:
    study = {
        "identifier": [
            {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"},
            s.identifier("KN", "accession", "A1", "ACSN"),
        ],
        "modality": [{"code": "CT"}, {"code": "SR"}],
    }
    assert ordered_study(study) == OrderedStudy(uid="1.2.3", accession="A1", modality="CT")
    assert ordered_study({"identifier": study["identifier"][1:]}) is None


@pytest.mark.parametrize("asked_by", ANSWERS)
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("OK", "order.accepted"),
        ("UA", "order.rejected"),
        ("CR", "order.cancelled"),
        ("UC", "order.cancel-refused"),
        ("DR", "order.cancelled"),
        ("UD", "order.cancel-refused"),
    ],
)
def test_an_answer_says_which_message_it_answers_and_what_became_of_the_order(
    asked_by: str, answer: str, kind: str
) -> None:
    text = s.order_answer(
        s.KN, answer=answer, asked_by=asked_by, original_version="2.5.1", original_control_id="KN77", reason="设备检修"
    )
    sent = parse(text)
    assert f"{sent.get('MSH-9.1')}^{sent.get('MSH-9.2')}" == ANSWERS[asked_by]
    assert (sent.get("MSH-12"), sent.get("MSA-1"), sent.get("MSA-2")) == ("2.5.1", "AA", "KN77")
    assert (sent.get("ORC-1"), sent.get("ORC-2"), sent.get("ORC-16.2")) == (answer, "KN20250611001", "设备检修")
    (event,) = translate(parse(text), context("KN")).workflow_events
    assert (event.kind, event.placer_number, event.reason) == (kind, "KN20250611001", "设备检修")


@pytest.mark.parametrize(
    ("numbers", "modality", "expected"),
    [
        ((("requested-procedure", "RP1", ""), ("scheduled-step", "SPS1", "")), "CT", ("RP1", "SPS1")),
        ((("scheduled-step", "SPS1", "CT"), ("scheduled-step", "SPS2", "PT")), "PT", ("KN20250611001", "SPS2")),
        ((("scheduled-step", "SPS1", "CT"), ("scheduled-step", "SPS2", "PT")), "MR", ("KN20250611001",) * 2),
        ((("scheduled-step", "SPS1", ""), ("scheduled-step", "SPS2", "")), "CT", ("KN20250611001",) * 2),
    ],
)
def test_procedure_and_step_have_the_placers_numbers_where_these_are_known(
    numbers: tuple[tuple[str, str, str], ...], modality: str, expected: tuple[str, str]
) -> None:
    given = []
    for kind, value, step in numbers:
        one = s.identifier("KN", kind, value)
        given.append({**one, "extension": [{"valueString": step}]} if step else one)
    request = {**s.REQUEST, "identifier": [*s.REQUEST["identifier"], *given]}
    study = OrderedStudy(uid="1.2.3", accession="A1", modality=modality)
    omi = parse(s.order(target("2.5"), request, form="OMI^O23", studies=[study]))
    assert (omi.get("IPC-2.1"), omi.get("IPC-4.1")) == expected
