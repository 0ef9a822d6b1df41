"""What a partner answers on the connection in place of an acknowledgement is received before the delivery counts as done."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.folder.sender import open_sender as open_folder_sender
from adapters.mllp.sender import open_sender
from adapters.worker.delivery import DeliveryLoop
from adapters.worker.folders import FolderLoop
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.actor import HUB
from hub.boot import Services
from hub.errors import Category, HubError
from hub.ports import Delivery, Entry, Sender
from hub.search import parse
from tests.flows.his import END, START, read_frame
from tests.flows.test_referral_and_lab import REFERRAL
from tests.hub.test_order_answers import ORDER
from tests.support.hub import SetClock
from tests.support.services import consortium, running

Answer = Callable[[bytes], bytes]


class Partner:
    """A partner's system on a raw socket that answers each message as the test says."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.received: list[bytes] = []
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            with contextlib.suppress(ConnectionError, OSError):
                while True:
                    raw = read_frame(connection)
                    self.received.append(raw)
                    connection.sendall(START + self.answer(raw) + END)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            one.close()


@pytest.fixture
def hub(tmp_path: Path, database_url: str) -> Iterator[Services]:
    """Services with the sample consortium, once on SQLite and once on PostgreSQL."""
    with running(tmp_path, url=database_url) as services:
        yield services


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Services]:
    """The same on SQLite alone, where the kind of database does not matter."""
    with running(tmp_path) as services:
        yield services


@contextlib.contextmanager
def at(hub: Services, endpoint: str, answer: Answer, **settings: str) -> Iterator[Partner]:
    """Have *endpoint* of the consortium lead to a partner that gives *answer*."""
    partner = Partner(answer)
    try:
        place(hub, endpoint, f"mllp://127.0.0.1:{partner.port}", **settings)
        yield partner
    finally:
        partner.close()


def place(hub: Services, endpoint: str, address: str, **settings: str) -> None:
    """Give *endpoint* an address and more settings."""
    resources = consortium()
    [one] = [one for one in resources if one["id"] == endpoint]
    one["address"] = address
    nested = next(extension for extension in one["extension"] if "endpoint-setting" in extension["url"])
    for name, value in settings.items():
        one["extension"].append(
            {
                "url": nested["url"],
                "extension": [
                    {"url": "name", "valueString": name.replace("_", "-")},
                    {"url": "value", "valueString": value},
                ],
            }
        )
    hub.directory.load(resources)


def deliver(hub: Services, sender: Callable[[Services], Sender] = open_sender) -> None:
    """Deliver what is due until nothing is."""
    opened: list[Sender] = []

    def open_(_: str, services: Services) -> Sender:
        opened.append(sender(services))
        return opened[-1]

    loop = DeliveryLoop(hub, senders=open_, rng=lambda: 1.0)
    try:
        while loop.turn():
            pass
    finally:
        for one in opened:
            one.close()


def fields(raw: bytes, name: bytes) -> list[bytes]:
    """Return the fields of the first segment *name*."""
    return next(one for one in raw.split(b"\r") if one.startswith(name)).split(b"|")


def said(raw: bytes, event: str, *segments: str, msh: str = "LIS|QMJY", code: str = "AA", number: str = "P1") -> bytes:
    """Return an answer to *raw* of the type *event*; ``{n}`` stands for its own number."""
    lines = [
        f"MSH|^~\\&|{msh}|YIXIE|HUB|20260612120000||{event}|{number}|P|2.4||||||UNICODE UTF-8",
        f"MSA|{code}|{fields(raw, b'MSH')[9].decode()}",
        *segments,
        "",
    ]
    return "\r".join(lines).encode()


def referral_answer(raw: bytes, reply: str, **more: str) -> bytes:
    number = fields(raw, b"RF1")[6].split(b"^")[0].decode()
    segments = (f"RF1|{reply}|||||{number}||||^无床|YL77", "PRD|RP|C101^X")
    return said(raw, "RRI^I12^RRI_I12", *segments, **{"msh": "HIS|YLYY", **more})


def order_answer(raw: bytes, *, control: str = "UA", event: str = "ORR^O02", **more: str) -> bytes:
    number = fields(raw, b"ORC")[2].split(b"^")[0].decode()
    return said(raw, event, f"ORC|{control}|{number}|Q{number}", **{"number": f"Q{number}", **more})


