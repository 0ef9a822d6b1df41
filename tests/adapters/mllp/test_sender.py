"""The MLLP sender against a partner made of a bare socket."""

from __future__ import annotations

import datetime as dt
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from adapters.mllp.frames import Deframer, Frame, encode_frame
from adapters.mllp.sender import MllpSender
from hub.acknowledge import UNANSWERED
from hub.config import Settings
from hub.ports import Delivery, MemberEndpoint, SendResult
from tests.support.mllp import PATIENCE_S, listening

Answer = Callable[[str], bytes | None]
Make = Callable[..., MllpSender]


def ack(control_id: str, code: str = "AA") -> bytes:
    return f"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250301||ACK|1|P|2.4\rMSA|{code}|{control_id}|不收\r".encode("gb18030")


class Partner:
    """Answers each frame with what *answer* makes of its control id; ``None`` says nothing."""

    def __init__(self, answer: Answer) -> None:
        self.listener = listening()
        self.connections = 0
        self.received: list[bytes] = []
        self._answer = answer
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        host, port = self.listener.getsockname()
        return f"{host}:{port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        deframer = Deframer(max_bytes=1 << 20)
        try:
            while data := connection.recv(4096):
                deframer.receive_data(data)
                while (event := deframer.next_event()) is not None:
                    assert isinstance(event, Frame)
                    self.received.append(event.payload)
                    answer = self._answer(event.payload.split(b"|")[9].decode())
                    if answer is not None:
                        connection.sendall(answer)
        except OSError:
            pass

    def hang_up(self) -> None:
        for connection in self._open:
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(PATIENCE_S)
        self.hang_up()


