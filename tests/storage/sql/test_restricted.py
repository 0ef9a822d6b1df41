"""What is labelled restricted goes to others with the work that names it, and not with the rest of a patient's record."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import storage.migrations
from fhir_mappings.dicom.instance import InstanceHeader
from hub.access import CONFIDENTIALITY, UNRESTRICTED, Scope, is_restricted
from hub.clock import utc_now
from hub.ports import Grant, NewVersion, ObjectRef
from hub.search import parse
from storage.sql.database import SqlDatabase
from storage.sql.migrate import upgrade

KN, YL = Scope(institution="KN"), Scope(institution="YL")


def label(code: str, system: str = CONFIDENTIALITY) -> dict[str, Any]:
    return {"security": [{"system": system, "code": code}]}


def observation(id: str, **more: Any) -> dict[str, Any]:
    subject = {"reference": "Patient/p1"}
    return {
        "resourceType": "Observation", "id": id, "status": "final", "code": {"text": "HIV"}, "subject": subject, **more
    }  # fmt: skip


def put(database: SqlDatabase, *resources: dict[str, Any], owner: str = "KN") -> None:
    database.write(lambda tx: tx.records.put_many([NewVersion(resource=one, owner=owner) for one in resources]))


def lend(database: SqlDatabase, kind: str, id: str) -> None:
    grant = Grant(grantee="YL", target_type=kind, target_id=id, task_id="t1")
    database.write(lambda tx: tx.grants.open(grant, now=utc_now()))


def seen(database: SqlDatabase, scope: Scope, kind: str = "Observation") -> list[str]:
    """Return the ids that a search finds, having checked that reading by id says the same."""
    query = parse(kind, [], now=utc_now())
    found = sorted(one.id for one in database.read(lambda tx: tx.records.search(query, scope)).matches)
    ids = [one.id for one in database.read(lambda tx: tx.records.search(query, UNRESTRICTED)).matches]
    read = sorted(one for one in ids if database.read(lambda tx, one=one: tx.records.get(kind, one, scope)))
    assert found == read
    return found


@pytest.mark.parametrize(
    ("resource", "restricted"),
    [
        ({"resourceType": "Encounter", "meta": label("R")}, True),
        ({"resourceType": "Encounter", "meta": label("V")}, True),
        ({"resourceType": "Encounter", "meta": label("N")}, False),
        ({"resourceType": "Encounter", "meta": label("R", "urn:other")}, False),
        ({"resourceType": "Encounter"}, False),
        ({"resourceType": "DocumentReference", "securityLabel": [{"coding": label("V")["security"]}]}, True),
        ({"resourceType": "DocumentReference", "securityLabel": [{"text": "保密"}]}, False),
    ],
)
def test_labels_of_the_standard_restrict(resource: dict[str, Any], restricted: bool) -> None:
    assert is_restricted(resource) is restricted


def test_a_grant_for_the_record_leaves_out_what_is_labelled(database: SqlDatabase) -> None:
    put(database, observation("open"), observation("r", meta=label("R")), observation("v", meta=label("V")))
    lend(database, "patient-record", "p1")

    assert seen(database, YL) == ["open"]
    assert seen(database, KN) == ["open", "r", "v"]


def test_a_task_that_names_it_opens_it(database: SqlDatabase) -> None:
    put(database, observation("r", meta=label("R")), observation("v", meta=label("V")))
    lend(database, "patient-record", "p1")
    lend(database, "Observation", "r")

    assert seen(database, YL) == ["r"]


def test_a_label_takes_back_what_was_said_before_it_too(database: SqlDatabase) -> None:
    put(database, observation("o", valueString="阴性"))
    put(database, observation("o", valueString="阳性"))
    lend(database, "patient-record", "p1")
    before = database.read(lambda tx: tx.records.version("Observation", "o", 1, YL))
    put(database, observation("o", valueString="阳性", meta=label("R")))

    after = [database.read(lambda tx, n=n: tx.records.version("Observation", "o", n, YL)) for n in (1, 2, 3)]
    own = [database.read(lambda tx, n=n: tx.records.version("Observation", "o", n, KN)) for n in (1, 2, 3)]

    assert before is not None
    assert after == [None, None, None]
    assert None not in own
    assert not list(database.read(lambda tx: tx.records.history("Observation", "o", YL, count=10)))


def test_without_its_label_it_is_part_of_the_record_again(database: SqlDatabase) -> None:
    put(database, observation("o", meta=label("R")))
    put(database, observation("o"))
    lend(database, "patient-record", "p1")

    assert seen(database, YL) == ["o"]
    assert database.read(lambda tx: tx.records.version("Observation", "o", 1, YL)) is None


def test_an_imaging_study_that_is_labelled_is_left_out_at_the_imaging_doors_too(database: SqlDatabase) -> None:
    for name in ("plain", "labelled"):
        header = InstanceHeader(
            StudyInstanceUID=f"1.2.{len(name)}", SeriesInstanceUID=f"1.2.{len(name)}.1", SOPInstanceUID=f"1.2.{len(name)}.1.1",
            Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2", TransferSyntaxUID="1.2.840.10008.1.2.1",
            InstanceNumber="1", SeriesNumber="1", attributes=b"{}", PatientID="7", StudyDate="20250611",
        )  # fmt: skip
        ref = ObjectRef(digest=f"d-{name}", size=1)
        database.write(
            lambda tx, header=header, ref=ref, name=name: tx.imaging.add(
                "KN", header, ref, utc_now(), "p1", "c", resource_id=name
            )
        )
        study = {
            "resourceType": "ImagingStudy",
            "id": name,
            "status": "available",
            "subject": {"reference": "Patient/p1"},
        }
        put(database, study | ({"meta": label("R")} if name == "labelled" else {}))
    lend(database, "patient-record", "p1")

    def shown(scope: Scope) -> list[str]:
        return sorted(one["resource_id"] for one in database.read(lambda tx: tx.imaging.studies(scope, [], limit=10)))

    assert shown(YL) == ["plain"]
    assert shown(KN) == ["labelled", "plain"]
    lend(database, "ImagingStudy", "labelled")
    assert shown(YL) == ["labelled", "plain"]


def back_to(engine: sa.Engine, revision: str) -> None:
    """Let *engine*'s database say that it is at *revision*."""
    configuration = Config()
    configuration.set_main_option("script_location", str(storage.migrations.__path__[0]))
    configuration.attributes["engine"] = engine
    command.stamp(configuration, revision)


def test_the_migration_labels_what_was_stored_before(database: SqlDatabase) -> None:
    put(database, observation("open", meta=label("N")), observation("r"))
    put(database, observation("r", meta=label("R")))
    lend(database, "patient-record", "p1")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE record SET visibility = 'institution'")
        connection.exec_driver_sql("UPDATE record_history SET visibility = 'institution'")
    everything = seen(database, YL)
    back_to(database.engine, "0007")
    upgrade(database.engine)

    assert everything == ["open", "r"]
    assert seen(database, YL) == ["open"]
    assert database.read(lambda tx: tx.records.version("Observation", "r", 1, YL)) is None
