"""UPS-RS subscriptions and the WebSocket that tells of workitems, through the whole HTTP door (PS3.18 8.10, 11.10 to 11.13)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.dicomweb import event_channel
from adapters.http.websocket import GuardedWebSocket
from hub.actor import Actor
from hub.boot import Services
from hub.errors import Category, HubError
from hub.ports.channels import ChannelEvent, NewChannelEvent
from hub.workitem_channel import WorkitemChannel
from hub.workitem_events import FILTERED, GLOBAL
from tests.adapters.http.test_server import serving
from tests.support.databases import opened
from tests.support.dimse_hub import audit_lines
from tests.support.services import running
from tests.support.websocket import WebSocket
from tests.support.workitems import KEY, UID, Json, code, performed, state, text, workitem

PATH = "/dicom-web/subscribers/KN_PACS"


@dataclass
class Hub:
    services: Services
    address: tuple[str, int]
    stop: threading.Event
    sockets: list[WebSocket] = field(default_factory=list)

    def dial(self, path: str, token: str, **more: Any) -> WebSocket:
        made = WebSocket(self.address, path, token, **more)
        self.sockets.append(made)
        return made

    def token(self, member: str = "KN", role: str = "system") -> str:
        actor = Actor(institution=member, roles=frozenset({role}))
        return self.services.directory.issue_token(actor, ttl_s=600)

    def ask(
        self, method: str, path: str, content: Json | None = None, *, member: str = "KN", **more: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token(member)}", "Content-Type": "application/dicom+json"}
        body = b"" if content is None else json.dumps([content]).encode()
        url = f"http://{self.address[0]}:{self.address[1]}/dicom-web/workitems{path}"
        return httpx.request(method, url, content=body, headers=headers, timeout=30, **more)

    def create(self, uid: str = UID, **more: Any) -> None:
        assert self.ask("POST", f"?{uid}", workitem(**more)).status_code == 201

    def subscribe(self, uid: str = UID, title: str = "KN_PACS", *, member: str = "KN", **query: str) -> httpx.Response:
        return self.ask("POST", f"/{uid}/subscribers/{title}", member=member, params=query)

    def claim(self, uid: str = UID) -> None:
        assert self.ask("PUT", f"/{uid}/state", state("IN PROGRESS"), member="YL").status_code == 200

    def opened(self, path: str = PATH, *, member: str = "KN") -> WebSocket:
        made = self.dial(path, self.token(member))
        assert made.status == 101
        return made

    def waiting(self, title: str = "KN_PACS") -> list[ChannelEvent]:
        return list(self.services.database.read(lambda tx: tx.channels.waiting("KN", title, limit=2000)))


def brief(one: Json) -> tuple[int, str, str]:
    """Return type, item and state of one event."""
    return one["00001002"]["Value"][0], one["00001000"]["Value"][0], one.get("00741000", {"Value": [""]})["Value"][0]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(event_channel, "POLL_S", 0.02)
    monkeypatch.setattr("hub.directory.TOKEN_STALE_S", 0.0)
    stop = threading.Event()
    with running(tmp_path, public_url="https://hub.example") as services, serving(services, stop) as address:
        made = Hub(services, address, stop)
        yield made
        for one in made.sockets:
            one.close()


def test_who_subscribes_to_an_item_is_told_its_state_and_each_change_in_order(hub: Hub) -> None:
    hub.create()
    made = hub.subscribe(deletionlock="false")
    assert made.status_code == 201
    assert made.headers["content-location"] == f"wss://hub.example{PATH}"
    channel = hub.opened()
    first = channel.told()
    assert first["00000002"] == text("UI", "1.2.840.10008.5.1.4.34.6.1")
    assert first["00000110"] == text("US", 1)
    # N-EVENT-REPORT-RQ, with a data set behind it (PS3.7 section 10.3.1).
    assert (first["00000100"], first["00000800"]) == (text("US", 0x0100), text("US", 0))
    assert first["00404041"] == text("CS", "READY")
    assert brief(first) == (1, UID, "SCHEDULED")
    hub.claim()
    assert brief(channel.told()) == (1, UID, "IN PROGRESS")
    assert hub.ask("POST", f"/{UID}?{KEY}", performed(), member="YL").status_code == 200
    assert hub.ask("PUT", f"/{UID}/state", state("COMPLETED"), member="YL").status_code == 200
    last = channel.told()
    assert (brief(last), last["00000110"]["Value"]) == ((1, UID, "COMPLETED"), [3])
    assert len(audit_lines(hub.services, "UPS-RS Subscribe")) == 1
    assert len(audit_lines(hub.services, "UPS-RS Open Event Channel")) == 1
    assert len(audit_lines(hub.services, "workitem-event")) == 3
    # What leaves by a channel is called by DIMSE nowhere.
    assert hub.services.database.read(lambda tx: tx.outbox.deliveries({"kind": "workitem-event"}, limit=9)) == []


def test_what_happens_while_no_channel_is_open_comes_first_when_one_is(hub: Hub) -> None:
    assert hub.subscribe(GLOBAL).status_code == 201
    for uid in (UID, f"{UID}.2"):
        hub.create(uid, x00404025=None)
    channel = hub.opened()
    assert [brief(channel.told())[1] for _ in range(2)] == [UID, f"{UID}.2"]
    hub.create(f"{UID}.3", x00404025=None)
    assert brief(channel.told())[1] == f"{UID}.3"
    channel.close()
    again = hub.opened()
    hub.create(f"{UID}.4", x00404025=None)
    # An event that the first channel handed over may come again where that broke, and none is left out.
    seen = [brief(again.told())[1]]
    while seen[-1] != f"{UID}.4":
        seen.append(brief(again.told())[1])
    assert set(seen) <= {f"{UID}.3", f"{UID}.4"}


def test_a_filter_chooses_and_suspending_and_unsubscribing_end_what_they_say(hub: Hub) -> None:
    assert hub.subscribe(FILTERED, filter="00741200=HIGH,PatientID=10086").status_code == 201
    hub.create(x00404025=None)
    hub.create(f"{UID}.2", x00404025=None, x00741200=text("CS", "LOW"))
    assert [one.item for one in hub.waiting()] == [UID]
    one = f"/{FILTERED}/subscribers/KN_PACS"
    assert hub.ask("POST", f"{one}/suspend").status_code == 200
    assert hub.ask("DELETE", one).status_code == 200
    # Table 11.12.3-1: the target subscription was not found.
    assert hub.ask("POST", f"{one}/suspend").status_code == 404
    hub.create(f"{UID}.3", x00404025=None)
    assert [one.item for one in hub.waiting()] == [UID]


def test_who_locks_all_items_is_told_the_state_of_each_that_it_may_see_and_that_is_not_over(hub: Hub) -> None:
    hub.create()
    hub.claim()
    for number in (2, 3):
        hub.create(f"{UID}.{number}", x00404025=None)
    assert hub.ask("POST", f"/{UID}.3/cancelrequest").status_code == 202
    assert hub.subscribe(GLOBAL, "YL_CENTER", member="YL", deletionlock="true").status_code == 201
    assert hub.subscribe(GLOBAL, deletionlock="true").status_code == 201
    channel = hub.opened()
    assert [brief(channel.told()) for _ in range(2)] == [(1, UID, "IN PROGRESS"), (1, f"{UID}.2", "SCHEDULED")]
    # YL is the performer of the first alone.
    center = hub.opened("/dicom-web/subscribers/YL_CENTER", member="YL")
    assert brief(center.told()) == (1, UID, "IN PROGRESS")
    hub.create(f"{UID}.4")
    assert brief(center.told())[1] == brief(channel.told())[1] == f"{UID}.4"


def test_who_asks_for_no_lock_is_told_of_no_item_before_something_happens_to_it(hub: Hub) -> None:
    hub.create()
    assert hub.subscribe(GLOBAL, deletionlock="false").status_code == 201
    assert hub.waiting() == []


def test_a_lock_with_a_filter_tells_of_what_matches_and_is_not_unsubscribed_from(hub: Hub) -> None:
    for number in (1, 2):
        hub.create(f"{UID}.{number}", x00404025=None)
    hub.create(f"{UID}.3", x00404025=None, x00741200=text("CS", "LOW"))
    assert hub.ask("DELETE", f"/{UID}.2/subscribers/KN_PACS").status_code == 200
    assert hub.subscribe(FILTERED, filter="00741200=HIGH", deletionlock="true").status_code == 201
    assert [one.item for one in hub.waiting()] == [f"{UID}.1"]


def test_a_lock_on_very_many_items_tells_of_those_that_changed_last(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.workitem_events.TOLD_AT_ONCE", 2)
    for number, priority in ((1, "HIGH"), (2, "LOW"), (3, "LOW")):
        hub.create(f"{UID}.{number}", x00404025=None, x00741200=text("CS", priority))
    assert hub.subscribe(GLOBAL, deletionlock="true").status_code == 201
    assert [one.item for one in hub.waiting()] == [f"{UID}.2", f"{UID}.3"]
    monkeypatch.setattr("hub.workitem_events.LOOKED_AT", 2)
    assert hub.subscribe(FILTERED, filter="00741200=HIGH", deletionlock="true").status_code == 201
    assert len(hub.waiting()) == 2


def test_how_the_answer_is_wanted_is_no_condition_of_a_filter(hub: Hub) -> None:
    hub.create()
    wanted = {"accept": "application/dicom+json", "charset": "utf-8"}
    assert hub.subscribe(UID, **wanted).status_code == 201
    assert hub.subscribe(FILTERED, filter="00741200=HIGH", **wanted).status_code == 201


@pytest.mark.parametrize(
    ("uid", "title", "query", "status"),
    [
        (UID, "NOBODY", {}, 400),
        (UID, "YL_CENTER", {}, 400),
        ("1.2.3", "KN_PACS", {}, 404),
        ("x", "KN_PACS", {}, 400),
        (UID, "KN_PACS", {"filter": "00741200=HIGH"}, 400),
        (UID, "KN_PACS", {"deletionlock": "perhaps"}, 400),
        (FILTERED, "KN_PACS", {}, 400),
        (FILTERED, "KN_PACS", {"filter": "NoSuchKeyword=1"}, 400),
        (FILTERED, "KN_PACS", {"filter": "TransactionUID=1.2"}, 400),
        (FILTERED, "KN_PACS", {"ScheduledProcedureStepStartDateTime": "tomorrow"}, 400),
    ],
)
def test_what_cannot_be_subscribed_to_is_refused(
    hub: Hub, uid: str, title: str, query: dict[str, str], status: int
) -> None:
    hub.create()
    assert hub.subscribe(uid, title, **query).status_code == status
    assert hub.waiting() == []


def test_another_institutions_item_is_not_there_to_be_subscribed_to(hub: Hub) -> None:
    hub.create()
    assert hub.subscribe(UID, "QH_PACS", member="QH").status_code == 404


def test_an_event_that_waited_until_its_receiver_may_not_see_the_item_does_not_leave(hub: Hub) -> None:
    assert hub.subscribe(GLOBAL, "YL_CENTER", member="YL").status_code == 201
    hub.create()
    assert hub.ask("POST", f"/{UID}", {"00404025": code("QH_PACS")}).status_code == 200
    hub.create(f"{UID}.2")
    channel = hub.opened("/dicom-web/subscribers/YL_CENTER", member="YL")
    assert brief(channel.told())[1] == f"{UID}.2"
    assert len(audit_lines(hub.services, "withheld")) == 2


def test_a_later_channel_of_an_ae_takes_the_place_of_the_earlier(hub: Hub) -> None:
    first = hub.opened()
    second = hub.opened()
    assert first.closed() == event_channel.TAKEN_OVER
    hub.create()
    assert hub.subscribe().status_code == 201
    assert brief(second.told()) == (1, UID, "SCHEDULED")


def test_strangers_open_no_channel(hub: Hub) -> None:
    token = hub.token()
    cases: list[tuple[str, str, dict[str, str], int]] = [
        (PATH, "", {}, 401),
        (PATH, "wrong", {}, 401),
        (f"{PATH}?access_token={token}", "", {}, 401),
        (PATH, hub.token("QH"), {}, 404),
        ("/dicom-web/subscribers/YL_CENTER", token, {}, 404),
        (PATH, hub.token(role="auditor"), {}, 403),
        (PATH, token, {"origin": "https://evil.example"}, 403),
        (PATH, token, {"origin": "https://hub.example"}, 101),
        # What a program says that names the address that it was given (table 8.10.4-1 wants an Origin of everybody).
        (PATH, token, {"origin": f"http://{hub.address[0]}:{hub.address[1]}"}, 101),
        (PATH, token, {"origin": f"http://{hub.address[0]}:1"}, 403),
        (PATH, token, {"origin": "https://["}, 403),
        (PATH, token, {"origin": "null"}, 403),
        ("/fhir/Patient", token, {}, 404),
    ]
    for path, given, headers, status in cases:
        assert hub.dial(path, given, **headers).status == status, (path, headers)


def test_a_member_opens_no_more_channels_than_its_share(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_channel, "CHANNELS_OF_MEMBER", 1)
    hub.opened()
    assert hub.dial(PATH, hub.token()).status == 503
    hub.opened("/dicom-web/subscribers/YL_CENTER", member="YL")


def test_a_token_that_is_revoked_closes_its_channel(hub: Hub) -> None:
    token = hub.token()
    channel = hub.dial(PATH, token)
    hub.services.directory.revoke(token)
    assert channel.closed() == 1008


def frame(head: int, data: bytes, *, masked: bool = True) -> bytes:
    """Return one frame whose first byte is *head*, of at most 65,535 bytes (RFC 6455 section 5.2)."""
    mask = 0x80 if masked else 0
    size = bytes([mask | len(data)]) if len(data) < 126 else bytes([mask | 126]) + len(data).to_bytes(2, "big")
    # A mask of zeros leaves the data as they are.
    return bytes([head]) + size + (bytes(4) if masked else b"") + data


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (frame(0x81, b"hello"), 1003),
        (frame(0x82, b"x" * 60000), 1009),
        (frame(0x02, b"x" * 3000) + frame(0x00, b"x" * 3000), 1009),
        (frame(0x81, b"hello", masked=False), 1002),
        (frame(0x09, b"ping in parts"), 1002),
        (frame(0x89, b"x" * 126), 1002),
        (frame(0xC1, b"packed"), 1002),
        (frame(0x83, b"no such opcode"), 1002),
        (frame(0x80, b"goes on with nothing"), 1002),
        (frame(0x81, b"\xff\xfe"), 1007),
    ],
)
def test_hostile_frames_close_the_channel_and_harm_no_other(hub: Hub, sent: bytes, expected: int) -> None:
    other = hub.opened("/dicom-web/subscribers/YL_CENTER", member="YL")
    channel = hub.opened()
    channel.raw(sent)
    assert channel.closed() == expected
    assert hub.subscribe(GLOBAL, "YL_CENTER", member="YL").status_code == 201
    hub.create()
    assert brief(other.told())[1] == UID


def test_a_peer_that_does_not_read_is_dropped_and_its_events_stay(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GuardedWebSocket, "stall_s", 0.2)
    monkeypatch.setattr(GuardedWebSocket, "linger_s", 0.1)
    large = json.dumps({"type": 3, "information": {"00741006": text("ST", "x" * 300_000)}}).encode()
    now = hub.services.clock()

    def fill(tx: Any) -> None:
        for number in range(60):
            event = NewChannelEvent(
                institution="KN",
                ae_title="KN_PACS",
                owner="KN",
                task_id="t",
                patient_id="",
                item=f"1.{number}",
                payload=large,
                correlation_id="",
                created_at=now,
            )
            tx.channels.tell(event, keep=1000)

    hub.services.database.write(fill)
    channel = hub.dial(PATH, hub.token(), receive_buffer=4096)
    assert channel.status == 101
    # Nothing is read from it until the hub has let go; the place it had is free again then.
    monkeypatch.setattr(event_channel, "CHANNELS_OF_MEMBER", 1)
    while (again := hub.dial(PATH, hub.token())).status != 101:
        again.close()
    assert brief(again.told())[0] == 3
    assert 0 < len(hub.waiting()) <= 60


def test_a_hub_that_stops_closes_its_channels(hub: Hub) -> None:
    channel = hub.opened()
    hub.stop.set()
    assert channel.closed() == 1001


def test_an_event_reaches_the_channel_that_another_node_holds(hub: Hub, tmp_path: Path) -> None:
    channel = hub.opened()
    here = hub.services
    with opened(here.settings.database(), clock=here.clock, node="other") as database:
        there = Services(
            settings=here.settings, database=database, objects=here.objects, node="other", clock=here.clock
        )
        with serving(there, threading.Event()) as address:
            other = Hub(there, address, threading.Event(), hub.sockets)
            other.create()
            assert other.subscribe().status_code == 201
            assert brief(channel.told()) == (1, UID, "SCHEDULED")
            # A channel that opens there takes the place of the one here.
            assert other.opened().status == 101
            assert channel.closed() == event_channel.TAKEN_OVER


def test_a_channel_closes_with_try_again_later_while_the_database_cannot_be_asked(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = hub.opened()

    def away(_: WorkitemChannel) -> bool:
        raise HubError(Category.UNAVAILABLE, "The database cannot be asked.")

    monkeypatch.setattr(WorkitemChannel, "is_mine", away)
    assert channel.closed() == 1013


def test_a_fault_of_ours_closes_the_channel_and_gives_its_place_back(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_channel, "CHANNELS_OF_MEMBER", 1)
    channel = hub.opened()

    def broken(_: WorkitemChannel) -> bool:
        raise LookupError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr(WorkitemChannel, "is_mine", broken)
        assert channel.closed() == 1011
    # The place is given back right after the close frame was sent.
    while (again := hub.dial(PATH, hub.token())).status != 101:
        pass
    assert again.status == 101
