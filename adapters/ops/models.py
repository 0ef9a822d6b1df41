"""What ``/ops`` takes and answers, as models: they check each answer and make the schemas of ``/ops/openapi.json``.

OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0); errors are https://hl7.org/fhir/R4/operationoutcome.html. The order
of the fields is the order in the answer. Nothing may stand in an answer that is not described here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


#: A field that is left out, not null, where it does not apply.
MayBeAbsent = Field(json_schema_extra=_without_default)
Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


class Answer(BaseModel):
    """What every answer has in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Destination(Answer):
    """目的地 / One destination that ever had a delivery."""

    destination: Annotated[str, Field(description="端点 / Endpoint, for example KN/mllp", examples=["KN/mllp"])]
    depth: Annotated[int, Field(description="未完成的投递 / Deliveries that wait or are dead")]
    dead: Annotated[int, Field(description="其中死信 / Dead letters among them")]
    oldest_at: Instant | None
    paused: bool
    failures: Annotated[int, Field(description="连续连接失败次数 / Failures in a row to reach it")]
    open_until: Annotated[Instant | None, Field(description="在此之前不再尝试 / It rests until then")]
    last_error: str
    last_ok_at: Instant | None
    oldest_s: Annotated[float | None, Field(description="最早一条已等待的秒数 / Seconds that the oldest waits")]
    circuit: Annotated[
        Literal["closed", "open", "half-open"],
        Field(description="熔断状态：正常、暂停尝试、试探中 / Reached last time, resting, or tried with one lane"),
    ]


class Lane(Answer):
    """通道 / One lane: a destination and a patient, delivered in order."""

    lane: str
    destination: str
    state: Annotated[str, Field(description="ready, parked, paused")]
    depth: int
    oldest_at: Instant
    attempts: Annotated[int, Field(description="队首已尝试次数 / Attempts of the head")]
    next_at: Instant
    last_error: str
    paused: bool
    head: Annotated[int, Field(description="队首投递编号 / Number of the delivery at the head")]
    oldest_s: float | None


class Alert(Answer):
    """告警 / One open alert."""

    key: str
    opened_at: Instant
    detail: str


class Queues(Answer):
    """队列状态 / State of the queues."""

    destinations: list[Destination]
    lanes: list[Lane]
    alerts: list[Alert]


class Delivery(Answer):
    """投递，不含内容 / One delivery, without its payload."""

    id: int
    destination: str
    lane: str
    kind: Annotated[str, Field(description="mllp, dimse, fhir")]
    owner: Annotated[str, Field(description="数据所属机构 / Institution that the data belong to")]
    control_id: str
    state: Annotated[str, Field(description="pending, dead, sent, skipped")]
    attempts: int
    created: Instant
    next: Instant | None
    acknowledged: Instant | None
    last_error: str
    size: Annotated[int, Field(description="字节 / bytes")]
    task: Annotated[str, Field(description="所属任务或空 / Task/id, or empty")]
    correlation_id: str


class Deliveries(Answer):
    """投递列表，新的在前 / Deliveries, newest first."""

    deliveries: list[Delivery]


class Paused(Answer):
    """目的地的新状态 / The new state of a destination."""

    destination: str
    paused: bool


class DeliveryDone(Answer):
    """对投递所做的操作 / What was done with a delivery."""

    id: int
    done: Literal["replay", "skip"]


class Entry(Answer):
    """收到的消息，不含内容 / One message received, without its content."""

    seq: int
    received: Instant
    door: Annotated[str, Field(description="mllp, hl7-http, fhir, dimse, stow")]
    institution: str
    peer: str
    type: str
    sender: str
    control_id: str
    charset: str
    size: Annotated[int, Field(description="字节 / bytes")]
    digest: str
    state: Annotated[str, Field(description="received, done, refused, failed")]
    outcome: str
    flags: list[str]
    correlation_id: str


class Messages(Answer):
    """消息列表，新的在前 / Messages, newest first."""

    messages: list[Entry]
    next: Annotated[int, MayBeAbsent, Field(description="以此为 before 续查 / give as before to go on")] = 0


class AnsweredEntry(Entry):
    """消息及其应答 / One message with the acknowledgement it got."""

    acknowledgement: str


class Message(AnsweredEntry):
    """消息；内容只给所属机构 / One message; its content is for its own institution only."""

    content: Annotated[str, MayBeAbsent, Field(description="运营方看不到 / absent for the operator")] = ""


