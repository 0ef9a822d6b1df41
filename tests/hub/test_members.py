"""What an import of the directory is distilled into, and what is refused before a door could stumble over it."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_mappings.identifiers import CANONICAL_BASE
from hub.errors import Category, HubError
from hub.members import MEMBER_SETTING_URL, MEMBER_SYSTEM, distil
from hub.ports import MemberEndpoint
from hub.routing import rules_of

Json = dict[str, Any]

ORGANIZATION: Json = {
    "resourceType": "Organization",
    "id": "org-nw",
    "identifier": [{"system": f"{CANONICAL_BASE}/NamingSystem/member", "value": "NW"}],
    "name": "新成员（测试）",
}
OTHER: Json = {
    **ORGANIZATION,
    "id": "org-ow",
    "identifier": [{"system": f"{CANONICAL_BASE}/NamingSystem/member", "value": "OW"}],
}


def endpoint(
    id_: str = "e", *, kind: str = "hl7v2-mllp", address: str = "urn:none", of: str = "org-nw", **settings: str
) -> Json:
    """Return an Endpoint; underscores in the names of *settings* stand for hyphens."""
    return {
        "resourceType": "Endpoint",
        "id": id_,
        "status": "active",
        "connectionType": {"code": kind},
        "managingOrganization": {"reference": f"Organization/{of}"},
        "address": address,
        "extension": [
            {
                "url": f"{CANONICAL_BASE}/StructureDefinition/endpoint-setting",
                "extension": [
                    {"url": "name", "valueString": name.replace("_", "-")},
                    {"url": "value", "valueString": value},
                ],
            }
            for name, value in settings.items()
        ],
    }


def named(resource: Json, id_: str) -> Json:
    return {
        **resource,
        "identifier": [{"system": f"{CANONICAL_BASE}/NamingSystem/endpoint", "value": id_}],
    }


def refusal(*resources: Json) -> HubError:
    with pytest.raises(HubError) as caught:
        distil(resources)
    assert caught.value.category is Category.INCORRECT
    return caught.value


def test_an_endpoint_becomes_what_the_doors_recognise_and_reach() -> None:
    _, made, _ = distil(
        [
            ORGANIZATION,
            endpoint(
                "v2",
                address="mllp://192.0.2.7:2575",
                sending_application="HIS",
                sending_facility="NWYY",
                cidr="192.0.2.0/24 2001:db8::/32",
                dialect="his-cn",
                time_zone="Asia/Urumqi",
            ),
            endpoint("images", kind="dicom", address="dicom://NW_PACS@192.0.2.8:11112"),
        ]
    )
    by_id = {one.id: one for one in made}
    v2, images = by_id["NW/mllp"], by_id["NW/dicom"]
    assert (v2.member, v2.address, v2.sending_application, v2.sending_facility) == (
        "NW",
        "192.0.2.7:2575",
        "HIS",
        "NWYY",
    )
    assert v2.cidr == ("192.0.2.0/24", "2001:db8::/32")
    assert v2.settings == {"dialect": "his-cn", "time-zone": "Asia/Urumqi"}
    assert (images.ae_title, images.address) == ("NW_PACS", "192.0.2.8:11112")


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"cidr": "10.0.0.0/33"}, "cidr"),
        ({"cidr": "10.0.0.0/8,192.0.2.0/24"}, "cidr"),
        ({"cidr": "ward-7"}, "cidr"),
        ({"dialect": "klingon"}, "dialect"),
        ({"time_zone": "Mars/Base"}, "time-zone"),
        ({"charset_in": "KLINGON"}, "charset-in"),
        ({"charset_out": "KLINGON"}, "charset-out"),
        ({"ack": "later"}, "ack"),
        ({"processing_ids": "P X"}, "processing-ids"),
        ({"processing_ids": "P,T"}, "processing-ids"),
    ],
)
def test_a_setting_that_no_door_could_work_with_is_refused_by_its_name(settings: dict[str, str], setting: str) -> None:
    assert refusal(ORGANIZATION, endpoint(**settings)).where == f"Endpoint/e.{setting}"


@pytest.mark.parametrize(
    ("kind", "address", "expected"),
    [
        ("dicom", "dicom://NW_PACS@h.example:104", ("h.example:104", "NW_PACS")),
        ("dicom", "dicoms://NW_PACS@h.example:2762", ("dicoms://h.example:2762", "NW_PACS")),
        ("dicom", "dicoms://PACS_OF_16_CHARS@[2001:db8::1]:2762", ("dicoms://[2001:db8::1]:2762", "PACS_OF_16_CHARS")),
        ("hl7v2-mllp", "mllp://h.example:2575", ("h.example:2575", "")),
        ("hl7v2-mllp", "mllps://h.example:2575", ("mllps://h.example:2575", "")),
    ],
)
def test_an_address_over_tls_stays_one(kind: str, address: str, expected: tuple[str, str]) -> None:
    _, (made,), _ = distil([ORGANIZATION, endpoint(kind=kind, address=address)])
    assert (made.address, made.ae_title) == expected


def test_two_endpoints_of_one_name_are_refused_and_two_names_are_both_kept() -> None:
    first, second = endpoint("his", sending_facility="HIS"), endpoint("lis", sending_facility="LIS")
    assert refusal(ORGANIZATION, first, second).where == "Endpoint/lis"
    _, made, _ = distil([ORGANIZATION, first, named(second, "NW/lis")])
    assert {one.id: one.sending_facility for one in made} == {"NW/mllp": "HIS", "NW/lis": "LIS"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"kind": "dicom", "address": "dicom://PACS@h:1"}, {"kind": "dicom", "address": "dicom://PACS@i:1"}),
        ({"sending_facility": "YY"}, {"sending_facility": "YY"}),
        ({"sending_facility": "YY"}, {"sending_facility": "YY", "sending_application": "HIS"}),
        ({"sending_facility": "YY", "cidr": "10.1.0.0/16"}, {"sending_facility": "YY", "cidr": "10.0.0.0/8"}),
    ],
)
def test_two_members_that_no_door_could_tell_apart_are_refused(one: dict[str, str], other: dict[str, str]) -> None:
    assert refusal(ORGANIZATION, OTHER, endpoint("a", **one), endpoint("b", of="org-ow", **other)).where == "Endpoint/b"


def test_a_name_that_a_member_left_behind_may_be_given_again() -> None:
    one, other = endpoint("a", sending_facility="YY"), endpoint("b", of="org-ow", sending_facility="YY")
    _, made, _ = distil([{**ORGANIZATION, "active": False}, OTHER, one, other])
    assert len(made) == 2


def test_members_of_one_name_are_told_apart_by_their_networks() -> None:
    one = endpoint("a", sending_facility="YY", cidr="10.1.0.0/16")
    other = endpoint("b", of="org-ow", sending_facility="YY", cidr="10.2.0.0/16 2001:db8::/32")
    _, made, _ = distil([ORGANIZATION, OTHER, one, other])
    assert {found.member for found in made} == {"NW", "OW"}


@pytest.mark.parametrize(
    ("resource", "where"),
    [
        ({"resourceType": "Patient", "id": "p"}, "Patient/p"),
        ({"resourceType": "HealthcareService"}, "HealthcareService"),
        (endpoint(of="nobody"), "Endpoint/e.managingOrganization"),
        (endpoint(kind="carrier-pigeon"), "Endpoint/e.connectionType"),
        (endpoint(kind="dicom"), "Endpoint/e.address"),
        (endpoint(kind="dicom", address="dicom://SEVENTEEN_LETTERS@h:1"), "Endpoint/e.address"),
        (endpoint(kind="dicom", address="DICOM://PACS@h:1"), "Endpoint/e.address"),
        (
            {"resourceType": "PractitionerRole", "id": "r", "organization": {"reference": "Organization/org-nw"}},
            "PractitionerRole/r",
        ),
    ],
)
def test_what_the_doors_could_not_work_with_is_refused_with_its_place(resource: Json, where: str) -> None:
    assert refusal(ORGANIZATION, resource).where == where


# --- routing rules


def rule(**parts: Any) -> Json:
    """Return a routing rule; a part that is a list is given once for each value."""
    given = [(name, one) for name, value in parts.items() for one in (value if isinstance(value, list) else [value])]
    return {
        "url": f"{CANONICAL_BASE}/StructureDefinition/routing-rule",
        "extension": [{"url": name, "valueString": value} for name, value in given],
    }


PACS = named(endpoint("pacs", kind="dicom", address="dicom://NW_PACS@192.0.2.8:104"), "NW/dicom")


def test_a_routing_rule_becomes_part_of_the_members_settings() -> None:
    made = rule(name="夜间", to="NW/dicom", modality=["CT", "MR"], window="mon-fri 19:00-07:00", on="study-complete")

    [member], _, _ = distil([{**ORGANIZATION, "extension": [made]}, PACS])

    [kept] = rules_of(member)
    assert (kept.name, kept.to, kept.modalities) == ("夜间", "NW/dicom", {"CT", "MR"})
    assert len(kept.windows) == 1


@pytest.mark.parametrize("to", ["NW/dicom", "NW", "OW/dicom", "OW"])
def test_a_rule_sends_to_an_endpoint_or_a_member_of_this_or_an_earlier_import(to: str) -> None:
    earlier = MemberEndpoint(id="OW/dicom", member="OW", kind="dicom", ae_title="OW_PACS")

    distil([{**ORGANIZATION, "extension": [rule(name="r", to=to)]}, PACS], known=[earlier])


def test_a_rule_that_leads_nowhere_is_refused_by_name() -> None:
    v2 = named(endpoint("v2", address="mllp://192.0.2.7:2575", sending_facility="NWYY"), "NW/mllp")
    for to in ("ELSEWHERE", "NW/mllp", "NW/dicom/typo"):
        error = refusal({**ORGANIZATION, "extension": [rule(name="夜间", to=to)]}, PACS, v2)
        assert to in error.message
        assert error.where == "Organization/org-nw.routing-rule(夜间)"


@pytest.mark.parametrize(
    ("parts", "part"),
    [
        ({"to": "NW"}, "name"),
        ({"name": "r"}, "to"),
        ({"name": "r", "to": "NW", "window": "night"}, "window"),
        ({"name": "r", "to": "NW", "on": "instance"}, "on"),
        ({"name": "r", "to": "NW", "modalities": "CT"}, "modalities"),
        ({"name": "r", "to": "NW", "description": "x" * 200}, "description"),
    ],
)
def test_a_rule_that_could_not_be_followed_is_refused(parts: dict[str, str], part: str) -> None:
    error = refusal({**ORGANIZATION, "extension": [rule(**parts)]}, PACS)

    assert f"part {part} " in error.message


def test_two_rules_of_one_name_are_refused() -> None:
    twice = [rule(name="r", to="NW"), rule(name="r", to="NW/dicom")]

    assert "of that name" in refusal({**ORGANIZATION, "extension": twice}, PACS).message


def test_a_member_has_a_time_zone_that_exists() -> None:
    parts = [{"url": "name", "valueString": "time-zone"}, {"url": "value", "valueString": "Asia/Nowhere"}]
    setting = {"url": f"{CANONICAL_BASE}/StructureDefinition/member-setting", "extension": parts}

    assert "time-zone" in refusal({**ORGANIZATION, "extension": [setting]}).message


@pytest.mark.parametrize(("text", "taken"), [("30", True), ("years=20 US=15", True), ("10", False), ("ever", False)])
def test_a_retention_that_keeps_too_little_is_refused_at_import(text: str, taken: bool) -> None:
    setting = {
        "url": MEMBER_SETTING_URL,
        "extension": [{"url": "name", "valueString": "retention"}, {"url": "value", "valueString": text}],
    }
    one = {
        "resourceType": "Organization",
        "id": "kn",
        "identifier": [{"system": MEMBER_SYSTEM, "value": "KN"}],
        "extension": [setting],
    }
    if taken:
        assert distil([one])[0][0].settings == {"retention": text}
        return
    with pytest.raises(HubError) as caught:
        distil([one])
    assert caught.value.where == "Organization/kn.retention"
