"""``hub merges`` and ``hub links``: what an operator sees and settles where the hub runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hub.errors import Category, HubError
from hub.ports import NewVersion
from tests.hub.cli.conftest import SAMPLES, Hub
from tests.hub.cli.test_operation import audited, opened

MERGE = SAMPLES / "ADT_A39" / "kn_a40_merge.hl7"
UNLINK = SAMPLES / "ADT_A37" / "kn_a37_unlink.hl7"
FORMER = "KN/0000312700"


@pytest.fixture
def received(consortium: Hub) -> Hub:
    """A merge of the sample feed, and the message by which its sender takes it back."""
    with opened() as services:
        for path in (MERGE, UNLINK):
            answer = services.messages.receive(path.read_bytes(), "127.0.0.1:1", door="mllp", institution_hint="KN")
            assert answer is not None
            assert b"MSA|CA|" in answer
    return consortium


def test_a_merge_that_its_sender_takes_back_is_listed_shown_and_undone(received: Hub) -> None:
    (item,) = [json.loads(line) for line in received("merges", "list", "--json").stdout.splitlines()]
    assert (item["former_numbers"], item["survivor_numbers"][0]) == (["0000312700"], "0000312799")
    assert "0000312700" in received("merges", "list").stdout
    shown = received("merges", "show", FORMER)
    assert (shown.exit_code, "in force" in shown.stdout) == (0, True)
    done = received("merges", "undo", FORMER, "--reason", "号码有误")
    assert done.exit_code == 0
    assert "processed" in done.stdout
    assert "taken back" in received("merges", "show", item["former"]).stdout
    assert "nothing waits" in received("merges", "list").stdout
    assert len(audited("merge-undo")) == 1
    assert len(audited("merges-read")) == 2


def test_a_merge_is_kept_and_a_decision_needs_a_merge(received: Hub) -> None:
    done = received("merges", "keep", FORMER, "--reason", "核对无误")
    assert (done.exit_code, "processed" in done.stdout) == (0, True)
    assert json.loads(received("merges", "show", FORMER, "--json").stdout)["merged"] is True
    wrong = received("merges", "undo", "KN/1", "--reason", "x")
    assert isinstance(wrong.exception, HubError)
    assert wrong.exception.category is Category.NOT_FOUND


def test_links_between_institutions_are_listed_and_settled(consortium: Hub) -> None:
    card = {"system": "urn:oid:2.16.156.10011.1.19", "value": "H1"}
    with opened() as services:
        for owner in ("KN", "QH"):
            patient = {"resourceType": "Patient", "id": f"patient-{owner}", "identifier": [card]}

            def work(tx: Any, patient: dict[str, Any] = patient, owner: str = owner) -> None:
                tx.records.put_many([NewVersion(resource=patient, owner=owner)])
                services.identity.suggest(tx, [f"Patient/{patient['id']}"], owner=owner)

            services.database.write(work)
    (pair,) = [json.loads(line) for line in consortium("links", "list", "--open", "--json").stdout.splitlines()]
    assert consortium("links", "settle", pair["task"], "link").exit_code == 0
    assert "linked" in consortium("links", "list").stdout
    assert "there are none" in consortium("links", "list", "--open").stdout
    assert consortium("links", "settle", pair["task"], "perhaps").exit_code == 2
    assert len(audited("settle-patient-link")) == 1
