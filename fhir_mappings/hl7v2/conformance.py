"""A received message held against the standard by hl7apy: everything that it finds, by HL7 v2 version (chapters 2 to 15).

hl7apy takes 5 to 40 ms for a message and its groups are not to be relied on (alternatives of a choice are all taken for
required, real results for wrong), so segments are judged one by one, and of the structure only this: which segments the
message may have, and which of them outside of groups it must. Segments of a sender's own (Z) are nobody else's business.
What is found names places and never values. Lengths and tables of the standard are warnings: most of its tables are for
each site to extend; those that a feed promises stand in its profile (:mod:`fhir_mappings.hl7v2.profile`).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fhir_mappings.hl7v2.ack import AckError
from fhir_mappings.hl7v2.outbound.validation import CONDITIONAL
from fhir_mappings.hl7v2.tokenizer import Message

_LINE = re.compile(
    r"(?P<level>Error|Warning): (?:"
    r"(?P<missing>Missing required child) (?P<p1>[A-Z0-9_]+\.[A-Z0-9_]+)"
    r"|(?P<limit>Child limit exceeded) (?P<p2>[A-Z0-9_]+\.[A-Z0-9_]+)"
    r"|(?P<length>Exceeded max length \(\d+\)) of (?P<p3>[A-Z0-9_]+\.[A-Z0-9_]+)"
    r"|(?P<table>Value) .* not in table (?P<name>\w+) in element (?P<p4>[A-Z0-9_]+\.[A-Z0-9_]+)"
    r"|(?P<datatype>Datatype) .* is not correct for (?P<p5>[A-Z0-9_]+\.[A-Z0-9_]+) "
    r"|(?P<other>.*))"
)
_FIELD = re.compile(r"([A-Z][A-Z0-9]{2})\.\1_(\d+)")
_COMPONENT = re.compile(r"([A-Z][A-Z0-9]{2})_(\d+)\.[A-Z0-9_]+?_(\d+)")


def findings(message: Message) -> list[AckError]:
    """Return all that hl7apy finds wrong with *message*; empty when it keeps to its version of the standard."""
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.exceptions import HL7apyException
    from hl7apy.parser import parse_message

    version = message.get("MSH-12.1").strip()
    known = [one for one in message.segments if one.name.startswith("Z") or _is_segment(one.name, version)]
    if not known:
        text = "没有此版本 / There is no such version of HL7 v2 to judge by."
        return [AckError(location="MSH-12 of segment 1", code=203, text=text)]
    try:
        parsed = parse_message(
            "\r".join(one.line for one in known), validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False
        )
    except HL7apyException as error:
        text = f"无法按标准解析 / It cannot be read as its version of HL7 v2 ({type(error).__name__})."
        return [AckError(location="MSH-9 of segment 1", code=102, text=text)]
    except Exception as error:  # noqa: BLE001 - whatever a message makes hl7apy do wrong is no finding about it
        text = f"无法校验 / hl7apy failed at this message ({type(error).__name__})."
        return [AckError(location="MSH of segment 1", code=207, text=text, severity="W")]
    strange = [
        AckError(
            location=f"{one.name[:3]} of segment {one.index + 1}",
            code=100,
            text=f"{version} 版没有此段 / Version {version} has no such segment.",
        )
        for one in message.segments
        if one not in known
    ]
    return [*_structure(message, version), *strange, *_segments(parsed, [one.index + 1 for one in known])]


def _is_segment(name: str, version: str) -> bool:
    from hl7apy import load_reference
    from hl7apy.exceptions import HL7apyException

    try:
        load_reference(name, "Segment", version)
    except (HL7apyException, KeyError):
        return False
    return True


def _structure(message: Message, version: str) -> Iterator[AckError]:
    from hl7apy import load_reference
    from hl7apy.exceptions import HL7apyException

    named = message.get("MSH-9.3").strip() or f"{message.get('MSH-9.1').strip()}_{message.get('MSH-9.2').strip()}"
    try:
        reference = load_reference(named, "Message", version)
    except (HL7apyException, KeyError):
        # Up to v2.3 nothing says which structure an event has; its segments are judged all the same.
        return
    allowed = set(_names(reference))
    present = {segment.name for segment in message.segments}
    for child in reference[1]:
        if child[3] == "SEG" and child[2][0] > 0 and child[0] not in present:
            yield AckError(
                location=child[0], code=100, text=f"{named} 缺少段 {child[0]} / {named} asks for segment {child[0]}."
            )
    for segment in message.segments:
        strange = segment.name not in allowed and _is_segment(segment.name, version)
        if strange and not segment.name.startswith("Z"):
            yield AckError(
                location=f"{segment.name} of segment {segment.index + 1}",
                code=100,
                text=f"{named} 不含此段 / {named} has no such segment.",
                severity="W",
            )


def _names(reference: Any) -> Iterator[str]:
    for child in reference[1]:
        if child[3] == "SEG":
            yield child[0]
        elif child[1] is not None:
            yield from _names(child[1])


def _segments(parsed: Any, ordinals: list[int]) -> Iterator[AckError]:
    from hl7apy.exceptions import HL7apyException

    conditional = CONDITIONAL.get(str(parsed.version), ())
    # hl7apy raises its first finding and writes all of them to a file.
    with tempfile.TemporaryDirectory(prefix="hub-v2-") as folder:
        report = Path(folder) / "report"
        for ordinal, segment in zip(ordinals, parsed.children, strict=True):
            if segment.name.startswith("Z"):
                continue
            try:
                segment.validate(report_file=str(report))
            except HL7apyException:
                pass
            except Exception as error:  # noqa: BLE001 - as above
                text = f"无法校验 / hl7apy failed at this segment ({type(error).__name__})."
                yield AckError(location=f"{segment.name} of segment {ordinal}", code=207, text=text, severity="W")
                continue
            for line in report.read_text("utf-8").splitlines():
                found = _finding(line, segment.name, ordinal, conditional)
                if found is not None:
                    yield found


def _finding(line: str, name: str, ordinal: int, conditional: tuple[str, ...]) -> AckError | None:
    found = _LINE.fullmatch(line) or _LINE.match(line)
    if found is None:
        # The rest of a value that holds a line break.
        return None
    place = next((found[group] for group in ("p1", "p2", "p3", "p4", "p5") if found[group]), "")
    if found["missing"] and place in conditional:
        return None
    if found["missing"]:
        code, text = 101, "缺少必填项 / A value is required here."
    elif found["table"]:
        code, text = 103, f"取值不在表 {found['name']} 中 / Table {found['name']} has no such value."
    elif found["limit"]:
        code, text = 102, "重复次数过多 / There are more of these than allowed."
    elif found["length"]:
        code, text = 102, "超过最大长度 / The value is too long."
    else:
        code, text = 102, "不符合该版本的定义 / This is not what the version defines."
    severity = "E" if found["level"] == "Error" else "W"
    return AckError(location=f"{_place(place, name)} of segment {ordinal}", code=code, text=text, severity=severity)


def _place(place: str, name: str) -> str:
    if field := _FIELD.fullmatch(place):
        return f"{field[1]}-{field[2]}"
    if (component := _COMPONENT.fullmatch(place)) and component[1] == name:
        return f"{component[1]}-{component[2]}.{component[3]}"
    return name
