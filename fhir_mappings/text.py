"""Which characters received bytes spell, and how names are folded for matching.

HL7 v2 (MSH-18, table 0211) and DICOM (PS3.3 C.12.1.1.2, PS3.5 section 6.1) both let the sender name its character set,
and in Chinese hospitals the name is often missing or false. One rule therefore serves both doors: the evidence of the
whole message decides, in this order: the operator's override for the sender; a byte order mark or an ISO 2022 escape;
strict UTF-8 that reads as Chinese text; strict GB 18030 that reads as Chinese text; the declared label; and at last the
reading that loses the fewest characters, which is flagged.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from fhir_mappings.plain_runs import put_back, take_out

Evidence = Literal["override", "bom", "escape", "utf-8", "gb18030", "declared", "replaced"]

#: ``ESC $ ) A`` designates GB 2312 to G1 (PS3.3 table C.12-4); the bytes that follow are ordinary GB 2312 with bit 8 set.
GB2312_ESCAPE = b"\x1b$)A"

_ASCII = bytes(range(128))
_WIDE = ("utf-16", "utf-32")
_HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# What Chinese clinical text is written with: Han, Chinese punctuation, full-width forms, kana, units and list marks. The
# private use area is here because hospital systems keep rare name characters there.
_CORE = (
    "\u00b1\u00b7\u2010-\u2027\u2030\u2032\u2033\u203b\u2103\u2109\u2116\u2121\u2150-\u218b\u2190-\u2199\u2200-\u22ff"
    "\u2460-\u24ff\u2500-\u27bf\u2e80-\u2fff\u3000-\u33ff\ue000-\uf8ff\ufe10-\ufe6f\uff01-\uffee" + _HAN
)
# Two-byte UTF-8 symbols share their bytes with everyday GBK characters (``θ`` is CE B8, and so is 胃), so they count only
# beside stronger evidence.
_SYMBOLS = "\u00a4\u00a7\u00a8\u00b0-\u00be\u00c0-\u00ff\u0100-\u01ff\u02c7-\u02d9\u0391-\u03c9"
_NOT_CORE = re.compile(f"[^{_CORE}]")
_NOT_WIDE = re.compile(f"[^{_CORE}{_SYMBOLS}]")
_NOT_COMMON_SYMBOL = re.compile("[^°±×÷µμαβγ²³·]")
_IS_SYMBOL = re.compile(f"[{_SYMBOLS}]")
_IS_HAN = re.compile(f"[{_HAN}]")
_RARE_MIN_CHARACTERS = 4
_ADJACENT_HIGH_BYTES = re.compile(rb"[\x80-\xff]{2}")

_CODECS: dict[str, str] = {
    "ASCII": "ascii",
    "ISOIR6": "ascii",
    "ISO2022IR6": "ascii",
    "GB180302000": "gb18030",
    "GB180302005": "gb18030",
    "GB180302022": "gb18030",
    "GB18030": "gb18030",
    "GBK": "gb18030",
    "XGBK": "gb18030",
    "GB2312": "gb18030",
    "GB231280": "gb18030",
    "EUCCN": "gb18030",
    "CP936": "gb18030",
    "MS936": "gb18030",
    "936": "gb18030",
    "ISO2022GBK": "gb18030",
    "ISO2022IR58": "gb18030",
    "ISO202258": "gb18030",
    "ISOIR58": "gb18030",
    "ISO2022IR165": "gb18030",
    "ISOIR165": "gb18030",
    "BIG5": "big5hkscs",
    "BIG5HKSCS": "big5hkscs",
    "CP950": "big5hkscs",
    "UNICODE": "utf-8",
    "UNICODEUTF8": "utf-8",
    "UTF8": "utf-8",
    "CP65001": "utf-8",
    "ISOIR192": "utf-8",
    "UNICODEUTF16": "utf-16",
    "UTF16": "utf-16",
    "UTF16LE": "utf-16-le",
    "UTF16BE": "utf-16-be",
    "UNICODEUTF32": "utf-32",
    "UTF32": "utf-32",
    "KSX1001": "euc_kr",
    "EUCKR": "euc_kr",
    "ISOIR14": "shift_jis",
    "SHIFTJIS": "shift_jis",
    "WINDOWS1252": "cp1252",
    "CP1252": "cp1252",
}
for _part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15):
    _CODECS[f"8859{_part}"] = _CODECS[f"ISO8859{_part}"] = f"iso8859-{_part}"
_CODECS["LATIN1"] = "iso8859-1"
# PS3.3 tables C.12-2 to C.12-4: the registration number of each set, with and without code extensions.
for _number, _codec in {
    13: "shift_jis",
    87: "iso2022_jp",
    100: "iso8859-1",
    101: "iso8859-2",
    109: "iso8859-3",
    110: "iso8859-4",
    126: "iso8859-7",
    127: "iso8859-6",
    138: "iso8859-8",
    144: "iso8859-5",
    148: "iso8859-9",
    149: "euc_kr",
    159: "iso2022_jp_2",
    166: "iso8859-11",
    203: "iso8859-15",
}.items():
    _CODECS[f"ISOIR{_number}"] = _CODECS[f"ISO2022IR{_number}"] = _codec

#: Labels that devices and interfaces carry by default whatever the text is; only these lose to a GB 18030 reading.
_DEFAULT_LABELS = frozenset({"ascii", "iso8859-1", "cp1252", "utf-8", "gb18030", "shift_jis", "iso2022_jp"})
_SINGLE_BYTE = frozenset({"ascii", "cp1252"} | {f"iso8859-{part}" for part in range(1, 17)})

# Python's codec follows GB 18030-2000, which put these characters in the private use area; GB 18030-2005 and -2022 give
# their Unicode code points.
_GB18030_PRIVATE_USE = str.maketrans(
    {
        **{0xE78D + i: c for i, c in enumerate("\ufe10\ufe12\ufe11\ufe13\ufe14\ufe15\ufe16\ufe17\ufe18\ufe19")},
        0xE7C7: "\u1e3f",
        0xE816: "\U00020087",
        0xE817: "\U00020089",
        0xE818: "\U000200cc",
        0xE81E: "\u9fb4",
        0xE826: "\u9fb5",
        0xE82B: "\u9fb6",
        0xE82C: "\u9fb7",
        0xE831: "\U000215d7",
        0xE832: "\u9fb8",
        0xE83B: "\U0002298f",
        0xE843: "\u9fb9",
        0xE854: "\u9fba",
        0xE855: "\U000241fe",
        0xE864: "\u9fbb",
    }
)
_PRIVATE_USE = re.compile("[\ue78d-\ue864]")
_GB18030_OLD_CODES = {ord(new): old for old, new in _GB18030_PRIVATE_USE.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Text, and why its bytes were read so.

    Attributes:
        codec: the Python codec; GBK and GB 2312 are always read as their superset ``gb18030``, and ``ascii`` means that
            neither bytes nor label say what the sender uses beyond ASCII.
        evidence: the step of the rule that decided.
        flagged: a person should look: characters were lost, or no step was sure.
        disagrees: the sender declared a character set and it is not the one the bytes are in.
    """

    text: str
    codec: str
    evidence: Evidence
    flagged: bool = False
    disagrees: bool = False


