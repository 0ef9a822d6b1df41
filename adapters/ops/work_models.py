"""What ``/ops`` takes and answers about what waits for a person: orders, conflicts, links between patients."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from adapters.ops.models import Answer, Body, Instant


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


class Settle(Body):
    """检查属于哪份申请 / Which order a study belongs to."""

    complaint: ClassVar[str] = "The body does not say which order the study belongs to."
    remedy: ClassVar[str] = 'Send {"service_request": "ServiceRequest/<id>"}, or null when it has none.'
    service_request: Annotated[
        str | None, Field(description="申请；null 表示没有 / The order, or null", examples=["ServiceRequest/1"])
    ]


class Settled(Answer):
    """检查与申请的对应 / Which order a study belongs to."""

    study: str
    service_request: str | None


class Decide(Body):
    """如何处理矛盾的影像 / What becomes of images that contradict what was here."""

    complaint: ClassVar[str] = "The body does not say what is decided."
    remedy: ClassVar[str] = 'Send {"decision": "keep"}, "accept" or "replace".'
    decision: Annotated[
        Literal["keep", "accept", "replace"],
        Field(description="保留先到的、一并采用、以后到的替换 / Keep the first, accept both, replace the first"),
    ]


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