def acknowledged(raw: bytes) -> bytes:
    return said(raw, "ACK")


def states(hub: Services, code: str) -> set[str]:
    """Return the steps at which the Tasks of a workflow stand."""
    query = parse("Task", [("code", code)])
    found = hub.database.read(lambda tx: tx.records.search(query, UNRESTRICTED)).matches
    return {loads(one.body)["businessStatus"]["coding"][0]["code"] for one in found}


def journal(hub: Services, kind: str) -> list[Entry]:
    """Return the received messages of a type."""
    found = hub.database.read(lambda tx: tx.journal.search({}, limit=100))
    return [one for one in found if one.message_type.startswith(kind)]


def sent(hub: Services, destination: str) -> list[Delivery]:
    return list(hub.database.read(lambda tx: tx.outbox.deliveries({"destination": destination}, limit=50)))


def taken(hub: Services, message: bytes) -> bytes | None:
    return hub.messages.receive(message, "127.0.0.1:5000")


def test_a_referral_refused_on_the_connection_is_refused(hub: Services) -> None:
    with at(hub, "yl-mllp", lambda raw: referral_answer(raw, "R")):
        taken(hub, REFERRAL)
        deliver(hub)
    assert states(hub, "referral") == {"rejected"}
    [delivery] = sent(hub, "YL/mllp")
    assert delivery.state == "sent"
    [entry] = journal(hub, "RRI")
    assert (entry.state, entry.institution, entry.control_id, entry.ack) == ("done", "YL", "P1", None)


@pytest.mark.parametrize("event", ["ORR^O02", "ORL^O22^ORL_O22", "ORG^O20^ORG_O20"])
def test_orders_refused_on_the_connection_are_refused(hub: Services, event: str) -> None:
    with at(hub, "qm-mllp", lambda raw: order_answer(raw, event=event)):
        taken(hub, ORDER)
        deliver(hub)
    assert states(hub, "lab-outsourcing") == {"specimen-rejected"}
    assert {one.state for one in sent(hub, "QM/mllp")} == {"sent"}


def test_the_answer_is_never_acknowledged(embedded: Services) -> None:
    def answer(raw: bytes) -> bytes:
        # In enhanced mode it asks for both acknowledgements, and its sender has an address for them.
        return order_answer(raw, control="OK").replace(b"|2.4||||||UNICODE", b"|2.4|||AL|AL||UNICODE")

    with at(embedded, "qm-mllp", answer) as partner:
        taken(embedded, ORDER)
        deliver(embedded)
        assert {fields(one, b"MSH")[8][:3] for one in partner.received} == {b"ORM"}
    assert len(journal(embedded, "ORR")) == 2
    assert {fields(one.payload, b"MSH")[8][:3] for one in sent(embedded, "QM/mllp")} == {b"ORM"}


def test_a_plain_acknowledgement_is_no_message(embedded: Services) -> None:
    # ORR with nothing but MSH and MSA says no more than ACK does.
    with at(embedded, "qm-mllp", lambda raw: said(raw, "ORR^O02", "NTE|1||已收到")):
        taken(embedded, ORDER)
        deliver(embedded)
    assert journal(embedded, "ORR") == []
    assert {one.state for one in sent(embedded, "QM/mllp")} == {"sent"}


def test_an_echo_of_what_was_sent_is_no_message_of_the_partner(embedded: Services) -> None:
    def echo(raw: bytes) -> bytes:
        head, _, rest = raw.partition(b"\r")
        return head + b"\rMSA|AA|" + fields(raw, b"MSH")[9] + b"\r" + rest

    with at(embedded, "qm-mllp", echo):
        taken(embedded, ORDER)
        deliver(embedded)
    assert [one.institution for one in journal(embedded, "O")] == ["KN"]
    assert {one.state for one in sent(embedded, "QM/mllp")} == {"sent"}


def test_an_answer_in_another_members_name_moves_nothing(embedded: Services) -> None:
    with at(embedded, "qm-mllp", lambda raw: order_answer(raw, msh="HIS|YLYY")):
        taken(embedded, ORDER)
        deliver(embedded)
    assert states(embedded, "lab-outsourcing") == {"ordered"}
    assert {one.state for one in journal(embedded, "ORR")} == {"refused"}
    assert {one.state for one in sent(embedded, "QM/mllp")} == {"sent"}


