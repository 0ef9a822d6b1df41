"""The report of a reading: with the signatories that the workflow recorded, and as a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hub.directory import Directory
from hub.dispatch.related import text_of
from hub.workflows.task import authors, recorded, reference_in

if TYPE_CHECKING:
    from fhir_mappings.report_pdf import ReportPage

Json = dict[str, Any]

_SEX = {"male": "男", "female": "女"}


def signed(task: Json, report: Json) -> Json:
    """Return *report* with the signatories that the workflow recorded, where the report itself names none."""
    writer, reviewer = recorded(task, "writer")[1], recorded(task, "reviewer")[1]
    made = {**report}
    if reviewer and not made.get("resultsInterpreter"):
        made["resultsInterpreter"] = [{"reference": reviewer}]
    if writer and not any(reference_in(one) == writer for one in made.get("performer", ())):
        made["performer"] = [*made.get("performer", ()), {"reference": writer}]
    return made


def page(
    directory: Directory,
    task: Json,
    report: Json,
    observations: Sequence[Json],
    patient: Json,
    request: Json,
    people: Mapping[str, Json],
) -> ReportPage:
    """Return the page that a reading's report is printed as where the reading hospital attached none."""
    from fhir_mappings.report_pdf import ReportPage

    def person(references: Sequence[Mapping[str, Any]]) -> str:
        names = [
            str((people.get(reference_in(one), {}).get("name") or [{}])[0].get("text", ""))
            or str(one.get("display", ""))
            for one in references
        ]
        return "、".join(name for name in names if name)

    owner = directory.member(recorded(task, "owner")[0])
    # A report of the reader's own system was written by nobody whom the workflow has recorded; it says itself by whom.
    recorded_writer, reviewer = recorded(task, "writer")[1], report.get("resultsInterpreter", [])
    writers = [recorded_writer] if recorded_writer else authors(report)
    identifiers = {item.get("value", "") for item in request.get("identifier", ())}
    sections = [(text_of(one.get("code")), str(one["valueString"])) for one in observations if "valueString" in one]
    if report.get("conclusion"):
        sections.append(("诊断提示 Impression", str(report["conclusion"])))
    corrected = report.get("status") in {"amended", "corrected", "appended"}
    return ReportPage(
        institution=owner.name if owner is not None else "",
        title="远程影像诊断报告（修订） Amended report" if corrected else "远程影像诊断报告 Remote reading report",
        facts=[
            ("姓名 Name", str((patient.get("name") or [{}])[0].get("text", ""))),
            ("性别 Sex", _SEX.get(str(patient.get("gender", "")), "未知")),
            ("出生日期 Birth date", str(patient.get("birthDate", ""))),
            ("申请单号 Order", "、".join(sorted(one for one in identifiers if one))),
            ("检查项目 Examination", text_of(request.get("code")) or text_of(report.get("code"))),
            ("签发时间 Issued", str(report.get("issued", ""))),
        ],
        sections=sections,
        signatures=[
            f"报告医师 Written by：{person([{'reference': one} for one in writers])}",
            f"审核医师 Verified by：{person(reviewer)}",
        ],
        footer="本报告供申请机构医师参考，诊疗决定权由申请机构承担。The requesting institution decides on treatment.",
    )
