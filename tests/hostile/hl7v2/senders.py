"""Hostile senders: MSH-3 and MSH-4 of somebody else, look-alikes, and batches whose parts disagree.

The name in MSH-4 is anybody's to write; the network, the certificate and the token are not. What is not a member's is
refused with 204, kept as a stranger's, and translated for nobody.
"""

from __future__ import annotations

from tests.hostile.hl7v2.cases import Case, Family, admit, framed

#: Members that exist and may not speak from loopback, and why (``tests/hostile/hl7v2/running.py``).
FORBIDDEN = {
    "another network": "QHYY",
    "a certificate": "YLYY",
    "TLS": "QMJY",
    "a folder": "WJYY",
    "switched off": "TYYY",
}
UNKNOWN = {
    "nobody": "NOBODY", "the hub itself": "HUB", "a member's code": "KN", "nothing": "", "null": '""', "lower case": "knyy",
    "full width": "ＫＮＹＹ", "Cyrillic": "КNYY", "a zero-width space": "KN\u200bYY", "a NUL behind": "KNYY\x00", "a quote": "KNYY'",
    "a wildcard": "%", "a star": "*", "an underscore": "KN_Y", "two of them": "QHYY~KNYY", "a line feed": "KNYY\\X0A\\QHYY",
    "a subcomponent first": "&KNYY", "a component first": "^KNYY", "an id behind it": "QHYY^KNYY^DNS", "a truth": "' OR 1=1--",
    "a soft hyphen": "KN\u00adYY", "a mark": "\ufeffKNYY", "right to left": "\u202eYYNK", "an escaped delimiter": "KNYY\\F\\",
}  # fmt: skip
SAME = {
    "blanks around": " KNYY ",
    "hexadecimal": "\\X4B4E5959\\",
    "an id behind it": "KNYY^1.2.3^ISO",
    "repeated": "KNYY~QHYY",
}
APPLICATIONS = ("", "his", "LIS", "HIS\x00", "HIS'", "ＨＩＳ", "^HIS")
_BHS = "BHS|^~\\&|HIS|{}|YIXIE|HUB|20250611080000||||B1\r"


def cases() -> list[Case]:
    """Return the family."""
    f = Family("sender", 5)
    for name, facility in (FORBIDDEN | UNKNOWN).items():
        f.text(f"{name} in MSH-4", admit(*f.ids(), f4=facility), "AR 204", charset="utf-8")
    for name, facility in SAME.items():
        f.text(f"the member with {name} in MSH-4", admit(*f.ids(), f4=facility), "AA")
    for application in APPLICATIONS:
        f.text(f"MSH-3 {application!r}", admit(*f.ids(), f3=application), "AR 204", charset="utf-8")
    f.text("the names swapped", admit(*f.ids(), f3="KNYY", f4="HIS"), "AR 204")
    f.text("the member as receiver", admit(*f.ids(), f3="YIXIE", f4="HUB", f5="HIS", f6="KNYY"), "AR 204")
    for name, facility in FORBIDDEN.items():
        text = admit(*f.ids(), f4=facility)
        f.add(f"a batch of {name}", _batch(facility, text), says="AR 204", control=("B1",))
        f.add(f"a message of {name} in the member's batch", _batch("KNYY", admit(*f.ids(), f4=facility)), says="AR 204")
    f.add("a batch of nobody with the member's message", _batch("NOBODY", admit(*f.ids())), says="AA", stored=True)
    f.add("a batch of the member", _batch("KNYY", admit(*f.ids())), says="AA", stored=True)
    return f.cases


def _batch(facility: str, text: str) -> bytes:
    return framed((_BHS.format(facility) + text + "BTS|1\r").encode("gb18030"))
