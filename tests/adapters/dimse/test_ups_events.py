"""AEs that subscribe to workitems are told what happens to them, by the DICOM library's own server (PS3.4 CC.2.3, CC.2.4)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pynetdicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt

from adapters.dimse import status
from adapters.dimse.ups import PULL, PUSH, WATCH
from adapters.dimse.ups_events import EVENT
from adapters.worker.delivery import DeliveryLoop
from fhir_mappings.json import dumps
from hub.access import Scope
from hub.boot import Services
from hub.ports import Delivery, NewVersion
from hub.workitem import task_id
from hub.workitem_events import FILTERED, GLOBAL, KIND
from tests.adapters.dimse.test_ups import act, change, create
from tests.support import services as support
from tests.support.dimse import Door, FakeServices, running
from tests.support.dimse_hub import audit_lines
from tests.support.hub import SetClock
from tests.support.services import consortium
from tests.support.workitems import KEY, UID, Json, code, performed, state, text, workitem

SUBSCRIBE, UNSUBSCRIBE, SUSPEND = 3, 4, 5
LOCK = {"00741230": text("LO", "FALSE")}


@dataclass
class Subscriber:
    """An AE that is told: (event type, item, information) of each report, as it came."""

    port: int = 0
    answer: int = 0
    told: list[tuple[int, str, Dataset]] = field(default_factory=list)

    def brief(self) -> list[tuple[int, str, str]]:
        """Return type, item and state of each report; the state is empty where the report tells none."""
        return [(kind, uid, str(one.get("ProcedureStepState", ""))) for kind, uid, one in self.told]


@contextlib.contextmanager
def listening(title: str) -> Iterator[Subscriber]:
    seen = Subscriber()

    def reported(event: Any) -> tuple[int, None]:
        assert event.request.AffectedSOPClassUID == PUSH
        seen.told.append((event.event_type, str(event.request.AffectedSOPInstanceUID), event.event_information))
        return seen.answer, None

    entity = pynetdicom.AE(title)
    entity.require_called_aet = True
    entity.add_supported_context(EVENT, scu_role=True, scp_role=True)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reported)])
    assert server is not None
    seen.port = server.socket.getsockname()[1]
    try:
        yield seen
    finally:
        server.shutdown()


@dataclass
class Hub:
    services: Services
    door: Door
    kn: Subscriber
    yl: Subscriber
    qh: Subscriber

    def tell(self) -> None:
        """Let the worker deliver until nothing is due."""
        loop = DeliveryLoop(self.services)
        while loop.turn():
            pass

    def events(self) -> list[Delivery]:
        found = self.services.database.read(lambda tx: tx.outbox.deliveries({"kind": KIND}, limit=100))
        return list(reversed(found))


@pytest.fixture
def hub(tmp_path: Path, set_clock: SetClock) -> Iterator[Hub]:
    """A hub that reaches KN_PACS, YL_CENTER and QH_PACS."""
    with (
        listening("KN_PACS") as kn,
        listening("YL_CENTER") as yl,
        listening("QH_PACS") as qh,
        support.running(tmp_path, clock=set_clock) as services,
    ):
        resources = consortium()
        for one in resources:
            peer = {"kn-dicom": kn, "yl-dicom": yl, "qh-dicom": qh}.get(one["id"])
            if peer is not None:
                one["address"] = one["address"].partition("@")[0] + f"@127.0.0.1:{peer.port}"
        services.directory.load(resources)
        with running(cast("FakeServices", services)) as door:
            yield Hub(services, door, kn, yl, qh)


@contextlib.contextmanager
def client(hub: Hub, title: str) -> Iterator[Any]:
    entity = pynetdicom.AE(title)
    for uid in (PUSH, PULL, WATCH):
        entity.add_requested_context(uid)
    association = entity.associate("127.0.0.1", hub.door.port, ae_title="YIXIE")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def ask(association: Any, kind: int, receiver: str, uid: str = UID, **keys: Json) -> int:
    """Send one action on subscriptions; *keys* by tag, as ``x00741000``."""
    told = {"00741234": text("AE", receiver), **LOCK, **{tag.removeprefix("x"): one for tag, one in keys.items()}}
    return act(association, kind, told, context=WATCH, uid=uid)


def claim(association: Any, uid: str = UID) -> int:
    return act(association, 1, state("IN PROGRESS"), uid=uid)


def test_who_subscribes_to_an_item_is_told_its_state_and_each_change_in_order(hub: Hub) -> None:
    with client(hub, "KN_PACS") as orderer, client(hub, "YL_CENTER") as performer:
        assert create(orderer, workitem()) == 0
        assert ask(orderer, SUBSCRIBE, "KN_PACS") == 0
        assert claim(performer) == 0
        progress = {"00741002": text("SQ", {"00741004": text("DS", 50), "00741006": text("ST", "一半")})}
        assert change(performer, progress | {"00081195": text("UI", KEY)}) == 0
        assert change(performer, performed() | {"00081195": text("UI", KEY)}) == 0
        assert act(performer, 1, state("COMPLETED")) == 0
        hub.tell()

    assert hub.kn.brief() == [(1, UID, "SCHEDULED"), (1, UID, "IN PROGRESS"), (3, UID, ""), (1, UID, "COMPLETED")]
    assert hub.kn.told[0][2].InputReadinessState == "READY"
    [item] = hub.kn.told[2][2].ProcedureStepProgressInformationSequence
    assert (item.ProcedureStepProgress, item.ProcedureStepProgressDescription) == (50, "一半")
    assert (hub.yl.told, hub.qh.told) == ([], [])
    assert {one.state for one in hub.events()} == {"sent"}
    assert len(audit_lines(hub.services, "UPS Subscribe")) == 1
    assert len(audit_lines(hub.services, KIND)) == 4


def test_a_global_subscriber_is_told_of_what_is_made_later_and_of_nothing_it_may_not_see(hub: Hub) -> None:
    with client(hub, "KN_PACS") as orderer, client(hub, "YL_CENTER") as center, client(hub, "QH_PACS") as stranger:
        assert ask(center, SUBSCRIBE, "YL_CENTER", GLOBAL) == 0
        assert ask(stranger, SUBSCRIBE, "QH_PACS", GLOBAL) == 0
        assert create(orderer, workitem()) == 0
        assert create(orderer, workitem(x00404025=None), f"{UID}.2") == 0
        hub.tell()
        assert hub.yl.brief() == [(1, UID, "SCHEDULED"), (5, UID, "")]
        [station] = hub.yl.told[1][2].ScheduledStationNameCodeSequence
        assert station.CodeValue == "YL_CENTER"
        # What is given to another station is told to it, and to whom it was taken from no more.
        hub.yl.told.clear()
        assert change(orderer, {"00404025": code("QH_PACS")}) == 0
        hub.tell()
        assert hub.yl.told == []
        assert hub.qh.brief() == [(5, UID, "")]


def test_an_event_that_waited_until_its_receiver_may_not_see_the_item_does_not_leave(hub: Hub) -> None:
    with client(hub, "KN_PACS") as orderer, client(hub, "YL_CENTER") as center:
        assert ask(center, SUBSCRIBE, "YL_CENTER", GLOBAL) == 0
        assert create(orderer, workitem()) == 0
        assert change(orderer, {"00404025": code("QH_PACS")}) == 0
        hub.tell()
    assert hub.yl.told == []
    assert {one.state for one in hub.events()} == {"skipped"}
    assert len(audit_lines(hub.services, "withheld")) == 2


def test_a_suspended_subscription_holds_for_what_was_there(hub: Hub, set_clock: SetClock) -> None:
    with client(hub, "KN_PACS") as orderer, client(hub, "YL_CENTER") as performer:
        assert ask(orderer, SUSPEND, "KN_PACS", GLOBAL) == 0xC314
        assert ask(orderer, SUBSCRIBE, "KN_PACS", GLOBAL) == 0
        assert create(orderer, workitem()) == 0
        assert ask(orderer, SUSPEND, "KN_PACS") == 0xC314
        set_clock.forward(60)
        assert ask(orderer, SUSPEND, "KN_PACS", GLOBAL) == 0
        set_clock.forward(60)
        assert create(orderer, workitem(), f"{UID}.2") == 0
        hub.tell()
        hub.kn.told.clear()
        assert claim(performer) == 0
        assert claim(performer, f"{UID}.2") == 0
        hub.tell()
    assert hub.kn.brief() == [(1, UID, "IN PROGRESS")]


def test_who_unsubscribes_is_told_no_more(hub: Hub) -> None:
    with client(hub, "KN_PACS") as orderer, client(hub, "YL_CENTER") as performer:
        assert ask(orderer, SUBSCRIBE, "KN_PACS", GLOBAL) == 0
        for uid in (UID, f"{UID}.2"):
            assert create(orderer, workitem(), uid) == 0
        assert ask(orderer, UNSUBSCRIBE, "KN_PACS") == 0
        hub.tell()
        hub.kn.told.clear()
        assert claim(performer) == 0
        assert claim(performer, f"{UID}.2") == 0
        hub.tell()
        assert hub.kn.brief() == [(1, f"{UID}.2", "IN PROGRESS")]
        # A new global subscription is for all, and its end for all.
        assert ask(orderer, SUBSCRIBE, "KN_PACS", GLOBAL) == 0
        assert change(performer, performed() | {"00081195": text("UI", KEY)}) == 0
        assert act(performer, 1, state("COMPLETED")) == 0
        assert ask(orderer, UNSUBSCRIBE, "KN_PACS", GLOBAL) == 0
        assert create(orderer, workitem(), f"{UID}.3") == 0
        hub.tell()
    assert hub.kn.brief()[1:] == [(1, UID, "COMPLETED")]


def test_a_filter_chooses_what_its_subscriber_is_told_of(hub: Hub) -> None:
    with client(hub, "KN_PACS") as orderer:
        assert ask(orderer, SUBSCRIBE, "KN_PACS", FILTERED, x00741200=text("CS", "HIGH")) == 0
        assert create(orderer, workitem()) == 0
        assert create(orderer, workitem(x00741200=text("CS", "LOW")), f"{UID}.2") == 0
        hub.tell()
        assert {uid for _, uid, _ in hub.kn.brief()} == {UID}
        assert ask(orderer, SUBSCRIBE, "KN_PACS", FILTERED, x00404005=text("DT", "tomorrow")) == 0x0106


@pytest.mark.parametrize(
    ("kind", "receiver", "uid", "expected"),
    [
        (SUBSCRIBE, "NOBODY", UID, 0xC308),
        (SUBSCRIBE, "YL_CENTER", UID, 0xC308),
        (SUBSCRIBE, "", UID, 0xC308),
        (UNSUBSCRIBE, "YL_CENTER", GLOBAL, 0xC308),
        (SUBSCRIBE, "KN_PACS", "1.2.3", 0xC307),
        (UNSUBSCRIBE, "KN_PACS", "1.2.3", 0xC307),
        (SUSPEND, "KN_PACS", UID, 0xC314),
    ],
)
def test_what_cannot_be_subscribed_to_is_refused(hub: Hub, kind: int, receiver: str, uid: str, expected: int) -> None:
    with client(hub, "KN_PACS") as orderer:
        assert create(orderer, workitem()) == 0
        assert ask(orderer, kind, receiver, uid) == expected
    assert hub.events() == []


def test_another_institutions_item_is_not_there_to_be_subscribed_to(hub: Hub) -> None:
    with client(hub, "KN_PACS") as orderer, client(hub, "QH_PACS") as stranger:
        assert create(orderer, workitem()) == 0
        assert ask(stranger, SUBSCRIBE, "QH_PACS") == 0xC307


def test_a_performer_that_subscribes_is_asked_to_cancel(hub: Hub) -> None:
    with client(hub, "KN_PACS") as orderer, client(hub, "YL_CENTER") as performer:
        assert create(orderer, workitem()) == 0
        assert claim(performer) == 0
        # Whoever asks is no performer that could be asked.
        assert ask(orderer, SUBSCRIBE, "KN_PACS") == 0
        told = {"00741238": text("LT", "患者已出院"), "0074100C": text("LO", "登记台")}
        assert act(orderer, 2, told, context=WATCH) == 0xC312
        assert ask(performer, SUBSCRIBE, "YL_CENTER") == 0
        hub.tell()
        hub.yl.told.clear()
        assert act(orderer, 2, told, context=WATCH) == 0
        hub.tell()
    [(kind, uid, asked)] = hub.yl.told
    assert (kind, uid) == (2, UID)
    assert (asked.RequestingAE, asked.ReasonForCancellation, asked.ContactDisplayName) == (
        "KN_PACS",
        "患者已出院",
        "登记台",
    )
    found = hub.services.database.read(lambda tx: tx.records.get("Task", task_id("KN", UID), Scope(institution="KN")))
    assert found is not None
    assert b'"in-progress"' in found.body


def test_a_subscriber_that_is_away_is_told_when_it_is_back(hub: Hub, set_clock: SetClock) -> None:
    with client(hub, "KN_PACS") as orderer, client(hub, "YL_CENTER") as performer:
        assert create(orderer, workitem()) == 0
        assert ask(orderer, SUBSCRIBE, "KN_PACS") == 0
        assert claim(performer) == 0
    hub.kn.answer = status.RESOURCE_LIMITATION
    hub.tell()
    assert hub.kn.brief() == [(1, UID, "SCHEDULED")]
    hub.kn.answer = 0
    set_clock.forward(hub.services.settings.retry_longest_s + 1)
    hub.tell()
    assert hub.kn.brief() == [(1, UID, "SCHEDULED"), (1, UID, "SCHEDULED"), (1, UID, "IN PROGRESS")]


def test_a_row_that_somebody_wrote_by_hand_subscribes_to_nothing_and_harms_nothing(hub: Hub) -> None:
    url = "https://yixiehub.example/fhir/StructureDefinition/workitem-subscription"
    said = [b"{", b"[]", dumps({"receiver": "QH_PACS", "state": "on", "since": "", "keys": {"00404005": 1}})]
    forged = [
        {
            "resourceType": "Basic",
            "id": f"forged-{number}",
            "identifier": [
                {"system": "https://yixiehub.example/fhir/NamingSystem/workitem-subscription", "value": GLOBAL}
            ],
            "code": {"text": "x"},
            "extension": [{"url": url, "valueString": one.decode()}],
        }
        for number, one in enumerate(said)
    ]
    versions = [NewVersion(resource=one, owner="QH") for one in forged]
    hub.services.database.write(lambda tx: tx.records.put_many(versions))
    with client(hub, "KN_PACS") as orderer:
        assert create(orderer, workitem()) == 0
    assert hub.events() == []
