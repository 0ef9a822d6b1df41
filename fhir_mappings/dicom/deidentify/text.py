"""Takes known identifiers out of text and finds them in bytes (PS3.15 sections E.3.4, E.3.5).

What an object says of people, numbers and places in attributes that identify is looked for everywhere else in it: in
descriptions, in reports, in attributes that no table lists. In free text shapes are taken out as well: telephone and
resident identity numbers, dates, addresses of mail, names behind a label. A name that the object gives nowhere else
and that follows no label cannot be known; only a reader can find that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

from fhir_mappings.dicom.charset import person_name
from fhir_mappings.text import full_pinyin, has_han

#: What stands in place of what was taken out of a text.
MARK = "***"
#: Shorter numbers and names occur in other words by chance, so they count only as whole words.
_ANYWHERE_CHARACTERS = 5
#: An object that refers to thousands of others is not searched for each UID, but for everything that looks like one.
_MOST_UIDS = 256
_UID = re.compile(r"(?<![0-9.])[0-2](?:\.(?:0|[1-9][0-9]*+)){5,}+")
_UID_BYTES = re.compile(rb"[0-2](?:\.[0-9]++){5,}+")
_STANDARD = "1.2.840.10008."
_CODECS = ("utf-8", "gb18030")
_SHAPES = re.compile(
    r"(?<![0-9])[1-9][0-9]{5}(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])[0-3][0-9][0-9]{3}[0-9Xx](?![0-9])"  # GB 11643
    r"|(?<![0-9])(?:\+?86[- ]?)?1[3-9][0-9][- ]?[0-9]{4}[- ]?[0-9]{4}(?![0-9])"
    r"|(?<![0-9])0[0-9]{2,3}[- ][0-9]{7,8}(?![0-9])"
    r"|[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}"
)
_DATES = re.compile(
    r"(?<![0-9.])(?:19|20)[0-9]{2}(?:[-/.](?:0?[1-9]|1[0-2])[-/.](?:3[01]|[12][0-9]|0?[1-9])"
    r"|(?:0[1-9]|1[0-2])(?:3[01]|[12][0-9]|0[1-9]))(?![0-9.])"
    r"|(?:19|20)[0-9]{2} ?年 ?[0-9]{1,2} ?月(?: ?[0-9]{1,2} ?日)?"
)
_LABELLED = re.compile(
    r"((?:患者|病人|姓名|医生|医师|审核|报告者?|检查者|操作者|技师|护士|家属|联系人|签名)(?:姓名|医师|医生)?[:：]\s*)"
    r"([\u3400-\u9fff]{2,4}|[A-Za-z][A-Za-z .^-]{1,40})"
)


class Identifiers:
    """What must not be found in a copy."""

    __slots__ = ("_anywhere", "_bytes", "_dates", "_pattern", "_uids", "_words")

    def __init__(self) -> None:
        self._anywhere: set[str] = set()
        self._words: set[str] = set()
        self._dates: set[str] = set()
        self._uids: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._bytes: tuple[bytes, ...] = ()

    def add_name(self, text: str) -> None:
        """Add a person name (PS3.5 section 6.2.1) in every way that it is usually written again."""
        groups = person_name(text)
        for group in (groups.alphabetic, groups.ideographic, groups.phonetic):
            parts = [part.strip() for part in re.split(r"[\^=\s]+", group) if part.strip()]
            whole = "".join(parts)
            if has_han(whole):
                self._add(whole)
                self._add(" ".join(parts))
                for part in parts:
                    if len(part) > 1:
                        self._add(part)
                # In letters it is written whole, by components, by characters, or as family and given name.
                for written in ([whole], parts, [*whole], [whole[:1], whole[1:]]):
                    self._add(" ".join(full_pinyin(part) for part in written))
                continue
            for part in parts:
                self._add(part)
            for separator in ("", " ", "^", ", ", ","):
                self._add(separator.join(parts))
                self._add(separator.join(reversed(parts)))

    def add_value(self, text: str) -> None:
        """Add a number, an address or a name of a place."""
        for one in text.split("\\"):
            self._add(one.strip(" \0"))

    @property
    def count(self) -> int:
        """How many there are, each in all of its forms."""
        return len(self._anywhere) + len(self._words) + len(self._dates)

    def add_uid(self, uid: str) -> None:
        """Add a UID that the copy replaces."""
        self._uids.add(uid)
        if len(self._uids) <= _MOST_UIDS:
            self._add(uid)

    def add_date(self, text: str) -> None:
        """Add a DA or DT value, in every way that a date is usually written."""
        for one in text.split("\\"):
            digits = one.strip(" \0")[:8]
            if len(digits) == 8 and digits.isascii() and digits.isdigit():
                year, month, day = digits[:4], digits[4:6], digits[6:]
                try:
                    date(int(year), int(month), int(day))
                except ValueError:
                    continue
                bare = (year, str(int(month)), str(int(day)))
                for parts in ((year, month, day), bare):
                    self._dates |= {"-".join(parts), "/".join(parts), ".".join(parts)}
                    self._dates.add(f"{parts[0]}年{parts[1]}月{parts[2]}日")
                self._dates.add(digits)
                self._pattern = None

    def _add(self, text: str) -> None:
        # One character identifies nobody.
        if len(text) < 2:
            return
        han = has_han(text)
        (self._anywhere if han or len(text) >= _ANYWHERE_CHARACTERS else self._words).add(text)
        self._pattern = None

    def _compiled(self) -> re.Pattern[str] | None:
        if self._pattern is None and (self._anywhere or self._words or self._dates):
            anywhere = sorted(self._anywhere | self._dates, key=len, reverse=True)
            words = sorted(self._words, key=len, reverse=True)
            pieces = [re.escape(one) for one in anywhere]
            pieces += [rf"(?<![^\W_]){re.escape(one)}(?![^\W_])" for one in words]
            self._pattern = re.compile("|".join(pieces), re.IGNORECASE)
            self._bytes = tuple(
                {one.encode(codec).lower() for one in anywhere for codec in _CODECS if _encodes(one, codec)}
            )
        return self._pattern

    def in_text(self, text: str) -> bool:
        """Return whether any of them stands in *text*."""
        pattern = self._compiled()
        return text != self._without_uids(text) or (pattern is not None and pattern.search(text) is not None)

    def _without_uids(self, text: str) -> str:
        if len(self._uids) <= _MOST_UIDS:
            return text
        return _UID.sub(lambda found: found[0] if found[0].startswith(_STANDARD) else MARK, text)

    def is_one(self, text: str) -> bool:
        """Return whether *text* is one of them, and too long to be that by chance."""
        return len(text) > _ANYWHERE_CHARACTERS and (text in self._anywhere or text in self._dates)

    def in_bytes(self, data: bytes) -> bool:
        """Return whether any of them stands in *data*, in UTF-8 or GB 18030; short ones occur in numbers by chance."""
        self._compiled()
        if len(self._uids) > _MOST_UIDS and _UID_BYTES.search(data):
            return True
        folded = data.lower()
        return any(one in folded for one in self._bytes)

    def longest_bytes(self) -> int:
        """Return how many bytes the longest of them has, so that a search in pieces can let them overlap."""
        self._compiled()
        return max(map(len, self._bytes), default=0)

    def cleaned(self, text: str, *, dates: bool) -> str:
        """Return free *text* without them and without what has the shape of such things; *dates* = of dates as well."""
        text = _LABELLED.sub(rf"\1{MARK}", text)
        text = _SHAPES.sub(MARK, text)
        if dates:
            text = _DATES.sub(MARK, text)
        return self.removed(text)

    def removed(self, text: str) -> str:
        """Return *text* without them, empty where the mark itself would be one of them."""
        text = self._without_uids(text)
        pattern = self._compiled()
        if pattern is None:
            return text
        text = pattern.sub(MARK, text)
        return "" if pattern.search(text) else text


def _encodes(text: str, codec: str) -> bool:
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def identifiers(names: Iterable[str] = (), values: Iterable[str] = (), dates: Iterable[str] = ()) -> Identifiers:
    """Return *names*, *values* and *dates* as what must not be found."""
    found = Identifiers()
    for one in names:
        for name in one.split("\\"):
            found.add_name(name)
    for one in values:
        found.add_value(one)
    for one in dates:
        found.add_date(one)
    return found
