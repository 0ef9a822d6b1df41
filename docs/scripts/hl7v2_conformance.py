"""Write the tables of docs/conformance/hl7v2.md that the code knows: events, answers, fields, codes, settings, differences.

Run ``python docs/scripts/hl7v2_conformance.py`` (``make docs``) after one of them changes; a test compares. What the fields
reach is found by translating messages (:mod:`tests.support.v2_reach`), not from a list.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path

from fhir_mappings import codes
from fhir_mappings.hl7v2 import ack, batch
from fhir_mappings.hl7v2.dialects import DIALECTS
from fhir_mappings.hl7v2.outbound import order_forms, orp_o10, orr_o02
from fhir_mappings.hl7v2.translate import MESSAGES, VERSIONS
from hub import endpoint_settings
from hub.config import Settings
from tests.support import v2_maps
from tests.support.doc_sections import filled, table
from tests.support.v2_reach import reach

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conformance" / "hl7v2.md"


def event_rows() -> Iterator[str]:
    """Yield a row for every message type with its events, and the file of its table."""
    for code, events in MESSAGES.items():
        files = sorted({f"`{one.__module__.rpartition('.')[2]}`" for one in events.values()})
        yield f"| {code} | {', '.join(events)} | {', '.join(files)} |"


def sent_rows() -> Iterator[str]:
    """Yield a row for every event that is sent, as the tables of what is built name it."""
    for form in order_forms.FORMS:
        yield f"| {form} | `orm_o01` |"
    for asked, answer in orr_o02.ANSWERS.items():
        yield f"| {answer}, where {asked} came in | `orr_o02` |"
    for asked, answer in orp_o10.ANSWERS.items():
        yield f"| {answer}, where {asked}{' with RXO' if asked in orr_o02.ANSWERS else ''} came in | `orp_o10` |"
    source = resources.files("fhir_mappings.hl7v2.outbound")
    for path in sorted(source.iterdir(), key=lambda one: one.name):
        if path.name.endswith(".py"):
            text = path.read_text("utf-8")
            for name in re.findall(r"start\(target, f?\"([A-Z]{3}\^[^\"]+)\"", text):
                event = re.sub(r"\{[a-z]+\}", "…", name.rpartition("^")[0])
                yield f"| {event} | `{path.name.removesuffix('.py')}` |"


def answer_rows() -> Iterator[str]:
    """Yield a row for every outcome with MSA-1 in both modes."""
    words = {
        "stored": "written down (and processed, unless the endpoint's `ack` is `stored`)",
        "invalid": "well formed, and wrong in a segment or field (ERR says where and what to do)",
        "refused": "type, event or version that is not taken, or no message at all",
        "unstorable": "could not be written down; the connection may be closed without an answer instead",
    }
    for outcome, text in words.items():
        row = (ack._ORIGINAL, ack._ACCEPT, ack._APPLICATION)  # noqa: SLF001 - what the door answers by; no other use
        yield f"| {text} | {' | '.join(one[outcome] for one in row)} |"


def condition_rows() -> Iterator[str]:
    """Yield a row for every condition of table 0357 that ERR-3 may hold."""
    for code, text in ack.CONDITIONS.items():
        yield f"| {code} | {text} |"


def field_rows() -> Iterator[str]:
    """Yield a row for every field that reaches something, with the elements, and what it does beside them."""
    for (segment, number), paths in sorted(reach().fields.items()):
        # Another event makes other resources; naming them all would say nothing.
        shown = ["what the message is"] if (segment, number) == ("MSH", 9) else _shown(paths)
        if shown:
            yield f"| {segment}-{number} | {', '.join(shown)} |"


def _shown(paths: Iterable[str]) -> list[str]:
    """The elements of *paths* to the second level; what names a resource changes every reference, which says nothing."""
    silent = (".id", ".reference", ".resourceType")
    made = sorted({_second(one) for one in paths if not one.startswith("(") and not one.endswith(silent)})
    return [f"`{one}`" for one in made] + (["workflow"] if "(workflow)" in paths else [])


def _second(path: str) -> str:
    parts = path.split(".")
    extension = next((i for i, part in enumerate(parts) if part.startswith("extension:")), None)
    if extension is not None:
        return ".".join(parts[: extension + 1])
    deep = len(parts) > 2 and parts[1] in {"hospitalization", "dosageInstruction", "collection", "dispenseRequest"}
    return ".".join(parts[: 3 if deep else 2])


def code_rows() -> Iterator[str]:
    """Yield a row for every code map."""
    folder = resources.files(codes)
    for path in sorted(folder.iterdir(), key=lambda one: one.name):
        name = path.name.removesuffix(".csv")
        if path.name.endswith(".csv"):
            systems = sorted({one.system.rpartition("/")[2] for one in codes.table(name).values() if one.system})
            yield f"| `{name}` | {len(codes.table(name))} | {', '.join(systems) or '–'} |"


def status_rows() -> Iterator[str]:
    """Yield a row for every code of a status table."""
    for name, field in (
        ("observation_status", "OBX-11"),
        ("report_status", "OBR-25"),
        ("order_status", "ORC-5"),
        ("order_control", "ORC-1, where ORC-5 is empty"),
        ("encounter_event", "event, for Encounter.status"),
        ("appointment_status", "SCH-25, compared with the event"),
    ):
        grouped: dict[str, list[str]] = {}
        for code, mapped in codes.table(name).items():
            grouped.setdefault(mapped.target, []).append(code)
        words = "; ".join(f"{', '.join(sorted(found))} → {target}" for target, found in grouped.items())
        yield f"| {field} | {words} |"


def number_rows() -> Iterator[str]:
    """Yield a row for every kind of number, with the CX.5 that mean it."""
    for dialect in DIALECTS.values():
        kinds: dict[str, list[str]] = {}
        for written, kind in dialect.cx_types.items():
            kinds.setdefault(kind, []).append(written)
        for kind, found in sorted(kinds.items()):
            yield f"| `{dialect.name}` | {kind} | {', '.join(sorted(found))} |"


def setting_rows() -> Iterator[str]:
    """Yield a row for every setting of an Endpoint that speaks HL7 v2."""
    for one in endpoint_settings.SETTINGS:
        if "mllp" in one.kinds:
            yield f"| `{one.name}` | {one.words} | {one.meaning.rpartition(' / ')[2]} |"


def limit_rows() -> Iterator[str]:
    """Yield a row for every limit that is a setting or a constant."""
    fields = Settings.model_fields
    for name in ("max_message_bytes", "frame_deadline_s", "min_bytes_per_s", "mllp_idle_s", "mllp_connections"):
        if name in fields:
            yield f"| `{name}` | {fields[name].default} |"
    yield f"| messages of one batch or file | {batch.MAX_MESSAGES} |"


def summary_rows() -> Iterator[str]:
    """Yield what the comparison with the official maps counts."""
    for name, rows in (
        ("segment rows", v2_maps.segment_rows()),
        ("segment maps of message structures", v2_maps.message_rows()),
        ("components of CX, XPN, XAD, XTN and CWE", v2_maps.datatype_rows()),
        ("codes", [row for row in v2_maps.code_rows() if row.code != "*"]),
    ):
        different = sum(1 for row in rows if row.reason)
        yield f"| {name} | {len(rows)} | {len(rows) - different} | {different} | 0 |"


def difference_rows() -> Iterator[str]:
    """Yield a row for every reason, with what it holds for."""
    places: dict[str, list[str]] = {}
    for row in v2_maps.segment_rows():
        if row.reason:
            places.setdefault(row.reason, []).append(f"{row.field} ({v2_maps.kind_of(row.map)})")
    for message in v2_maps.message_rows():
        if message.reason and message.reason not in places:
            places.setdefault(message.reason, []).append(f"{message.map} of {message.structure}")
    for part in v2_maps.datatype_rows():
        if part.reason:
            places.setdefault(part.reason, []).append(part.component)
    for code in v2_maps.code_rows():
        if code.reason:
            places.setdefault(code.reason, []).append(code.map if code.code == "*" else f"{code.map} {code.code}")
    for reason, text in sorted(v2_maps.reasons().items()):
        found = list(dict.fromkeys(places[reason]))
        more = f" and {len(found) - 12} more" if len(found) > 12 else ""
        yield f"| {', '.join(found[:12])}{more} | {text} |"


def tables() -> dict[str, str]:
    """Return the generated text of each marked section."""
    return {
        "events": table(("type", "events", "table"), event_rows()),
        "versions": ", ".join(sorted(VERSIONS)),
        "sent": table(("event", "built by"), sent_rows()),
        "answers": table(("outcome", "original mode", "accept (MSH-15)", "application (MSH-16)"), answer_rows()),
        "conditions": table(("ERR-3", "meaning (table 0357)"), condition_rows()),
        "fields": table(("field", "reaches"), field_rows()),
        "statuses": table(("from", "codes"), status_rows()),
        "codes": table(("map", "codes", "into"), code_rows()),
        "numbers": table(("dialect", "kind of number", "CX.5"), number_rows()),
        "settings": table(("setting", "values", "meaning"), setting_rows()),
        "limits": table(("limit", "value"), limit_rows()),
        "summary": table(("compared", "rows", "as there", "different, with a reason", "missing"), summary_rows()),
        "differences": table(("place", "reason"), difference_rows()),
    }


def fill(page: str) -> str:
    """Return *page* with every generated section written anew.

    Raises:
        ValueError: *page* lacks the markers of a section.
    """
    return filled(page, tables(), name=PAGE.name)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"{PAGE}\n")