@lru_cache(maxsize=256)
def codec_for(label: str) -> str | None:
    """Return the Python codec that an HL7, DICOM or everyday *label* means, or ``None`` where it is unknown."""
    return _CODECS.get(re.sub(r"[\s_./:\-]", "", label).upper())


def all_cjk(text: str) -> bool:
    """Return whether *text* has only ASCII and what Chinese text is written with; true for pure ASCII."""
    return text.isascii() or _NOT_CORE.search(_non_ascii(text)) is None


def decode(raw: bytes, *, override: str | None = None, declared: str = "") -> Decoded:
    """Return *raw* as text by the evidence of the whole of it; never fails, and flags what it is not sure of.

    Args:
        override: the label an operator set for this sender; it wins where the bytes are valid in it.
        declared: the label that the message itself carries; empty when it carries none.
    """
    label = codec_for(declared) if declared.strip() else None
    forced = codec_for(override) if override else None
    if any(codec is not None and codec.startswith(_WIDE) for codec in (label, forced)):
        return _judged(raw, override, declared)
    rest, runs = take_out(raw)
    found = _judged(rest, override, declared)
    return replace(found, text=put_back(found.text, runs)) if runs else found


def _judged(raw: bytes, override: str | None, declared: str) -> Decoded:
    label = codec_for(declared) if declared.strip() else None
    unknown_label = bool(declared.strip()) and label is None
    forced = codec_for(override) if override else None
    override_failed = bool(override)
    if forced is not None:
        text = _strict(raw, forced)
        if text is not None:
            return _made(text, forced, "override", label)
    marked = _by_mark(raw)
    if marked is not None:
        text, codec, evidence = marked
        return _made(text, codec, evidence, label, flagged=override_failed)
    found = _by_content(raw, label)
    if found is not None:
        text, codec, evidence, flagged = found
        return _made(text, codec, evidence, label, flagged=flagged or override_failed or unknown_label)
    return _least_loss(raw, label)


