"""CodeSystems of the workflows: Task.code, Task.businessStatus and Task.statusReason.

FHIR CodeSystem: https://hl7.org/fhir/R4/codesystem.html. Displays are Chinese first; the English one is a designation.
A published code is never renamed or reused; a new meaning gets a new code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.workflows.base import BASE

#: (code, Chinese display, English display)
Concept = tuple[str, str, str]

WORKFLOW: tuple[Concept, ...] = (
    ("remote-reading", "远程影像诊断", "Remote reading"),
    ("referral", "双向转诊", "Referral"),
    ("lab-outsourcing", "第三方检验", "Outsourced laboratory work"),
    ("consultation", "远程会诊", "Consultation"),
    ("critical-value", "危急值", "Critical value"),
    ("appointment", "预约", "Appointment"),
    ("inquiry", "远程咨询", "Inquiry"),
    ("supply", "医药采购", "Supply"),
    ("abort", "请求撤回", "Request to abort"),
    ("escalation", "超时升级", "Escalation of overdue work"),
    ("upload-full-record", "上传完整病历", "Upload of the full record"),
    ("recollect", "重新采样", "New collection of a specimen"),
    ("image-match", "影像匹配", "Matching of images to an order"),
    ("follow-up", "随访", "Follow-up"),
)

STEPS: Mapping[str, tuple[Concept, ...]] = {
    "imaging-step": (
        ("draft", "待提交", "Draft"),
        ("submitted", "已申请", "Submitted"),
        ("images-incomplete", "退回补图", "Returned for images"),
        ("assigned", "已分配", "Assigned"),
        ("writing", "书写中", "Being written"),
        ("preliminary", "已初写/待审核", "Written, to be reviewed"),
        ("returned", "审核退回", "Returned by the reviewer"),
        ("final", "已发布", "Final"),
        ("delivered", "已回传", "Delivered"),
        ("amended", "已修订", "Amended"),
        ("refused", "拒诊", "Refused"),
        ("withdrawn", "撤回", "Withdrawn"),
    ),
    "referral-step": (
        ("draft", "草稿", "Draft"),
        ("consent-pending", "待知情同意", "Waiting for consent"),
        ("submitted", "已申请", "Submitted"),
        ("reviewing", "审核中", "Under review"),
        ("need-info", "补充病历", "More information needed"),
        ("accepted", "同意接收", "Accepted"),
        ("booked", "床位/号源已预约", "Bed or appointment booked"),
        ("notified", "已通知患者", "Patient notified"),
        ("arrived", "已到诊", "Arrived"),
        ("record-sent", "完整病历已传", "Full record sent"),
        ("admitted", "已入院", "Admitted"),
        ("discharged", "已出院", "Discharged"),
        ("down-proposed", "已发起下转", "Down-referral proposed"),
        ("feedback", "已反馈", "Outcome reported"),
        ("following-up", "随访中", "Being followed up"),
        ("closed", "已关闭", "Closed"),
        ("rejected", "拒绝接收", "Rejected"),
        ("cancelled", "已撤回", "Cancelled"),
        ("not-arrived", "未到诊", "Did not arrive"),
        ("expired", "已过期", "Expired"),
    ),
    "lab-step": (
        ("ordered", "已开单", "Ordered"),
        ("collected", "已采样", "Collected"),
        ("packed", "已打包", "Packed"),
        ("picked-up", "已揽收", "Picked up"),
        ("received", "已接收", "Received"),
        ("specimen-rejected", "标本退回", "Specimen rejected"),
        ("testing", "检测中", "Being tested"),
        ("tech-verified", "技术审核", "Technically verified"),
        ("preliminary", "部分报告", "Partly reported"),
        ("final", "已发布", "Final"),
        ("corrected", "已更正", "Corrected"),
        ("cancelled", "已撤销", "Cancelled"),
    ),
}

_CANCEL: tuple[Concept, ...] = (
    ("patient-wish", "患者要求", "Wish of the patient"),
    ("duplicate", "重复申请", "Duplicate request"),
    ("entered-in-error", "录入错误", "Entered in error"),
    ("condition-changed", "病情变化", "Condition has changed"),
    ("other", "其他", "Other"),
)

REASONS: Mapping[str, tuple[Concept, ...]] = {
    "image-return-reason": (
        ("series-missing", "序列不全", "Series missing"),
        ("no-thin-slices", "无薄层", "No thin slices"),
        ("artefacts", "伪影严重", "Severe artefacts"),
        ("wrong-body-part", "部位不符", "Wrong body part"),
        ("patient-mismatch", "患者信息不符", "Patient data do not match"),
        ("clinical-data-missing", "缺临床资料", "Clinical data missing"),
        ("priors-missing", "缺既往片", "Earlier images missing"),
        ("unreadable", "图像无法打开", "Images cannot be opened"),
    ),
    "reading-refusal-reason": (
        ("no-capacity", "暂无诊断资源", "No capacity"),
        ("out-of-scope", "不属诊断范围", "Out of scope"),
        ("images-unfit", "图像质量不达标", "Images not fit for reading"),
        ("request-invalid", "申请信息不符", "Request not valid"),
        ("other", "其他", "Other"),
    ),
    "report-return-reason": (
        ("findings-incomplete", "所见描述不全", "Findings incomplete"),
        ("measurement-missing", "缺测量数据", "Measurement missing"),
        ("conclusion-unsupported", "结论依据不足", "Conclusion not supported"),
        ("wording", "文字错误", "Wording"),
        ("other", "其他", "Other"),
    ),
    "report-amendment-reason": (
        ("error", "原报告有误", "Error in the report"),
        ("new-information", "补充新资料", "New information"),
        ("later-images", "后续图像到达", "Later images arrived"),
        ("specimen-mix-up", "标本或患者混淆", "Specimen or patient mixed up"),
        ("other", "其他", "Other"),
    ),
    "specimen-rejection-reason": (
        ("haemolysis", "溶血", "Haemolysis"),
        ("lipaemia", "脂血", "Lipaemia"),
        ("clotted", "凝块", "Clotted"),
        ("insufficient", "量不足", "Insufficient quantity"),
        ("barcode", "条码不符/缺失", "Barcode wrong or missing"),
        ("container", "容器错误", "Wrong container"),
        ("too-late", "超过时限", "Too late"),
        ("temperature", "温度异常", "Wrong temperature"),
        ("request-incomplete", "申请信息不全", "Request incomplete"),
    ),
    "referral-rejection-reason": (
        ("no-bed", "无床", "No bed"),
        ("out-of-scope", "不属收治范围", "Out of scope"),
        ("unfit-for-transport", "病情不宜转运", "Not fit for transport"),
        ("insufficient-data", "资料不足", "Insufficient data"),
        ("other-hospital", "建议转他院", "Another hospital suggested"),
        ("patient-refused", "患者拒绝", "Patient refused"),
    ),
    "information-request-reason": (
        ("summary-incomplete", "病历摘要不全", "Summary incomplete"),
        ("lab-missing", "缺检验", "Laboratory results missing"),
        ("images-missing", "缺影像原始DICOM", "DICOM images missing"),
        ("consent-missing", "缺知情同意", "Consent missing"),
        ("purpose-unclear", "目的不明确", "Purpose unclear"),
        ("other", "其他", "Other"),
    ),
    "referral-reason": (
        ("skills", "限于技术", "Limits of skills"),
        ("equipment", "限于设备", "Limits of equipment"),
        ("unclear-diagnosis", "诊断不明", "Diagnosis unclear"),
        ("deterioration", "病情加重", "Condition worse"),
        ("rehabilitation", "康复治疗", "Rehabilitation"),
        ("chronic-care", "慢病管理", "Chronic care"),
        ("patient-wish", "患者要求", "Wish of the patient"),
    ),
    "cancellation-reason": _CANCEL,
}

_TITLES: Mapping[str, tuple[str, str]] = {
    "workflow": ("业务类型", "Workflow"),
    "imaging-step": ("影像诊断步骤", "Imaging step"),
    "referral-step": ("转诊步骤", "Referral step"),
    "lab-step": ("检验步骤", "Laboratory step"),
    "image-return-reason": ("退图原因", "Reason for returning images"),
    "reading-refusal-reason": ("拒诊原因", "Reason for refusing a reading"),
    "report-return-reason": ("审核退回原因", "Reason for returning a report"),
    "report-amendment-reason": ("报告修订原因", "Reason for amending a report"),
    "specimen-rejection-reason": ("拒收标本原因", "Reason for rejecting a specimen"),
    "referral-rejection-reason": ("拒绝转诊原因", "Reason for rejecting a referral"),
    "information-request-reason": ("退补原因", "Reason for asking for information"),
    "referral-reason": ("转诊原因", "Reason for a referral"),
    "cancellation-reason": ("撤回原因", "Reason for a cancellation"),
}


def concept(system: str, code: str) -> dict[str, str]:
    """Return the FHIR Coding of *code* in our CodeSystem *system*; KeyError if either is not declared."""
    concepts = WORKFLOW if system == "workflow" else STEPS.get(system) or REASONS[system]
    for known, display, _ in concepts:
        if known == code:
            return {"system": f"{BASE}/CodeSystem/{system}", "code": code, "display": display}
    raise KeyError(f"{system}#{code}")


def is_known(system: str, code: str) -> bool:
    """Return whether our CodeSystem *system* exists and holds *code*."""
    try:
        concept(system, code)
    except KeyError:
        return False
    return True


def code_systems() -> list[dict[str, Any]]:
    """Return all CodeSystems as FHIR R4 resources, ready to be stored and served."""
    return [_code_system(name, concepts) for name, concepts in {"workflow": WORKFLOW, **STEPS, **REASONS}.items()]


def _code_system(name: str, concepts: tuple[Concept, ...]) -> dict[str, Any]:
    title_zh, title_en = _TITLES[name]
    return {
        "resourceType": "CodeSystem",
        "id": name,
        "url": f"{BASE}/CodeSystem/{name}",
        "version": "1",
        "name": "".join(part.capitalize() for part in name.split("-")),
        "title": f"{title_zh} {title_en}",
        "status": "active",
        "caseSensitive": True,
        "content": "complete",
        "count": len(concepts),
        "concept": [
            {"code": code, "display": display, "designation": [{"language": "en", "value": english}]}
            for code, display, english in concepts
        ],
    }