@contextmanager
def partner(answer: Answer) -> Iterator[Partner]:
    running = Partner(answer)
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def sender() -> Iterator[Make]:
    made: list[MllpSender] = []

    def make(timeout_s: float = PATIENCE_S) -> MllpSender:
        made.append(MllpSender(Settings(delivery_timeout_s=timeout_s)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def endpoint(address: str, **settings: object) -> MemberEndpoint:
    return MemberEndpoint(id="KN/mllp", member="KN", kind="mllp", address=address, settings=settings)


def delivery(control_id: str) -> Delivery:
    now = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)
    payload = f"MSH|^~\\&|YIXIE|HUB|HIS|KNYY|20250301||ORU^R01|{control_id}|P|2.4\rPID|||1\r".encode()
    return Delivery(
        destination="KN/mllp", lane="KN/mllp|1", kind="mllp", payload=payload, owner="KN", control_id=control_id,
        id=1, state="leased", attempts=0, next_at=now, created_at=now,
    )  # fmt: skip


def framed(control_id: str, code: str = "AA") -> bytes:
    return encode_frame(ack(control_id, code))


@pytest.mark.parametrize("code", ["AA", "CA"])
def test_an_acceptance_is_success_and_its_bytes_are_kept(sender: Make, code: str) -> None:
    with partner(lambda control_id: framed(control_id, code)) as there:
        result = sender().send(delivery("7"), endpoint(there.address))
        assert (result.error, result.ack) == ("", ack("7", code))
        assert there.received == [delivery("7").payload]


@pytest.mark.parametrize(
    ("code", "settings", "permanent"),
    [
        ("AE", {}, False),
        ("CE", {}, False),
        ("AE", {"retry-ae": False}, True),
        ("AR", {}, True),
        ("CR", {}, True),
    ],
)
def test_a_refusal_is_kept_and_judged_by_its_code(
    sender: Make, code: str, settings: dict[str, object], permanent: bool
) -> None:
    with partner(lambda control_id: framed(control_id, code)) as there:
        result = sender().send(delivery("7"), endpoint(there.address, **settings))
        assert result.error
        assert (result.permanent, result.reached, result.ack) == (permanent, True, ack("7", code))
        assert "不收" not in result.error


def test_an_application_acknowledgement_is_sent_without_waiting_for_an_answer(sender: Make) -> None:
    arrived = threading.Event()

    def silent(control_id: str) -> None:
        arrived.set()

    with partner(silent) as there:
        result = sender().send(replace(delivery("7"), headers={UNANSWERED: "1"}), endpoint(there.address))
        assert (result.error, result.ack) == ("", b"")
        assert arrived.wait(PATIENCE_S)


def test_one_connection_carries_many_messages(sender: Make) -> None:
    with partner(framed) as there:
        one = sender()
        assert [one.send(delivery(str(i)), endpoint(there.address)).error for i in range(5)] == [""] * 5
        assert there.connections == 1


def test_several_connections_carry_messages_at_once_and_each_gets_its_own_answer(sender: Make) -> None:
    both = threading.Barrier(2)

    def answer(control_id: str) -> bytes:
        both.wait(PATIENCE_S)
        return framed(control_id)

    with partner(answer) as there:
        one = sender()
        results: dict[str, SendResult] = {}

        def send(control_id: str) -> None:
            results[control_id] = one.send(delivery(control_id), endpoint(there.address, connections=2))

        threads = [threading.Thread(target=send, args=(name,)) for name in ("7", "8")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert {name: (result.error, result.ack) for name, result in results.items()} == {
            "7": ("", ack("7")),
            "8": ("", ack("8")),
        }
        assert there.connections == 2


def test_an_acknowledgement_of_another_message_fails_and_closes_the_socket(sender: Make) -> None:
    with partner(lambda control_id: framed("6" if control_id == "7" else control_id)) as there:
        one = sender()
        result = one.send(delivery("7"), endpoint(there.address))
        assert result.error
        assert not result.permanent
        assert one.send(delivery("8"), endpoint(there.address)).error == ""
        assert there.connections == 2


def test_a_second_answer_to_an_old_message_is_never_credited_to_the_next(sender: Make) -> None:
    with partner(lambda control_id: framed(control_id) + (framed("8", "AR") if control_id == "7" else b"")) as there:
        one = sender()
        assert one.send(delivery("7"), endpoint(there.address)).error == ""
        result = one.send(delivery("8"), endpoint(there.address))
        assert (result.error, result.ack) == ("", ack("8"))


def test_a_partner_that_does_not_answer_in_time_loses_the_socket(sender: Make) -> None:
    with partner(lambda control_id: None if control_id == "7" else framed(control_id)) as there:
        one = sender(timeout_s=0.3)
        result = one.send(delivery("7"), endpoint(there.address))
        assert result.error
        assert (result.permanent, result.reached) == (False, False)
        assert one.send(delivery("8"), endpoint(there.address)).error == ""
        assert there.connections == 2


def test_a_partner_that_is_down_was_not_reached(sender: Make) -> None:
    bound = listening()
    host, port = bound.getsockname()
    bound.close()
    result = sender().send(delivery("7"), endpoint(f"{host}:{port}"))
    assert result.error
    assert (result.permanent, result.reached) == (False, False)


def test_a_connection_that_the_partner_closed_meanwhile_is_opened_anew(sender: Make) -> None:
    with partner(framed) as there:
        one = sender()
        assert one.send(delivery("7"), endpoint(there.address)).error == ""
        there.hang_up()
        assert one.send(delivery("8"), endpoint(there.address)).error == ""
        assert there.connections == 2


def test_an_answer_that_is_no_acknowledgement_fails_this_attempt_only(sender: Make) -> None:
    with partner(lambda control_id: encode_frame(b"hello")) as there:
        result = sender().send(delivery("7"), endpoint(there.address))
        assert result.error
        assert (result.permanent, result.reached) == (False, True)


@pytest.mark.parametrize("address", ["", "nowhere", "http://127.0.0.1:1", "host:port"])
def test_an_address_of_no_use_is_said_so(sender: Make, address: str) -> None:
    result = sender().send(delivery("7"), endpoint(address))
    assert "address" in result.error
    assert not result.reached


@pytest.mark.parametrize(("level", "sent"), [("off", 1), ("warn", 1), ("reject", 0)])
def test_a_message_that_is_not_fit_leaves_as_the_endpoint_says(sender: Make, level: str, sent: int) -> None:
    # PID has no PID-5, which every version requires.
    with partner(framed) as there:
        result = sender().send(delivery("7"), endpoint(there.address, **{"validate-out": level}))
        assert len(there.received) == sent
    if sent:
        assert result.error == ""
    else:
        assert (result.permanent, "PID.PID_5" in result.error) == (True, True)


def test_an_acknowledgement_of_the_hubs_own_is_not_judged(sender: Make) -> None:
    with partner(framed) as there:
        one = replace(delivery("7"), headers={UNANSWERED: "acknowledgement"})
        assert sender().send(one, endpoint(there.address, **{"validate-out": "reject"})).error == ""
