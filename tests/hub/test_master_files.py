"""MFN: a member states its own people and places, record by record, and the directory that the hub routes by stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_mappings.hl7v2.tokenizer import Message
from hub.ports import Database
from hub.ports.members import MemberPractitioner
from tests.support.v2 import MEMBERS, V2Hub, adt, endpoints, msh

SAMPLES = Path(__file__).parents[2] / "sample_data" / "hl7"
STAFF = (SAMPLES / "MFN_M02" / "kn_staff.hl7").read_bytes().decode("gb18030")
PLACES = (SAMPLES / "MFN_M05" / "kn_places.hl7").read_bytes().decode("gb18030")


@pytest.fixture
def hub(sqlite_database: Database) -> V2Hub:
    return V2Hub(sqlite_database)


def staff(
    control_id: str, *records: str, at: str = "20250611080000", mfi: str = "MFI|PRA||UPD|||AL", **fields: str
) -> str:
    return "\r".join([msh("MFN^M02", control_id, sent=at, **fields), mfi, *records, ""])


def told(answer: Message | None) -> list[tuple[str, str]]:
    """(MFA-2, MFA-4) of every record in the answer."""
    assert answer is not None
    return [(one.get(2), one.get(4)) for one in answer.all("MFA")]


def person(code: str, name: str = "刘敏", event: str = "MAD", number: str = "1") -> tuple[str, str]:
    return f"MFE|{event}|{number}||{code}|CE", f"STF|{code}||{name}|PH|F"


def test_staff_become_records_of_the_sender_with_the_ids_that_its_messages_use(hub: V2Hub) -> None:
    visit = (
        adt("A01", "1").replace("|3W^301^1|", "|3W^301^1||||0231^刘敏|", 1).replace("|" * 16 + "V1", "|" * 12 + "V1")
    )
    assert hub.code(visit) == "AA"
    (attending,) = hub.all("Practitioner")
    answer = hub.send(STAFF.replace("|||AL|AL|CHN", ""))
    assert answer is not None
    assert [answer.get(f"MSH-9.{n}") for n in (1, 2, 3)] == ["MFK", "M02", "MFK_M01"]
    assert answer.get("MSA-1") == "AA"
    assert told(answer) == [("1", "S"), ("2", "S"), ("3", "S")]
    liu = hub.one("Practitioner", lambda one: one["identifier"][0]["value"] == "0231")
    assert liu["id"] == attending["id"]
    assert (liu["active"], liu["gender"], liu["name"][0]["text"]) == (True, "female", "刘敏")
    role = hub.one("PractitionerRole", lambda one: one["practitioner"]["reference"] == f"Practitioner/{liu['id']}")
    assert role["organization"]["identifier"]["value"] == "KN"
    assert hub.stored("PractitionerRole", role["id"]).owner == "KN"  # type: ignore[union-attr]
    gone = hub.one("Practitioner", lambda one: one["identifier"][0]["value"] == "0777")
    assert gone["active"] is False


def test_what_is_private_to_a_colleague_does_not_leave_the_house(hub: V2Hub) -> None:
    hub.send(STAFF)
    said = str([*hub.all("Practitioner"), *hub.all("PractitionerRole")])
    for private in ("990001198604120225", "1986", "文化路"):
        assert private in STAFF
        assert private not in said


def test_a_bad_record_is_refused_by_itself_and_the_others_stand(hub: V2Hub) -> None:
    answer = hub.send(
        staff("1", *person("1", number="a"), "MFE|XXX|b||2|CE", "STF|2||李四", *person("3", number="c"), "MFE|MAD|d||4|CE",
              "MFE|MAD|e||5|CE", "STF|6||王五", "MFE|MAD|f|20990101||7|CE".replace("||7", "|7"), "STF|7||赵六")
    )  # fmt: skip
    assert told(answer) == [("a", "S"), ("b", "U"), ("c", "S"), ("d", "U"), ("e", "U"), ("f", "U")]
    assert answer is not None
    assert answer.get("MSA-1") == "AE"
    assert len(answer.all("ERR")) == 4
    assert {one["identifier"][0]["value"] for one in hub.all("Practitioner")} == {"1", "3"}
    (entry,) = hub.journal()
    assert entry.state == "done"
    assert "refused" in entry.outcome


def test_a_record_that_is_deleted_or_deactivated_stays_and_is_out_of_use(hub: V2Hub) -> None:
    for event in ("MDC", "MDL"):
        hub.send(staff(f"{event}1", *person(event), at="20250611080000"))
        answer = hub.send(staff(f"{event}2", f"MFE|{event}|1||{event}|CE", at="20250611090000"))
        assert told(answer) == [("1", "S")]
        known = hub.one("Practitioner", lambda one, code=event: one["identifier"][0]["value"] == code)
        assert (known["active"], known["name"][0]["text"]) == (False, "刘敏")
        hub.send(staff(f"{event}3", *person(event, event="MAC"), at="20250611100000"))
        assert hub.one("Practitioner", lambda one, code=event: one["identifier"][0]["value"] == code)["active"] is True


def test_an_older_file_does_not_overwrite_a_newer_one(hub: V2Hub) -> None:
    hub.send(staff("1", *person("9", "新名"), at="20250611090000"))
    hub.send(staff("2", *person("9", "旧名"), at="20250611080000"))
    assert hub.one("Practitioner")["name"][0]["text"] == "新名"


def test_places_become_locations_and_departments_of_the_sender(hub: V2Hub) -> None:
    answer = hub.send(PLACES.replace("|||AL|AL|CHN", ""))
    assert told(answer) == [("1", "S"), ("2", "S")]
    ward = hub.one("Location", lambda one: one["name"] == "三病区")
    old = hub.one("Location", lambda one: one.get("status") == "inactive")
    assert (ward["status"], old["managingOrganization"]["identifier"]["value"]) == ("active", "KN")
    service = hub.one("HealthcareService")
    assert (service["name"], service["location"][0]["reference"]) == ("呼吸内科", f"Location/{ward['id']}")


def test_a_member_changes_neither_the_directory_nor_another_members_people(hub: V2Hub) -> None:
    listed = MemberPractitioner(
        member="KN", code="0231", practitioner_id="p1", role_id="r1", name="刘敏", roles=("doctor",)
    )
    hub.database.write(lambda tx: tx.members.replace(MEMBERS, endpoints(), (listed,)))
    hub.services.directory.refresh()
    hub.send(staff("1", *person("0231", event="MDC")))
    hub.send(staff("2", *person("0231", "冯国强"), facility="QHYY"))
    assert hub.services.directory.practitioner("KN", "0231") == listed
    owners = {hub.stored("Practitioner", one["id"]).owner for one in hub.all("Practitioner")}  # type: ignore[union-attr]
    assert owners == {"KN", "QH"}
    assert hub.one("Practitioner", lambda one: one["name"][0]["text"] == "刘敏")["active"] is False


@pytest.mark.parametrize(
    ("mfi", "records", "code"),
    [
        ("MFI|PRA||REP|||AL", person("1"), "103"),
        ("MFI|PRA||UPD|||AL", (), "100"),
        ("ZZZ|1", person("1"), "100"),
    ],
)
def test_a_message_that_is_no_update_of_records_is_refused_whole(
    hub: V2Hub, mfi: str, records: tuple[str, ...], code: str
) -> None:
    answer = hub.send(staff("1", *records, mfi=mfi))
    assert answer is not None
    assert (answer.get("MSH-9.1"), answer.get("MSA-1"), answer.get("ERR-1.4")) == ("MFK", "AE", code)
    assert hub.all("Practitioner") == []


@pytest.mark.parametrize(("level", "count"), [("AL", 2), ("NE", 0), ("ER", 1), ("SU", 1)])
def test_mfi_6_says_which_records_are_told(hub: V2Hub, level: str, count: int) -> None:
    bad = ("MFE|XXX|2||2|CE", "STF|2||李四")
    answer = hub.send(staff("1", *person("1"), *bad, mfi=f"MFI|PRA||UPD|||{level}"))
    assert len(told(answer)) == count


def test_the_same_file_again_gets_the_same_answer_and_changes_nothing(hub: V2Hub) -> None:
    first = hub.raw(STAFF.encode("gb18030"))
    before = hub.one("Practitioner", lambda one: one["identifier"][0]["value"] == "0231")
    assert hub.raw(STAFF.encode("gb18030")) == first
    assert hub.one("Practitioner", lambda one: one["identifier"][0]["value"] == "0231") == before
