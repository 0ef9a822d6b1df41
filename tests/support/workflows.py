"""A small consortium to play the workflows with: fictional people, institutions and resources."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hub.workflows import (
    WORKFLOWS,
    Actor,
    Decision,
    Held,
    Inputs,
    Instance,
    Known,
    Party,
    Workflow,
    judge,
    judge_update,
    start,
)

NOW = datetime(2025, 6, 11, 8, 30, tzinfo=UTC)

LIU = Actor(institution="KN", practitioner="Practitioner/liu-min", roles=frozenset({"physician"}))
KN_SYSTEM = Actor(institution="KN", roles=frozenset({"system"}))
DESK = Actor(institution="YL", practitioner="Practitioner/luo-yan", roles=frozenset({"desk"}))
SONG = Actor(institution="YL", practitioner="Practitioner/song-jie", roles=frozenset({"writer"}))
HAN = Actor(institution="YL", practitioner="Practitioner/han-lei", roles=frozenset({"reviewer"}))
YL_SYSTEM = Actor(institution="YL", roles=frozenset({"system"}))
FENG = Actor(institution="YL", practitioner="Practitioner/feng-guoqiang", roles=frozenset({"physician"}))
QM_SYSTEM = Actor(institution="QM", roles=frozenset({"system"}))
STRANGER = Actor(institution="QH", practitioner="Practitioner/qh", roles=frozenset({"desk", "writer", "reviewer"}))
SONG_PARTY = Party(reference="PractitionerRole/song-YL", institution="YL", practitioner="Practitioner/song-jie")


def entry(reference: str) -> dict[str, Any]:
    return {"type": {"text": "t"}, "valueReference": {"reference": reference}}


def reason(text: str = "请补充") -> dict[str, Any]:
    return {"text": text}


@dataclass
class Play:
    """One Task and the world around it; every move is judged and, if it holds, kept."""

    workflow: Workflow
    resources: dict[str, Held]
    task: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    persons: frozenset[str] = frozenset()
    now: datetime = NOW
    last: Decision | None = None

    @property
    def instance(self) -> Instance:
        return Instance(
            task=self.task, request=self.request, resources=self.resources, known=self.known, persons=self.persons
        )

    @property
    def state(self) -> str:
        assert self.last is not None
        return self.last.new_state

    def hold(self, reference: str, institution: str, **body: Any) -> str:
        kind, _, id_ = reference.partition("/")
        self.resources[reference] = Held(resource={"resourceType": kind, "id": id_, **body}, institution=institution)
        return reference

    def create(self, actor: Actor, owner: str | None = "YL", **change: Any) -> Decision:
        task = {
            "resourceType": "Task",
            "id": "t1",
            "status": "requested",
            "intent": "order",
            "code": {
                "coding": [{"system": "https://yixiehub.example/fhir/CodeSystem/workflow", "code": self.workflow.code}]
            },
            "focus": {"reference": "ServiceRequest/sr1"},
            "for": {"reference": "Patient/p1"},
            "requester": {"reference": "Organization/KN"},
            "owner": {"reference": f"Organization/{owner}"} if owner else None,
            **change,
        }
        decision = start(
            self.workflow,
            {k: v for k, v in task.items() if v is not None},
            self.request,
            actor,
            self.now,
            parties={"requester": "KN", "owner": owner} if owner else {"requester": "KN"},
            resources=self.resources,
            known=self.known,
            persons=self.persons,
        )
        return self.keep(decision)

    def do(self, event: str, actor: Actor, **inputs: Any) -> Decision:
        self.now += timedelta(minutes=1)
        return self.keep(judge(self.workflow, self.instance, event, actor, Inputs(**inputs), self.now))

    def put(self, actor: Actor, resolved: Party | None = None, /, **change: Any) -> Decision:
        self.now += timedelta(minutes=1)
        new = {k: v for k, v in {**self.task, **change}.items() if v is not None}
        return self.keep(judge_update(self.workflow, self.instance, new, actor, self.now, owner=resolved))

    def step(self, status: str, step: str) -> dict[str, Any]:
        return {
            "status": status,
            "businessStatus": {"coding": [{"system": self.workflow.steps_system, "code": step}]},
        }

    def keep(self, decision: Decision) -> Decision:
        self.task, self.last = decision.task, decision
        return decision

    def report(self, status: str, institution: str = "YL", **body: Any) -> str:
        return self.hold("DiagnosticReport/dr1", institution, status=status, **body)


#: What a patient must have to be asked about.
PATIENT: dict[str, Any] = {
    "identifier": [{"system": "urn:oid:2.16.156.10011.1.3", "value": "990001197602290170"}],
    "name": [{"text": "郑伟"}],
    "gender": "male",
    "birthDate": "1976-02-29",
}


def known(service: str) -> Known:
    """Return a directory in which the institutions have an agreement and the owner offers *service*."""
    category = {"coding": [{"system": "https://yixiehub.example/fhir/CodeSystem/service", "code": service}]}
    return Known(
        agreements=({"resourceType": "OrganizationAffiliation", "active": True, "period": {"start": "2025-01-01"}},),
        services=({"resourceType": "HealthcareService", "active": True, "category": [category]},),
    )


def make(code: str) -> Play:
    play = Play(workflow=WORKFLOWS[code], resources={}, known=known(WORKFLOWS[code].service))
    play.hold("Patient/p1", "KN", **PATIENT)
    play.request = {
        "resourceType": "ServiceRequest",
        "id": "sr1",
        "status": "draft",
        "intent": "order",
        "subject": {"reference": "Patient/p1"},
        "reasonCode": [{"text": "咳嗽待查"}],
    }
    play.resources["ServiceRequest/sr1"] = Held(resource=play.request, institution="KN")
    play.hold("ImagingStudy/is1", "KN", status="available", subject={"reference": "Patient/p1"})
    play.hold("Specimen/sp1", "KN")
    play.hold("DocumentReference/doc-KN", "KN")
    play.hold("DocumentReference/doc-YL", "YL")
    play.hold("ImagingStudy/foreign", "QH", status="available", subject={"reference": "Patient/p1"})
    return play


def role(actor: Actor, *roles: str) -> Actor:
    return replace(actor, roles=frozenset(roles))
