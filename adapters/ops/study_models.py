"""What ``/ops`` takes and answers about studies: marked deleted, held, released and shown again."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from adapters.ops.models import Answer, Body, Instant


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
