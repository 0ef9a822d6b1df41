"""The whole table of acknowledgements: MSH-15 and MSH-16 in every combination, for what is taken, wrong and refused.

HL7 v2 chapter 2.9.2 (original mode), 2.9.3 (enhanced mode), tables 0008 and 0155. The table is written out by hand; nothing
in it is computed as the hub computes it.
"""

from __future__ import annotations

import pytest

from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import parse
from hub.acknowledge import FAULT, Verdict, keeps_failures
from hub.actor import HUB
from hub.arrival import read_arrival
from hub.errors import HubError
from hub.ports import Database
from hub.translate import Applied
from tests.support.v2 import V2Hub, adt, msh, pid

#: MSH-15, MSH-16: for a message that is taken, one that is wrong in a segment, and one that is refused for its kind, the
#: accept and the application acknowledgement, a dot for none. Without either field there is one answer (original mode).
TABLE = """
 -  -   AA .    AE .    AR .
 -  AL  .  AA   .  AE   .  AR
 -  NE  .  .    .  .    .  .
 -  ER  .  .    .  AE   .  AR
 -  SU  .  AA   .  .    .  .
 AL -   CA .    CA .    CR .
 AL AL  CA AA   CA AE   CR .
 AL NE  CA .    CA .    CR .
 AL ER  CA .    CA AE   CR .
 AL SU  CA AA   CA .    CR .
 NE -   .  .    .  .    .  .
 NE AL  .  AA   .  AE   .  AR
 NE NE  .  .    .  .    .  .
 NE ER  .  .    .  AE   .  AR
 NE SU  .  AA   .  .    .  .
 ER -   .  .    .  .    CR .
 ER AL  .  AA   .  AE   CR .
 ER NE  .  .    .  .    CR .
 ER ER  .  .    .  AE   CR .
 ER SU  .  AA   .  .    CR .
 SU -   CA .    CA .    .  .
 SU AL  CA AA   CA AE   .  AR
 SU NE  CA .    CA .    .  .
 SU ER  CA .    CA AE   .  AR
 SU SU  CA AA   CA .    .  .
"""
ROWS = [row.split() for row in TABLE.strip().splitlines()]
FATES = ("taken", "wrong", "refused")


def message(fate: str, control_id: str, accept: str, application: str) -> str:
    if fate == "wrong":
        # An admission without PV1.
        return "\r".join([msh("ADT^A01", control_id, f15=accept, f16=application), "EVN|A01|20250611", pid(), ""])
    return adt("A01" if fate == "taken" else "A99", control_id, f15=accept, f16=application)


def told(hub: V2Hub, control_id: str) -> list[str]:
    """Return MSA-1 of what was sent to KN's address about *control_id*."""
    sent = hub.database.read(lambda tx: tx.outbox.deliveries({}, limit=200))
    answers = [parse(decode_message(one.payload).text) for one in sent]
    return [one.get("MSA-1") for one in answers if one.get("MSA-2") == control_id]


def test_the_table_holds_every_combination() -> None:
    values = ["-", "AL", "NE", "ER", "SU"]
    assert [row[:2] for row in ROWS] == [[accept, application] for accept in values for application in values]


@pytest.mark.parametrize("ack", ["processed", "stored"])
@pytest.mark.parametrize("fate", FATES)
def test_every_sender_gets_the_acknowledgements_it_asks_for(sqlite_database: Database, fate: str, ack: str) -> None:
    hub = V2Hub(sqlite_database, ack=ack, address="192.0.2.9:2575")
    column = 2 + 2 * FATES.index(fate)
    found, expected = {}, {}
    for row in ROWS:
        said, asked = row[:2], [value.replace("-", "") for value in row[:2]]
        name = f"{fate} {' '.join(said)}"
        at_once = hub.code(message(fate, name, *asked))
        hub.messages.process_pending(10)
        found[name] = (at_once, told(hub, name))
        accept, application = (value.replace(".", "") for value in row[column : column + 2])
        if ack == "stored" and fate == "wrong" and said == ["-", "-"]:
            # Such a feed has answered before it knew; in original mode there is no second answer.
            accept = "AA"
        if not accept and (ack == "processed" or fate == "refused"):
            # Known at once, and the connection is free for it.
            expected[name] = (application, [])
        else:
            expected[name] = (accept, [application] if application else [])
    assert found == expected


