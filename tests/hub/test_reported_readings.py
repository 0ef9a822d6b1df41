"""Readings whose final report comes from the reader's own system as ORU^R01 (HL7 v2 chapter 7.3.1, OBR-32 and OBR-33)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.boot import Services
from hub.ports import NewVersion, Tx
from hub.search import parse
from hub.workflows.base import WORKFLOW_SYSTEM
from tests.support.services import running

KN = Actor(institution="KN", roles=frozenset({"system"}))

ORDER = (
    "MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ORM^O01|KNCT1|P|2.4\r"
    "PID|1||0000010086^^^^IDCard~990001197602290170^^^^IdentifyNO||郑伟||19760229|M\r"
    "ORC|NW|KN20250611001|||||^^^^^R||20250611083000|||0231^刘敏\r"
    "OBR|1|KN20250611001||CT0101^胸部CT平扫^L|R||||||||咳嗽待查|||0231^刘敏||||||||CT\r"
).encode("gb18030")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as services:
        assert b"MSA|AA" in (services.messages.receive(ORDER, "127.0.0.1:5000") or b"")
        [request] = found(services, "ServiceRequest")
        study = {"resourceType": "ImagingStudy", "id": "ct", "status": "available", "subject": request["subject"]}

        def ask(tx: Tx) -> None:
            tx.records.put_many([NewVersion(resource=study, owner="KN")])
            services.tasks.create(tx, reading(request), KN, correlation_id="c")

        services.database.write(ask)
        yield services


def found(hub: Services, kind: str) -> list[dict[str, Any]]:
    query = parse(kind, [])
    return [loads(one.body) for one in hub.database.read(lambda tx: tx.records.search(query, UNRESTRICTED)).matches]


def reading(request: dict[str, Any]) -> dict[str, Any]:
    """Return the Task by which KN asks YL to read."""
    return {
        "resourceType": "Task",
        "id": "reading",
        "status": "requested",
        "intent": "order",
        "priority": "routine",
        "code": {"coding": [{"system": WORKFLOW_SYSTEM, "code": "remote-reading"}]},
        "focus": {"reference": f"ServiceRequest/{request['id']}"},
        "for": request["subject"],
        "requester": {"reference": "Organization/kn"},
        "owner": {"reference": "Organization/yl"},
        "input": [{"type": {"text": "影像"}, "valueReference": {"reference": "ImagingStudy/ct"}}],
    }


def report(signatories: str) -> bytes:
    """Return the reader's final report with *signatories* from OBR-32 on."""
    return (
        "MSH|^~\\&|RIS|YLYY|YIXIE|HUB|20250611101530+0800||ORU^R01^ORU_R01|YLRIS1|P|2.5.1||||||UNICODE UTF-8\r"
        "PID|1||0000010086^^^KN^PI||郑伟||19760229|M\r"
        "ORC|RE|KN20250611001|YLRAD1\r"
        "OBR|1|KN20250611001|YLRAD1|24627-2^胸部CT^LN|||20250611085500+0800|||||||||||||||20250611101500+0800||CT|F"
        f"|||||||{signatories}\r"
        "OBX|1|TX|18782-3^影像所见^LN||右肺上叶见一约8mm磨玻璃结节。||||||F\r"
    ).encode()


def at_work(hub: Services) -> str:
    [task] = [one for one in found(hub, "Task") if one["id"] == "reading"]
    return str(task["businessStatus"]["coding"][0]["code"])


def sent_reports(hub: Services) -> list[list[str]]:
    payloads = [
        one.payload.decode("gb18030") for one in hub.database.read(lambda tx: tx.outbox.deliveries({}, limit=50))
    ]
    return [one.split("\r") for one in payloads if "|ORU^R01" in one]


@pytest.mark.parametrize("signatories", ["C002&韩磊|C015&宋洁", "C002&韩磊~C015&宋洁"], ids=["OBR-33", "OBR-32 twice"])
def test_a_report_that_names_reviewer_and_writer_ends_the_reading(hub: Services, signatories: str) -> None:
    assert b"MSA|AA" in (hub.messages.receive(report(signatories), "127.0.0.1:5000") or b"")
    assert at_work(hub) == "final"
    [sent] = sent_reports(hub)
    [obr] = [line.split("|") for line in sent if line.startswith("OBR")]
    assert (obr[2], obr[25]) == ("KN20250611001", "F")
    assert "韩磊" in obr[32]


@pytest.mark.parametrize("signatories", ["C002&韩磊", "C002&韩磊|C002&韩磊", "|C015&宋洁", "C002&韩磊||C015&宋洁", ""])
def test_a_report_without_two_signatories_is_kept_and_the_journal_says_why(hub: Services, signatories: str) -> None:
    assert b"MSA|AA" in (hub.messages.receive(report(signatories), "127.0.0.1:5000") or b"")
    assert (at_work(hub), len(found(hub, "DiagnosticReport")), sent_reports(hub)) == ("submitted", 1, [])
    [entry] = hub.database.read(lambda tx: tx.journal.search({"control_id": "YLRIS1"}, limit=2))
    assert entry.state == "done"
    assert "Task/reading" in entry.outcome
    assert "writer and reviewer" in entry.outcome
    assert "OBR-32" in entry.outcome
