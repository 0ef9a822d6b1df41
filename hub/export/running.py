"""The worker's side of exports: one step of one job at a time, under a lease, and again after a crash (PS3.15 annex E)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from fhir_mappings.dicom.deidentify.engine import Copy, Profile, prepare
from fhir_mappings.dicom.deidentify.keys import ProjectKey
from fhir_mappings.dicom.deidentify.table import EDITION, Options
from fhir_mappings.errors import MappingError
from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED
from hub.actor import HUB
from hub.clock import instant
from hub.errors import HubError
from hub.export.files import (
    MANIFEST,
    PLAN,
    STATE,
    folder_of,
    project_key,
    record_of,
    spans,
    sync,
    write,
    write_record,
    written,
)
from hub.export.progress import Run
from hub.export.request import PROJECT
from hub.export.studies import rows
from hub.export.task import ACTIVE, CODE, audit, outputs, said, spec_of, task_of, tasks
from hub.ports import NewVersion, Stored, StudyKey, Tx

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("hub.export")

Json = dict[str, Any]

#: What one step does at most, so that a cancelled job ends soon and a crash repeats little.
STEP_OBJECTS: Final = 50
STEP_BYTES: Final = 256 << 20
#: How long a step may be silent before another node may take the job; a 4 GiB object from a slow store takes minutes.
LEASE_S: Final = 900.0
_NO_LONGER: Final = "no-longer-current"


class Running:
    """Does jobs, one small step after the other; what it did stands in the folder before the Task says so."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._run = Run()

    def turn(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Do one step of one job; returns whether there was one to do.

        Raises:
            HubError: transient, when the stores cannot work now; the step is done again.
        """
        services = self._services
        waiting = services.database.read(
            lambda tx: tasks(tx, services.settings.base_url, ",".join(ACTIVE), UNRESTRICTED, 100)
        )
        self._sweep()
        return any(not stopped() and self._step(one, stopped) for one in reversed(waiting))

    def _step(self, stored: Stored, stopped: Callable[[], bool]) -> bool:
        services, task = self._services, loads(stored.body)
        asked = said(task)
        owner, project = stored.owner, str(asked.get("project", ""))
        if asked.get("institution") != owner or not PROJECT.fullmatch(project):
            return False
        try:
            key = project_key(services.settings.data_dir, owner, project, make=False)
        except FileNotFoundError:
            # The key is on the node that was asked; that one does the job.
            return False
        spec = spec_of(task, key)
        if spec is None:
            log.warning("export_not_sealed", task=stored.id)
            return False
        name = f"export-{stored.id}"
        epoch = services.database.write(
            lambda tx: tx.timers.lease(name, services.node, now=services.clock(), lease_s=LEASE_S)
        )
        if epoch is None:
            return False
        folder = folder_of(services.settings.data_dir, stored.id)
        run = self._resumed(folder, stored.id, owner, spec)
        if run.at < len(run.plan) and not self._made(folder, run, spec, ProjectKey(key), owner, stopped):
            return True
        ended = run.at >= len(run.plan)
        if ended:
            _finish(folder, run, spec)

        def work(tx: Tx) -> bool:
            now = services.clock()
            current = tx.records.get("Task", stored.id, UNRESTRICTED)
            latest = loads(current.body) if current is not None and not current.deleted else None
            if latest is None or latest["status"] not in ACTIVE or spec_of(latest, key) is None:
                return False
            if not tx.timers.hold(name, epoch, now=now, lease_s=LEASE_S):
                return False
            latest["status"] = "completed" if ended else "in-progress"
            latest["lastModified"] = instant(now)
            latest["output"] = outputs(run)
            tx.records.put_many([NewVersion(resource=latest, owner=owner)])
            if ended:
                tx.timers.release(name, epoch)
                done = rows(tx, owner, spec["studies"])
                detail = f"project {project}; {run.counts['left_out']} left out, {run.counts['failed']} failed"
                audit(tx, HUB, "R", f"{CODE}-done", latest, done, at=now, count=run.counts["done"], detail=detail)
            return True

        if services.database.write(work) and ended:
            shutil.rmtree(folder / STATE, ignore_errors=True)
            self._run = Run()
        return True

    def _resumed(self, folder: Path, job: str, owner: str, spec: Json) -> Run:
        """Return the job where it stopped; its instances are those that were there when it began."""
        path = folder / STATE / PLAN
        if self._run.job == job and path.exists():
            return self._run
        if not path.exists():
            # A folder without a plan is what an earlier run left.
            shutil.rmtree(folder, ignore_errors=True)
            (folder / STATE).mkdir(parents=True, mode=0o700)

            def read(tx: Tx) -> list[Json]:
                return [
                    {
                        "study": row.StudyInstanceUID,
                        "series": row.SeriesInstanceUID,
                        "instance": row.SOPInstanceUID,
                        "digest": row.digest,
                        "size": row.size,
                    }
                    for study in spec["studies"]
                    for row in tx.imaging.instances_of(StudyKey(owner=owner, StudyInstanceUID=study))
                ]

            write(path, b"".join(dumps(one) + b"\n" for one in self._services.database.read(read)))
        self._run = run = Run(job, [loads(line) for line in path.read_bytes().splitlines()])
        for span in spans(folder):
            run.add(span, record_of(folder, span))
        return run

    def _made(
        self, folder: Path, run: Run, spec: Json, key: ProjectKey, owner: str, stopped: Callable[[], bool]
    ) -> bool:
        """Make the copies of one step and its record; returns whether it came to its end before it was told to stop."""
        profile = Profile(
            options=Options.of(spec["options"]), take=frozenset(spec["take"]), hold_unknown=spec["hold_unknown"]
        )
        plan, start = run.plan, run.at
        record: list[Json] = []
        at, size = start, 0
        touched: set[Path] = set()
        ahead = plan[start : start + STEP_OBJECTS]
        current = self._services.database.read(
            lambda tx: {one["instance"]: tx.imaging.current_digest(owner, one["instance"]) for one in ahead}
        )
        while at < len(plan) and at - start < STEP_OBJECTS and (at == start or size + plan[at]["size"] <= STEP_BYTES):
            if stopped():
                return False
            one = plan[at]
            size += one["size"]
            at += 1
            if current[one["instance"]] == one["digest"]:
                record.append(self._copy(folder, one, profile, key, owner, touched))
            else:
                # It was deleted, set aside or replaced since the job began.
                record.append({"left_out": _NO_LONGER, "instance": _named(one, profile, key)})
        for path in sorted(touched, reverse=True):
            sync(path)
        write_record(folder, (start, at), record)
        run.add((start, at), record)
        return True

    def _copy(self, folder: Path, one: Json, profile: Profile, key: ProjectKey, owner: str, touched: set[Path]) -> Json:
        # Names are made by the key even where the UIDs are kept: no path comes from what was received.
        study, series, instance = (key.uid(one[name]) for name in ("study", "series", "instance"))
        name = _named(one, profile, key)
        try:
            with self._services.objects.open(one["digest"]) as stream:
                made = prepare(stream, profile=profile, key=key, owner=owner)
                if not isinstance(made, Copy):
                    return {"left_out": made.reason, "instance": name}
                path = folder / study / series / f"{instance}.dcm"
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                touched |= {path.parent, path.parent.parent, folder}
                digest, size = written(path, made.chunks())
        except HubError as error:
            if error.transient or error.fatal:
                raise
            log.error("export_failed", digest=one["digest"], category=error.category.value, error=error.message)  # noqa: TRY400 - the category says it all
            return {"failed": error.category.value, "instance": name}
        except MappingError as error:
            log.error("export_failed", digest=one["digest"], error=error.message)  # noqa: TRY400 - as above
            return {"failed": "incorrect", "instance": name}
        except Exception:  # one object's fault must not hold up the others
            log.exception("export_fault", digest=one["digest"])
            return {"failed": "fault", "instance": name}
        found: Json = {"file": f"{study}/{series}/{instance}.dcm", "sha256": digest, "size": size}
        if made.held_for:
            found["held_for"] = sorted(made.held_for)
        return found

    def _sweep(self) -> None:
        """Remove what jobs made that were cancelled before they ended."""
        root = self._services.settings.data_dir / "exports"
        for state in sorted(root.glob(f"*/{STATE}")):
            id_ = state.parent.name
            stored = self._services.database.read(partial(task_of, id_))
            if stored is None or stored.deleted or loads(stored.body)["status"] not in {*ACTIVE, "completed"}:
                shutil.rmtree(state.parent, ignore_errors=True)


def _finish(folder: Path, run: Run, spec: Json) -> None:
    entries = [one for span in run.spans for one in record_of(folder, span)]
    manifest = {
        "job": run.job,
        "project": spec["project"],
        "profile": f"PS3.15 {EDITION} annex E, Basic Application Level Confidentiality Profile",
        "options": spec["options"],
        "taken": spec["take"],
        "counts": {"total": len(run.plan), **{name: run.counts[name] for name in ("done", "left_out", "failed")}},
        "reasons": run.reasons,
        "objects": [one for one in entries if "file" in one],
        "omitted": [one for one in entries if "file" not in one],
    }
    write(folder / MANIFEST, dumps(manifest))


def _named(one: Json, profile: Profile, key: ProjectKey) -> str:
    """Return the SOP Instance UID that the copy has, or would have."""
    return str(one["instance"]) if profile.options.uids else key.uid(one["instance"])
