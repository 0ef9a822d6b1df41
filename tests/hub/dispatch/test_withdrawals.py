"""Who got a document hears that it was withdrawn or deleted, unless its endpoint says that it does not want to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.envelope import Envelope
from tests.flows.test_referral_and_lab import REFERRAL
from tests.hub.dispatch.test_news import KN_DESK, Consortium, document
from tests.support.services import running


@pytest.fixture
def hub(tmp_path: Path, database_url: str) -> Iterator[Consortium]:
    with running(tmp_path, url=database_url) as services:
        yield Consortium(services)


def _arrived(hub: Consortium, asked: str) -> None:
    hub.ask(YL=asked)
    hub.receive(REFERRAL)
    for event in ("review", "accept", "arrive"):
        hub.move(event)


@pytest.mark.parametrize(
    ("asked", "told"),
    [("MDM^T02", ["T02", "T11"]), ("MDM^T02 -MDM^T11", ["T02"]), ("MDM^T11", [])],
)
def test_who_gets_documents_hears_of_withdrawals_unless_it_says_otherwise(
    hub: Consortium, asked: str, told: list[str]
) -> None:
    _arrived(hub, asked)
    made = hub.put(document(hub))
    if "T02" in asked:
        hub.put({**made, "status": "entered-in-error"})

    assert [one.get("MSH-9.2") for _, one in hub.news("MDM")] == told


def test_a_deleted_document_is_told_as_a_withdrawn_one_and_once(hub: Consortium) -> None:
    _arrived(hub, "MDM^T02")
    made = hub.put(document(hub))
    [(_, first)] = hub.news("MDM")

    for _ in range(2):
        hub.services.resources.delete(Envelope(door="fhir", actor=KN_DESK, peer=""), "DocumentReference", made["id"])

    [(where, told)] = hub.news("MDM")
    assert (where, told.get("MSH-9.2"), told.get("TXA-19")) == ("YL/mllp", "T11", "CA")
    assert told.get("TXA-12") == first.get("TXA-12")


def test_a_deleted_draft_was_never_told_and_is_not_withdrawn(hub: Consortium) -> None:
    _arrived(hub, "MDM^T02")
    made = hub.put(document(hub, docStatus="preliminary"))

    hub.services.resources.delete(Envelope(door="fhir", actor=KN_DESK, peer=""), "DocumentReference", made["id"])

    assert hub.news("MDM") == []
