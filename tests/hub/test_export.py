"""Export jobs over real stores: who may, what is made, and that nothing is lost or made twice (PS3.15 annex E)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa

from fhir_mappings.definitions.check import check
from fhir_mappings.json import dumps, loads
from hub.access import Scope
from hub.actor import Actor
from hub.boot import Services
from hub.errors import Category, HubError
from hub.export import Exports, Request, key_file, running
from hub.ports import Grant, NewVersion, StudyKey
from storage.sql.schema import audit
from tests.support.databases import migrate, opened
from tests.support.images import ROOT, STUDY, FakeClock, ct, receive, resources, services

ADMIN = Actor(institution="KN", roles=frozenset({"admin"}))
OTHER = f"{ROOT}.2"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hub(tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    migrate(url)
    with opened(url, clock=clock) as database:
        yield services(database, tmp_path, clock)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "STEP_OBJECTS", 2)


def finish(exports: Exports) -> int:
    steps = 0
    while exports.turn():
        steps += 1
        assert steps < 100
    return steps


def files(hub: Services, job: str) -> dict[str, bytes]:
    root = hub.settings.data_dir / "exports" / job
    return {str(one.relative_to(root)): one.read_bytes() for one in sorted(root.rglob("*")) if one.is_file()}


def refused(work: Any) -> Category:
    with pytest.raises(HubError) as caught:
        work()
    return caught.value.category


def audited(hub: Services) -> list[Any]:
    return hub.database.read(lambda tx: tx.connection.execute(sa.select(audit)).all())  # type: ignore[attr-defined]


def test_a_job_makes_a_file_for_each_instance_and_a_manifest(hub: Services) -> None:
    for number in range(1, 6):
        receive(hub, ct(number))
    exports = Exports(hub)
    job = exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    assert (job["status"], job["studies"], job["folder"]) == ("requested", 1, "")
    assert finish(exports) == 3
    job = exports.get(ADMIN, job["id"])
    assert (job["status"], job["total"], job["done"], job["left_out"], job["failed"]) == ("completed", 5, 5, 0, 0)
    made = files(hub, job["id"])
    manifest = loads(made.pop("manifest.json"))
    assert sorted(one["file"] for one in manifest["objects"]) == sorted(made)
    assert manifest["counts"] == {"total": 5, "done": 5, "left_out": 0, "failed": 0}
    copies = [pydicom.dcmread(io.BytesIO(data)) for data in made.values()]
    assert len({copy.SOPInstanceUID for copy in copies}) == 5
    assert len({copy.StudyInstanceUID for copy in copies}) == 1
    assert all("郑".encode() not in data and STUDY.encode() not in data for data in [*made.values(), dumps(manifest)])


def test_the_task_is_plain_fhir_that_only_its_institution_sees(hub: Services) -> None:
    receive(hub, ct())
    exports = Exports(hub)
    exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    finish(exports)
    (task,) = resources(hub, "Task")
    assert check(task) == []
    assert task["code"]["coding"][0]["code"] == "deidentified-export"
    assert hub.database.read(lambda tx: tx.records.get("Task", task["id"], Scope(institution="KN")))
    assert hub.database.read(lambda tx: tx.records.get("Task", task["id"], Scope(institution="QH"))) is None


def test_only_an_administrator_or_researcher_may_ask(hub: Services) -> None:
    receive(hub, ct())
    request = Request(project="lung", studies=[STUDY])
    doctor = Actor(institution="KN", practitioner="0231", roles=frozenset({"doctor"}))
    assert refused(lambda: Exports(hub).start(doctor, request)) == Category.FORBIDDEN
    researcher = Actor(institution="KN", roles=frozenset({"researcher"}))
    assert Exports(hub).start(researcher, request)["status"] == "requested"


def test_a_grant_never_suffices(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    study = hub.database.read(lambda tx: tx.imaging.study(StudyKey(owner="KN", StudyInstanceUID=STUDY)))
    assert study is not None
    grant = Grant(grantee="YL", target_type="ImagingStudy", target_id=study["resource_id"], task_id="t1")
    hub.database.write(lambda tx: tx.grants.open(grant, now=clock()))
    assert hub.database.read(lambda tx: tx.imaging.studies(Scope(institution="YL"), [], limit=9))
    theirs = Actor(institution="YL", roles=frozenset({"admin"}))
    exports = Exports(hub)
    assert refused(lambda: exports.start(theirs, Request(project="x", studies=[STUDY]))) == Category.NOT_FOUND
    job = exports.start(theirs, Request(project="x", query={"PatientID": "10086"}))
    assert job["studies"] == 0
    mine = exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    assert exports.jobs(theirs) == [job]
    assert refused(lambda: exports.get(theirs, mine["id"])) == Category.NOT_FOUND
    assert refused(lambda: exports.cancel(theirs, mine["id"])) == Category.NOT_FOUND


def test_studies_may_be_asked_for_by_a_query(hub: Services) -> None:
    receive(hub, ct())
    receive(hub, ct(study=OTHER, StudyDate="20240101"))
    exports = Exports(hub)
    job = exports.start(ADMIN, Request(project="lung", query={"StudyDate": "20250101-20251231"}))
    finish(exports)
    assert exports.get(ADMIN, job["id"])["done"] == 1


@pytest.mark.parametrize(
    "request_",
    [
        Request(project="../etc", studies=[STUDY]),
        Request(project="lung"),
        Request(project="lung", studies=[STUDY], query={"PatientID": "1"}),
        Request(project="lung", studies=[STUDY], options=["full-dates", "modified-dates"]),
        Request(project="lung", studies=[STUDY], options=["nonsense"]),
        Request(project="lung", studies=[STUDY], take=["structured-report"]),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(hub: Services, request_: Request) -> None:
    receive(hub, ct())
    assert refused(lambda: Exports(hub).start(ADMIN, request_)) == Category.INCORRECT


def test_what_is_held_back_is_counted_and_listed(hub: Services) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2, BurnedInAnnotation="YES"))
    exports = Exports(hub)
    job = exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    finish(exports)
    job = exports.get(ADMIN, job["id"])
    assert (job["done"], job["left_out"]) == (1, 1)
    assert job["reasons"] == {"burned-in-annotation": 1}
    assert job["left_out_instances"] == [f"{STUDY}.1.2"]
    manifest = loads(files(hub, job["id"])["manifest.json"])
    assert manifest["omitted"][0]["left_out"] == "burned-in-annotation"
    assert STUDY not in manifest["omitted"][0]["instance"]
    taken = exports.start(ADMIN, Request(project="lung", studies=[STUDY], take=["burned-in-annotation"]))
    finish(exports)
    assert exports.get(ADMIN, taken["id"])["done"] == 2


def test_an_object_that_is_gone_is_counted_as_failed(hub: Services) -> None:
    receive(hub, ct(1))
    receive(hub, ct(2))
    exports = Exports(hub)
    job = exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    digest = next(one.digest for one in hub.objects.digests())
    hub.objects.delete(digest)
    finish(exports)
    job = exports.get(ADMIN, job["id"])
    assert (job["status"], job["done"], job["failed"]) == ("completed", 1, 1)


def test_what_was_set_aside_meanwhile_is_left_out(hub: Services) -> None:
    for number in range(1, 4):
        receive(hub, ct(number))
    exports = Exports(hub)
    job = exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    exports.turn()
    key, uid = StudyKey(owner="KN", StudyInstanceUID=STUDY), f"{STUDY}.1.3"
    digest = hub.database.read(lambda tx: tx.imaging.current_digest("KN", uid))
    assert digest is not None
    hub.database.write(lambda tx: tx.imaging.set_aside(key, uid, digest))
    finish(exports)
    assert exports.get(ADMIN, job["id"])["reasons"] == {"no-longer-current": 1}


def test_another_worker_goes_on_where_one_was_killed(hub: Services, clock: FakeClock) -> None:
    for number in range(1, 6):
        receive(hub, ct(number))
    exports = Exports(hub)
    job = exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    assert exports.turn()
    assert exports.get(ADMIN, job["id"])["done"] == 2
    before = files(hub, job["id"])
    # What comes after the job began is not part of it.
    receive(hub, ct(6))
    assert finish(Exports(hub)) == 2
    assert exports.get(ADMIN, job["id"])["done"] == 5
    after = files(hub, job["id"])
    assert {name: data for name, data in before.items() if name.endswith(".dcm")}.items() <= after.items()


def test_a_step_whose_commit_was_lost_is_not_made_twice(hub: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 4):
        receive(hub, ct(number))
    exports = Exports(hub)
    job = exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    real, calls = hub.database.write, []

    def failing(work: Any) -> Any:
        calls.append(work)
        if len(calls) == 2:
            raise HubError(Category.UNAVAILABLE, "no")
        return real(work)

    monkeypatch.setattr(hub.database, "write", failing)
    assert refused(exports.turn) == Category.UNAVAILABLE
    finish(Exports(hub))
    assert exports.get(ADMIN, job["id"])["done"] == 3
    assert len(files(hub, job["id"])) == 4


def test_one_worker_at_a_time_does_a_job(hub: Services, clock: FakeClock) -> None:
    receive(hub, ct())
    exports = Exports(hub)
    job = exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    now = clock()
    hub.database.write(lambda tx: tx.timers.lease(f"export-{job['id']}", "another", now=now, lease_s=60))
    assert not exports.turn()
    clock.forward(61)
    assert exports.turn()


def test_a_cancelled_job_leaves_nothing(hub: Services) -> None:
    for number in range(1, 6):
        receive(hub, ct(number))
    exports = Exports(hub)
    job = exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    exports.turn()
    assert exports.cancel(ADMIN, job["id"])["status"] == "cancelled"
    assert not exports.turn()
    assert files(hub, job["id"]) == {}
    assert refused(lambda: exports.cancel(ADMIN, job["id"])) == Category.CONFLICT


def test_the_same_request_again_gives_the_same_files(hub: Services) -> None:
    receive(hub, ct())
    exports = Exports(hub)
    request = Request(project="lung", studies=[STUDY], options=["modified-dates"])
    job = exports.start(ADMIN, request)
    assert exports.start(ADMIN, request) == job
    finish(exports)
    first = files(hub, job["id"])
    assert exports.start(ADMIN, request)["id"] == job["id"]
    finish(exports)
    assert files(hub, job["id"]) == first


def test_two_projects_cannot_be_joined(hub: Services) -> None:
    receive(hub, ct())
    exports = Exports(hub)
    jobs = [exports.start(ADMIN, Request(project=name, studies=[STUDY])) for name in ("a", "b")]
    finish(exports)
    one, other = (
        next(pydicom.dcmread(io.BytesIO(data)) for name, data in files(hub, job["id"]).items() if name.endswith(".dcm"))
        for job in jobs
    )
    assert one.StudyInstanceUID != other.StudyInstanceUID
    assert one.PatientID != other.PatientID


def test_a_job_that_was_written_by_hand_is_not_done(hub: Services) -> None:
    receive(hub, ct())
    exports = Exports(hub)
    job = exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    (task,) = resources(hub, "Task")
    said = loads(task["input"][0]["valueString"].encode())
    task["input"][0]["valueString"] = dumps({**said, "options": ["uids", "full-dates"]}).decode()
    hub.database.write(lambda tx: tx.records.put_many([NewVersion(resource=task, owner="KN")]))
    assert not exports.turn()
    assert files(hub, job["id"]) == {}


def test_the_table_of_uids_is_for_who_has_the_key(hub: Services) -> None:
    receive(hub, ct())
    exports = Exports(hub)
    job = exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    finish(exports)
    key = key_file(hub.settings.data_dir, "KN", "lung").read_bytes()
    made = next(name for name in files(hub, job["id"]) if name.endswith(".dcm"))
    table = {kind: (here, there) for kind, here, there in exports.mapping(ADMIN, job["id"], key)}
    assert table["study"][0] == STUDY
    assert made == "/".join(table[kind][1] for kind in ("study", "series", "instance")) + ".dcm"
    for wrong in (bytes(32), b"short"):
        assert refused(lambda wrong=wrong: list(exports.mapping(ADMIN, job["id"], wrong))) == Category.FORBIDDEN


def test_asking_and_ending_are_audited_with_project_and_number(hub: Services) -> None:
    receive(hub, ct())
    exports = Exports(hub)
    before = len(audited(hub))
    exports.start(ADMIN, Request(project="lung", studies=[STUDY]))
    finish(exports)
    events = [loads(bytes(row.body)) for row in audited(hub)[before:]]
    assert [event["subtype"][0]["code"] for event in events] == ["deidentified-export", "deidentified-export-done"]
    assert all("project lung" in dumps(event).decode() for event in events)


def test_the_key_is_readable_by_its_owner_only(hub: Services) -> None:
    receive(hub, ct())
    Exports(hub).start(ADMIN, Request(project="lung", studies=[STUDY]))
    assert key_file(hub.settings.data_dir, "KN", "lung").stat().st_mode & 0o777 == 0o600
