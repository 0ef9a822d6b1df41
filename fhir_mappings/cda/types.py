"""The document types of WS/T 500-2016 (电子病历共享文档规范): part n defines the document ``C%04d`` % n."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: Code system of the types, and root of their templates, whose last number is that of the type and twenty.
SYSTEM = "2.16.156.10011.2.4"
TEMPLATES = "2.16.156.10011.2.1.1."
_OFFSET = 20

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "C0001": "病历概要",
        "C0002": "门（急）诊病历",
        "C0003": "急诊留观病历",
        "C0004": "西药处方",
        "C0005": "中药处方",
        "C0006": "检查报告",
        "C0007": "检验报告",
        "C0008": "治疗记录",
        "C0009": "一般手术记录",
        "C0010": "麻醉术前访视记录",
        "C0011": "麻醉记录",
        "C0012": "麻醉术后访视记录",
        "C0013": "输血记录",
        "C0014": "待产记录",
        "C0015": "阴道分娩记录",
        "C0016": "剖宫产记录",
        "C0017": "一般护理记录",
        "C0018": "病重（病危）护理记录",
        "C0019": "手术护理记录",
        "C0020": "生命体征测量记录",
        "C0021": "出入量记录",
        "C0022": "高值耗材使用记录",
        "C0023": "入院评估",
        "C0024": "护理计划",
        "C0025": "出院评估与指导",
        "C0026": "手术知情同意书",
        "C0027": "麻醉知情同意书",
        "C0028": "输血治疗同意书",
        "C0029": "特殊检查及特殊治疗同意书",
        "C0030": "病危（重）通知书",
        "C0031": "其他知情同意书",
        "C0032": "住院病案首页",
        "C0033": "中医住院病案首页",
        "C0034": "入院记录",
        "C0035": "24小时内入出院记录",
        "C0036": "24小时内入院死亡记录",
        "C0037": "首次病程记录",
        "C0038": "日常病程记录",
        "C0039": "上级医师查房记录",
        "C0040": "疑难病例讨论记录",
        "C0041": "交接班记录",
        "C0042": "转科记录",
        "C0043": "阶段小结",
        "C0044": "抢救记录",
        "C0045": "会诊记录",
        "C0046": "术前小结",
        "C0047": "术前讨论",
        "C0048": "术后首次病程记录",
        "C0049": "出院记录",
        "C0050": "死亡记录",
        "C0051": "死亡病例讨论记录",
        "C0052": "住院医嘱",
        "C0053": "出院小结",
    }
)


def of_template(written: str) -> str:
    """Return the type whose template the OID *written* is; empty where it is none."""
    number = written.removeprefix(TEMPLATES)
    if number == written or not (number.isascii() and number.isdigit() and len(number) <= 3):
        return ""
    code = f"C{int(number) - _OFFSET:04d}"
    return code if code in NAMES else ""


def coding(code: str) -> dict[str, str] | None:
    """Return the Coding of the type *code*, or ``None`` where there is no such type."""
    name = NAMES.get(code)
    return None if name is None else {"system": f"urn:oid:{SYSTEM}", "code": code, "display": name}
