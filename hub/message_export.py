"""Messages written out: as one HL7 v2 file (chapter 2.10.3: FHS, BHS, BTS, FTS), or as JSON lines.

The file is a copy in UTF-8, because its messages came in many character sets; a label in MSH-18 is put right in it. The
JSON lines hold the sender's bytes beside the text. Everything is written oldest first. Before a message leaves, its audit
line is durable.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from fhir_mappings.hl7v2.ack import v2_time
from fhir_mappings.hl7v2.builder import MessageBuilder
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.json import dumps
from hub.actor import Actor
from hub.envelope import new_correlation_id
from hub.errors import Category, HubError
from hub.message_choice import choose
from hub.message_desk import shown_entry
from hub.message_search import body_of, text_of
from hub.ports import AuditLine, Entry, Tx

if TYPE_CHECKING:
    from hub.boot import Services

Form = Literal["er7", "jsonl"]
#: Most messages of one file of the command; over HTTP, where the answer stands in memory, also the bytes.
MOST, MOST_HTTP, MOST_HTTP_BYTES = 100_000, 500, 16 * 1024 * 1024
#: Messages of one BHS, and of one transaction of audit lines.
_BATCH = 200
_MSH_18 = 17
_LABEL = "UNICODE UTF-8"


class Export:
    """One export: the messages are chosen when it is made and read when it is written.

    Attributes:
        skipped: messages that an ER7 file cannot hold, because no MSH can be read in them.
    """

    def __init__(
        self,
        services: Services,
        actor: Actor,
        criteria: Mapping[str, str],
        form: Form,
        *,
        most: int = MOST,
        most_bytes: int | None = None,
        content: bool = True,
    ) -> None:
        """Choose the messages.

        Raises:
            HubError: as :func:`hub.message_choice.choose`; forbidden for who may not see what messages say.
        """
        if not content:
            raise HubError(
                Category.FORBIDDEN,
                "The operator may not read what messages say.",
                where="Authorization",
                remedy="Ask an administrator of the institution, or run `hub messages export` where the hub runs.",
            )
        self._services, self._actor, self._form = services, actor, form
        self._names = sorted(criteria)
        self._choice = choose(services, actor, criteria, most=most)
        if most_bytes is not None and self._choice.size > most_bytes:
            raise HubError(
                Category.INCORRECT,
                f"These messages are more than {most_bytes} bytes.",
                where="filter",
                remedy="Take a part at a time, for example with since and until.",
            )
        self.count = len(self._choice.numbers)
        self.skipped = 0

    def parts(self) -> Iterator[bytes]:
        """Yield the file piece by piece.

        Raises:
            HubError: when the stores cannot work now; what was yielded is then no whole file.
        """
        line = AuditLine(
            type="admin",
            action="E",
            subtype="message-export",
            actor=self._actor,
            recorded_at=self._services.clock(),
            count=self.count,
            detail=f"{self._form} by {' '.join(self._names)}",
        )
        self._services.database.write(lambda tx: tx.audit.write(line))
        numbers, batches = self._choice.numbers, 0
        if self._form == "er7":
            yield self._header("FHS")
        for start in range(0, len(numbers), _BATCH):
            entries = self._read(numbers[start : start + _BATCH])
            if self._form == "jsonl":
                for one in entries:
                    yield self._line(one)
                continue
            messages = [made for one in entries if (made := _utf8(body_of(self._services, one)))]
            self.skipped += len(entries) - len(messages)
            if messages:
                batches += 1
                yield self._header("BHS")
                yield from messages
                yield _segment("BTS", {1: str(len(messages))})
        if self._form == "er7":
            yield _segment("FTS", {1: str(batches)})

    def _read(self, numbers: Sequence[int]) -> list[Entry]:
        """Return the entries, once it is written down who reads them; one that retention took meanwhile is left out."""

        def work(tx: Tx) -> list[Entry]:
            entries = [one for seq in numbers if (one := tx.journal.get(seq)) is not None]
            for one in entries:
                tx.audit.write(
                    AuditLine(
                        type="hl7v2",
                        action="R",
                        subtype="message-export",
                        actor=self._actor,
                        recorded_at=self._services.clock(),
                        patients=((one.institution, one.patient_id),) if one.patient_id else (),
                        correlation_id=one.correlation_id,
                        detail=f"message {one.seq}",
                    )
                )
            return entries

        return self._services.database.write(work)

    def _line(self, entry: Entry) -> bytes:
        body = body_of(self._services, entry)
        shown = {
            **shown_entry(entry),
            "acknowledgement": text_of(entry.ack or b""),
            "content": text_of(body),
            "body": base64.b64encode(body).decode("ascii"),
        }
        return dumps(shown) + b"\n"

    def _header(self, name: str) -> bytes:
        settings = self._services.settings
        return _segment(
            name,
            {
                3: settings.sending_application,
                4: settings.sending_facility,
                7: v2_time(self._services.clock()),
                11: new_correlation_id()[:20],
            },
        )


def _segment(name: str, fields: Mapping[int, str]) -> bytes:
    return MessageBuilder().segment(name, dict(fields)).to_text().encode("utf-8")


def _utf8(body: bytes) -> bytes:
    """Return the message in UTF-8, a label of another character set put right; empty when it has no MSH."""
    lines = decode_message(body).text.replace("\r\n", "\r").replace("\n", "\r").strip("\r").split("\r")
    head = lines[0]
    if not head.startswith("MSH") or len(head) < 4:
        return b""
    fields = head.split(head[3])
    if len(fields) > _MSH_18 and fields[_MSH_18].strip():
        fields[_MSH_18] = _LABEL
    return "\r".join([head[3].join(fields), *lines[1:], ""]).encode("utf-8", "replace")
