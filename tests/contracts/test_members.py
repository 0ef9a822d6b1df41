"""What the member directory must do, on both databases."""

from __future__ import annotations

import threading

from hub.ports import Member, MemberEndpoint, MemberPractitioner
from storage.sql.database import SqlDatabase
from tests.support.databases import opened

KN = Member(
    code="KN",
    organization_id="o1",
    name="开宁县医院",
    kind="hospital",
    entitlements=("a",),
    settings={"x": 1},
)
POINT = MemberEndpoint(
    id="KN/mllp",
    member="KN",
    kind="mllp",
    address="h:1",
    sending_facility="KNYY",
    cidr=("10.0.0.0/8",),
    settings={"charset_out": "GBK"},
)
PERSON = MemberPractitioner(member="KN", code="0231", practitioner_id="p", role_id="r", name="郑伟", roles=("writer",))


def replace(database: SqlDatabase, *members: Member) -> None:
    database.write(lambda tx: tx.members.replace(members, [], []))


def test_what_is_put_reads_back(database: SqlDatabase) -> None:
    database.write(lambda tx: tx.members.replace([KN], [POINT], [PERSON]))

    assert database.read(lambda tx: tx.members.get("KN")) == KN
    assert database.read(lambda tx: tx.members.all()) == [KN]
    assert database.read(lambda tx: tx.members.endpoints(member="KN", kind="mllp")) == [POINT]
    assert database.read(lambda tx: tx.members.practitioner("KN", "0231")) == PERSON
    assert database.read(lambda tx: tx.members.practitioners("KN")) == [PERSON]


def test_what_is_absent_is_none(database: SqlDatabase) -> None:
    assert database.read(lambda tx: tx.members.get("KN")) is None
    assert database.read(lambda tx: tx.members.practitioner("KN", "1")) is None
    assert database.read(lambda tx: tx.members.endpoints(kind="dicom")) == []


def test_rows_that_are_not_given_stay(database: SqlDatabase) -> None:
    database.write(lambda tx: tx.members.replace([KN], [POINT], [PERSON]))
    replace(database, Member(code="QH", organization_id="o2", name="QH"))

    assert [one.code for one in database.read(lambda tx: tx.members.all())] == ["KN", "QH"]
    assert database.read(lambda tx: tx.members.endpoints()) == [POINT]


def test_a_row_given_again_is_replaced(database: SqlDatabase) -> None:
    replace(database, KN)
    changed = Member(code="KN", organization_id="o1", name="new", active=False)
    replace(database, changed)

    assert database.read(lambda tx: tx.members.all()) == [changed]


def test_each_change_is_a_new_version_on_whatever_node(database: SqlDatabase, database_url: str) -> None:
    start = database.read(lambda tx: tx.members.version())
    with opened(database_url, node="second") as second:
        threads = [
            threading.Thread(target=lambda one=one: [replace(one, KN) for _ in range(5)]) for one in (database, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert (start, database.read(lambda tx: tx.members.version())) == (0, 10)
