"""What a partner's application says after the receipt of a message settles its delivery, whichever way it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hub.acknowledged import parts
from hub.boot import Services
from hub.ports import MemberEndpoint
from tests.adapters.worker.test_business_answers import (
    at,
    deliver,
    fields,
    journal,
    place,
    referral_answer,
    said,
    sent,
    states,
    taken,
)
from tests.flows.his import END, START
from tests.flows.test_referral_and_lab import REFERRAL
from tests.support.services import running


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as services:
        yield services


def receipt(raw: bytes) -> bytes:
    return said(raw, "ACK", msh="HIS|YLYY", code="CA", number="R1")


def answer(raw: bytes, code: str) -> bytes:
    return said(raw, "ACK", msh="HIS|YLYY", code=code, number="A1")


def refer(hub: Services, *answers: str, wait: str = "300") -> bytes:
    """Send a referral to YL, which says CA and then *answers* on the connection; return what YL got."""

    def spoken(raw: bytes) -> bytes:
        frames = [receipt(raw), *(answer(raw, one) for one in answers)]
        return (END + START).join(frames)

    with at(hub, "yl-mllp", spoken, answer_wait_s=wait) as partner:
        taken(hub, REFERRAL)
        deliver(hub)
        [got] = partner.received
    return got


def endpoint_of(hub: Services) -> MemberEndpoint:
    found = hub.directory.endpoint("YL/mllp")
    assert found is not None
    return found


def codes(ack: bytes | None) -> list[bytes]:
    return [fields(one, b"MSA")[1] for one in parts(ack or b"")]


def test_an_application_that_refuses_behind_the_receipt_makes_a_dead_letter(hub: Services) -> None:
    refer(hub, "AR")
    [one] = sent(hub, "YL/mllp")
    assert (one.state, codes(one.ack)) == ("dead", [b"CA", b"AR"])


def test_a_business_answer_behind_the_receipt_is_received(hub: Services) -> None:
    with at(hub, "yl-mllp", lambda raw: receipt(raw) + END + START + referral_answer(raw, "R"), answer_wait_s="300"):
        taken(hub, REFERRAL)
        deliver(hub)
    assert states(hub, "referral") == {"rejected"}
    [one] = sent(hub, "YL/mllp")
    assert (one.state, codes(one.ack)) == ("sent", [b"CA", b"AA"])
    [entry] = journal(hub, "RRI")
    assert (entry.state, entry.ack) == ("done", None)


def test_an_application_that_answers_on_another_connection_is_kept_with_the_delivery(hub: Services) -> None:
    got = refer(hub, wait="0")
    [one] = sent(hub, "YL/mllp")
    assert (one.state, codes(one.ack)) == ("sent", [b"CA"])
    place(hub, "yl-mllp", "urn:none")
    assert taken(hub, answer(got, "AA")) is None
    [one] = sent(hub, "YL/mllp")
    assert (one.state, codes(one.ack)) == ("sent", [b"CA", b"AA"])
    # The application has spoken; what it says against itself later is in the journal alone.
    assert taken(hub, answer(got, "AR")) is None
    [one] = sent(hub, "YL/mllp")
    assert (one.state, codes(one.ack)) == ("sent", [b"CA", b"AA"])


@pytest.mark.parametrize(("code", "state"), [("AR", "dead"), ("AA", "sent")])
def test_what_came_late_on_the_hubs_connection_settles_the_delivery_that_it_answers(
    hub: Services, code: str, state: str
) -> None:
    got = refer(hub, wait="0")
    hub.messages.receive_later(answer(got, code), endpoint_of(hub))
    deliver(hub)
    [one] = sent(hub, "YL/mllp")
    assert one.state == state
    assert codes(one.ack)[-1] == code.encode()


@pytest.mark.parametrize("names", ["YIXIE|HUB", "LIS|ELSEWHERE"])
def test_a_late_refusal_under_names_that_nobody_has_is_the_partners_all_the_same(hub: Services, names: str) -> None:
    got = refer(hub, wait="0")
    # Some partners send back the names as they came; the connection says whose answer it is.
    hub.messages.receive_later(said(got, "ACK", msh=names, code="AR", number="A1"), endpoint_of(hub))
    deliver(hub)
    [one] = sent(hub, "YL/mllp")
    assert (one.state, codes(one.ack)[-1]) == ("dead", b"AR")
    [entry] = journal(hub, "ACK")
    assert (entry.institution, entry.state) == ("YL", "done")


def test_a_business_answer_that_came_late_is_received_and_settles_its_delivery(hub: Services) -> None:
    got = refer(hub, wait="0")
    hub.messages.receive_later(referral_answer(got, "R"), endpoint_of(hub))
    assert states(hub, "referral") == {"rejected"}
    [one] = sent(hub, "YL/mllp")
    assert (one.state, codes(one.ack)) == ("sent", [b"CA", b"AA"])


@pytest.mark.parametrize("event", ["SRR^S12^SRR_S01", "RSP^K22^RSP_K21"])
def test_a_response_that_the_hub_does_not_read_settles_the_delivery_and_is_no_refused_message(
    hub: Services, event: str
) -> None:
    def spoken(raw: bytes) -> bytes:
        return said(raw, event, "QAK|T1|OK", msh="HIS|YLYY", number="S1")

    with at(hub, "yl-mllp", spoken), capture_logs() as logged:
        taken(hub, REFERRAL)
        deliver(hub)
    [one] = sent(hub, "YL/mllp")
    assert (one.state, codes(one.ack)) == ("sent", [b"AA"])
    [entry] = journal(hub, event[:3])
    said_of_it = [line["event"] for line in logged if line.get("message_type", "").startswith(event[:3])]
    assert said_of_it == ["response_kept"]
    lines = hub.database.read(lambda tx: tx.audit.search({}, institution="YL", limit=100, before=None))
    assert [line["outcome"] for line in lines if line["subtype"][0]["code"].startswith(event[:3])] == ["0"]
    # It says that nothing of it was applied, and why.
    assert (entry.state, entry.outcome[:3], entry.ack) == ("done", "200", None)


@pytest.mark.parametrize("event", ["SRR^S12^SRR_S01", "RSP^K22^RSP_K21"])
def test_a_response_that_nobody_asked_for_is_refused_with_the_reason(hub: Services, event: str) -> None:
    place(hub, "yl-mllp", "urn:none")
    header = f"MSH|^~\\&|HIS|YLYY|YIXIE|HUB|20260612120000||{event}|S1|P|2.4||||||UNICODE UTF-8"
    told = taken(hub, f"{header}\rMSA|AA|NOBODY\rQAK|T1|OK\r".encode())
    assert told is not None
    assert fields(told, b"MSA")[1:3] == [b"AR", b"S1"]
    assert fields(told, b"MSA")[3]
    [entry] = journal(hub, event[:3])
    assert (entry.state, entry.outcome[:3]) == ("refused", "200")
