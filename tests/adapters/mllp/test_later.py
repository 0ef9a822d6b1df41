"""What a partner says on the hub's own connection after it has said that it has the message (HL7 v2 chapter 2.9.3)."""

from __future__ import annotations

import datetime as dt
import select
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from adapters.mllp.client import ANSWER_MAX_BYTES, MllpClient, NoAnswer
from adapters.mllp.later import KEPT, LaterAnswers
from adapters.mllp.sender import MllpSender
from hub.acknowledge import UNANSWERED
from hub.acknowledged import is_receipt, parts
from hub.config import Settings
from hub.errors import Category, HubError
from hub.ports import Delivery, MemberEndpoint, SendResult
from tests.adapters.mllp.test_sender import Partner, ack, endpoint, framed, partner
from tests.support.mllp import PATIENCE_S, listening

#: Longer than the test may take, so that whoever waits for nothing is found out.
LONG = {"answer-wait-s": "300"}


class Told:
    """An intake that remembers, and cannot keep anything while it is away."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.away = False
        self.never: set[bytes] = set()

    def __call__(self, raw: bytes, _: MemberEndpoint) -> None:
        if self.away:
            raise HubError(Category.UNAVAILABLE, "The database is away.")
        if raw in self.never:
            raise HubError(Category.INCORRECT, "The database takes no such text.")
        self.heard.append(raw)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def sender(told: Told) -> Iterator[MllpSender]:
    made = MllpSender(Settings(delivery_timeout_s=PATIENCE_S), hear=told)
    yield made
    made.close()


def request(control_id: str, asks: str = "AL|AL") -> Delivery:
    now = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)
    payload = f"MSH|^~\\&|YIXIE|HUB|HIS|KNYY|20250301||ORM^O01|{control_id}|P|2.4|||{asks}\rPID|||1\r".encode()
    return Delivery(
        destination="KN/mllp", lane="KN/mllp|1", kind="mllp", payload=payload, owner="KN", control_id=control_id,
        id=1, state="leased", attempts=0, next_at=now, created_at=now,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "permanent", "fails"), [("AA", False, False), ("AE", False, True), ("AR", True, True)]
)
def test_the_applications_answer_behind_the_receipt_decides(
    sender: MllpSender, code: str, permanent: bool, fails: bool
) -> None:
    with partner(lambda control_id: framed(control_id, "CA") + framed(control_id, code)) as there:
        result = sender.send(request("7"), endpoint(there.address, **LONG))
        assert (bool(result.error), result.permanent) == (fails, permanent)
        assert parts(result.ack) == [ack("7", "CA"), ack("7", code)]


def test_a_refusal_that_came_with_the_receipt_counts_though_nobody_asked(sender: MllpSender, told: Told) -> None:
    with partner(lambda control_id: framed(control_id, "CA") + framed(control_id, "AR")) as there:
        result = sender.send(request("7", "AL|NE"), endpoint(there.address, **LONG))
        later = sender.send(request("8", "AL|NE"), endpoint(there.address, **LONG))
        # The network may have cut it off the receipt; then it is found before the next message.
        assert result.permanent or ack("7", "AR") in told.heard
        assert b"MSA|AR|7" not in later.ack


def test_a_partner_that_answers_elsewhere_is_waited_for_once_and_has_the_message(sender: MllpSender) -> None:
    with partner(lambda control_id: framed(control_id, "CA")) as there:
        first = sender.send(request("7"), endpoint(there.address, **{"answer-wait-s": "1"}))
        assert (first.error, first.ack) == ("", ack("7", "CA"))
        # With the long wait this would outlast every patience.
        again = [sender.send(request(str(i)), endpoint(there.address, **LONG)) for i in (8, 9)]
        assert [(one.error, one.ack) for one in again] == [("", ack("8", "CA")), ("", ack("9", "CA"))]
        assert there.connections == 1


def test_a_setting_of_zero_waits_for_nobody(sender: MllpSender) -> None:
    with partner(lambda control_id: framed(control_id, "CA")) as there:
        result = sender.send(request("7"), endpoint(there.address, **{"answer-wait-s": "0"}))
        assert (result.error, result.ack) == ("", ack("7", "CA"))


def test_a_late_answer_before_the_next_one_is_told_to_the_intake_and_never_taken_for_it(
    sender: MllpSender, told: Told
) -> None:
    def answer(control_id: str) -> bytes:
        late = framed("7", "AE") if control_id == "8" else b""
        return late + framed(control_id, "CA")

    with partner(answer) as there:
        quiet = endpoint(there.address, **{"answer-wait-s": "0"})
        assert sender.send(request("7"), quiet).error == ""
        result = sender.send(request("8"), quiet)
        assert (result.error, result.ack) == ("", ack("8", "CA"))
        assert told.heard == [ack("7", "AE")]
        assert there.connections == 1


def test_a_late_answer_that_cannot_be_kept_now_is_kept_later(sender: MllpSender, told: Told) -> None:
    def answer(control_id: str) -> bytes:
        return (framed("7", "AE") if control_id == "8" else b"") + framed(control_id, "CA")

    with partner(answer) as there:
        quiet = endpoint(there.address, **{"answer-wait-s": "0"})
        told.away = True
        assert [sender.send(request(name), quiet).error for name in ("7", "8")] == ["", ""]
        assert told.heard == []
        told.away = False
        assert sender.send(request("9"), quiet).error == ""
        assert told.heard == [ack("7", "AE")]


def test_a_late_answer_that_can_never_be_kept_holds_up_none_behind_it(sender: MllpSender, told: Told) -> None:
    late = {"8": framed("7", "AE"), "9": framed("8", "AE")}
    told.never.add(ack("7", "AE"))

    with partner(lambda control_id: late.get(control_id, b"") + framed(control_id, "CA")) as there:
        quiet = endpoint(there.address, **{"answer-wait-s": "0"})
        assert [sender.send(request(name), quiet).error for name in ("7", "8", "9")] == ["", "", ""]
        assert told.heard == [ack("8", "AE")]


def test_a_late_answer_is_found_before_an_acknowledgement_too(sender: MllpSender, told: Told) -> None:
    with partner(lambda control_id: framed(control_id, "CA") if control_id == "7" else None) as there:
        quiet = endpoint(there.address, **{"answer-wait-s": "0"})
        assert sender.send(request("7"), quiet).error == ""
        say(there, framed("7", "AE"))
        # It is never acknowledged itself, so that nothing else is read on its way.
        assert sender.send(replace(request("8"), headers={UNANSWERED: "1"}), quiet) == SendResult()
        assert told.heard == [ack("7", "AE")]
        assert there.connections == 1


def test_what_waits_in_the_socket_is_read_before_the_next_message(sender: MllpSender, told: Told) -> None:
    with partner(lambda control_id: framed(control_id, "CA")) as there:
        quiet = endpoint(there.address, **{"answer-wait-s": "0"})
        assert sender.send(request("7"), quiet).error == ""
        say(there, framed("7", "AA"))
        assert sender.send(request("8"), quiet).ack == ack("8", "CA")
        assert sender.send(request("9"), quiet).ack == ack("9", "CA")
        assert told.heard == [ack("7", "AA")]
        assert there.connections == 1


def test_what_waits_in_the_socket_is_told_when_the_sender_closes(sender: MllpSender, told: Told) -> None:
    with partner(lambda control_id: framed(control_id, "CA")) as there:
        assert sender.send(request("7"), endpoint(there.address, **{"answer-wait-s": "0"})).error == ""
        say(there, framed("7", "AE"))
        arrived(sender)
        sender.close()
        assert told.heard == [ack("7", "AE")]


def test_answers_that_wait_to_be_told_outlast_another_address_of_the_endpoint(sender: MllpSender, told: Told) -> None:
    def late(control_id: str) -> bytes:
        return (framed("7", "AE") if control_id == "8" else b"") + framed(control_id, "CA")

    quiet = {"answer-wait-s": "0"}
    with partner(late) as old, partner(lambda control_id: framed(control_id, "CA")) as new:
        told.away = True
        assert [sender.send(request(name), endpoint(old.address, **quiet)).error for name in ("7", "8")] == ["", ""]
        # One is held already, and one more waits in the socket that is given up.
        say(old, framed("8", "AR"))
        arrived(sender)
        told.away = False
        assert sender.send(request("9"), endpoint(new.address, **quiet)).error == ""
        assert told.heard == [ack("7", "AE"), ack("8", "AR")]


def test_answers_that_nobody_could_take_when_the_hub_stops_are_counted_in_the_log(
    sender: MllpSender, told: Told
) -> None:
    with partner(lambda control_id: framed(control_id, "CA")) as there, capture_logs() as logged:
        assert sender.send(request("7"), endpoint(there.address, **{"answer-wait-s": "0"})).error == ""
        say(there, framed("7", "AE"))
        arrived(sender)
        told.away = True
        sender.close()
    assert [line["count"] for line in logged if line["event"] == "late_answer_lost"] == [1]


def arrived(sender: MllpSender) -> None:
    """Return once something can be read on the one connection of *sender*; the network may take its time."""
    [client] = sender._lines["KN/mllp"]._idle
    assert client._socket is not None
    poll = select.poll()
    poll.register(client._socket, select.POLLIN)
    assert poll.poll(PATIENCE_S * 1000)


def say(there: Partner, frame: bytes) -> None:
    [connection] = there._open
    connection.sendall(frame)


class Silent(MllpClient):
    """A partner that has said the receipt and says no more."""

    def more(self, wait_s: float, **_: object) -> None:
        assert wait_s == 0


def test_late_answers_that_wait_to_be_told_are_bounded(told: Told) -> None:
    later, kn = LaterAnswers(told), endpoint("192.0.2.1:1")
    later.outcome(Silent("192.0.2.1", 1, timeout_s=1), request("7", "AL|NE"), kn, SendResult(ack=ack("7", "CA")))
    take, long = later.stray("next", kn), ack("7") + b"NTE|1||" + b"x" * (ANSWER_MAX_BYTES // 4)
    taken = [take(long) for _ in range(8)]
    assert taken == [True] * taken.count(True) + [False] * taken.count(False)
    assert 0 < taken.count(True) * len(long) <= ANSWER_MAX_BYTES
    later.tell(kn)
    assert len(told.heard) == taken.count(True)
    # Told ones are not counted any more.
    assert take(long)


def test_a_partner_that_never_stops_talking_does_not_keep_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    now, frames = 0.0, 0

    def stray(_: bytes) -> bool:
        nonlocal now, frames
        now, frames = now + 1, frames + 1
        assert frames < 100, "The lane hangs."
        there.sendall(framed("7", "CA"))
        return True

    with listening() as listener:
        host, port = listener.getsockname()
        client = MllpClient(host, port, timeout_s=10)
        client.post(request("7").payload)
        there, _ = listener.accept()
        with there, closing(client):
            there.sendall(framed("7", "CA"))
            monkeypatch.setattr("adapters.mllp.client.time", SimpleNamespace(monotonic=lambda: now))
            with pytest.raises(NoAnswer, match="in time"):
                client.exchange(request("8").payload, stray=stray)


def test_the_numbers_of_old_messages_are_bounded() -> None:
    later, kn = LaterAnswers(None), endpoint("192.0.2.1:1")
    client = Silent("192.0.2.1", 1, timeout_s=1)
    for number in range(KEPT + 1):
        said = SendResult(ack=ack(str(number), "CA"))
        assert later.outcome(client, request(str(number), "AL|NE"), kn, said) is said
    assert is_receipt(ack("0", "CA"))
    known = later.stray("next", kn)
    assert (known(ack("0")), known(ack("1"))) == (False, True)
