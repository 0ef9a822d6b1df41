"""What ``/ops`` takes and answers about merged patients; :mod:`hub.unmerging` is the desk."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from adapters.ops.models import Answer, Body, Instant

_FORMER = Annotated[str, Field(description="被并入他人的患者档案 / The record that was merged away")]
_SURVIVOR = Annotated[str, Field(description="保留的患者档案 / The record that stands for both")]
_NUMBERS = Annotated[
    list[str], Field(description="发送方的患者号；运营方看不到 / The sender's own numbers; empty for the operator")
]


class MergeItem(Answer):
    """待决定的患者合并 / A merge that waits for a person, or was settled."""

    task: str
    code: Annotated[
        Literal["unmerge-candidate", "merge-conflict"],
        Field(description="患者号再次出现、合并互相矛盾 / A number in use again, merges that contradict each other"),
    ]
    decision: Annotated[Literal["", "undo", "keep"], Field(description="空：待决定 / Empty while it waits")]
    institution: str
    since: Instant
    former: _FORMER
    survivor: _SURVIVOR
    former_numbers: _NUMBERS
    survivor_numbers: _NUMBERS
    messages: Annotated[list[int], Field(description="等待中的消息的序号 / Numbers of the messages that wait")]


class MergeItems(Answer):
    """待决定的患者合并，早的在前 / Merges that wait for a person, oldest first."""

    merges: list[MergeItem]


class CameSince(Answer):
    """合并之后到达的资料 / One resource that came for the survivor since the merge."""

    reference: str
    last_updated: Instant
    message: Annotated[int | None, Field(description="消息序号 / Number of the message; null where it was none")]
    said: Annotated[
        Literal["former", "survivor", "unknown"],
        Field(description="发送方用的是哪个号 / Under whose number it was sent"),
    ]


class ShownMerge(Answer):
    """一次患者合并 / One merge, and what came since."""

    institution: str
    former: _FORMER
    survivor: _SURVIVOR
    former_numbers: _NUMBERS
    survivor_numbers: _NUMBERS
    merged: Annotated[bool, Field(description="false：已撤销 / False once it is taken back")]
    since: Instant
    message: Annotated[int | None, Field(description="合并消息的序号 / Number of the message that merged them")]
    items: list[MergeItem]
    came: list[CameSince]
    replaced: Annotated[
        list[str],
        Field(description="同一消息合并的就诊和账户，不随之撤销 / Visits and accounts it merged too; they stay so"),
    ]


class DecideMerge(Body):
    """撤销还是保留合并 / Whether a merge is taken back or kept."""

    complaint: ClassVar[str] = "The body does not say what is decided and why."
    remedy: ClassVar[str] = 'Send {"decision": "undo", "reason": "..."}, or "keep".'
    decision: Annotated[
        Literal["undo", "keep"],
        Field(description="撤销合并、合并无误 / Take the merge back; it is right, apply what waits to the survivor"),
    ]
    reason: Annotated[str, Field(description="原因，写入审计 / Reason, kept in the audit trail", examples=["号码有误"])]


class AppliedMessage(Answer):
    """等待后处理的消息 / A message that waited and was processed."""

    seq: int
    applied: bool
    outcome: str


class EndedGrant(Answer):
    """终止的授权 / Leave to see one resource that ended."""

    task: Annotated[str, Field(description="据以授权的任务，请核对 / The Task that had opened it; look at it")]
    reference: str


class DecidedMerge(Answer):
    """已处理的患者合并 / A merge that is settled."""

    decision: Literal["undo", "keep"]
    institution: str
    former: _FORMER
    survivor: _SURVIVOR
    changed: Annotated[list[str], Field(description="有新版本的资源 / What has a new version; empty the second time")]
    ended_shares: Annotated[list[str], Field(description="终止的分享链接 / Share links that joined the two and ended")]
    ended_grants: Annotated[
        list[EndedGrant], Field(description="终止的授权 / Grants that rested on the merge and ended")
    ]
    replayed: list[AppliedMessage]
    stays: Annotated[
        list[CameSince],
        Field(description="仍在保留方名下，请核对 / What stays with the survivor; somebody has to look whose it is"),
    ]
