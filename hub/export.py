"""De-identified copies of an institution's own studies, as a job (PS3.15 annex E; https://hl7.org/fhir/R4/task.html).

Theory of operation. A job is a Task of the institution that asked. What is to be done stands in it as one text with a
seal, an HMAC under the project's key, so that only a job that was asked for here, by somebody who may, is ever done. The
worker takes one job at a time under a lease, freezes the list of instances in the job's folder, and makes the copies in
small steps. Each step leaves a record beside the files before the Task says so; whoever goes on after a crash or on
another node does the steps without a record, and the same instance always becomes the same file.

The result is the folder ``{data_dir}/exports/<job>``: one Part 10 file for each copy and ``manifest.json``. Nothing in it
leads back. Whoever has the project's key can make the table of UIDs again (:meth:`Exports.mapping`); it is never stored.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from fhir_mappings.dicom.deidentify import holding
from fhir_mappings.dicom.deidentify.engine import Copy, Profile, prepare
from fhir_mappings.dicom.deidentify.keys import KEY_BYTES, ProjectKey
from fhir_mappings.dicom.deidentify.table import EDITION, Options
from fhir_mappings.errors import MappingError
from fhir_mappings.identifiers import resource_id
from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED, Scope
from hub.actor import HUB, Actor
from hub.attribute_matching import Match, parse
from hub.clock import instant
from hub.errors import Category, HubError
from hub.ports import AuditLine, NewVersion, Stored, StudyKey, Tx
from hub.search import parse as parse_query

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("hub.export")

Json = dict[str, Any]

#: Code of the Task in the code system ``work-item``.
CODE: Final = "deidentified-export"
#: Roles that may ask; a grant never suffices, because it is for one purpose and this is another.
ROLES: Final = frozenset({"admin", "researcher"})
#: Most studies and instances of one job: its list must fit a FHIR string and the memory of the worker.
MAX_STUDIES: Final = 2_000
MAX_INSTANCES: Final = 200_000
#: What one step does at most, so that a cancelled job ends soon and a crash repeats little.
STEP_OBJECTS: Final = 50
STEP_BYTES: Final = 256 << 20
#: How long a step may be silent before another node may take the job; a 4 GiB object from a slow store takes minutes.
LEASE_S: Final = 900.0
#: Instances that the Task names of those that were left out; the manifest has all.
_NAMED: Final = 100
#: Studies looked up in one statement.
_BATCH = 500
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NO_LONGER: Final = "no-longer-current"
_ACTIVE = ("requested", "in-progress")
_SPEC, _SEAL = "导出要求 (request)", "封印 (seal)"
_COUNTS = {
    "total": "总数 (total)",
    "done": "已导出 (done)",
    "left_out": "未导出 (left out)",
    "failed": "失败 (failed)",
}
_REASON, _LEFT = "未导出原因 (reason)", "未导出的实例 (left out instance)"
_STATE, _PLAN, _MANIFEST = ".state", "plan.jsonl", "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an export is to be.

    Attributes:
        project: its name; each project of an institution has a key of its own.
        studies: Study Instance UIDs.
        query: or values by study key, as QIDO-RS takes them.
        options: names of :class:`fhir_mappings.dicom.deidentify.table.Options`.
        take: reasons of :data:`holding.HELD` that do not hold an object back.
        hold_unknown: hold back every image of which nothing says that its pixels name nobody.
    """

    project: str
    studies: Sequence[str] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    take: Sequence[str] = ()
    hold_unknown: bool = False


@dataclass(slots=True)
class _Run:
    """The job in hand: its instances, how far it is, and what came of them."""

    job: str = ""
    plan: list[Json] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)

    @property
    def at(self) -> int:
        return self.spans[-1][1] if self.spans else 0

    def add(self, span: tuple[int, int], record: Sequence[Json]) -> None:
        """Count one step."""
        self.spans.append(span)
        for planned, one in zip(self.plan[span[0] : span[1]], record, strict=True):
            what = next(name for name in ("file", "left_out", "failed") if name in one)
            self.counts["done" if what == "file" else what] += 1
            if what != "file":
                self.counts[f"reason|{one[what]}"] += 1
                if len(self.left) < _NAMED:
                    self.left.append(planned["instance"])


