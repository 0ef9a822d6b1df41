"""Export jobs as people see them: asked for, looked at, cancelled, and followed back by who has the key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from fhir_mappings.dicom.deidentify.keys import KEY_BYTES, ProjectKey
from fhir_mappings.dicom.deidentify.table import Options
from fhir_mappings.identifiers import resource_id
from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED, Scope
from hub.actor import Actor
from hub.clock import instant
from hub.errors import Category, HubError
from hub.export.files import project_key
from hub.export.request import Request, checked, institution_of
from hub.export.running import Running
from hub.export.studies import chosen, rows
from hub.export.task import ACTIVE, CODE, audit, is_export, new_task, seal, shown, spec_of, tasks
from hub.ports import NewVersion, StudyKey, Tx

if TYPE_CHECKING:
    from hub.boot import Services

Json = dict[str, Any]


class Exports:
    """Export jobs: asked for, looked at and cancelled by people, done by the worker."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._running = Running(services)

    def start(self, actor: Actor, request: Request) -> Json:
        """Ask for an export of the actor's institution's own studies; durable on return.

        The same request again is the same job: one that is under way stays as it is, one that ended is done anew.

        Raises:
            HubError: forbidden for a role that may not ask; incorrect for a request that makes no sense; not-found when a
                study is not the institution's own.
        """
        owner = institution_of(actor)
        options, take = checked(request)
        key = project_key(self._services.settings.data_dir, owner, request.project, make=True)

        def work(tx: Tx) -> Json:
            studies = chosen(tx, owner, request)
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
                if task["status"] in ACTIVE and spec_of(task, key) is not None:
                    return shown(task)
            now = self._services.clock()
            task = new_task(tx, self._base, owner, id_, spec, seal(key, id_, spec), at=now)
            tx.records.put_many([NewVersion(resource=task, owner=owner)])
            audit(
                tx,
                actor,
                "C",
                CODE,
                task,
                studies,
                at=now,
                count=len(studies),
                detail=f"project {request.project}; options {' '.join(options.names()) or 'none'}",
            )
            return shown(task)

        return self._services.database.write(work)

    def jobs(self, actor: Actor, *, limit: int = 100) -> list[Json]:
        """Return the jobs of the actor's institution, the newest first."""
        owner = institution_of(actor)
        found = self._services.database.read(lambda tx: tasks(tx, self._base, None, Scope(institution=owner), limit))
        return [shown(loads(one.body)) for one in found if one.owner == owner]

    def get(self, actor: Actor, id: str) -> Json:
        """Return one job.

        Raises:
            HubError: not-found when it is none of the institution's.
        """
        owner = institution_of(actor)
        return shown(self._services.database.read(lambda tx: _own(tx, owner, id)))

    def cancel(self, actor: Actor, id: str) -> Json:
        """End a job before its time; the worker removes what it made. Durable on return.

        Raises:
            HubError: not-found; conflict when it has ended.
        """
        owner = institution_of(actor)

        def work(tx: Tx) -> Json:
            task = _own(tx, owner, id)
            if task["status"] not in ACTIVE:
                raise HubError(Category.CONFLICT, "The export has ended.", where=f"Task/{id}")
            task["status"] = "cancelled"
            now = self._services.clock()
            task["lastModified"] = instant(now)
            tx.records.put_many([NewVersion(resource=task, owner=owner)])
            audit(tx, actor, "U", f"{CODE}-cancel", task, (), at=now)
            return shown(task)

        return self._services.database.write(work)

    def mapping(self, actor: Actor, id: str, key: bytes) -> Iterator[tuple[str, str, str]]:
        """Yield (kind, UID here, UID in the copies) for the studies, series and instances of a job; audited.

        Args:
            key: the project's own key, from its file: who has it may know.

        Raises:
            HubError: not-found; forbidden when the key is not the project's.
        """
        owner = institution_of(actor)
        task = self._services.database.read(lambda tx: _own(tx, owner, id))
        holder = ProjectKey(key) if len(key) == KEY_BYTES else None
        spec = spec_of(task, key) if holder is not None else None
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

        def looked(tx: Tx) -> None:
            studies = rows(tx, owner, spec["studies"])
            now = self._services.clock()
            audit(tx, actor, "R", f"{CODE}-mapping", task, studies, at=now, count=len(found))

        self._services.database.write(looked)
        yield from found

    def turn(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Do one step of one job; returns whether there was one to do.

        Raises:
            HubError: transient, when the stores cannot work now; the step is done again.
        """
        return self._running.turn(stopped)

    @property
    def _base(self) -> str:
        return self._services.settings.base_url


def _own(tx: Tx, owner: str, id: str) -> Json:
    stored = tx.records.get("Task", id, UNRESTRICTED)
    task: Json = loads(stored.body) if stored is not None and not stored.deleted else {}
    if stored is None or stored.owner != owner or not is_export(task):
        raise HubError(Category.NOT_FOUND, "There is no such export.", where=f"Task/{id[:64]}")
    return task
