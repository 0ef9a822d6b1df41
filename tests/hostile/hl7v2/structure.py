"""Hostile structure: bombs of segments, fields, repetitions, components and subcomponents, and segments that are none.

The caps are the tokenizer's (:mod:`fhir_mappings.hl7v2.tokenizer`): at the cap a message is taken, one beyond it is told so.
"""

from __future__ import annotations

from fhir_mappings.hl7v2.tokenizer import MAX_FIELDS, MAX_HEADER, MAX_REPETITIONS, MAX_SEGMENTS
from tests.hostile.hl7v2.cases import SMUGGLED, Case, Family, admit, header

_MILLION = 1_000_000


def cases() -> list[Case]:
    """Return the family."""
    f = Family("structure", 3)
    _segments(f)
    _fields(f)
    _names(f)
    _order(f)
    return f.cases


def _segments(f: Family) -> None:
    def padded(count: int, line: str = "ZZZ|1\r") -> str:
        return admit(*f.ids(), extra=line * (count - 3))

    f.text("as many segments as are borne", padded(MAX_SEGMENTS), "AA")
    f.text("one segment too many", padded(MAX_SEGMENTS + 1), "AE 102")
    f.text("a hundred thousand segments", padded(100_000), "AE 102")
    f.text("a million names without fields", padded(_MILLION, "ZZZ\r"), "AE 102")
    f.text("a hundred thousand patients", admit(*f.ids(), extra=f"PID|1||{SMUGGLED}\r" * 100_000), "AE 102")
    f.text("a million carriage returns behind", admit(*f.ids(), extra="\r" * _MILLION), "AA")
    f.text("a million line feeds behind", admit(*f.ids(), extra="\n" * _MILLION), "AA")
    f.text("a million pairs of both behind", admit(*f.ids(), extra="\r\n" * _MILLION), "AA")
    f.text("a million line feeds inside a field", admit(*f.ids(), extra="ZZZ|a" + "\n" * _MILLION + "b\r"), "AA")
    f.text("a million carriage returns before", "\r" * _MILLION + admit(*f.ids()), "AA")
    f.text("a line feed that starts no segment", admit(*f.ids(), extra="NTE|1||one\ntwo\r"), "AA")
    f.text("line feeds alone", admit(*f.ids()).replace("\r", "\n"), "AA")
    f.text("pairs", admit(*f.ids()).replace("\r", "\r\n"), "AA")
    f.text("no line end at the end", admit(*f.ids()).rstrip("\r"), "AA")
    f.text("U+2028 for a line end", admit(*f.ids()).replace("\rPID", "\u2028PID"), "AE 100", charset="utf-8")
    f.text("U+0085 for a line end", admit(*f.ids()).replace("\rPID", "\u0085PID"), "AE 100", charset="utf-8")
    f.text("a form feed for a line end", admit(*f.ids()).replace("\rPID", "\x0cPID"), "AE 100")


def _fields(f: Family) -> None:
    f.text("as many fields as are borne", admit(*f.ids(), extra="ZZZ" + "|x" * MAX_FIELDS + "\r"), "AA")
    f.text("one field too many", admit(*f.ids(), extra="ZZZ" + "|x" * (MAX_FIELDS + 1) + "\r"), "AE 102")
    f.text("a million fields", admit(*f.ids(), extra="ZZZ" + "|" * _MILLION + "\r"), "AE 102")
    f.text("a field of ten megabytes", admit(*f.ids(), extra="ZZZ|" + "x" * 10_000_000 + "\r"), "AA")
    for count, says in ((MAX_REPETITIONS, "AA"), (MAX_REPETITIONS + 1, "AE 102"), (_MILLION, "AE 102")):
        control, patient = f.ids()
        pid = f"PID|1||{patient}^^^^IDCard||郑伟" + "~" * (count - 1) + "||19760229|M"
        f.text(f"{count} repetitions of a name", admit(control, patient, pid=pid), says)
    for place in (3, 4, 5, 6, 9, 10, 11, 12, 18):
        control, patient = f.ids()
        text = admit(control, patient, **{f"f{place}": "x" + "~" * MAX_REPETITIONS})
        f.text(f"too many repetitions in MSH-{place}", text, "AR 100", control="")
    for kind, mark in (("components", "^"), ("subcomponents", "&"), ("escape characters", "\\")):
        for count in (1_000, 100_000, _MILLION):
            control, patient = f.ids()
            pid = f"PID|1||{patient}^^^^IDCard||郑伟{mark * count}||19760229|M"
            f.text(f"{count} {kind} in a name", admit(control, patient, pid=pid), "AA")
        for place in (5, 10):
            control, patient = f.ids()
            text = admit(control, patient, **{f"f{place}": control + mark * MAX_HEADER})
            f.text(f"a header of {kind} in MSH-{place}", text, "AR 100", control="")
    control, patient = f.ids()
    both = "&".join("^".join("x" for _ in range(300)) for _ in range(300))
    f.text("components of subcomponents", admit(control, patient, extra=f"ZZZ|{both}\r"), "AA")
    for size in (10_000, _MILLION):
        control, patient = f.ids()
        f.text(f"a control id of {size} characters", admit(control + "9" * size, patient), "AR 100", control="")
        f.text(f"a facility of {size} characters", admit(control, patient, f4="K" * size), "AR 100", control="")
        f.text(f"a receiver of {size} characters", admit(control, patient, f5="Y" * size), "AR 100", control="")
    f.text("MSH of two hundred fields", admit(*f.ids(), f200="x"), "AA")


