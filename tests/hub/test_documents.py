"""Clinical documents meet what is stored: one record for one patient, no step back, nothing twice, every arrival noted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED, Scope
from hub.actor import Actor
from hub.boot import Services
from hub.documents import Taken
from hub.errors import Category, HubError
from hub.ports import Entry
from hub.search.ast import Query
from tests.support.services import running
from tests.support.v2 import Ticking, a40, msh

SAMPLES = Path(__file__).parents[2] / "sample_data" / "cda"
OUTPATIENT = (SAMPLES / "C0002" / "kn_outpatient.xml").read_bytes()
LABORATORY = (SAMPLES / "C0007" / "qm_laboratory.xml").read_bytes()
KN, QM = Actor(institution="KN"), Actor(institution="QM")


@pytest.fixture
def services(tmp_path: Path, database_url: str) -> Iterator[Services]:
    """On SQLite and on PostgreSQL."""
    with running(tmp_path, url=database_url, clock=Ticking()) as one:
        yield one


def take(services: Services, raw: bytes, actor: Actor = KN) -> Taken:
    return services.documents.receive(raw, actor, "127.0.0.1:1")


def all_of(services: Services, kind: str) -> list[dict[str, Any]]:
    found = services.database.read(lambda tx: tx.records.search(Query(resource_type=kind, count=100), UNRESTRICTED))
    return [cast("dict[str, Any]", loads(one.body)) for one in found.matches]


def journal(services: Services) -> list[Entry]:
    return list(services.database.read(lambda tx: tx.journal.search({"door": "cda"}, limit=100)))[::-1]


def audited(services: Services) -> list[Any]:
    found = services.database.read(lambda tx: tx.audit.search({}, institution=None, limit=50, before=None))
    return [one for one in found if one["subtype"][0]["code"] == "CDA"]


def feed(services: Services, *lines: str) -> None:
    text = "\r".join([*lines, ""])
    answer = services.messages.receive(text.encode("gb18030"), "127.0.0.1:1")
    assert answer is not None
    assert parse(answer.decode("gb18030")).get("MSA-1") == "AA", answer


def adt(
    number: str, *, card: str = "12345", resident: str = "990001197602290170", control: str = "1"
) -> tuple[str, ...]:
    pid = f"PID|1||{card}^^^^IDCard~{number}^^^^Outpatient~{resident}^^^^IdentifyNO||郑伟||19760229|M"
    return msh("ADT^A04", control), "EVN|A04|20250611080000", pid


def test_a_document_is_stored_with_its_parts_and_answered_by_its_reference(services: Services) -> None:
    taken = take(services, OUTPATIENT)
    assert taken.created
    document = loads(taken.document.body)
    assert (taken.document.owner, document["status"], document["docStatus"]) == ("KN", "current", "final")
    (composition,) = all_of(services, "Composition")
    assert document["context"]["related"] == [{"reference": f"Composition/{composition['id']}"}]
    assert (
        document["subject"]
        == composition["subject"]
        == {"reference": f"Patient/{all_of(services, 'Patient')[0]['id']}"}
    )
    (binary,) = all_of(services, "Binary")
    digest = next(one["valueString"] for one in binary["_data"]["extension"] if one["url"].endswith("/object-digest"))
    assert services.objects.read(digest) == OUTPATIENT
    (provenance,) = all_of(services, "Provenance")
    assert provenance["activity"] == {"text": "CDA C0002"}
    (entry,) = journal(services)
    assert (entry.state, entry.institution, entry.message_type, entry.body) == ("done", "KN", "CDA C0002", OUTPATIENT)
    (line,) = audited(services)
    assert line["outcome"] == "0"
    assert any(taken.document.patient_id in str(one) for one in line["entity"])


def test_the_same_document_again_changes_nothing_and_gets_the_same_answer(services: Services) -> None:
    first = take(services, OUTPATIENT)
    again = take(services, OUTPATIENT)
    assert (again.created, again.document) == (False, first.document)
    assert len(journal(services)) == len(all_of(services, "Provenance")) == 1
    # Somebody asked to see what came of it all the same.
    assert len(audited(services)) == 2


def test_an_older_version_under_the_same_id_does_not_overwrite_a_newer_one(services: Services) -> None:
    newer = OUTPATIENT.replace(b"20250611090000+0800", b"20250611100000+0800").replace("心律齐".encode("gb18030"), b"-")
    take(services, newer)
    kept = take(services, OUTPATIENT)
    assert loads(kept.document.body)["date"] == "2025-06-11T10:00:00+08:00"
    assert [entry.flags for entry in journal(services)] == ["", "control-id-reuse"]


def test_a_document_joins_the_record_that_the_hospitals_feed_made(services: Services) -> None:
    feed(services, *adt("MZ20250611001"))
    (patient,) = all_of(services, "Patient")
    taken = take(services, OUTPATIENT)
    assert [one["id"] for one in all_of(services, "Patient")] == [patient["id"]]
    assert taken.document.patient_id == patient["id"]
    (composition,) = all_of(services, "Composition")
    (encounter,) = all_of(services, "Encounter")
    assert composition["subject"] == encounter["subject"] == {"reference": f"Patient/{patient['id']}"}


def test_a_record_of_another_hospital_with_the_same_number_is_not_joined(services: Services) -> None:
    feed(services, *adt("MZ20250611001"))
    taken = take(services, OUTPATIENT, Actor(institution="YL"))
    assert {one["managingOrganization"]["identifier"]["value"] for one in all_of(services, "Patient")} == {"KN", "YL"}
    seen = services.database.read(
        lambda tx: tx.records.get("DocumentReference", taken.document.id, Scope(institution="KN"))
    )
    assert seen is None


def test_a_number_of_somebody_else_is_refused_and_nothing_is_filed(services: Services) -> None:
    feed(services, *adt("MZ20250611001", resident="990001196803150313"))
    with pytest.raises(HubError) as caught:
        take(services, OUTPATIENT)
    assert caught.value.category is Category.CONFLICT
    assert caught.value.where == "/ClinicalDocument/recordTarget/patientRole/id"
    assert all_of(services, "DocumentReference") == []
    assert [entry.state for entry in journal(services)] == ["refused"]


def test_a_document_of_a_merged_number_goes_to_the_survivor(services: Services) -> None:
    feed(services, *adt("MZ20250611001"))
    services.messages.receive(a40("2", "777", "12345").encode("gb18030"), "127.0.0.1:1")
    taken = take(services, OUTPATIENT)
    survivor = next(one for one in all_of(services, "Patient") if one.get("active", True))
    assert taken.document.patient_id == survivor["id"]


@pytest.mark.parametrize("late", [False, True])
def test_a_replaced_document_is_superseded_in_whichever_order_they_come(services: Services, late: bool) -> None:
    original = re.sub(rb"<relatedDocument.*?</relatedDocument>", b"", LABORATORY).replace(b"QM-C0007-2", b"QM-C0007-1")
    original = original.replace(b"20250612160000", b"20250612150000")
    for raw in (LABORATORY, original) if late else (original, LABORATORY):
        take(services, raw, QM)
    states = {one["masterIdentifier"]["value"]: one["status"] for one in all_of(services, "DocumentReference")}
    assert states == {"QM-C0007-1": "superseded", "QM-C0007-2": "current"}


def test_what_cannot_be_taken_is_kept_audited_and_said(services: Services) -> None:
    with pytest.raises(HubError) as caught:
        take(services, b'<!DOCTYPE x [<!ENTITY a "b">]>' + LABORATORY)
    assert caught.value.category is Category.INCORRECT
    assert (caught.value.where, bool(caught.value.remedy)) == ("body", True)
    (entry,) = journal(services)
    assert entry.state == "refused"
    assert "document type" in entry.outcome
    assert [one["outcome"] for one in audited(services)] == ["4"]


@pytest.mark.parametrize("roles", [{"operator"}, {"auditor"}, {"researcher"}])
def test_who_reaches_no_patient_data_files_no_document(services: Services, roles: set[str]) -> None:
    with pytest.raises(HubError) as caught:
        take(services, OUTPATIENT, Actor(institution="KN", roles=frozenset(roles)))
    assert caught.value.category is Category.FORBIDDEN
    assert all_of(services, "DocumentReference") == []


def test_a_file_of_a_member_is_that_members(services: Services) -> None:
    endpoint = services.directory.endpoints("QM", "mllp")[0]
    taken = services.documents.receive_file(LABORATORY, endpoint)
    assert taken.document.owner == "QM"
    found = services.database.read(lambda tx: tx.journal.search({"door": "cda-folder"}, limit=5))
    assert [(entry.peer, entry.state) for entry in found] == [(f"folder/{endpoint.id}", "done")]