def test_an_acknowledgement_is_not_acknowledged_whatever_it_asks_for(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, address="192.0.2.9:2575")
    for number, row in enumerate(ROWS):
        asked = [value.replace("-", "") for value in row[:2]]
        text = "\r".join([msh("ACK^A01", str(number), f15=asked[0], f16=asked[1]), "MSA|AA|YX1", ""])
        assert hub.send(text) is None
    assert hub.database.read(lambda tx: tx.outbox.deliveries({}, limit=9)) == []


def kept(hub: V2Hub, control_id: str) -> list[tuple[str, bool]]:
    """Return the states of the journal's entries of *control_id*, and whether they say why."""
    found = hub.database.read(lambda tx: tx.journal.search({}, limit=50))
    return [(one.state, bool(one.outcome)) for one in found if one.control_id == control_id]


@pytest.mark.parametrize(
    ("fate", "code", "state"), [("taken", "AA", "done"), ("wrong", "AA", "failed"), ("refused", "AR", "refused")]
)
def test_a_feed_that_keeps_failures_is_told_aa_unless_the_message_is_refused_for_what_it_is(
    sqlite_database: Database, fate: str, code: str, state: str
) -> None:
    hub = V2Hub(sqlite_database, ack="kept")
    assert hub.code(message(fate, "K1", "", "")) == code
    assert kept(hub, "K1") == [(state, fate != "taken")]


def test_what_the_hub_itself_fails_at_is_told_aa_to_a_feed_that_keeps_failures(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, ack="kept")
    hub.messages._applying.apply = broken  # type: ignore[method-assign]
    assert hub.code(message("taken", "K1", "", "")) == "AA"
    assert kept(hub, "K1") == [("failed", True)]


def broken(*_: object, **__: object) -> Applied:
    raise ZeroDivisionError


def test_a_kept_failure_in_enhanced_mode_is_accepted_on_both_ways(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, ack="kept", address="192.0.2.9:2575")
    assert hub.code(message("wrong", "K1", "AL", "AL")) == "CA"
    assert told(hub, "K1") == ["AA"]
    assert kept(hub, "K1") == [("failed", True)]


def test_a_kept_failure_is_replayed_and_says_again_why_it_fails(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, ack="kept")
    hub.code(message("wrong", "K1", "", ""))
    [entry] = hub.database.read(lambda tx: tx.journal.search({}, limit=5))
    with pytest.raises(HubError, match="PV1"):
        hub.messages.replay(entry.seq, HUB)
    assert told(hub, "K1") == []


def test_what_validation_rejects_is_told_so_though_the_feed_keeps_failures(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, ack="kept", validate="reject")
    assert hub.code(message("wrong", "K1", "", "")) == "AE"
    assert kept(hub, "K1") == [("refused", True)]


def test_a_message_that_cannot_be_cut_is_told_so_though_the_feed_keeps_failures(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, ack="kept")
    assert hub.code(msh("ADT^A01", "K1") + "\rnonsense\r") == "AE"
    assert kept(hub, "K1") == [("refused", True)]


@pytest.mark.parametrize(
    ("event", "keeps"), [("ADT^A01", True), ("QBP^Q22", False), ("OSQ^Q06", False), ("REF^I15", False)]
)
def test_aa_is_never_the_answer_to_a_question_that_failed(sqlite_database: Database, event: str, keeps: bool) -> None:
    hub = V2Hub(sqlite_database, ack="kept")
    raw = (msh(event, "K1") + "\rPID|1\r").encode()
    one = read_arrival(raw, hub.services.directory, peer="127.0.0.1:1", door="mllp", received_at=hub.services.clock())
    assert keeps_failures(one, FAULT) is keeps
    assert keeps_failures(one, Verdict(outcome="invalid")) is keeps
    assert not keeps_failures(one, Verdict(outcome="refused"))
