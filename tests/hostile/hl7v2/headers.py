"""Hostile headers and values: versions, types, control ids, acknowledgement conditions, dates, numbers; and hostile batches.

HL7 v2 chapter 2.14.9 (MSH), 2.10.3 (batches), table 0357 for the codes.
"""

from __future__ import annotations

from tests.hostile.hl7v2.cases import SMUGGLED, Case, Family, admit, framed, header

VERSIONS = {
    "": "AR 203", "0": "AR 203", "2": "AR 203", "2.0": "AR 203", "2.4.": "AR 203", "02.4": "AR 203", "2.10": "AR 203",
    "3.0": "AR 203", "2,4": "AR 203", "２.４": "AR 203", "2.4\x00": "AR 203", "-2.4": "AR 203", "2.4e0": "AR 203",
    "v2.4": "AR 203", "../2.4": "AR 203", "2.4' OR '1": "AR 203", "2.5.1\\X0D\\": "AA", " 2.4 ": "AA", "2.4^CHN": "AA",
    "9" * 900: "AR 203", "2.1": "AA", "2.9": "AA",
}  # fmt: skip
TYPES = {
    "": "AE 101", '""': "AE 101", "ADT": "AA", "^A04": "AE 101", "ADT^": "AA", "ADT^A99": "AR 201", "ADT^A04^ADT_A01": "AA",
    "adt^a04": "AA", "ADT^A04~ORU^R01": "AA", "ADT&A04": "AA", "ADT_A04": "AA", "ADT^A04^ORU_R01": "AA", "XXX^A04": "AR 200",
    "ADT^R01": "AR 201", "ORU^A04": "AR 201", "MSH": "AR 200", "QBP^Q21": "AR 200", "ＡＤＴ^A04": "AR 200", "ADT\x00^A04": "AR 200",
    "ADT^A04\\X0D\\ZEV": "AR 201", "__import__^os": "AR 200", "../ADT^A04": "AR 200", "ADT^__class__": "AR 201",
    "A" * 900: "AR 200", "ADT^" + "A" * 900: "AR 201",
}  # fmt: skip
DATES = (
    "00000000", "20250230", "20251301", "20250132", "99999999", "10000101", "00010101", "2025", "202", "2025-06-11",
    "20250611T080000", "19760229240000", "197602292561", "1976022912+9999", "1e9", "-19760229", "１９７６０２２９", "\x00" * 8,
    "19760229120000.123456789", "now", "9" * 900, "19760229120060", "0",
)  # fmt: skip
NUMBERS = (
    "1e999", "-1e999", "1e-999", "NaN", "Infinity", "-0", "0x10", "1_000", "1,5", "１２", "٣", "9" * 900, "1." + "3" * 900, "--1",
    "+", ".", "1e", "1e5000000", "''", "\x00", "²", "1;DROP", "<5", "5-10",
)  # fmt: skip


def cases() -> list[Case]:
    """Return the family."""
    f = Family("header", 7)
    for version, says in VERSIONS.items():
        f.text(f"version {version[:20]!r}", admit(*f.ids(), f12=version), says, charset="utf-8")
    for kind, says in TYPES.items():
        f.text(f"type {kind[:20]!r}", admit(*f.ids(), f9=kind), says, charset="utf-8")
    for kind in ("ACK", "ACK^A04", "ack", "MCF"):
        # An acknowledgement is never acknowledged, or two hubs would talk for ever.
        f.add(f"type {kind!r}", framed(admit(*f.ids(), f9=kind).encode("gb18030")), writes=("done",))
    _control_ids(f)
    _conditions(f)
    for place in ("MSH-7", "PID-7"):
        for value in DATES:
            control, patient = f.ids()
            pid = f"PID|1||{patient}^^^^IDCard||郑伟||{value}|M" if place == "PID-7" else ""
            text = admit(control, patient, pid=pid, f7=value if place == "MSH-7" else "20250611080000")
            f.text(f"{place} {value[:20]!r}", text, "AA", charset="utf-8")
    for value in NUMBERS:
        control, patient = f.ids()
        text = (
            f"{header(control, f9='ORU^R01')}\rPID|1||{patient}^^^^IDCard||郑伟||19760229|M\r"
            f"OBR|1|P{control}|F{control}|K^钾^L|||20250611070000|||||||||||||||20250611080000||LAB|F\r"
            f"OBX|1|NM|K^钾^L||{value}|mmol/L|{value}|N|||F\r"
        )
        f.text(f"OBX-5 {value[:20]!r}", text, "AA", charset="utf-8")
    _batches(f)
    return f.cases


