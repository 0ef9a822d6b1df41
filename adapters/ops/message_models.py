"""What ``/ops`` takes and answers about messages that were received: found, shown, compared and processed again."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from adapters.ops.models import Answer, Body, Instant, MayBeAbsent


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


class MadeResource(Answer):
    """消息产生的资源版本 / One resource in the version that a message made."""

    reference: str
    version: int
    last_updated: Instant
    deleted: bool
    body: Annotated[str, Field(description="存储的 JSON / the JSON that is stored, byte for byte")]


class Comparison(Answer):
    """消息与其结果对照 / A message beside what came of it."""

    message: AnsweredEntry
    segments: list[str]
    resources: list[MadeResource]
    gone: Annotated[list[str], Field(description="已无该版本 / of these no such version can be told")]


class Replay(Body):
    """重新处理哪些消息 / Which messages are processed again."""

    complaint: ClassVar[str] = "The body does not say which messages."
    remedy: ClassVar[str] = 'Send {"filter": {"state": "failed"}}, and then its word as "confirm" too.'
    filter: Annotated[dict[str, str], Field(description="与查找相同的参数 / parameters as of a search")]
    confirm: Annotated[str, Field(description="前一步给出的口令 / the word that the first step gave")] = ""


class Refused(Answer):
    """未成功的消息 / A message that still cannot be processed."""

    seq: int
    why: str


class Replayed(Answer):
    """批量重新处理 / Many messages counted, or processed again."""

    count: int
    since: Annotated[Instant, MayBeAbsent] = ""
    until: Annotated[Instant, MayBeAbsent] = ""
    confirm: Annotated[str, Field(description="确认用的口令 / the word to confirm with")]
    processed: Annotated[int, Field(description="0: 仅计数 / only counted")]
    refused: list[Refused]


class MessageFile(Answer):
    """导出的消息 / Messages written out, oldest first."""

    format: Literal["er7", "jsonl"]
    count: int
    skipped: Annotated[int, Field(description="无 MSH，未写入 / without MSH, left out")]
    content: Annotated[str, Field(description="文件内容 / what the file holds")]
