"""Everything that the judge of a workflow looks at, loaded in the transaction that will store its decision.

:class:`hub.workflows.Instance` says what belongs to it. Every part is found by index, and what the checks before sending
ask for is only looked up while the work may be sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from fhir_mappings.json import loads
from hub import workflows
from hub.access import UNRESTRICTED
from hub.clock import Clock
from hub.directory import DIRECTORY_OWNER, Directory
from hub.ports import Tx
from hub.search import parse
from hub.workflows.base import WORKFLOW_SYSTEM
from hub.workflows.submission import SERVICE_SYSTEM, consents_named
from hub.workflows.task import plain, reference_in

Json = dict[str, Any]

#: How far back the check for repeated requests looks.
_EARLIER = timedelta(hours=24)
#: Most agreements, services or earlier requests that one check reads.
_FOUND_MAX = 200


class Instances:
    """Loads what a decision about a Task needs."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock

    def instance(
        self,
        tx: Tx,
        task: Mapping[str, Any],
        more: Sequence[Mapping[str, Any]],
        inputs: workflows.Inputs | None = None,
        *,
        sent_to: str = "",
        by_message: bool = False,
    ) -> workflows.Instance:
        """Return *task* as the judge sees it, with what *more* Tasks and *inputs* name; *sent_to* = a new owner."""
        request = focus_of(tx, task)
        workflow = workflows.workflow_for(task)
        persons = persons_of(tx, task)
        if workflow is None or not workflow.sends_from(workflows.state_of(workflow, task)):
            held = self.held(tx, task, inputs, more)
            return workflows.Instance(task=task, request=request, resources=held, persons=persons)
        parties = workflows.parties_of(task)
        if sent_to:
            parties["owner"] = sent_to
        return workflows.Instance(
            task=task,
            request=request,
            resources=self.held(tx, task, inputs, more, consents=request),
            known=self.known(tx, workflow, task, parties, by_message=by_message),
            persons=persons,
        )

    def held(
        self,
        tx: Tx,
        task: Mapping[str, Any],
        inputs: workflows.Inputs | None,
        more: Sequence[Mapping[str, Any]] = (),
        *,
        consents: Json | None = None,
    ) -> dict[str, workflows.Held]:
        """Return what *task*, *inputs*, *more* Tasks and the *consents* of a request refer to, by ``Type/id``."""
        wanted = {*workflows.references(task, inputs), *consents_named(consents)}
        for other in more:
            wanted |= workflows.references(other)
        held = load_all(tx, wanted)
        results = {
            reference
            for one in list(held.values())
            if one.resource["resourceType"] == "DiagnosticReport"
            for result in one.resource.get("result", ())
            if (reference := plain(reference_in(result))) is not None
        }
        return held | load_all(tx, results - set(held))

    def known(
        self,
        tx: Tx,
        workflow: workflows.Workflow,
        task: Mapping[str, Any],
        parties: Mapping[str, str],
        *,
        by_message: bool,
    ) -> workflows.Known:
        """Return what the checks before sending ask for; every part is found by index."""
        asker, asked = (
            f"Organization/{member.organization_id}"
            if (member := self._directory.member(parties.get(party, ""))) is not None
            else ""
            for party in ("requester", "owner")
        )
        agreements: list[Json] = []
        services: list[Json] = []
        if asker and asked:
            for primary, participant in ((asker, asked), (asked, asker)):
                wanted = {"primary-organization": primary, "participating-organization": participant}
                agreements += _found(tx, "OrganizationAffiliation", wanted, owner=DIRECTORY_OWNER)
            wanted = {"organization": asked, "service-category": f"{SERVICE_SYSTEM}|{workflow.service}"}
            services = _found(tx, "HealthcareService", wanted, owner=DIRECTORY_OWNER)
        earlier: list[workflows.Earlier] = []
        patient = plain(reference_in(task.get("for")))
        if patient is not None and patient.startswith("Patient/"):
            since = (self._clock() - _EARLIER).strftime("%Y-%m-%dT%H:%M:%SZ")
            code = f"{WORKFLOW_SYSTEM}|{workflow.code}"
            wanted = {"patient": patient, "code": code, "authored-on": f"ge{since}"}
            rows = [one for one in _found(tx, "Task", wanted) if one["id"] != task.get("id")]
            requests = load_all(tx, {request for one in rows if (request := plain(reference_in(one.get("focus"))))})
            for one in rows:
                held = requests.get(plain(reference_in(one.get("focus"))) or "")
                earlier.append(workflows.Earlier(task=one, request=held.resource if held is not None else None))
        return workflows.Known(
            agreements=tuple(agreements), services=tuple(services), earlier=tuple(earlier), by_message=by_message
        )


def persons_of(tx: Tx, task: Mapping[str, Any]) -> frozenset[str]:
    """Return the Patients that are one person with Task.for, which is among them; empty where it names none."""
    patient = plain(reference_in(task.get("for")))
    if patient is None or not patient.startswith("Patient/"):
        return frozenset()
    return frozenset(f"Patient/{one}" for one in tx.records.one_person(patient.removeprefix("Patient/")))


def focus_of(tx: Tx, task: Mapping[str, Any]) -> Json | None:
    """Return what Task.focus names, or ``None``."""
    reference = plain(reference_in(task.get("focus")))
    if reference is None:
        return None
    kind, _, id_ = reference.partition("/")
    stored = tx.records.get(kind, id_, UNRESTRICTED)
    return None if stored is None or stored.deleted else loads(stored.body)


def _found(tx: Tx, kind: str, wanted: Mapping[str, str], *, owner: str = "") -> list[Json]:
    """Return up to :data:`_FOUND_MAX` resources by a search of the hub's own; *owner* = only rows of that institution."""
    query = parse(kind, [*wanted.items(), ("_count", str(_FOUND_MAX))])
    page = tx.records.search(query, UNRESTRICTED)
    return [loads(one.body) for one in page.matches if owner in ("", one.owner)]


def load_all(tx: Tx, references: set[str]) -> dict[str, workflows.Held]:
    """Return the stored *references* that are not deleted."""
    pairs = [(kind, id_) for kind, _, id_ in (one.partition("/") for one in sorted(references))]
    return {
        f"{kind}/{id_}": workflows.Held(resource=loads(stored.body), institution=stored.owner)
        for (kind, id_), stored in tx.records.get_many(pairs, UNRESTRICTED).items()
        if not stored.deleted
    }
