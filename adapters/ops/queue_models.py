"""What ``/ops`` takes and answers about queues and deliveries; :mod:`hub.delivery` is the policy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from adapters.ops.models import Answer, Body, Instant


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


class AnsweredDelivery(Delivery):
    """投递及对方应答 / One delivery with the partner's acknowledgement."""

    acknowledgement: str


class Paused(Answer):
    """目的地的新状态 / The new state of a destination."""

    destination: str
    paused: bool


class DeliveryDone(Answer):
    """对投递所做的操作 / What was done with a delivery."""

    id: int
    done: Literal["replay", "skip"]


class Skip(Body):
    """为什么放弃 / Why a delivery is given up."""

    complaint: ClassVar[str] = "A skip needs a reason."
    remedy: ClassVar[str] = "Say why."
    reason: Annotated[str, Field(description="原因，写入审计 / Reason, kept in the audit trail", examples=["改用纸质"])]