class MessageReplayed(Answer):
    """重新处理的结果 / What processing again came to."""

    seq: int
    outcome: str


class Act(Answer):
    """审计记录 / One audited act."""

    recorded: str
    what: str
    action: str
    outcome: str
    who: str
    entities: list[str]


class TaskState(Answer):
    """任务状态 / State of one Task of the group."""

    task: str
    code: str
    status: str
    business_status: str
    requester: str
    owner: str
    last_updated: Instant


class AnsweredDelivery(Delivery):
    """投递及对方应答 / One delivery with the partner's acknowledgement."""

    acknowledgement: str


class Trace(Answer):
    """一次到达的全过程 / The whole way of one arrival."""

    correlation_id: str
    arrivals: list[AnsweredEntry]
    acts: list[Act]
    records: Annotated[list[str], Field(description="涉及的记录 / References of the records touched")]
    tasks: list[TaskState]
    deliveries: list[AnsweredDelivery]


class WorkItem(Answer):
    """待人工处理的事项 / One thing that waits for a decision by hand."""

    task: str
    code: str
    institution: str
    since: str
    focus: str


class WorkItems(Answer):
    """待人工处理的事项，早的在前 / What waits for a decision by hand, oldest first."""

    work_items: list[WorkItem]


class Settled(Answer):
    """检查与申请的对应 / Which order a study belongs to."""

    study: str
    service_request: str | None


class Body(BaseModel):
    """What a request may bring; what is not known is ignored."""

    model_config = ConfigDict(frozen=True, strict=True)
    #: Said when the body does not fit.
    complaint: ClassVar[str]
    remedy: ClassVar[str]


class Skip(Body):
    """为什么放弃 / Why a delivery is given up."""

    complaint: ClassVar[str] = "A skip needs a reason."
    remedy: ClassVar[str] = "Say why."
    reason: Annotated[str, Field(description="原因，写入审计 / Reason, kept in the audit trail", examples=["改用纸质"])]


class Settle(Body):
    """检查属于哪份申请 / Which order a study belongs to."""

    complaint: ClassVar[str] = "The body does not say which order the study belongs to."
    remedy: ClassVar[str] = 'Send {"service_request": "ServiceRequest/<id>"}, or null when it has none.'
    service_request: Annotated[
        str | None, Field(description="申请；null 表示没有 / The order, or null", examples=["ServiceRequest/1"])
    ]


class Decide(Body):
    """如何处理矛盾的影像 / What becomes of images that contradict what was here."""

    complaint: ClassVar[str] = "The body does not say what is decided."
    remedy: ClassVar[str] = 'Send {"decision": "keep"}, "accept" or "replace".'
    decision: Annotated[
        Literal["keep", "accept", "replace"],
        Field(description="保留先到的、一并采用、以后到的替换 / Keep the first, accept both, replace the first"),
    ]


class Why(Body):
    """为什么 / Why images are held, released or shown again."""

    complaint: ClassVar[str] = "This needs a reason."
    remedy: ClassVar[str] = 'Send {"reason": "..."}; it is kept.'
    reason: Annotated[str, Field(description="原因，写入审计 / Reason, kept in the audit trail", examples=["诉讼保全"])]


class DeletedInstance(Answer):
    """标记删除的图像 / One instance that is marked deleted."""

    institution: str
    study: Annotated[str, Field(description="Study Instance UID")]
    series: Annotated[str, Field(description="Series Instance UID")]
    instance: Annotated[str, Field(description="SOP Instance UID")]
    marked: Instant
    by: Annotated[str, Field(description="机构/人员或系统 / Institution and person or software")]
    reason: str
    removed: Annotated[Instant | None, Field(description="期满清除的时间 / When retention ended, bytes too; else null")]


class DeletedInstances(Answer):
    """标记删除的图像，新的在前 / What is marked deleted, newest first."""

    deletions: list[DeletedInstance]


class HeldStudy(Answer):
    """封存的检查 / A study on legal hold."""

    institution: str
    study: Annotated[str, Field(description="Study Instance UID")]
    since: Instant
    by: str
    reason: str


class HeldStudies(Answer):
    """封存的检查，早的在前 / Studies on legal hold, oldest first."""

    holds: list[HeldStudy]


class StudyDone(Answer):
    """对检查所做的操作 / What was done with a study."""

    study: str
    done: Literal["hold", "release", "restore"]


