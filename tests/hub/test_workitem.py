"""Workitems: what the table of PS3.4 allows, for whom, and never twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fhir_mappings.dicom import workitem as mapping
from hub.access import UNRESTRICTED, Scope
from hub.actor import Actor
from hub.boot import Services
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.workitem import Workitems, task_id
from hub.workitem_rules import Reason, Remark, WorkitemError, judge_state
from tests.support import services as support
from tests.support.workitems import KEY, UID, code, performed, stopped, text, workitem

KN, YL, QH = (
    Actor(institution=code, client=ae) for code, ae in (("KN", "KN_PACS"), ("YL", "YL_CENTER"), ("QH", "QH_PACS"))
)
PATIENT = Actor(institution="KN", roles=frozenset({"patient"}), patient="p1")
AUDITOR = Actor(institution="KN", roles=frozenset({"auditor"}))
STATES = ("SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with support.running(tmp_path) as made:
        yield made


@pytest.fixture
def items(services: Services) -> Workitems:
    return Workitems(services)


def by(actor: Actor, kind: str = "test") -> Envelope:
    return Envelope(door="dimse", actor=actor, peer="127.0.0.1:104", kind=kind)


def created(items: Workitems, actor: Actor = KN, **more: Any) -> str:
    return items.create(by(actor), UID, workitem(**more))[0]


def refused(work: Any) -> Reason:
    with pytest.raises(WorkitemError) as caught:
        work()
    return caught.value.reason


def task(services: Services, owner: str = "KN") -> dict[str, Any]:
    stored = services.database.read(lambda tx: tx.records.get("Task", task_id(owner, UID), UNRESTRICTED))
    assert stored is not None
    found: dict[str, Any] = json.loads(stored.body)
    return found


def audited(services: Services, subtype: str) -> list[Any]:
    return list(
        services.database.read(
            lambda tx: tx.audit.search({"subtype": subtype}, institution=None, limit=50, before=None)
        )
    )


#: Table CC.1.1-2, row by row: a request, and what it finds in each state.
TABLE = {
    ("IN PROGRESS", True): (Remark.NONE, Reason.CLAIMED, Reason.OVER, Reason.OVER),
    ("IN PROGRESS", False): (Reason.WRONG_LOCK,) * 4,
    ("SCHEDULED", True): (Reason.TO_SCHEDULED,) * 4,
    ("SCHEDULED", False): (Reason.TO_SCHEDULED,) * 4,
    ("COMPLETED", True): (Reason.UNCLAIMED, Remark.NONE, Remark.ALREADY_COMPLETED, Reason.OVER),
    ("COMPLETED", False): (Reason.WRONG_LOCK,) * 4,
    ("CANCELED", True): (Reason.UNCLAIMED, Remark.NONE, Reason.OVER, Remark.ALREADY_CANCELED),
    ("CANCELED", False): (Reason.WRONG_LOCK,) * 4,
}


@pytest.mark.parametrize(("wanted", "right"), TABLE)
def test_the_state_table_is_that_of_the_standard(wanted: str, right: bool) -> None:
    found = tuple(judge_state(state, wanted, given=True, right=right) for state in STATES)
    assert found == TABLE[wanted, right]
    missing = {judge_state(state, wanted, given=False, right=right) for state in STATES}
    assert missing == ({Reason.TO_SCHEDULED} if wanted == "SCHEDULED" else {Reason.NO_LOCK})


def test_an_item_goes_from_scheduled_to_completed(services: Services, items: Workitems) -> None:
    assert items.create(by(KN), UID, workitem()) == (UID, Remark.NONE)
    made = task(services)
    assert (made["status"], made["code"]["text"]) == ("requested", "胸部CT肺结节检测")
    assert made["owner"]["reference"].startswith("Organization/")
    assert items.change_state(by(YL), UID, "IN PROGRESS", KEY) is Remark.NONE
    items.update(by(YL), UID, performed(), KEY)
    assert items.change_state(by(YL), UID, "COMPLETED", KEY) is Remark.NONE
    assert items.change_state(by(YL), UID, "COMPLETED", KEY) is Remark.ALREADY_COMPLETED
    found = items.read(by(KN), UID)
    assert found["00741000"]["Value"] == ["COMPLETED"]
    assert found["00404010"]["Value"][0].endswith("+0800")
    assert mapping.TRANSACTION_UID not in found
    assert task(services)["status"] == "completed"
    patient = services.database.read(lambda tx: tx.records.get(*made["for"]["reference"].split("/"), UNRESTRICTED))
    assert patient is not None
    assert json.loads(patient.body)["name"][0]["text"] == "郑伟"


def test_the_transaction_uid_is_nowhere_to_be_read(services: Services, items: Workitems, tmp_path: Path) -> None:
    created(items)
    items.change_state(by(YL), UID, "IN PROGRESS", KEY)
    items.update(by(YL), UID, performed() | {mapping.TRANSACTION_UID: text("UI", KEY)})
    services.close()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path.name


def test_only_with_its_key_is_a_claimed_item_changed(items: Workitems) -> None:
    created(items)
    assert refused(lambda: items.update(by(YL), UID, performed(), KEY)) is Reason.UNCLAIMED
    items.update(by(KN), UID, {"00741200": text("CS", "LOW")})
    items.change_state(by(YL), UID, "IN PROGRESS", KEY)
    for actor in (KN, YL):
        assert refused(lambda actor=actor: items.update(by(actor), UID, performed())) is Reason.NO_LOCK
        assert refused(lambda actor=actor: items.update(by(actor), UID, performed(), "2.25.1")) is Reason.WRONG_LOCK
        assert (
            refused(lambda actor=actor: items.change_state(by(actor), UID, "CANCELED", "2.25.1")) is Reason.WRONG_LOCK
        )
    assert refused(lambda: items.change_state(by(YL), UID, "IN PROGRESS", KEY)) is Reason.CLAIMED


def test_final_states_are_final_and_need_what_the_table_says(items: Workitems) -> None:
    created(items)
    items.change_state(by(YL), UID, "IN PROGRESS", KEY)
    for state in ("COMPLETED", "CANCELED"):
        assert refused(lambda state=state: items.change_state(by(YL), UID, state, KEY)) is Reason.NOT_READY
    items.update(by(YL), UID, stopped(), KEY)
    assert items.change_state(by(YL), UID, "CANCELED", KEY) is Remark.NONE
    assert refused(lambda: items.update(by(YL), UID, performed(), KEY)) is Reason.OVER
    assert refused(lambda: items.change_state(by(YL), UID, "COMPLETED", KEY)) is Reason.OVER
    assert items.request_cancellation(by(KN), UID, {}) is Remark.ALREADY_CANCELED


def test_whoever_asked_for_an_item_may_take_it_back_until_it_is_claimed(services: Services, items: Workitems) -> None:
    created(items)
    told = {"00741238": text("LT", "重复申请"), "0074100C": text("LO", "登记台")}
    assert items.request_cancellation(by(KN), UID, told) is Remark.NONE
    found = items.read(by(KN), UID)
    assert found["00741000"]["Value"] == ["CANCELED"]
    assert mapping.missing_for("CANCELED", found) == ""
    assert task(services)["statusReason"] == {"text": "重复申请"}
    other = f"{UID}.2"
    items.create(by(KN), other, workitem())
    items.change_state(by(YL), other, "IN PROGRESS", KEY)
    assert refused(lambda: items.request_cancellation(by(KN), other, {})) is Reason.UNREACHABLE
    items.update(by(YL), other, performed(), KEY)
    items.change_state(by(YL), other, "COMPLETED", KEY)
    assert refused(lambda: items.request_cancellation(by(KN), other, {})) is Reason.IS_COMPLETED


def test_a_uid_names_one_item_of_one_institution(services: Services, items: Workitems) -> None:
    created(items, x00404025=None)
    assert refused(lambda: created(items)) is Reason.DUPLICATE
    created(items, QH, x00404025=None, x00741204=text("LO", "骨龄"))
    assert items.read(by(QH), UID)["00741204"]["Value"] == ["骨龄"]
    assert items.read(by(KN), UID)["00741204"]["Value"] == ["胸部CT肺结节检测"]
    assert task(services, "QH")["for"] != task(services)["for"]
    assert items.create(by(KN), "", workitem())[0].startswith("2.25.")


def test_nobody_but_owner_and_performer_knows_of_an_item(services: Services, items: Workitems) -> None:
    created(items)
    assert items.read(by(YL), UID)["00100020"]["Value"] == ["10086"]
    assert refused(lambda: items.read(by(QH), UID)) is Reason.ABSENT
    assert refused(lambda: items.change_state(by(QH), UID, "IN PROGRESS", KEY)) is Reason.ABSENT
    for actor in (PATIENT, AUDITOR):
        for work in (
            lambda actor=actor: items.change_state(by(actor), UID, "IN PROGRESS", KEY),
            lambda actor=actor: items.create(by(actor), f"{UID}.7", workitem()),
        ):
            with pytest.raises(HubError) as caught:
                work()
            assert caught.value.category is Category.FORBIDDEN
    assert len(audited(services, "test")) == 2


def test_who_sees_an_item_by_a_grant_alone_does_not_change_it(services: Services, items: Workitems) -> None:
    from hub.ports import Grant

    created(items)
    grant = Grant(grantee="QH", target_type="Task", target_id=task_id("KN", UID), task_id="other")
    services.database.write(lambda tx: tx.grants.open(grant, now=services.clock()))
    assert items.read(by(QH), UID)["00741204"]["Value"] == ["胸部CT肺结节检测"]
    with pytest.raises(HubError) as caught:
        items.change_state(by(QH), UID, "IN PROGRESS", KEY)
    assert caught.value.category is Category.FORBIDDEN


def test_a_performer_does_not_pass_an_item_on_to_another_institution(items: Workitems) -> None:
    created(items)
    for change in ({"00404025": code("QH_PACS")}, {"00404034": text("SQ", {"00404036": text("LO", "QH")})}):
        with pytest.raises(HubError) as caught:
            items.update(by(YL), UID, change)
        assert caught.value.category is Category.FORBIDDEN
    assert refused(lambda: items.read(by(QH), UID)) is Reason.ABSENT
    items.update(by(YL), UID, {"00404025": code("YL_CENTER", "二号工作站")})


def test_a_performer_that_is_none_any_more_sees_nothing_any_more(items: Workitems) -> None:
    created(items)
    items.update(by(KN), UID, {"00404025": {"vr": "SQ"}})
    assert refused(lambda: items.read(by(YL), UID)) is Reason.ABSENT
    # An organization may be named instead of a station, by its code or its name.
    items.update(by(KN), UID, {"00404034": text("SQ", {"00404036": text("LO", "QH")})})
    assert items.change_state(by(QH), UID, "IN PROGRESS", KEY) is Remark.NONE


def test_what_was_done_is_seen_for_a_while_after_it(services: Services, items: Workitems) -> None:
    created(items)
    items.request_cancellation(by(KN), UID, {})
    (grant,) = services.database.read(lambda tx: tx.grants.of_task(task_id("KN", UID)))
    assert grant.until is not None
    assert (grant.until - services.clock()).days in {29, 30}
    scope = Scope(institution="YL")
    assert services.database.read(lambda tx: tx.records.get("Task", task_id("KN", UID), scope)) is not None


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"x00741200": None}, "00741200"),
        ({"x00741204": {"vr": "LO"}}, "00741204"),
        ({"x00404005": None}, "00404005"),
        ({"x00404041": None}, "00404041"),
        ({"x00081195": text("UI", "1.2.3")}, "TransactionUID"),
        ({"x00741216": performed()["00741216"]}, "00741216"),
        ({"x00080016": text("UI", "1.2.840.10008.5.1.4.1.1.2")}, "SOPClassUID"),
    ],
)
def test_an_item_lacking_what_every_item_has_is_not_created(items: Workitems, more: dict[str, Any], where: str) -> None:
    with pytest.raises(HubError) as caught:
        created(items, **more)
    assert (caught.value.category, caught.value.where) == (Category.INCORRECT, where)
    assert refused(lambda: items.read(by(KN), UID)) is Reason.ABSENT


def test_an_item_begins_scheduled_and_with_a_uid_of_its_own(items: Workitems) -> None:
    assert refused(lambda: created(items, x00741000=text("CS", "IN PROGRESS"))) is Reason.NOT_SCHEDULED
    for uid in ("1.2.x", "1.2.840.10008.5.1.4.34.5", "1." * 40):
        with pytest.raises(HubError):
            items.create(by(KN), uid, workitem())
    assert items.create(by(KN), UID, workitem(x00741202={"vr": "LO"})) == (UID, Remark.CREATED_MODIFIED)
    assert items.read(by(KN), UID)["00741202"]["Value"] == ["UPS"]


@pytest.mark.parametrize("tag", sorted(mapping.FIXED))
def test_an_update_does_not_change_whose_it_is_or_its_state(items: Workitems, tag: str) -> None:
    created(items)
    with pytest.raises(HubError) as caught:
        items.update(by(KN), UID, {tag: text("LO", "x")})
    assert (caught.value.category, caught.value.where) == (Category.INCORRECT, tag)


def test_an_update_does_not_take_away_what_every_item_has(items: Workitems) -> None:
    created(items)
    with pytest.raises(HubError):
        items.update(by(KN), UID, {"00741204": {"vr": "LO"}})


def test_a_state_or_key_that_is_none_is_incorrect(items: Workitems) -> None:
    created(items)
    for state, key in (("DONE", KEY), ("IN PROGRESS", "key")):
        with pytest.raises(HubError) as caught:
            items.change_state(by(YL), UID, state, key)
        assert caught.value.category is Category.INCORRECT


def test_a_deleted_item_is_gone(services: Services, items: Workitems) -> None:
    created(items)
    services.database.write(lambda tx: tx.records.delete("Task", task_id("KN", UID), owner="KN"))
    with pytest.raises(WorkitemError) as caught:
        items.read(by(KN), UID)
    assert (caught.value.reason, caught.value.status) == (Reason.ABSENT, 410)
    assert refused(lambda: created(items)) is Reason.DUPLICATE


def test_of_two_that_race_for_an_item_one_gets_it(tmp_path: Path, database_url: str) -> None:
    from tests.support.databases import migrate

    migrate(database_url)
    with support.running(tmp_path, url=database_url) as services:
        items = Workitems(services)
        created(items)
        start, outcomes = threading.Barrier(6), []

        def claim(number: int) -> None:
            start.wait()
            try:
                outcomes.append(items.change_state(by(YL), UID, "IN PROGRESS", f"2.25.{number}"))
            except WorkitemError as error:
                outcomes.append(error.reason)

        threads = [threading.Thread(target=claim, args=(number,)) for number in range(1, 7)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert sorted(one.name for one in outcomes) == ["NONE", *["WRONG_LOCK"] * 5]


def test_an_overtaken_change_is_judged_again_on_what_the_other_left(
    items: Workitems, monkeypatch: pytest.MonkeyPatch
) -> None:
    created(items)
    first_look = Workitems._keep
    overtaken = []

    def late(self: Workitems, *arguments: Any, **named: Any) -> None:
        if not overtaken:
            overtaken.append(True)
            raise HubError(Category.CONFLICT, "The version asked for is not the current one.", status=412)
        first_look(self, *arguments, **named)

    monkeypatch.setattr(Workitems, "_keep", late)
    assert items.change_state(by(YL), UID, "IN PROGRESS", KEY) is Remark.NONE
    assert overtaken


class AnySequence(RuleBasedStateMachine):
    """Whatever is asked in whatever order, an item only ever goes forward, and only by its key."""

    def __init__(self, items: Workitems) -> None:
        super().__init__()
        self.items = items
        self.uid, _ = items.create(by(KN), "", workitem())
        self.state, self.key, self.ready = "SCHEDULED", "", set[str]()

    @rule(
        wanted=st.sampled_from(STATES), key=st.sampled_from(["", "2.25.1", "2.25.2"]), actor=st.sampled_from([KN, YL])
    )
    def change(self, wanted: str, key: str, actor: Actor) -> None:
        right = bool(key) and (not self.key or key == self.key)
        verdict = judge_state(self.state, wanted, given=bool(key), right=right)
        if verdict is Remark.NONE and wanted in {"COMPLETED", "CANCELED"} and wanted not in self.ready:
            verdict = Reason.NOT_READY
        if isinstance(verdict, Reason):
            assert refused(lambda: self.items.change_state(by(actor), self.uid, wanted, key)) is verdict
        else:
            assert self.items.change_state(by(actor), self.uid, wanted, key) is verdict
        if verdict is Remark.NONE:
            self.state, self.key = wanted, key

    @rule(what=st.sampled_from(["COMPLETED", "CANCELED"]), key=st.sampled_from(["", "2.25.1", "2.25.2"]))
    def update(self, what: str, key: str) -> None:
        allowed = not key if self.state == "SCHEDULED" else self.state == "IN PROGRESS" and key == self.key
        try:
            self.items.update(by(YL), self.uid, performed() if what == "COMPLETED" else stopped(), key)
        except WorkitemError:
            assert not allowed
        else:
            assert allowed
            self.ready.add(what)

    @rule()
    def cancel(self) -> None:
        try:
            self.items.request_cancellation(by(KN), self.uid, {})
        except WorkitemError:
            assert self.state in {"IN PROGRESS", "COMPLETED"}
        else:
            assert self.state in {"SCHEDULED", "CANCELED"}
            self.key = "" if self.state == "SCHEDULED" else self.key
            self.state = "CANCELED"

    @rule()
    def stranger(self) -> None:
        for work in (
            lambda: self.items.read(by(QH), self.uid),
            lambda: self.items.change_state(by(QH), self.uid, "IN PROGRESS", "2.25.3"),
            lambda: self.items.update(by(QH), self.uid, performed(), self.key),
        ):
            assert refused(work) is Reason.ABSENT

    @invariant()
    def the_item_is_where_it_was_left(self) -> None:
        found = self.items.read(by(KN), self.uid)
        assert found["00741000"]["Value"] == [self.state]
        assert mapping.TRANSACTION_UID not in found
        if self.state in {"COMPLETED", "CANCELED"}:
            assert mapping.missing_for(self.state, found) == ""


def test_no_sequence_of_requests_breaks_the_table(items: Workitems) -> None:
    run_state_machine_as_test(
        lambda: AnySequence(items),
        settings=settings(max_examples=25, stateful_step_count=15, deadline=None),
    )