def _by_mark(raw: bytes) -> tuple[str, str, Evidence] | None:
    for mark, codec in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if raw.startswith(mark):
            text = _strict(raw[len(mark) :], codec)
            if text is not None:
                return text, codec, "bom"
    # Every HL7 message starts with MSH, so its width shows without a mark.
    for start, codec in ((b"M\0S\0H\0", "utf-16-le"), (b"\0M\0S\0H", "utf-16-be")):
        if raw.startswith(start):
            text = _strict(raw, codec)
            if text is not None:
                return text, codec, "bom"
    if GB2312_ESCAPE in raw:
        text = _strict(strip_gb2312_escapes(raw), "gb18030")
        if text is not None:
            return text, "gb18030", "escape"
    return None


def _by_content(raw: bytes, label: str | None) -> tuple[str, str, Evidence, bool] | None:
    if raw.isascii():
        # ISO 2022 Japanese and Korean are seven-bit, so even ASCII bytes can be other text where the label says so.
        # Without a label ASCII bytes say nothing about what the sender would use for Chinese, and "ascii" says that.
        text = _strict(raw, label) if label is not None and not label.startswith(_WIDE) else None
        if text is not None and label is not None:
            return text, label, "declared", False
        return raw.decode("ascii"), "ascii", "utf-8", label is not None
    utf8 = _strict(raw, "utf-8")
    if utf8 is not None:
        rest = _non_ascii(utf8)
        if _reads_as_utf8_chinese(rest):
            return utf8, "utf-8", "utf-8", False
        if label == "utf-8" and _NOT_COMMON_SYMBOL.search(rest) is None:
            return utf8, "utf-8", "declared", False
    if label is not None and _label_is_deliberate(raw, label):
        text = _strict(raw, label)
        if text is not None:
            return text, label, "declared", False
    gb = _strict(raw, "gb18030")
    if gb is not None and _NOT_WIDE.search(_non_ascii(gb)) is None:
        if utf8 is not None and _is_rare(gb):
            return utf8, "utf-8", "utf-8", True
        return gb, "gb18030", "gb18030", False
    if label is not None:
        text = _strict(raw, label)
        if text is not None:
            return text, label, "declared", label in _SINGLE_BYTE
    if utf8 is not None:
        return utf8, "utf-8", "utf-8", True
    if gb is not None:
        return gb, "gb18030", "gb18030", True
    return None


def _reads_as_utf8_chinese(rest: str) -> bool:
    if _NOT_CORE.search(rest) is None:
        return True
    # GBK bytes that are valid UTF-8 by accident come out as two-byte letters; beside as many Han characters, which need
    # three bytes each in the right order, such letters are real.
    return _NOT_WIDE.search(rest) is None and len(_IS_HAN.findall(rest)) >= len(_IS_SYMBOL.findall(rest))


def _label_is_deliberate(raw: bytes, label: str) -> bool:
    if label not in _DEFAULT_LABELS:
        return True
    # GBK text has its high bytes in pairs; European text has letters with a single high byte each.
    if label not in _SINGLE_BYTE or _ADJACENT_HIGH_BYTES.search(raw) is not None:
        return False
    text = _strict(raw, label)
    return text is not None and all(char.isalpha() or char in "°±²³µ·×÷" for char in _non_ascii(text))


