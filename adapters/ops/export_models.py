"""What ``/ops`` takes and answers about de-identified copies (DICOM PS3.15 Annex E)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from adapters.ops.models import Answer, Body, Instant


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
    studies: list[str] = Field(default=[], description="Study Instance UID")
    query: dict[str, str] = Field(
        default={}, description="条件 / Study keys", examples=[{"StudyDate": "20250101-20250630"}]
    )
    options: list[str] = Field(
        default=[],
        description="full-dates, modified-dates, patient, device, institution, uids, safe-private, descriptors, "
        "structured-content, graphics",
    )
    take: list[str] = Field(
        default=[],
        description="burned-in-annotation, pixels-may-carry-names, burned-in-unknown, recognizable-features, "
        "encapsulated-document",
    )
    hold_unknown: Annotated[
        bool, Field(description="未声明无烧录文字的图像不导出 / Only images that say they name nobody")
    ] = False
