"""Looking into journal entries one by one, for what no index tells: words of a message, flags, outcomes, end times.

Theory of operation. An index of words would be written for each message and would keep a second copy of what it says
about people; few ever ask. So the entries that the indexed criteria leave are looked at, newest first, and the database
compares bytes: a text is looked for in every character set in which a sender may have written it. A look is bounded in
entries and in bytes, so that an answer comes soon, and it says where the next one goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hub.clock import to_us
from hub.ports import Look
from storage.sql._dialect import holds
from storage.sql.schema import journal

#: Entries and bytes of bodies that one scan may look at: a part of a second's work on a small machine.
MOST_ROWS = 40_000
MOST_BYTES = 64 * 1024 * 1024
#: Entries of one statement. A scan ends between two, so a few large bodies do not add up to many.
_PAGE = 1000
#: Doors whose entries are images: their bytes are no text.
_IMAGES = ("dimse", "stow")
#: Character sets that senders write (HL7 table 0211); GB 18030 holds GBK and GB 2312.
_CHARSETS = ("utf-8", "gb18030", "big5", "utf-16-le", "utf-16-be")


def scan(
    connection: Connection,
    conditions: Sequence[sa.ColumnElement[bool]],
    look: Look,
    *,
    limit: int,
    before_seq: int | None,
) -> tuple[list[int], int | None]:
    """Return the numbers of entries that may fit *look*, at most *limit*, newest first, and the number to go on below."""
    fits = _fits(look, on_sqlite=connection.dialect.name == "sqlite")
    found: list[int] = []
    rows = size = 0
    while rows < MOST_ROWS and size < MOST_BYTES:
        statement = sa.select(
            journal.c.seq, journal.c.size, journal.c.body.is_(None).label("is_object"), fits.label("fits")
        )
        statement = statement.where(*conditions).order_by(journal.c.seq.desc()).limit(_PAGE)
        if before_seq is not None:
            statement = statement.where(journal.c.seq < before_seq)
        page = connection.execute(statement).all()
        for row in page:
            before_seq = row.seq
            size += 0 if row.is_object else row.size
            if row.fits:
                found.append(row.seq)
                if len(found) == limit:
                    return found, before_seq
        rows += len(page)
        if len(page) < _PAGE:
            return found, None
    return found, before_seq


def _fits(look: Look, *, on_sqlite: bool) -> sa.ColumnElement[bool]:
    """Return whether an entry may fit, as a column; an object may always, as its bytes are elsewhere."""
    wanted: list[sa.ColumnElement[bool]] = [sa.true()]
    if look.outcome:
        wanted.append(sa.func.lower(journal.c.outcome).contains(look.outcome.lower(), autoescape=True))
    if look.flag:
        flags = sa.literal(" ").concat(journal.c.flags).concat(" ")
        wanted.append(flags.contains(f" {look.flag} ", autoescape=True))
    if look.finished_since is not None:
        wanted.append(journal.c.finished_at >= to_us(look.finished_since))
    if look.finished_until is not None:
        wanted.append(journal.c.finished_at < to_us(look.finished_until))
    if look.text:
        held: list[Any] = [holds(journal.c.body, one, on_sqlite=on_sqlite) for one in _spellings(look.text)]
        wanted += [journal.c.door.not_in(_IMAGES), sa.or_(journal.c.body.is_(None), *held)]
    return sa.and_(*wanted)


def _spellings(text: str) -> list[bytes]:
    """Return the bytes of *text* in each character set that has all of its characters."""
    found: dict[bytes, None] = {}
    for charset in _CHARSETS:
        try:
            found[text.encode(charset)] = None
        except UnicodeEncodeError:
            continue
    return list(found)
