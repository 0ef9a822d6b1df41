"""Hostile character sets: bytes that are not what MSH-18 says, broken, overlong, wide, or no text at all.

DESIGN rule 9: the bytes decide, then the label. What starts with the bytes of ``MSH`` is not wide, whatever it says.
"""

from __future__ import annotations

from tests.hostile.hl7v2.cases import Case, Family, admit, framed

LABELS = (
    "", "ASCII", "8859/1", "UNICODE UTF-8", "UNICODE UTF-16", "UNICODE UTF-32", "GB 18030-2000", "BIG-5", "ISO IR87",
    "KS X 1001", "nonsense", '""', "~UNICODE UTF-8", "ASCII~ISO IR87", "UTF-7", "x" * 300, "\\X0D\\",
)  # fmt: skip
#: Sets whose ASCII is ASCII: the header can always be read.
NARROW = ("gb18030", "utf-8", "big5hkscs")
WIDE = ("utf-16-le", "utf-16-be", "utf-16")
UNREADABLE = ("cp037", "cp500", "utf-32-le", "utf-32-be", "utf-32", "utf-7")
#: Raw bytes in the place of a name.
BROKEN = {
    "overlong solidus": b"\xc0\xaf", "overlong bar": b"\xc1\xbc", "overlong CR": b"\xc0\x8d", "overlong in three": b"\xe0\x80\x8d",
    "overlong in four": b"\xf0\x80\x80\x8d", "a lone surrogate": b"\xed\xa0\x80", "a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80", "five bytes": b"\xf8\x88\x80\x80\x80", "a lone trail byte": b"\x80", "FF": b"\xff\xff",
    "UTF-8 cut short": "郑".encode()[:2], "GB 18030 cut short in four": b"\x81\x30\x81", "an old lead byte": b"\xff\x7c",
    "ISO 2022 without end": b"\x1b$)A\xd6\xa3", "ISO 2022 of Japan": b"\x1b$B\x3b\x33", "a shift out": b"\x0e\x21\x21\x0f",
    "two sets mixed": "郑".encode() + "伟".encode("gb18030"), "three sets mixed": "郑".encode() + "伟".encode("gb18030") + b"\xe9\xff",
    "a mark inside": b"\xef\xbb\xbfx", "another mark inside": b"\xff\xfex", "a second byte that is a bar": "陳".encode("gbk"),
    "a second byte that is an escape": "玕".encode("gbk") + b"x", "Latin letters": b"M\xfcller", "every high byte": bytes(range(0x80, 0x100)),
}  # fmt: skip


def cases() -> list[Case]:
    """Return the family."""
    f = Family("charset", 6)
    for label in LABELS:
        for codec in NARROW:
            f.text(f"{codec} labelled {label[:20]!r}", admit(*f.ids(), f18=label, name="鄭偉"), "AA", charset=codec)
    # Read as wide characters, an even number of bytes is text, and an odd one is not.
    for label in ("UNICODE UTF-16", "UNICODE UTF-32", "UTF-16LE"):
        for more in range(4):
            text = admit(*f.ids(), f18=label, name="郑伟" + "x" * more)
            f.text(f"gb18030 labelled {label!r} and {more} bytes more", text, "AA")
    for label in ("", "ASCII", "UNICODE UTF-16", "GB 18030-2000"):
        for codec in WIDE:
            text = admit(*f.ids(), f18=label)
            f.text(f"{codec} labelled {label!r}", text, "AA", charset=codec)
    for codec in UNREADABLE:
        raw = admit(*f.ids(), f18=codec).encode(codec, "replace").replace(b"\x0b", b"").replace(b"\x1c", b"")
        f.add(codec, framed(raw), says="AR 100", control=("",))
    f.add("UTF-16 cut in a character", framed(admit(*f.ids()).encode("utf-16-le")[:-1]), says="AR 100", control=("",))
    f.add("UTF-16 with a mark of the other order", framed(b"\xfe\xff" + admit(*f.ids()).encode("utf-16-le")), says="AR 100", control=("",))  # fmt: skip
    f.add("a mark and no text", framed(b"\xff\xfe"), says="AR 100", control=("",))
    f.add("UTF-8 with a mark", framed(admit(*f.ids()).encode("utf-8-sig")), says="AA", stored=True)
    f.add(
        "UTF-8 with two marks",
        framed(b"\xef\xbb\xbf" + admit(*f.ids()).encode("utf-8-sig")),
        says="AR 100",
        control=("",),
    )
    # The answer in UTF-16 to this control id would hold a block byte.
    for name, hexadecimal in (("0B", "E0AC85"), ("1C", "E1B085")):
        for codec in ("utf-16-le", "utf-16-be"):
            control, patient = f.ids()
            text = admit(f"{control}\\X{hexadecimal}\\", patient, f18="UNICODE UTF-16")
            f.text(f"a control id whose answer in {codec} holds {name}", text, "AA", charset=codec, control=None)
    for name, raw in BROKEN.items():
        for label in ("", "UNICODE UTF-8", "GB 18030-2000"):
            text = admit(*f.ids(), name="@@", f18=label).encode().replace(b"@@", b"x" + raw)
            f.add(f"{name} labelled {label!r}", framed(text), says="AA", stored=True)
    return f.cases