class Exports:
    """Export jobs: asked for, looked at and cancelled by people, done by the worker."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._run = _Run()

    # --- for people --------------------------------------------------------------------------------------------

    def start(self, actor: Actor, request: Request) -> Json:
        """Ask for an export of the actor's institution's own studies; durable on return.

        The same request again is the same job: one that is under way stays as it is, one that ended is done anew.

        Raises:
            HubError: forbidden for a role that may not ask; incorrect for a request that makes no sense; not-found when a
                study is not the institution's own.
        """
        owner = _institution(actor)
        options, take = _checked(request)
        key = _key(self._services.settings.data_dir, owner, request.project, make=True)

        def work(tx: Tx) -> Json:
            studies = self._studies(tx, owner, request)
            spec = dumps(
                {
                    "institution": owner,
                    "project": request.project,
                    "studies": [str(row["StudyInstanceUID"]) for row in studies],
                    "options": list(options.names()),
                    "take": sorted(take),
                    "hold_unknown": request.hold_unknown,
                }
            ).decode()
            id_ = resource_id(owner, "work-item", "Task", f"{CODE}|{sha256(spec.encode()).hexdigest()}")
            stored = tx.records.get("Task", id_, UNRESTRICTED)
            if stored is not None and not stored.deleted:
                task = loads(stored.body)
                if task["status"] in _ACTIVE and _spec(task, key) is not None:
                    return _shown(task)
            task = self._task(tx, owner, id_, spec, _seal(key, id_, spec))
            tx.records.put_many([NewVersion(resource=task, owner=owner)])
            self._audit(
                tx,
                actor,
                "C",
                CODE,
                task,
                studies,
                count=len(studies),
                detail=f"project {request.project}; options {' '.join(options.names()) or 'none'}",
            )
            return _shown(task)

        return self._services.database.write(work)

    def jobs(self, actor: Actor, *, limit: int = 100) -> list[Json]:
        """Return the jobs of the actor's institution, the newest first."""
        owner = _institution(actor)
        tasks = self._services.database.read(lambda tx: _tasks(tx, self._base, None, Scope(institution=owner), limit))
        return [_shown(loads(one.body)) for one in tasks if one.owner == owner]

    def get(self, actor: Actor, id: str) -> Json:
        """Return one job.

        Raises:
            HubError: not-found when it is none of the institution's.
        """
        owner = _institution(actor)
        return _shown(self._services.database.read(lambda tx: self._own(tx, owner, id)))

    def cancel(self, actor: Actor, id: str) -> Json:
        """End a job before its time; the worker removes what it made. Durable on return.

        Raises:
            HubError: not-found; conflict when it has ended.
        """
        owner = _institution(actor)

        def work(tx: Tx) -> Json:
            task = self._own(tx, owner, id)
            if task["status"] not in _ACTIVE:
                raise HubError(Category.CONFLICT, "The export has ended.", where=f"Task/{id}")
            task["status"] = "cancelled"
            task["lastModified"] = instant(self._services.clock())
            tx.records.put_many([NewVersion(resource=task, owner=owner)])
            self._audit(tx, actor, "U", f"{CODE}-cancel", task, ())
            return _shown(task)

        return self._services.database.write(work)

    def mapping(self, actor: Actor, id: str, key: bytes) -> Iterator[tuple[str, str, str]]:
        """Yield (kind, UID here, UID in the copies) for the studies, series and instances of a job; audited.

        Args:
            key: the project's own key, from its file: who has it may know.

        Raises:
            HubError: not-found; forbidden when the key is not the project's.
        """
        owner = _institution(actor)
        task = self._services.database.read(lambda tx: self._own(tx, owner, id))
        holder = ProjectKey(key) if len(key) == KEY_BYTES else None
        spec = _spec(task, key) if holder is not None else None
        if holder is None or spec is None:
            raise HubError(
                Category.FORBIDDEN,
                "This is not the key of the project.",
                where="key",
                remedy="Use the project's key file.",
            )
        keeps = Options.of(spec["options"]).uids

        def read(tx: Tx) -> list[tuple[str, str, str]]:
            return [
                (kind, uid, uid if keeps else holder.uid(uid))
                for study in spec["studies"]
                for row in tx.imaging.instances_of(StudyKey(owner=owner, StudyInstanceUID=study))
                for kind, uid in (
                    ("study", row.StudyInstanceUID),
                    ("series", row.SeriesInstanceUID),
                    ("instance", row.SOPInstanceUID),
                )
            ]

        found = list(dict.fromkeys(self._services.database.read(read)))

        def audit(tx: Tx) -> None:
            studies = _rows(tx, owner, spec["studies"])
            self._audit(tx, actor, "R", f"{CODE}-mapping", task, studies, count=len(found))

        self._services.database.write(audit)
        yield from found

    # --- for the worker ----------------------------------------------------------------------------------------

    def turn(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Do one step of one job; returns whether there was one to do.

        Raises:
            HubError: transient, when the stores cannot work now; the step is done again.
        """
        waiting = self._services.database.read(lambda tx: _tasks(tx, self._base, ",".join(_ACTIVE), UNRESTRICTED, 100))
        self._sweep()
        return any(not stopped() and self._step(one, stopped) for one in reversed(waiting))

    def _step(self, stored: Stored, stopped: Callable[[], bool]) -> bool:
        services, task = self._services, loads(stored.body)
        said = _said(task)
        owner, project = stored.owner, str(said.get("project", ""))
        if said.get("institution") != owner or not _PROJECT.fullmatch(project):
            return False
        try:
            key = _key(services.settings.data_dir, owner, project, make=False)
        except FileNotFoundError:
            # The key is on the node that was asked; that one does the job.
            return False
        spec = _spec(task, key)
        if spec is None:
            log.warning("export_not_sealed", task=stored.id)
            return False
        name = f"export-{stored.id}"
        epoch = services.database.write(
            lambda tx: tx.timers.lease(name, services.node, now=services.clock(), lease_s=LEASE_S)
        )
        if epoch is None:
            return False
        folder = _folder(services.settings.data_dir, stored.id)
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
            if latest is None or latest["status"] not in _ACTIVE or _spec(latest, key) is None:
                return False
            if not tx.timers.hold(name, epoch, now=now, lease_s=LEASE_S):
                return False
            latest["status"] = "completed" if ended else "in-progress"
            latest["lastModified"] = instant(now)
            latest["output"] = _outputs(run)
            tx.records.put_many([NewVersion(resource=latest, owner=owner)])
            if ended:
                tx.timers.release(name, epoch)
                rows = _rows(tx, owner, spec["studies"])
                detail = f"project {project}; {run.counts['left_out']} left out, {run.counts['failed']} failed"
                self._audit(tx, HUB, "R", f"{CODE}-done", latest, rows, count=run.counts["done"], detail=detail)
            return True

        if services.database.write(work) and ended:
            shutil.rmtree(folder / _STATE, ignore_errors=True)
            self._run = _Run()
        return True

    def _resumed(self, folder: Path, job: str, owner: str, spec: Json) -> _Run:
        """Return the job where it stopped; its instances are those that were there when it began."""
        path = folder / _STATE / _PLAN
        if self._run.job == job and path.exists():
            return self._run
        if not path.exists():
            # A folder without a plan is what an earlier run left.
            shutil.rmtree(folder, ignore_errors=True)
            (folder / _STATE).mkdir(parents=True, mode=0o700)

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

            _write(path, b"".join(dumps(one) + b"\n" for one in self._services.database.read(read)))
        self._run = run = _Run(job, [loads(line) for line in path.read_bytes().splitlines()])
        for span in _spans(folder):
            run.add(span, _record(folder, span))
        return run

    def _made(
        self, folder: Path, run: _Run, spec: Json, key: ProjectKey, owner: str, stopped: Callable[[], bool]
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
            _sync(path)
        _write(folder / _STATE / _span_name((start, at)), dumps({"record": record}))
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
                digest, size = _stream(path, made.chunks())
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
        for state in sorted(root.glob(f"*/{_STATE}")):
            id_ = state.parent.name
            stored = self._services.database.read(partial(_task_of, id_))
            if stored is None or stored.deleted or loads(stored.body)["status"] not in {*_ACTIVE, "completed"}:
                shutil.rmtree(state.parent, ignore_errors=True)

    # --- parts -------------------------------------------------------------------------------------------------

    @property
    def _base(self) -> str:
        return self._services.settings.base_url

    def _studies(self, tx: Tx, owner: str, request: Request) -> list[Mapping[str, Any]]:
        """Return the rows of the studies that are meant, by UID; the institution's own ones only."""
        if request.studies:
            wanted = sorted(set(request.studies))
            if len(wanted) > MAX_STUDIES:
                raise _too_many()
            found = _rows(tx, owner, wanted)
            if len(found) != len(wanted):
                raise HubError(
                    Category.NOT_FOUND, "A study is not there, or not this institution's own.", where="studies"
                )
        else:
            matches = [
                match
                for name, value in request.query.items()
                if (match := parse(name, value, level="study")) is not None
            ]
            if not matches:
                raise HubError(
                    Category.INCORRECT,
                    "The request does not say which studies.",
                    where="studies",
                    remedy="Give Study Instance UIDs, or a query such as StudyDate and ModalitiesInStudy.",
                )
            scope = Scope(institution=owner)
            found = list(tx.imaging.studies(scope, matches, limit=MAX_STUDIES + 1, owner=owner))
            if len(found) > MAX_STUDIES:
                raise _too_many()
        uids = [str(row["StudyInstanceUID"]) for row in found]
        instances = sum(
            tx.imaging.count("instance", Scope(institution=owner), [_any(batch)], owner=owner)
            for batch in _batches(uids)
        )
        if instances > MAX_INSTANCES:
            raise _too_many()
        return sorted(found, key=lambda row: str(row["StudyInstanceUID"]))

    def _own(self, tx: Tx, owner: str, id: str) -> Json:
        stored = tx.records.get("Task", id, UNRESTRICTED)
        task: Json = loads(stored.body) if stored is not None and not stored.deleted else {}
        if stored is None or stored.owner != owner or not _is_export(task):
            raise HubError(Category.NOT_FOUND, "There is no such export.", where=f"Task/{id[:64]}")
        return task

    def _task(self, tx: Tx, owner: str, id_: str, spec: str, seal: str) -> Json:
        now = instant(self._services.clock())
        task: Json = {
            "resourceType": "Task",
            "id": id_,
            "status": "requested",
            "intent": "order",
            "code": {
                "coding": [
                    {
                        "system": f"{self._base}/CodeSystem/work-item",
                        "code": CODE,
                        "display": "去标识化导出 (de-identified export)",
                    }
                ]
            },
            "authoredOn": now,
            "lastModified": now,
            "input": [
                {"type": {"text": _SPEC}, "valueString": spec},
                {"type": {"text": _SEAL}, "valueString": seal},
            ],
        }
        member = tx.members.get(owner)
        if member is not None:
            task["requester"] = {"reference": f"Organization/{member.organization_id}"}
        return task

    def _audit(
        self,
        tx: Tx,
        actor: Actor,
        action: str,
        subtype: str,
        task: Json,
        studies: Sequence[Mapping[str, Any]],
        *,
        count: int | None = None,
        detail: str = "",
    ) -> None:
        tx.audit.write(
            AuditLine(
                type="dicom",
                action=action,
                subtype=subtype,
                actor=actor,
                recorded_at=self._services.clock(),
                patients=tuple(sorted({(str(row["owner"]), str(row["patient_id"])) for row in studies})),
                entities=(f"Task/{task['id']}", *(str(row["StudyInstanceUID"]) for row in studies[:_NAMED])),
                count=count,
                detail=detail,
            )
        )


# --- who and what ------------------------------------------------------------------------------------------------


def _institution(actor: Actor) -> str:
    if actor.patient is not None or not actor.roles & ROLES:
        raise HubError(
            Category.FORBIDDEN,
            "Exports need the role admin or researcher of the institution whose images they are.",
            where="Authorization",
        )
    return actor.institution


def _checked(request: Request) -> tuple[Options, frozenset[str]]:
    if not _PROJECT.fullmatch(request.project):
        raise HubError(
            Category.INCORRECT,
            "The name of the project is missing or has other characters than letters, digits, dot, dash and underscore.",
            where="project",
        )
    if request.studies and request.query:
        raise HubError(Category.INCORRECT, "Give studies or a query, not both.", where="studies")
    unknown = sorted(set(request.take) - holding.HELD)
    if unknown:
        raise HubError(
            Category.INCORRECT,
            f"There is no reason {unknown[0][:32]}.",
            where="take",
            remedy=f"Use {', '.join(sorted(holding.HELD))}.",
        )
    try:
        return Options.of(request.options), frozenset(request.take)
    except MappingError as error:
        raise HubError(Category.INCORRECT, error.message, where=error.where, remedy=error.remedy) from error


def _too_many() -> HubError:
    return HubError(
        Category.UNSUPPORTED,
        f"More than {MAX_STUDIES} studies or {MAX_INSTANCES} instances.",
        where="studies",
        remedy="Make several exports of them; one project may have any number.",
    )


def _rows(tx: Tx, owner: str, uids: Sequence[str]) -> list[Mapping[str, Any]]:
    scope = Scope(institution=owner)
    return [
        row
        for batch in _batches(uids)
        for row in tx.imaging.studies(scope, [_any(batch)], limit=len(batch), owner=owner)
    ]


def _batches(uids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(uids[start : start + _BATCH]) for start in range(0, len(uids), _BATCH))


def _any(uids: tuple[str, ...]) -> Match:
    return Match(keyword="StudyInstanceUID", vr="UI", kind="any", values=uids)


def _tasks(tx: Tx, base: str, status: str | None, scope: Scope, limit: int) -> list[Stored]:
    wanted = [("code", f"{base}/CodeSystem/work-item|{CODE}"), ("_sort", "-_lastUpdated"), ("_count", str(limit))]
    if status is not None:
        wanted.append(("status", status))
    return list(tx.records.search(parse_query("Task", wanted), scope).matches)


def _task_of(id_: str, tx: Tx) -> Stored | None:
    return tx.records.get("Task", id_, UNRESTRICTED)


def _is_export(task: Json) -> bool:
    return any(coding.get("code") == CODE for coding in (task.get("code") or {}).get("coding", ()))


def _input(task: Json, name: str) -> str:
    return next(
        (str(one.get("valueString", "")) for one in task.get("input", ()) if one.get("type", {}).get("text") == name),
        "",
    )


def _said(task: Json) -> Json:
    """Return the request of a Task as it says, which anybody of the institution may have written."""
    try:
        said = loads(_input(task, _SPEC).encode())
    except (ValueError, MappingError):
        return {}
    return said if isinstance(said, dict) else {}


def _seal(key: bytes, id_: str, spec: str) -> str:
    return hmac.digest(key, f"seal|{id_}|{spec}".encode(), sha256).hex()


def _spec(task: Json, key: bytes) -> Json | None:
    """Return the request of a Task, or ``None`` where it is not sealed with *key*."""
    spec = _input(task, _SPEC)
    if not hmac.compare_digest(_seal(key, str(task["id"]), spec).encode(), _input(task, _SEAL).encode()):
        return None
    return _said(task)


def _shown(task: Json) -> Json:
    said = _said(task)
    outputs = [(one["type"].get("text"), one) for one in task.get("output", ())]
    counts = {
        name: next((one["valueInteger"] for text, one in outputs if text == label), 0)
        for name, label in _COUNTS.items()
    }
    reasons = dict(str(one["valueString"]).rsplit("=", 1) for text, one in outputs if text == _REASON)
    return {
        "id": task["id"],
        "status": task["status"],
        "project": said.get("project", ""),
        "since": task["authoredOn"],
        "changed": task["lastModified"],
        "studies": len(said.get("studies", ())),
        "options": said.get("options", []),
        "take": said.get("take", []),
        **counts,
        "reasons": {name: int(count) for name, count in reasons.items()},
        "left_out_instances": [str(one["valueString"]) for text, one in outputs if text == _LEFT],
        "folder": f"exports/{task['id']}" if task["status"] == "completed" else "",
    }


def _outputs(run: _Run) -> list[Json]:
    return [
        *(
            {"type": {"text": label}, "valueInteger": len(run.plan) if name == "total" else run.counts[name]}
            for name, label in _COUNTS.items()
        ),
        *(
            {"type": {"text": _REASON}, "valueString": f"{reason}={count}"}
            for reason, count in sorted(_reasons(run.counts).items())
        ),
        *({"type": {"text": _LEFT}, "valueString": uid} for uid in run.left),
    ]


def _finish(folder: Path, run: _Run, spec: Json) -> None:
    entries = [one for span in run.spans for one in _record(folder, span)]
    manifest = {
        "job": run.job,
        "project": spec["project"],
        "profile": f"PS3.15 {EDITION} annex E, Basic Application Level Confidentiality Profile",
        "options": spec["options"],
        "taken": spec["take"],
        "counts": {"total": len(run.plan), **{name: run.counts[name] for name in ("done", "left_out", "failed")}},
        "reasons": _reasons(run.counts),
        "objects": [one for one in entries if "file" in one],
        "omitted": [one for one in entries if "file" not in one],
    }
    _write(folder / _MANIFEST, dumps(manifest))


# --- keys and files ----------------------------------------------------------------------------------------------


def key_file(data_dir: Path, institution: str, project: str) -> Path:
    """Return the file of the project's key; it lies beside the other keys, so a backup holds it."""
    return data_dir / "keys" / f"deidentify-{sha256(f'{institution}|{project}'.encode()).hexdigest()[:32]}.key"


def _key(data_dir: Path, institution: str, project: str, *, make: bool) -> bytes:
    path = key_file(data_dir, institution, project)
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link never replaces: of two that ask at once, one key stays.
            path.hardlink_to(fresh)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        _sync(path.parent)
    return path.read_bytes()


def _folder(data_dir: Path, job: str) -> Path:
    # Ids are checked when a resource is stored (FHIR id); this is the fence behind it.
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", job):
        raise HubError(Category.INCORRECT, "The id of the export is not one of the hub's.", where="Task.id")
    return data_dir / "exports" / job


def _span_name(span: tuple[int, int]) -> str:
    return f"{span[0]:08d}-{span[1]:08d}.json"


def _spans(folder: Path) -> list[tuple[int, int]]:
    """Return the steps that have a record, in order."""
    names = sorted(one.stem for one in (folder / _STATE).glob("*-*.json") if not one.name.startswith("."))
    return [(int(start), int(end)) for start, _, end in (name.partition("-") for name in names)]


def _record(folder: Path, span: tuple[int, int]) -> list[Json]:
    found: list[Json] = loads((folder / _STATE / _span_name(span)).read_bytes())["record"]
    return found


def _named(one: Json, profile: Profile, key: ProjectKey) -> str:
    """Return the SOP Instance UID that the copy has, or would have."""
    return str(one["instance"]) if profile.options.uids else key.uid(one["instance"])


def _reasons(counts: Counter[str]) -> dict[str, int]:
    return {name.partition("|")[2]: count for name, count in counts.items() if name.startswith("reason|")}


def _stream(path: Path, chunks: Iterator[bytes]) -> tuple[str, int]:
    """Write *chunks* as *path*, whole or not at all; returns digest and size."""
    digest, size = sha256(), 0
    fresh = path.with_name(f".{path.name}")
    try:
        with fresh.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise HubError(
            Category.UNAVAILABLE, "The export cannot be written now.", remedy="Look at the disk of the data directory."
        ) from error
    finally:
        fresh.unlink(missing_ok=True)
    return digest.hexdigest(), size


def _write(path: Path, data: bytes) -> None:
    _stream(path, iter([data]))
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