def _is_rare(gb: str) -> bool:
    """Return whether a GB 18030 reading is mostly characters beyond GB 2312: then UTF-8 of another script is likelier."""
    han = _IS_HAN.findall(gb)
    common = 0
    for char in han:
        try:
            char.encode("gb2312")
        except UnicodeEncodeError:
            continue
        common += 1
    return len(han) >= _RARE_MIN_CHARACTERS and common * 2 < len(han)


def _least_loss(raw: bytes, label: str | None) -> Decoded:
    best: tuple[int, str, str] | None = None
    for codec in dict.fromkeys(("utf-8", "gb18030", *([label] if label else []))):
        text = raw.decode(codec, "replace")
        lost = text.count("\ufffd")
        if best is None or lost < best[0]:
            best = (lost, text, codec)
    assert best is not None
    return _made(best[1], best[2], "replaced", label, flagged=True)


def _made(text: str, codec: str, evidence: Evidence, label: str | None, *, flagged: bool = False) -> Decoded:
    disagrees = label is not None and label != codec and not text.isascii()
    return Decoded(text=text, codec=codec, evidence=evidence, flagged=flagged, disagrees=disagrees)


def _strict(raw: bytes, codec: str) -> str | None:
    try:
        text = raw.decode(codec)
    except (UnicodeDecodeError, LookupError):
        return None
    if codec == "gb18030" and not text.isascii() and _PRIVATE_USE.search(_non_ascii(text)) is not None:
        return text.translate(_GB18030_PRIVATE_USE)
    return text


def decode_lossy(raw: bytes, codec: str) -> str:
    """Return *raw* in the *codec* already decided on; characters it cannot read become U+FFFD."""
    text = _strict(raw, codec)
    return raw.decode(codec, "replace") if text is None else text


def encode(text: str, codec: str) -> bytes:
    """Return *text* in *codec*; GB 18030 gets the code points that its older readers know.

    Raises:
        UnicodeEncodeError: the codec has no such character.
    """
    if codec == "gb18030" and not text.isascii():
        text = text.translate(_GB18030_OLD_CODES)
    return text.encode(codec)


def strip_gb2312_escapes(raw: bytes) -> bytes:
    """Return *raw* without ``ESC $ ) A`` and without the ``ESC ( B`` that ends it."""
    return raw.replace(GB2312_ESCAPE, b"").replace(b"\x1b(B", b"")


def _non_ascii(text: str) -> str:
    """Return the characters of *text* beyond ASCII, at the speed of C even beside megabytes of base64."""
    return text.encode("utf-8", "surrogatepass").translate(None, _ASCII).decode("utf-8", "surrogatepass")


_IGNORED_IN_MATCHING = re.compile("[\\s\u00b7\u2022\u2027\u30fb\uff65\u3000'’.\\-]+")


def fold(text: str) -> str:
    """Return *text* for matching only: NFKC, case-folded, without spaces, middle dots, hyphens and apostrophes."""
    return _IGNORED_IN_MATCHING.sub("", unicodedata.normalize("NFKC", text).casefold())


def has_han(text: str) -> bool:
    """Return whether *text* has a Chinese character."""
    return _IS_HAN.search(text) is not None


@lru_cache(maxsize=8192)
def _syllables(name: str) -> tuple[str, ...]:
    # Names are read a character at a time; the table of phrases would cost each process 44 MB, and its first caller a wait.
    os.environ.setdefault("PYPINYIN_NO_PHRASES", "true")
    from pypinyin import Style, lazy_pinyin

    # Names read otherwise as surnames (单 as shan) get a second reading where names are indexed.
    return tuple(fold(part) for part in lazy_pinyin(fold(name), style=Style.NORMAL, v_to_u=False, errors="default"))


def full_pinyin(name: str) -> str:
    """Return *name* in pinyin without tones or spaces, for example ``ouyangmingyue``; other letters stay, folded."""
    return "".join(_syllables(name))


def pinyin_initials(name: str) -> str:
    """Return the first letter of each syllable of *name*, for example ``oymy``; runs of other letters stay whole."""
    folded = fold(name)
    if not has_han(folded):
        return folded
    return "".join(part if len(part) == 1 or part in folded else part[0] for part in _syllables(name))
