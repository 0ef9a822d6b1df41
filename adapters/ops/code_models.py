"""What ``/ops`` takes and answers about codes without a standard one, and about settings as versions."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from adapters.ops.models import Answer, Body, Instant

_SYSTEM = "院内代码系统 / code system of the member's own"


class UnmappedCode(Answer):
    """待对照的代码 / One code that no map knows."""

    institution: str
    system: Annotated[str, Field(description=_SYSTEM)]
    code: str
    count: Annotated[int, Field(description="消息数，约每分钟更新 / messages; written about once a minute")]
    first_seen: Instant
    last_seen: Instant
    sample: Annotated[int, Field(description="一条消息的编号 / number of a message with it")]
    mapped: Annotated[bool, Field(description="已对照，待重新处理 / a map knows it by now")]


class UnmappedCodes(Answer):
    """待对照的代码 / Codes that no map knows."""

    codes: list[UnmappedCode]


class CodeMapRow(Answer):
    """一条对照 / What one code is mapped to."""

    institution: str
    system: Annotated[str, Field(description=_SYSTEM)]
    code: str
    targets: Annotated[list[str], Field(description="system|code；空为无对应 / empty: there is none")]
    map: Annotated[str, Field(description="ConceptMap/ID")]
    version: int
    owner: str
    active: bool


class CodeMapRows(Answer):
    """对照 / What codes are mapped to."""

    codes: list[CodeMapRow]


class MapCode(Body):
    """建立对照 / Which code means what."""

    complaint: ClassVar[str] = "The body does not say which code means what."
    remedy: ClassVar[str] = (
        'Send {"institution": "KN", "source": "local", "code": "K", "target": "http://loinc.org|2823-3"}.'
    )
    institution: str
    source: Annotated[str, Field(description="local, table/unit, table/administrative_sex, ...")]
    code: str
    target: Annotated[str, Field(description="system|code；空为无对应 / empty: there is none")]
    display: str = ""
    equivalence: Annotated[str, Field(description="equal, equivalent, wider, subsumes")] = "equivalent"


class MappedCode(Answer):
    """已建立的对照 / What was written."""

    map: str
    version: int
    system: str
    code: str
    target: str


class Reprocess(Body):
    """重新处理哪个机构的消息 / Whose messages are processed again."""

    complaint: ClassVar[str] = "The body does not say whose messages."
    remedy: ClassVar[str] = 'Send {"institution": "KN"}, and then what was told as "next" as "before".'
    institution: str
    before: Annotated[int | None, Field(description="上一次返回的 next / next of the last answer")] = None


class Reprocessed(Answer):
    """重新处理的结果 / What one step came to."""

    institution: str
    codes: int
    looked_at: int
    replayed: int
    refused: Annotated[list[int], Field(description="未能处理的消息 / messages that are refused now")]
    next: Annotated[int | None, Field(description="null 为已完成 / null when done")]


class TryOut(Body):
    """试用哪些设置 / Which settings are tried on what a feed has sent."""

    complaint: ClassVar[str] = "The body does not say which feed and which settings."
    remedy: ClassVar[str] = 'Send {"endpoint": "KN/mllp", "settings": {"dialect": "standard"}, "resources": []}.'
    endpoint: str
    settings: Annotated[dict[str, str], Field(default_factory=dict)]
    resources: Annotated[list[dict[str, Any]], Field(default_factory=list, description="Endpoint, ConceptMap, ...")]
    last: Annotated[int, Field(ge=1, le=500, description="最近多少条消息 / so many of the newest messages")] = 100


class Totals(Answer):
    """两种设置下的数量 / A number as now and as it would be."""

    now: int
    then: int


class Verdict(Answer):
    """接收结果的变化 / Messages that would be taken or refused otherwise."""

    now: str
    then: str
    count: int
    examples: list[int]


class Difference(Answer):
    """有差异的元素 / One FHIR element that would differ."""

    path: str
    change: Literal["added", "removed", "changed"]
    count: Annotated[int, Field(description="消息数 / in so many messages")]
    examples: list[int]


class TriedOut(Answer):
    """试用的结果 / What would differ."""

    endpoint: str
    messages: int
    differing: int
    warnings: Totals
    unmapped: Totals
    verdicts: list[Verdict]
    elements: list[Difference]


class SettingsVersion(Answer):
    """设置的一个版本 / One version of settings."""

    version: int
    at: Instant
    by: str
    deleted: bool
    changed: list[str]


class SettingsHistory(Answer):
    """设置的历史 / Versions, the newest first."""

    versions: list[SettingsVersion]


class SettingsChange(Answer):
    """一处差异 / One element that differs between two versions."""

    path: str
    change: Literal["added", "removed", "changed"]
    before: list[str]
    after: list[str]


class SettingsDiff(Answer):
    """两个版本的差异 / What differs between two versions."""

    changes: list[SettingsChange]


class Rollback(Body):
    """恢复到哪个版本 / Which version is made the newest."""

    complaint: ClassVar[str] = "The body does not say to which version."
    remedy: ClassVar[str] = 'Send {"version": 3}.'
    version: int


class RolledBack(Answer):
    """已恢复 / What stands now."""

    reference: str
    version: int
    like: Annotated[int, Field(description="内容与此版本相同 / says what this version said")]
