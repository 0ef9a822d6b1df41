"""A workitem to create, and what its performer says of it."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

UID, KEY = "1.2.826.0.1.88.1", "2.25.4711"


def text(vr: str, *values: Any) -> Json:
    """Return one element."""
    return {"vr": vr, "Value": list(values)}


def code(value: str, meaning: str = "") -> Json:
    """Return one element: a sequence of one coded concept."""
    item = {"00080100": text("SH", value), "00080102": text("SH", "99YX"), "00080104": text("LO", meaning or value)}
    return text("SQ", item)


def workitem(**more: Any) -> Json:
    """Return the data set of a new item of 郑伟 that YL's station YL_CENTER is to do; *more* by tag, as ``x00741000``."""
    found: Json = {
        "00100010": text("PN", {"Alphabetic": "Zheng^Wei", "Ideographic": "郑^伟"}),
        "00100020": text("LO", "10086"),
        "00100030": text("DA", "19760229"),
        "00100040": text("CS", "M"),
        "0020000D": text("UI", "1.2.826.0.1.99.1"),
        "00404005": text("DT", "20261123090000"),
        "00404018": code("CAD-LUNG", "肺结节辅助检测"),
        "00404021": {"vr": "SQ"},
        "00404025": code("YL_CENTER", "中心医院"),
        "00404041": text("CS", "READY"),
        "0040A370": text("SQ", {"00080050": text("SH", "A1"), "0020000D": text("UI", "1.2.826.0.1.99.1")}),
        "00741000": text("CS", "SCHEDULED"),
        "00741200": text("CS", "HIGH"),
        "00741202": text("LO", "影像后处理"),
        "00741204": text("LO", "胸部CT肺结节检测"),
        "00081195": {"vr": "UI"},
    }
    found |= {name.removeprefix("x"): element for name, element in more.items()}
    return {tag: element for tag, element in found.items() if element is not None}


def performed() -> Json:
    """Return what makes an item ready to be COMPLETED (PS3.4 table CC.2.5-3)."""
    item = {
        "00404019": code("CAD-LUNG"),
        "00404028": code("YL_CENTER"),
        "00404033": {"vr": "SQ"},
        "00404050": text("DT", "20261123090100"),
        "00404051": text("DT", "20261123090200"),
    }
    return {"00741216": text("SQ", item)}


def stopped() -> Json:
    """Return what makes an item ready to be CANCELED."""
    item = {
        "00404052": text("DT", "20261123090100"),
        "0074100E": code("110513"),
        "00741238": text("LT", "患者已出院"),
    }
    return {"00741002": text("SQ", item)}


def state(name: str, key: str = KEY) -> Json:
    """Return the data set of a change of state."""
    return {"00741000": text("CS", name), **({"00081195": text("UI", key)} if key else {})}
