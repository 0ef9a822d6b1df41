"""A refusal on another connection, after the partner had accepted (CA), fails the delivery as one on the same does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from adapters.worker.delivery import DeliveryLoop
from hub.boot import Services
from hub.ports import MemberEndpoint, NewDelivery
from tests.adapters.mllp.test_sender import Partner, framed, partner
from tests.adapters.worker.alerts.conftest import KN, Turn
from tests.support.hub import SetClock, register


@pytest.fixture
def there() -> Iterator[Partner]:
    """A partner that accepts whatever it gets."""
    with partner(lambda control_id: framed(control_id, "CA")) as one:
        yield one


def endpoint(there: Partner, **settings: str) -> MemberEndpoint:
    return MemberEndpoint(
        id=KN.id, member="KN", kind="mllp", address=there.address, settings=settings,
        sending_application="HIS", sending_facility="KNYY",
    )  # fmt: skip


def enqueue(services: Services, control_id: str) -> int:
    payload = f"MSH|^~\\&|YIXIE|HUB|HIS|KNYY|2025||ADT^A08|{control_id}|P|2.4\r".encode()
    new = NewDelivery(
        destination=KN.id, lane="KN/mllp|p", kind="mllp", payload=payload, owner="KN", control_id=control_id,
    )  # fmt: skip
    return services.database.write(lambda tx: tx.outbox.enqueue(new))


def come(services: Services, code: str, control_id: str, *, facility: str = "KNYY") -> None:
    """Let an application acknowledgement come on a connection of its own."""
    text = f"MSH|^~\\&|HIS|{facility}|YIXIE|HUB|2025||ACK^A08|A{control_id}|P|2.4\rMSA|{code}|{control_id}\r"
    assert services.messages.receive(text.encode(), "127.0.0.1:9") is None


def state(services: Services, number: int) -> tuple[str, int, str]:
    one = services.database.read(lambda tx: tx.outbox.get(number))
    assert one is not None
    return one.state, one.attempts, one.last_error


Deliver = Callable[[], int]


@pytest.fixture
def deliver(sqlite_services: Services) -> Iterator[Deliver]:
    worker = DeliveryLoop(sqlite_services, rng=lambda: 1.0)

    def all_due() -> int:
        return sum(iter(worker.turn, 0))

    yield all_due
    for sender in worker._senders.values():
        sender.close()


def test_ar_after_ca_makes_a_dead_letter_that_is_told_of(
    sqlite_services: Services, there: Partner, deliver: Deliver, turn: Turn
) -> None:
    register(sqlite_services, endpoint(there))
    number = enqueue(sqlite_services, "C1")
    deliver()
    assert state(sqlite_services, number) == ("sent", 1, "")
    assert turn() == []
    come(sqlite_services, "AR", "C1")
    deliver()
    assert state(sqlite_services, number) == ("dead", 2, "The partner answered AR.")
    assert turn() == ["dead|KN/mllp"]
    assert len(there.received) == 1, "what is refused is not sent again by itself"
    sqlite_services.database.write(lambda tx: tx.outbox.replay(number, now=sqlite_services.clock()))
    deliver()
    assert state(sqlite_services, number)[0] == "sent"
    assert len(there.received) == 2, "a person may"


def test_ae_after_ca_is_tried_again_after_a_while_and_given_up_in_the_end(
    sqlite_services: Services, there: Partner, deliver: Deliver, set_clock: SetClock
) -> None:
    register(sqlite_services, endpoint(there))
    number = enqueue(sqlite_services, "C1")
    for round_ in range(1, 50):
        deliver()
        assert len(there.received) == round_
        come(sqlite_services, "AE", "C1")
        deliver()
        assert len(there.received) == round_, "not before its time"
        if state(sqlite_services, number)[0] == "dead":
            break
        assert state(sqlite_services, number) == ("pending", round_ * 2, "The partner answered AE.")
        set_clock.forward(sqlite_services.settings.retry_longest_s)
    assert state(sqlite_services, number)[0] == "dead"


def test_ae_is_final_where_the_member_says_so(sqlite_services: Services, there: Partner, deliver: Deliver) -> None:
    register(sqlite_services, endpoint(there, **{"retry-ae": ""}))
    number = enqueue(sqlite_services, "C1")
    deliver()
    come(sqlite_services, "AE", "C1")
    deliver()
    assert state(sqlite_services, number)[0] == "dead"


def test_a_refusal_parks_what_comes_after_it_for_the_same_patient(
    sqlite_services: Services, there: Partner, deliver: Deliver
) -> None:
    register(sqlite_services, endpoint(there))
    enqueue(sqlite_services, "C1")
    deliver()
    come(sqlite_services, "AR", "C1")
    later = enqueue(sqlite_services, "C2")
    deliver()
    assert state(sqlite_services, later) == ("pending", 0, "")
    assert len(there.received) == 1


def test_aa_after_ca_changes_nothing_nor_does_a_refusal_of_another_or_by_another(
    sqlite_services: Services, there: Partner, deliver: Deliver
) -> None:
    other = MemberEndpoint(
        id="QH/mllp", member="QH", kind="mllp", address=there.address,
        sending_application="HIS", sending_facility="QHYY",
    )  # fmt: skip
    register(sqlite_services, endpoint(there), other)
    number = enqueue(sqlite_services, "C1")
    deliver()
    come(sqlite_services, "AA", "C1")
    come(sqlite_services, "AR", "C9")
    come(sqlite_services, "AR", "C1", facility="QHYY")
    assert deliver() == 0
    assert state(sqlite_services, number) == ("sent", 1, "")