def _control_ids(f: Family) -> None:
    for name, control in (("absent", ""), ("null", '""'), ("blank", "   "), ("a break", "\\.br\\"), ("CR", "\\X0D\\")):
        patient = f.ids()[1]
        f.text(f"control id {name}", admit(control, patient), "AE 101", control=None)
    for name, tail in (("of 500 characters", "9" * 500), ("of 5000 characters", "9" * 5000), ("repeated", "~2")):
        control, patient = f.ids()
        f.text(f"control id {name}", admit(control + tail, patient), "AA", control=control + tail.removesuffix("~2"))


def _conditions(f: Family) -> None:
    def asks(name: str, says: tuple[str, ...], *, stored: bool = True, **fields: str) -> None:
        f.add(
            name,
            framed(admit(*f.ids(), **fields).encode("gb18030")),
            says=says,
            stored=stored,
            writes=("done" if stored else "refused",),
        )

    asks("MSH-15 AL", ("CA",), f15="AL", f16="NE")
    asks("MSH-15 NE", (), f15="NE", f16="NE")
    asks("MSH-15 ER", (), f15="ER", f16="NE")
    asks("MSH-15 unknown", (), f15="XX", f16="NE")
    asks("MSH-15 AL and an unknown type", ("CR 200",), stored=False, f15="AL", f16="NE", f9="XXX^A04")
    asks("MSH-15 injected", (), f15="AL\\X0D\\MSA", f16="NE")
    for value, says in (
        ("T", "AR 202"),
        ("D", "AR 202"),
        ("X", "AR 202"),
        ("", "AA"),
        ("p", "AA"),
        ("P^T", "AA"),
        ("P\x00", "AR 202"),
    ):
        f.text(f"MSH-11 {value!r}", admit(*f.ids(), f11=value), says)


def _batches(f: Family) -> None:
    def batch(
        name: str, text: str, *says: str, stored: bool = False, control: tuple[str | None, ...] | None = None
    ) -> None:
        f.add(name, framed(text.encode("gb18030")), says=says, stored=stored, control=control)

    bhs, fhs = (f"{name}|^~\\&|HIS|KNYY|YIXIE|HUB|20250611080000||||B1\r" for name in ("BHS", "FHS"))
    own = ("B1",)
    batch("batch without a trailer", bhs + admit(*f.ids()), "AE 100", control=own)
    batch("batch with a wrong count", bhs + admit(*f.ids()) + "BTS|2\r", "AE 102", control=own)
    batch("batch with a count that is none", bhs + admit(*f.ids()) + "BTS|1e0\r", "AE 102", control=own)
    batch(
        "batch with a count of a thousand digits",
        bhs + admit(*f.ids()) + "BTS|" + "9" * 1000 + "\r",
        "AE 102",
        control=own,
    )
    batch("batch in a batch", bhs + bhs + admit(*f.ids()) + "BTS|1\rBTS|1\r", "AE 100", control=own)
    batch("file in a file", fhs + fhs + "FTS|0\rFTS|0\r", "AE 100", control=own)
    batch("file without an end", fhs + bhs + admit(*f.ids()) + "BTS|1\r", "AE 100", control=own)
    batch("segments behind the trailer", bhs + admit(*f.ids()) + f"BTS|1\rPID|1||{SMUGGLED}\r", "AE 100", control=own)
    batch("a message behind the end", fhs + "FTS|0\r" + admit(*f.ids()), "AE 100", control=own)
    batch(
        "a segment before the first message",
        bhs + f"PID|1||{SMUGGLED}\r" + admit(*f.ids()) + "BTS|1\r",
        "AE 100",
        control=own,
    )
    batch("too many messages", bhs + admit(*f.ids()) * 1001 + "BTS|1001\r", "AE 102", control=own)
    batch("a million batches", fhs + (bhs[:12] + "\rBTS|0\r") * 300_000 + "FTS|1\r", "AE 102", control=own)
    batch("a batch of nothing", bhs + "BTS|0\r")
    batch("a batch whose second message is broken", bhs + admit(*f.ids()) + "MSH|^^^^|\rBTS|2\r", "AA", "AR 100", stored=True, control=(f.ids()[0], ""))  # fmt: skip
    batch(
        "a batch header with unusable delimiters",
        "BHS|^^^^|HIS|KNYY\r" + admit(*f.ids()) + "BTS|1\r",
        "AA",
        stored=True,
    )
    batch("a batch header of ten thousand characters", bhs.replace("B1", "B" * 10_000) + admit(*f.ids()) + "BTS|1\r", "AA", stored=True)  # fmt: skip
    batch(
        "a batch header of repetitions",
        bhs.replace("YIXIE", "~" * 600) + admit(*f.ids()) + "BTS|1\r",
        "AA",
        stored=True,
    )
