"""Who the doors know: names, networks, and the resources of an import that everybody in the consortium may read."""

from __future__ import annotations

from collections import Counter

import pytest

from fhir_mappings.json import loads
from hub.access import Scope
from hub.cli.members import resources_in
from hub.clock import utc_now
from hub.directory import DIRECTORY_OWNER, Directory
from hub.ports import Database, Member, MemberEndpoint
from hub.search.ast import Query
from tests.hub.cli.conftest import MEMBERS

KN = Member(code="KN", organization_id="org-kn", name="康宁")
QH = Member(code="QH", organization_id="org-qh", name="青禾")
GONE = Member(code="ZZ", organization_id="org-zz", name="已退出", active=False)


def mllp(id_: str, member: str, facility: str = "", application: str = "", **more: object) -> MemberEndpoint:
    return MemberEndpoint(
        id=id_, member=member, kind="mllp", sending_facility=facility, sending_application=application, **more
    )  # type: ignore[arg-type]


def directory(database: Database, *endpoints: MemberEndpoint) -> Directory:
    database.write(lambda tx: tx.members.replace([KN, QH, GONE], endpoints, ()))
    return Directory(database, utc_now)


def who(found: MemberEndpoint | None) -> str | None:
    return found.id if found is not None else None


def test_a_header_without_names_is_nobodys(sqlite_database: Database) -> None:
    # KN is only sent to here: its endpoint says nothing about how KN signs what it sends.
    known = directory(sqlite_database, mllp("KN/out", "KN", address="192.0.2.1:2575"), mllp("QH/mllp", "QH", "QHYY"))
    assert who(known.mllp_member("", "", "127.0.0.1")) is None
    assert who(known.mllp_member("HIS", "", "127.0.0.1")) is None
    assert who(known.mllp_member("", "QHYY", "127.0.0.1")) == "QH/mllp"


def test_both_names_must_be_right_where_both_are_agreed(sqlite_database: Database) -> None:
    known = directory(sqlite_database, mllp("KN/his", "KN", "KNYY", "HIS"), mllp("KN/lis", "KN", "KNYY", "LIS"))
    assert who(known.mllp_member("HIS", "KNYY", "127.0.0.1")) == "KN/his"
    assert who(known.mllp_member("LIS", "KNYY", "127.0.0.1")) == "KN/lis"
    assert who(known.mllp_member("PACS", "KNYY", "127.0.0.1")) is None
    assert who(known.mllp_member("HIS", "QHYY", "127.0.0.1")) is None


@pytest.mark.parametrize(
    ("address", "known"),
    [
        ("10.1.255.255", True),
        ("10.2.0.0", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        # What a listener for both families reports of a peer that came by IPv4.
        ("::ffff:10.1.0.9", True),
        ("::ffff:10.2.0.9", False),
        ("", False),
        ("somewhere", False),
    ],
)
def test_a_name_counts_only_from_its_networks(sqlite_database: Database, address: str, known: bool) -> None:
    networks = ("10.1.0.0/16", "2001:db8::/32")
    images = MemberEndpoint(id="KN/dicom", member="KN", kind="dicom", ae_title="KN_PACS", cidr=networks)
    here = directory(sqlite_database, mllp("KN/mllp", "KN", "KNYY", cidr=networks), images)
    assert (who(here.mllp_member("HIS", "KNYY", address)) == "KN/mllp") is known
    assert (who(here.dicom_member("KN_PACS", address)) == "KN/dicom") is known


def test_a_member_that_has_left_is_a_stranger_at_every_door(sqlite_database: Database) -> None:
    images = MemberEndpoint(id="ZZ/dicom", member="ZZ", kind="dicom", ae_title="ZZ_PACS")
    off = mllp("KN/off", "KN", "KNYY", active=False)
    known = directory(sqlite_database, mllp("ZZ/mllp", "ZZ", "ZZYY"), images, off)
    assert known.mllp_member("HIS", "ZZYY", "127.0.0.1") is None
    assert known.dicom_member("ZZ_PACS", "127.0.0.1") is None
    assert known.mllp_member("HIS", "KNYY", "127.0.0.1") is None


def test_a_name_that_a_member_left_behind_is_free_for_another(sqlite_database: Database) -> None:
    left = MemberEndpoint(id="A/dicom", member="ZZ", kind="dicom", ae_title="PACS")
    taken = MemberEndpoint(id="B/dicom", member="KN", kind="dicom", ae_title="PACS")
    known = directory(sqlite_database, left, taken, mllp("A/mllp", "ZZ", "ORTHO"), mllp("B/mllp", "KN", "ORTHO"))
    assert who(known.dicom_member("PACS", "127.0.0.1")) == "B/dicom"
    assert who(known.mllp_member("HIS", "ORTHO", "127.0.0.1")) == "B/mllp"


def test_every_resource_of_an_import_is_a_record_that_all_members_read(database: Database) -> None:
    resources = resources_in([MEMBERS])
    Directory(database, utc_now).load(resources)
    kinds = Counter(one["resourceType"] for one in resources)
    assert set(kinds) == {
        "Organization", "Endpoint", "OrganizationAffiliation", "PractitionerRole", "HealthcareService", "Practitioner"
    }  # fmt: skip
    for kind, count in kinds.items():
        query = Query(resource_type=kind, count=100)
        page = database.read(lambda tx, query=query: tx.records.search(query, Scope(institution="QH")))
        assert {one.owner for one in page.matches} == {DIRECTORY_OWNER}
        found = {loads(one.body)["id"] for one in page.matches}
        assert found == {one["id"] for one in resources if one["resourceType"] == kind}
        assert len(found) == count


def test_an_import_is_told_in_the_audit_trail(sqlite_database: Database) -> None:
    Directory(sqlite_database, utc_now).load(resources_in([MEMBERS]))
    lines = sqlite_database.read(lambda tx: tx.audit.search({}, institution=None, limit=10, before=None))
    assert [one["subtype"][0]["code"] for one in lines] == ["members-import"]
