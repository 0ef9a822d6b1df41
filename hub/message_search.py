"""A search among received messages: by what indexes tell, by a patient number, and by words of what a message says.

A patient number (PID-3) stands in no column of the journal, which keeps no more about people in the clear than a message
itself does; it leads to the Patients of an institution that carry it, and those to their messages. A message that was
refused has no Patient and is found by its words. Words are looked for by a bounded look at bodies
(:meth:`hub.ports.Journal.scan`), and what may hold them is read as text to make sure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.identifiers import patient_key
from hub.access import UNRESTRICTED
from hub.actor import Actor
from hub.askers import limit_of
from hub.errors import Category, HubError
from hub.imaging_ids import number_record_id
from hub.ports import AuditLine, Entry, Look, Scanned, Tx

if TYPE_CHECKING:
    from hub.boot import Services

#: What can be asked for beside the columns of the journal.
BESIDE = frozenset({"number", "text", "outcome", "flag", "finished_since", "finished_until"})
#: A single letter or digit stands in nearly every message.
_LEAST_TEXT = 2
_MOST_TEXT = 200
#: Bytes of bodies in the object store that one page reads, once it has read one.
_MOST_READ = 64 * 1024 * 1024


class MessageSearch:
    """One search of one asker, page by page."""

    def __init__(self, services: Services, actor: Actor, criteria: Mapping[str, str], *, content: bool = True) -> None:
        """Take what is asked for: columns of the journal, ``since``, ``until`` and :data:`BESIDE`.

        Args:
            content: whether the asker may be told what messages say.

        Raises:
            HubError: forbidden for who may not search, or not by content; incorrect for a value that cannot be used.
        """
        institution = limit_of(actor)
        self._services, self._actor = services, actor
        self._wanted = {name: value for name, value in criteria.items() if name not in BESIDE}
        if institution is not None:
            self._wanted["institution"] = institution
        for name in ("since", "until"):
            if name in self._wanted:
                _moment(name, self._wanted[name] or "?")
        self._number = criteria.get("number", "").strip()
        self._look = Look(
            text=criteria.get("text", ""),
            outcome=criteria.get("outcome", ""),
            flag=criteria.get("flag", ""),
            finished_since=_moment("finished_since", criteria.get("finished_since", "")),
            finished_until=_moment("finished_until", criteria.get("finished_until", "")),
        )
        self._names = sorted(criteria)
        if (self._look.text or self._number) and not content:
            raise HubError(
                Category.FORBIDDEN,
                "The operator may not search by what messages say.",
                where="text" if self._look.text else "number",
                remedy="Ask an administrator of the institution, or run `hub messages list` where the hub runs.",
            )
        if self._look.text and not _LEAST_TEXT <= len(self._look.text) <= _MOST_TEXT:
            raise HubError(
                Category.INCORRECT,
                f"The text to look for has {_LEAST_TEXT} to {_MOST_TEXT} characters.",
                where="text",
                remedy="Write a word or a name as it stands in the message.",
            )

    def page(self, *, limit: int, before_seq: int | None = None) -> tuple[list[Entry], int | None]:
        """Return at most *limit* entries below *before_seq*, newest first, and the number to go on below, or ``None``.

        A search by what messages say leaves an audit line, which does not repeat what was asked for.

        Raises:
            HubError: incorrect for a column that cannot be searched.
        """
        if self._look.text or self._number:
            line = AuditLine(
                type="admin",
                action="E",
                subtype="message-search",
                actor=self._actor,
                recorded_at=self._services.clock(),
                detail=" ".join(self._names),
            )
            self._services.database.write(lambda tx: tx.audit.write(line))
        pages = self._services.database.read(lambda tx: self._pages(tx, limit, before_seq))
        # Below the highest number at which one of the searches stopped, the others may not tell the whole.
        after = max((one.next for one in pages if one.next is not None), default=None)
        merged = {one.seq: one for page in pages for one in page.entries if after is None or one.seq >= after}
        entries = sorted(merged.values(), key=lambda one: one.seq, reverse=True)
        if len(entries) > limit:
            entries, after = entries[:limit], entries[limit - 1].seq
        return self._sure(entries, after)

    def _pages(self, tx: Tx, limit: int, before_seq: int | None) -> Sequence[Scanned]:
        searches = [self._wanted]
        if self._number:
            found = _patients(tx, self._number, self._wanted.get("institution"))
            asked = self._wanted.get("patient_id")
            searches = [{**self._wanted, "patient_id": one} for one in found if asked in {None, one}]
        pages = []
        for wanted in searches:
            if self._look != Look():
                pages.append(tx.journal.scan(wanted, self._look, limit=limit, before_seq=before_seq))
                continue
            entries = tx.journal.search(wanted, limit=limit, before_seq=before_seq)
            pages.append(Scanned(entries=entries, next=entries[-1].seq if len(entries) == limit else None))
        return pages

    def _sure(self, entries: Sequence[Entry], after: int | None) -> tuple[list[Entry], int | None]:
        """Return those of *entries* whose text holds the words; the bytes alone may deceive."""
        if not self._look.text:
            return list(entries), after
        found: list[Entry] = []
        read = 0
        for one in entries:
            if one.body is None:
                if read and read + one.size > _MOST_READ:
                    # The next page begins with this one.
                    return found, one.seq + 1
                read += one.size
            if self._look.text in decode_message(body_of(self._services, one)).text:
                found.append(one)
        return found, after


def _patients(tx: Tx, number: str, institution: str | None) -> list[str]:
    """Return the ids of the Patients that carry *number*, at *institution* or anywhere."""
    spellings = {number, patient_key(number)}
    stored = [
        one
        for spelt in sorted(spellings)
        for one in tx.records.by_identifier("Patient", None, spelt, UNRESTRICTED, owner=institution)
    ]
    ids = {one.id for one in stored}
    if institution is not None:
        # A number that was merged into another is an identifier of the survivor; its own messages name its own record.
        ids.add(number_record_id(institution, number))
    return sorted(ids)


def body_of(services: Services, entry: Entry) -> bytes:
    """Return the bytes of *entry* as they came.

    Raises:
        HubError: not-found or unavailable, when they are an object that cannot be read.
    """
    return entry.body if entry.body is not None else services.objects.read(entry.digest)


def text_of(body: bytes) -> str:
    """Return *body* as text with line feeds, in the character set that it is in; empty for no bytes."""
    return decode_message(body).text.replace("\r", "\n") if body else ""


def _moment(name: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise HubError(
            Category.INCORRECT, "This is no moment in time.", where=name, remedy="Write 2025-06-11T08:30:00+08:00."
        )
    return moment