_BAD_NAMES = {
    "in lower case": "zev", "of two letters": "ZE", "of four letters": "ZEVX", "that starts with a digit": "1EV",
    "with a NUL": "Z\x00V", "with a space": "Z V", "in full width": "ＺＥＶ", "in Cyrillic": "ZЕV", "in Chinese": "患者甲",
    "with an escape": "\\X5A\\EV", "of punctuation": "...", "of a zero-width space": "Z\u200bEV", "with a mark": "\ufeffZEV",
    "with a right-to-left mark": "\u202eVEZ",
}  # fmt: skip


def _names(f: Family) -> None:
    for name, written in _BAD_NAMES.items():
        f.text(f"a segment name {name}", admit(*f.ids(), extra=f"{written}|1\r"), "AE 100", charset="utf-8")
    f.text("no segment name", admit(*f.ids(), extra=f"|1||{SMUGGLED}\r"), "AE 100")
    f.text("blanks before a segment", admit(*f.ids(), extra="  ZZZ|1\r"), "AE 100")
    f.text("a name alone", admit(*f.ids(), extra="ZZZ\r"), "AA")
    f.text("segments of the site's own", admit(*f.ids(), extra="ZEX|rm -rf /|$(id)|`id`|{{7*7}}\rZ99|1\r"), "AA")


def _order(f: Family) -> None:
    control, patient = f.ids()
    twin = f"{header(control + 'X')}\rEVN|A04|20250611080000\rPID|1||{SMUGGLED}\r"
    f.text("a second message inside", admit(control, patient, extra=twin), "AE 100")
    f.text("a second message inside behind a line feed", admit(*f.ids(), extra="ZZZ|1\n" + twin), "AE 100")
    control, patient = f.ids()
    f.text("a header in a field", admit(control, patient, extra=f"ZZZ|{header('X').replace('|', ' ')}\r"), "AA")
    f.text("a batch header inside", admit(*f.ids(), extra="BHS|^~\\&|HIS|KNYY\r"), "AA")
    f.text("batch trailers inside", admit(*f.ids(), extra="BTS|1\rFTS|1\r"), "AA")
    control, patient = f.ids()
    f.text("the header last", f"EVN|A04\rPID|1||{patient}\r{header(control)}\r", "AR 100", control="")
    f.text("the header alone", header(f.ids()[0]) + "\r", "AE 100")
    f.text("no PID", f"{header(f.ids()[0])}\rEVN|A04|20250611080000\r", "AE 100")
    f.text("a PID without fields", admit(*f.ids(), pid="PID"), "AE 101")
    f.text("a PID without a number", admit(*f.ids(), pid="PID|1||||郑伟"), "AE 101")
    f.text("a PID number that is null", admit(*f.ids(), pid='PID|1||""||郑伟'), "AE 101")
    f.text("two patients", admit(*f.ids(), extra=f"PID|2||{SMUGGLED}^^^^IDCard||甲\r"), "AE 100")
    control, patient = f.ids()
    f.text("PID before EVN", f"{header(control)}\rPID|1||{patient}^^^^IDCard||郑伟\rEVN|A04|20250611080000\r", "AA")
    f.text("a continuation", admit(*f.ids(), extra="ADD|x\rDSC|1\r"), "AA")
