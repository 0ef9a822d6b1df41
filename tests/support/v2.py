"""A hub with members and a v2 intake for tests, and HL7 v2 messages of fictional people to send to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from fhir_mappings.hl7v2.base import Translation
from fhir_mappings.hl7v2.tokenizer import Message, parse
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.boot import Services
from hub.config import Settings
from hub.message_events import CarriedOut
from hub.messages import MessageService
from hub.ports import Database, Entry, Member, MemberEndpoint, ObjectStore, Stored, Tx
from hub.search.ast import Query
from storage.objects.memory import MemoryStore

Json = dict[str, Any]

START = datetime(2025, 6, 11, 0, 0, tzinfo=UTC)


class Ticking:
    """A clock that moves a second at each look."""

    def __init__(self, start: datetime = START) -> None:
        self.now = start

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@dataclass
class TasksStub:
    """Records the workflow events that messages raise; raises what it is told to."""

    seen: list[tuple[str, str]] = field(default_factory=list)
    trouble: Exception | None = None

    def relinked(self, tx: Tx, translation: Translation, actor: Actor, *, correlation_id: str) -> Translation:
        """Return *translation* as it is: no message of these tests answers another institution's request."""
        return translation

    def on_message_events(self, tx: Tx, translation: Translation, *, actor: Actor, correlation_id: str) -> CarriedOut:
        """Record the events of *translation*."""
        if self.trouble is not None:
            raise self.trouble
        self.seen += [(actor.institution, event.kind) for event in translation.workflow_events]
        return CarriedOut()


MEMBERS = (
    Member(code="KN", organization_id="org-kn", name="云岭示范县康宁医院（测试）"),
    Member(code="YL", organization_id="org-yl", name="云岭示范市中心医院（测试）"),
    Member(code="QH", organization_id="org-qh", name="青禾骨科医院（测试）"),
)


def endpoints(**kn_settings: Any) -> tuple[MemberEndpoint, ...]:
    """Return the v2 endpoints of three members; *kn_settings* are laid over KN's."""
    address = str(kn_settings.pop("address", ""))
    return (
        MemberEndpoint(
            id="KN/mllp", member="KN", kind="mllp", sending_application="HIS", sending_facility="KNYY",
            cidr=("127.0.0.0/8",), address=address, settings={"dialect": "his-cn", **kn_settings},
        ),
        MemberEndpoint(id="YL/mllp", member="YL", kind="mllp", sending_facility="YLYY"),
        MemberEndpoint(id="QH/mllp", member="QH", kind="mllp", sending_facility="QHYY", settings={"dialect": "his-cn"}),
    )  # fmt: skip


class V2Hub:
    """Services over a real database, with what tests look at."""

    def __init__(
        self, database: Database, *, objects: ObjectStore | None = None, settings: Settings | None = None, **kn: Any
    ) -> None:
        self.clock = Ticking()
        self.objects: ObjectStore = objects if objects is not None else MemoryStore()
        self.database = database
        self.services = Services(
            settings=settings or Settings(), database=database, objects=self.objects, node="test", clock=self.clock
        )
        self.tasks = TasksStub()
        self.services.__dict__["tasks"] = self.tasks
        self.configure(**kn)

    @property
    def messages(self) -> MessageService:
        """The intake."""
        return self.services.messages

    def configure(self, **kn: Any) -> None:
        """Set the members anew, with *kn* as settings of KN's endpoint."""
        self.database.write(lambda tx: tx.members.replace(MEMBERS, endpoints(**kn), ()))
        self.services.directory.refresh()

    def send(self, text: str, *, charset: str = "gb18030", peer: str = "127.0.0.1:40000") -> Message | None:
        """Send *text* and return the answer, cut."""
        answer = self.raw(text.encode(charset), peer=peer)
        return None if answer is None else parse(answer.decode(charset))

    def raw(self, body: bytes, *, peer: str = "127.0.0.1:40000") -> bytes | None:
        """Send *body* and return the answer's bytes."""
        return self.messages.receive(body, peer)

    def code(self, text: str, **how: Any) -> str:
        """Send *text* and return MSA-1 of the answer."""
        answer = self.send(text, **how)
        return "" if answer is None else answer.get("MSA-1")

    def all(self, kind: str) -> list[Json]:
        """Return all current resources of *kind*."""
        query = Query(resource_type=kind, count=500)
        page = self.database.read(lambda tx: tx.records.search(query, UNRESTRICTED))
        return [cast("Json", loads(one.body)) for one in page.matches]

    def one(self, kind: str, where: Callable[[Json], bool] = lambda _: True) -> Json:
        """Return the only resource of *kind* that fits."""
        found = [one for one in self.all(kind) if where(one)]
        assert len(found) == 1, f"{len(found)} {kind}"
        return found[0]

    def stored(self, kind: str, id: str) -> Stored | None:
        """Return a current version with its columns."""
        return self.database.read(lambda tx: tx.records.get(kind, id, UNRESTRICTED))

    def journal(self, **criteria: str) -> list[Entry]:
        """Return journal entries, oldest first."""
        return list(self.database.read(lambda tx: tx.journal.search(criteria, limit=1000)))[::-1]

    def state(self) -> dict[str, Json]:
        """Return everything but the Provenances, without stamps, to compare two hubs with."""
        made: dict[str, Json] = {}
        for kind in ("Patient", "Encounter", "Observation", "DiagnosticReport", "ServiceRequest", "AllergyIntolerance"):
            for one in self.all(kind):
                one.pop("meta", None)
                made[f"{kind}/{one['id']}"] = one
        return made