class Decided(Answer):
    """已处理的矛盾 / A conflict that is settled."""

    conflict: str
    decision: str


class LinkSide(Answer):
    """一方的患者 / The patient of one institution, by ids alone."""

    institution: str
    patient: Annotated[str, Field(description="患者编号，不含任何数据 / Id of the Patient, without data")]


class PatientLink(Answer):
    """两家机构的患者是否同一人 / Two patients of different institutions that may be one person."""

    task: str
    state: Annotated[str, Field(description="open, linked, refused, unlinked")]
    since: Instant
    changed: Instant
    patients: list[LinkSide]
    evidence: Annotated[list[str], Field(description="一致的强标识 / What agreed: resident-id, health-card")]
    stated_by: Annotated[list[str], Field(description="已声明的机构 / Institutions whose desks say so")]


class PatientLinks(Answer):
    """患者关联，最近变动的在前 / Pairs that wait or were settled, the last changed first."""

    patient_links: list[PatientLink]


class Judge(Body):
    """两名患者是否同一人 / Whether two patients are one person."""

    complaint: ClassVar[str] = "The body does not say what is decided."
    remedy: ClassVar[str] = 'Send {"decision": "link"}, "refuse" or "unlink".'
    decision: Annotated[
        Literal["link", "refuse", "unlink"],
        Field(description="关联、不是同一人、解除关联 / Link them, they are two people, end the link"),
    ]


class Judged(Answer):
    """已处理的患者关联 / A pair that is settled."""

    patient_link: str
    decision: str


class Export(Answer):
    """去标识化导出 / One job that makes de-identified copies."""

    id: str
    status: Annotated[str, Field(description="requested, in-progress, completed, cancelled")]
    project: str
    since: Instant
    changed: Instant
    studies: int
    options: Annotated[list[str], Field(description="PS3.15 的选项 / Options of PS3.15")]
    take: Annotated[list[str], Field(description="仍然导出的原因 / Reasons that hold nothing back")]
    total: Annotated[int, Field(description="实例总数，开始后才知道 / Instances, known once it began")]
    done: int
    left_out: int
    failed: int
    reasons: Annotated[dict[str, int], Field(description="未导出或失败的原因 / Why not, with numbers")]
    left_out_instances: Annotated[list[str], Field(description="未导出的实例，最多 100 个 / The first 100 of them")]
    folder: Annotated[str, Field(description="数据目录中的结果，完成前为空 / Result in the data directory, when done")]


class Exports(Answer):
    """导出列表，新的在前 / Exports, the newest first."""

    exports: list[Export]


class Ask(Body):
    """要导出什么 / What is to be exported."""

    complaint: ClassVar[str] = "The body does not say what is to be exported."
    remedy: ClassVar[str] = 'Send {"project": "lung", "studies": ["<UID>"]}, or "query" in place of "studies".'
    project: Annotated[str, Field(description="项目名 / Name of the project", examples=["lung"])]
    studies: Annotated[list[str], Field(description="Study Instance UID")] = []
    query: Annotated[
        dict[str, str], Field(description="条件 / Study keys", examples=[{"StudyDate": "20250101-20250630"}])
    ] = {}
    options: Annotated[
        list[str],
        Field(
            description="full-dates, modified-dates, patient, device, institution, uids, safe-private, descriptors, "
            "structured-content, graphics"
        ),
    ] = []
    take: Annotated[
        list[str],
        Field(
            description="burned-in-annotation, pixels-may-carry-names, burned-in-unknown, recognizable-features, "
            "encapsulated-document"
        ),
    ] = []
    hold_unknown: Annotated[
        bool, Field(description="未声明无烧录文字的图像不导出 / Only images that say they name nobody")
    ] = False


class OutcomeText(Answer):
    """给人看的文字 / Text for people."""

    text: str


class OutcomeIssue(Answer):
    """一个问题 / One issue."""

    severity: Literal["fatal", "error", "warning", "information"]
    code: str
    details: OutcomeText
    diagnostics: str
    expression: Annotated[list[str], MayBeAbsent, Field(description="参数或位置 / Parameter or place")] = []


class OperationOutcome(Answer):
    """错误 / An error (FHIR R4 OperationOutcome); ``id`` is the correlation id to quote."""

    resourceType: Literal["OperationOutcome"]
    id: str
    issue: list[OutcomeIssue]