def test_an_answer_without_names_is_of_whom_was_asked(embedded: Services) -> None:
    with at(embedded, "qm-mllp", lambda raw: order_answer(raw, msh="|")):
        taken(embedded, ORDER)
        deliver(embedded)
    assert states(embedded, "lab-outsourcing") == {"specimen-rejected"}


def test_an_answer_that_cannot_be_applied_is_kept_as_refused_and_the_delivery_is_done(embedded: Services) -> None:
    with at(embedded, "qm-mllp", lambda raw: said(raw, "ORR^O02", "ORC|UA|", number=fields(raw, b"MSH")[9].decode())):
        taken(embedded, ORDER)
        deliver(embedded)
    assert {one.state for one in sent(embedded, "QM/mllp")} == {"sent"}
    assert {one.state for one in journal(embedded, "ORR")} == {"refused"}
    assert all("ORC-2" in one.outcome for one in journal(embedded, "ORR"))


def test_the_same_answer_on_a_connection_of_its_own_changes_nothing_and_is_acknowledged(embedded: Services) -> None:
    answered: list[bytes] = []

    def answer(raw: bytes) -> bytes:
        answered.append(referral_answer(raw, "R"))
        return answered[-1]

    with at(embedded, "yl-mllp", answer):
        taken(embedded, REFERRAL)
        deliver(embedded)
    place(embedded, "yl-mllp", "urn:none")
    told = taken(embedded, answered[0])
    assert told is not None
    assert b"MSA|AA|P1" in told
    assert states(embedded, "referral") == {"rejected"}
    assert len(journal(embedded, "RRI")) == 1


def test_an_answer_that_came_before_on_a_connection_of_its_own_changes_nothing(embedded: Services) -> None:
    def answer(raw: bytes) -> bytes:
        made = referral_answer(raw, "R")
        assert taken(embedded, made) is not None
        return made

    with at(embedded, "yl-mllp", answer):
        taken(embedded, REFERRAL)
        deliver(embedded)
    assert states(embedded, "referral") == {"rejected"}
    assert len(journal(embedded, "RRI")) == 1


def test_a_refused_answer_is_told_its_sender_when_it_comes_again_by_itself(embedded: Services) -> None:
    answered: list[bytes] = []

    def answer(raw: bytes) -> bytes:
        answered.append(referral_answer(raw, "X"))
        return answered[-1]

    with at(embedded, "yl-mllp", answer):
        taken(embedded, REFERRAL)
        deliver(embedded)
    place(embedded, "yl-mllp", "urn:none")
    told = taken(embedded, answered[0])
    assert told is not None
    assert b"MSA|AE|P1" in told


