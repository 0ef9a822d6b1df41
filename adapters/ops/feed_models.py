"""What ``/ops`` answers about members' feeds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adapters.ops.models import Answer


class FeedCharset(Answer):
    """字符集 / One character set, as read and as MSH-18 says."""

    charset: str
    declared: Annotated[str, Field(description="MSH-18；可为空 / MSH-18; may be empty")]
    messages: int


class FeedField(Answer):
    """一个字段的使用 / The use of one field in messages of one event."""

    event: str
    field: Annotated[str, Field(description="PID-5", examples=["PID-5"])]
    segments: Annotated[int, Field(description="该段出现次数 / times that its segment was met")]
    valued: Annotated[float, Field(description="有值的比例 / share in which it is valued")]
    null: Annotated[float, Field(description='写成 "" 的比例 / share in which it is ""')]
    distinct: Annotated[int, Field(description="不同取值数 / different values")]
    distinct_capped: Annotated[bool, Field(description="达到计数上限 / there may be more")]
    longest: Annotated[int, Field(description="最长字符数 / characters of the longest")]
    repetitions: Annotated[int, Field(description="最多重复 / repetitions at most")]
    codes: Annotated[
        dict[str, int], Field(description="常见代码，仅 ID、IS 类型 / frequent codes; types ID and IS alone")
    ]


class Percentiles(Answer):
    """百分位，秒；没有数据时缺省 / Percentiles in seconds, by nearest rank; absent where there is nothing to tell."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class FeedTraffic(Answer):
    """最近消息与投递的数量和时延 / Figures of the last messages and deliveries, and of what waits."""

    received: Annotated[int, Field(description="最近收到的消息 / of the last messages: received")]
    applied: Annotated[int, Field(description="其中已入库 / of these, applied")]
    refused: Annotated[int, Field(description="其中被拒绝 / of these, refused")]
    failed: Annotated[int, Field(description="其中处理失败 / of these, failed")]
    waiting: Annotated[int, Field(description="已存储、待处理 / stored and not yet processed")]
    waiting_oldest_s: Annotated[float, Field(description="其中最早一条的秒数 / age of the oldest of them, seconds")]
    commit_s: Annotated[Percentiles, Field(description="从到达到入库 / from arrival to the commit of what it says")]
    queued: Annotated[int, Field(description="待投递到该端点 / deliveries to it that wait, dead letters too")]
    queued_dead: Annotated[int, Field(description="其中死信 / dead letters among them")]
    queued_oldest_s: Annotated[float, Field(description="其中最早一条的秒数 / age of the oldest of them, seconds")]
    acknowledged: Annotated[int, Field(description="最近已应答的投递 / last deliveries acknowledged")]
    acknowledge_s: Annotated[Percentiles, Field(description="从入队到应答 / from queueing to the acknowledgement")]


class FeedStatistics(Answer):
    """接口字段使用统计 / What a feed is made of."""

    endpoint: str
    messages: int
    unreadable: Annotated[int, Field(description="无法拆分的消息 / messages that could not be cut into segments")]
    charset_doubtful: Annotated[int, Field(description="字符集存疑的消息 / messages of a doubtful character set")]
    events: dict[str, int]
    versions: dict[str, int]
    charsets: list[FeedCharset]
    traffic: FeedTraffic
    fields: list[FeedField]