def msh(event: str, control_id: str, *, facility: str = "KNYY", sent: str = "20250611080000", **fields: str) -> str:
    """Return an MSH segment; *fields* are ``f15`` and so on."""
    values = {5: "YIXIE", 6: "HUB", 7: sent, 8: "", 9: event, 10: control_id, 11: "P", 12: "2.4"}
    values |= {int(key[1:]): value for key, value in fields.items()}
    tail = "|".join(values.get(number, "") for number in range(5, max(values) + 1))
    return f"MSH|^~\\&|HIS|{facility}|{tail}"


def pid(number: str = "10086", *, name: str = "郑伟", phone: str = "12000000001", extra: str = "") -> str:
    """Return a PID segment of the his-cn dialect."""
    return f"PID|1|{number}|{number}^^^^IDCard||{name}||19760229|M|||||{phone}{extra}"


def adt(
    trigger: str,
    control_id: str,
    *segments: str,
    at: str = "20250611080000",
    number: str = "10086",
    name: str = "郑伟",
    visit: str = "V1",
    facility: str = "KNYY",
    phone: str = "12000000001",
    **header: str,
) -> str:
    """Return an ADT message about one patient and one visit; an empty *visit* leaves PV1 out."""
    lines = [
        msh(f"ADT^{trigger}", control_id, facility=facility, sent=at, **header),
        f"EVN|{trigger}|{at}||||{at}",
        pid(number, name=name, phone=phone),
    ]
    if visit:
        lines.append(f"PV1|1|I|3W^301^1{'|' * 16}{visit}")
    return "\r".join([*lines, *segments]) + "\r"


def oru(control_id: str, status: str, value: str, *, at: str, obx: str = "", facility: str = "KNYY") -> str:
    """Return an ORU^R01 with one potassium result."""
    return "\r".join(
        [
            msh("ORU^R01", control_id, sent=at, facility=facility),
            pid(),
            f"OBR|1|PL1|FL1|K^钾^L|||20250611070000|||||||||||||||{at}||LAB|{status}",
            obx or f"OBX|1|NM|2823-3^钾^LN||{value}|mmol/L|3.50-5.30|N|||{status}|||20250611070000",
            "",
        ]
    )


def a40(control_id: str, survivor: str, dead: str, *, at: str = "20250611090000", name: str = "郑伟") -> str:
    """Return an ADT^A40 that merges *dead* into *survivor*."""
    return "\r".join(
        [
            msh("ADT^A40", control_id, sent=at),
            f"EVN|A40|{at}",
            pid(survivor, name=name),
            f"MRG|{dead}^^^^IDCard",
            "",
        ]
    )


def meta_of(resource: Mapping[str, Any]) -> str:
    """Return the version number of *resource*."""
    return str(resource["meta"]["versionId"])