def test_a_crash_after_the_answer_was_received_is_mended_by_delivering_again(
    hub: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The end of the process between the two commits."""

    real = hub.messages.receive_answer

    def crash(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        raise Killed

    with at(hub, "yl-mllp", lambda raw: referral_answer(raw, "R")) as partner:
        taken(hub, REFERRAL)
        with monkeypatch.context() as patched:
            patched.setattr(hub.messages, "receive_answer", crash)
            with pytest.raises(Killed):
                deliver(hub)
        assert states(hub, "referral") == {"rejected"}
        assert [one.state for one in sent(hub, "YL/mllp")] == ["pending"]
        hub.database.write(lambda tx: tx.outbox.give_back(hub.node))
        deliver(hub)
        assert len(partner.received) == 2
    assert [one.state for one in sent(hub, "YL/mllp")] == ["sent"]
    assert len(journal(hub, "RRI")) == 1
    assert states(hub, "referral") == {"rejected"}


def test_a_delivery_is_not_done_while_its_answer_cannot_be_kept(
    embedded: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise HubError(Category.UNAVAILABLE, "The database is away.")

    with at(embedded, "yl-mllp", lambda raw: referral_answer(raw, "R")):
        taken(embedded, REFERRAL)
        monkeypatch.setattr(embedded.messages, "receive", away)
        with pytest.raises(HubError):
            deliver(embedded)
    assert [one.state for one in sent(embedded, "YL/mllp")] == ["pending"]


def test_a_refusal_that_is_tried_again_is_heard_only_when_it_stands(tmp_path: Path, set_clock: SetClock) -> None:
    codes = ["AA", "AE"]

    def answer(raw: bytes) -> bytes:
        code = codes.pop()
        return referral_answer(raw, "A", code=code, number=f"P{code}")

    with running(tmp_path, clock=set_clock) as hub, at(hub, "yl-mllp", answer):
        taken(hub, REFERRAL)
        deliver(hub)
        assert journal(hub, "RRI") == []
        assert states(hub, "referral") == {"submitted"}
        set_clock.forward(hub.settings.retry_longest_s + 1)
        deliver(hub)
        assert [one.control_id for one in journal(hub, "RRI")] == ["PAA"]
        assert states(hub, "referral") == {"accepted"}


def test_a_refusal_that_ends_a_delivery_is_heard(embedded: Services) -> None:
    with at(embedded, "qm-mllp", lambda raw: order_answer(raw, code="AR")):
        taken(embedded, ORDER)
        deliver(embedded)
    # Its lane is parked, and MSA-1 says that the order never came in: the work is as it was, for a person to look at.
    assert [one.state for one in sent(embedded, "QM/mllp")] == ["pending", "dead"]
    assert [one.state for one in journal(embedded, "ORR")] == ["done"]
    assert states(embedded, "lab-outsourcing") == {"ordered"}


def test_an_answer_to_a_feed_that_is_answered_when_stored_is_applied_later(hub: Services) -> None:
    with at(hub, "yl-mllp", lambda raw: referral_answer(raw, "R"), ack="stored"):
        taken(hub, REFERRAL)
        deliver(hub)
        [entry] = journal(hub, "RRI")
        assert entry.state == "received"
        hub.messages.process_pending(10)
    assert states(hub, "referral") == {"rejected"}
    assert [one.state for one in sent(hub, "YL/mllp")] == ["sent"]


def test_a_kept_answer_is_replayed_as_the_same_partners(embedded: Services) -> None:
    with at(embedded, "qm-mllp", order_answer):
        taken(embedded, ORDER)
        deliver(embedded)
    for entry in journal(embedded, "ORR"):
        embedded.messages.replay(entry.seq, HUB)
    assert {one.state for one in journal(embedded, "ORR")} == {"done"}


def test_an_answer_file_ends_the_wait_for_an_acknowledgement(embedded: Services, tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    for name in ("in", "out"):
        (folder / name).mkdir(parents=True)
    place(embedded, "qm-mllp", f"file://{folder}", ack_file_s="3600", quiet_s="0")
    taken(embedded, ORDER)
    pick_up = FolderLoop(embedded)
    # Both orders are of one patient, so the second one leaves when the first is done.
    for count in (1, 2):
        deliver(embedded, open_folder_sender)
        *before, newest = sorted((folder / "out").glob("*.hl7"))
        assert len(before) == count - 1
        assert "pending" in {one.state for one in sent(embedded, "QM/mllp")}
        (folder / "in" / newest.name).write_bytes(order_answer(newest.read_bytes()))
        pick_up.turn()
        pick_up.turn()
        assert len(journal(embedded, "ORR")) == count
    deliver(embedded, open_folder_sender)
    assert states(embedded, "lab-outsourcing") == {"specimen-rejected"}
    assert {one.state for one in sent(embedded, "QM/mllp")} == {"sent"}
    # What came was known when its delivery was judged, and an answer that ends a wait is no question.
    assert len(journal(embedded, "ORR")) == 2
    assert list((folder / "answers").glob("*")) == []


@pytest.mark.parametrize(
    ("setting", "asked"), [({}, b"AL|AL"), ({"ack_out": "original"}, b"|"), ({"ack_out": "accept"}, b"AL|NE")]
)
def test_a_request_asks_for_the_acknowledgements_that_the_endpoint_says(
    embedded: Services, setting: dict[str, str], asked: bytes
) -> None:
    with at(embedded, "yl-mllp", lambda raw: referral_answer(raw, "A"), **setting) as partner:
        taken(embedded, REFERRAL)
        deliver(embedded)
        [request] = partner.received
    assert b"|".join(fields(request, b"MSH")[14:16]) == asked
