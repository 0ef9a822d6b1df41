"""Batches and files of HL7 v2 messages in, and the batch of acknowledgements that answers them. HL7 v2 chapter 2.10.3.

A batch is only a wrapping: each of its messages is taken, kept and answered as if it had come alone, in the order they
stand, and one message's refusal is none of its neighbours'. A batch that is not whole gives up no message; it is kept
and refused as one. Trouble that may pass ends a batch without an answer, and when it comes again, what was taken before
is answered as before.

A batch that stands in XML or SOAP is the same; each of its messages is kept as an XML document of its own.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from fhir_mappings.errors import MalformedError, UnsupportedError
from fhir_mappings.hl7v2 import batch
from fhir_mappings.hl7v2.ack import copied, v2_time
from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder
from fhir_mappings.hl7v2.charset import decode_message, encode_for
from fhir_mappings.hl7v2.tokenizer import Message, parse
from fhir_mappings.hl7v2.wrapping import alone, wrapped_batch
from hub.acknowledge import refused
from hub.arrival import Arrival, read_arrival
from hub.certificates import Line
from hub.envelope import new_correlation_id

if TYPE_CHECKING:
    from hub.boot import Services
    from hub.messages import MessageService

#: Types under which a batch that was refused stands in the journal.
BATCHES = frozenset({"BHS", "FHS"})

log = structlog.get_logger("hub.batches")


def receive_batch(
    services: Services,
    messages: MessageService,
    raw: bytes,
    peer: str,
    *,
    door: str,
    institution_hint: str | None,
    line: Line | None,
) -> bytes | None:
    """Take every message of *raw* and return their acknowledgements as a batch, once everything is durable.

    ``None`` means that no sender of a message in it wants an answer.

    Raises:
        HubError: transient or fatal, as :meth:`hub.messages.MessageService.receive` does.
    """

    def read(data: bytes) -> Arrival:
        return read_arrival(
            data,
            services.directory,
            peer=peer,
            door=door,
            received_at=services.clock(),
            institution_hint=institution_hint,
            line=line,
        )

    wrapped = wrapped_batch(raw)
    # What an envelope holds is text already; from here on it is in UTF-8, whatever the envelope is in.
    body = raw if wrapped is None else wrapped.text.encode("utf-8", "replace")

    def single(message: bytes) -> bytes:
        return message if wrapped is None else alone(message.decode("utf-8"))

    def told(answer: bytes | None) -> bytes | None:
        if wrapped is None or answer is None:
            return answer
        return answer.decode("utf-8", "replace").encode(wrapped.charset, "replace")

    whole = read(single(_as_message(batch.first_header(body), "" if wrapped is None else "utf-8")))
    whole = replace(whole, raw=raw, digest=hashlib.sha256(raw).hexdigest())
    try:
        file = batch.split(body)
    except MalformedError as error:
        if whole.endpoint is None:
            return told(messages.turn_away(whole))
        return told(messages.refuse_arrival(whole, refused(error)))
    inside = [single(one) for part in file.batches for one in part.messages]
    if whole.endpoint is None and inside:
        # Many a sender names itself in its messages only.
        whole = replace(whole, endpoint=read(inside[0]).endpoint)
    if whole.endpoint is None:
        return told(messages.turn_away(whole))
    telling = next((one for one in inside if not one.isascii()), None)
    if telling is not None and codecs.lookup(whole.decoded.charset).name == "ascii":
        # A header of ASCII says nothing about the character set; the answer has to be in one that its parts are in.
        whole = replace(whole, decoded=replace(whole.decoded, charset=read(telling).decoded.charset))
    answers = [
        (
            part.header,
            [
                answer
                for one in map(single, part.messages)
                if (answer := messages.receive(one, peer, door=door, institution_hint=institution_hint, line=line))
                is not None
            ],
        )
        for part in file.batches
    ]
    taken = len(inside)
    log.info("batch_taken", institution=whole.institution, batches=len(file.batches), messages=taken)
    if taken and not any(found for _, found in answers):
        return None
    return told(_answer(services, whole, file.header, answers))


def _as_message(header: bytes, charset: str = "") -> bytes:
    """Return FHS or BHS as the MSH of a message of type ``BHS`` or ``FHS`` that its number names.

    Both headers begin as MSH does (fields 1 to 7); their control id is field 11. *charset* is that of *header* where it
    is known.
    """
    decoded = decode_message(header)
    line, charset = (header.decode(charset), charset) if charset else (decoded.text, decoded.charset)
    cells = line.split(line[3:4]) if len(line) > 3 else [line]
    cells += [""] * (11 - len(cells))
    made = ["MSH", *cells[1:7], "", line[:3], cells[10], "P", "2.4"]
    return (line[3:4] or "|").join(made).encode(charset, "replace")


def _answer(
    services: Services, whole: Arrival, file_header: bytes, answers: Sequence[tuple[bytes, list[bytes]]]
) -> bytes:
    made = bytearray()
    if file_header:
        made += _header(services, whole, "FHS", file_header)
    for header, found in answers:
        made += _header(services, whole, "BHS", header)
        for one in found:
            made += one if one.endswith(b"\r") else one + b"\r"
        made += MessageBuilder().segment("BTS", {1: str(len(found))}).to_text().encode("ascii")
    if file_header:
        made += MessageBuilder().segment("FTS", {1: str(len(answers))}).to_text().encode("ascii")
    return bytes(made)


def _header(services: Services, whole: Arrival, name: str, original: bytes) -> bytes:
    """Return the answer's FHS or BHS: parties swapped, its own number, and the number of what it answers in field 12."""
    dialect = services.directory.dialect(whole.endpoint)
    fields: dict[int, FieldValue] = {
        3: services.settings.sending_application,
        4: services.settings.sending_facility,
        7: v2_time(services.clock().astimezone(dialect.zone)),
        11: new_correlation_id()[:20],
    }
    charset = whole.decoded.charset
    if original and (asked := _parsed(original, charset)) is not None:
        msh = asked.segments[0]
        fields |= {5: copied(msh.field(3)), 6: copied(msh.field(4)), 12: copied(msh.field(10))}
        fields |= {number: given for number, of in ((3, 5), (4, 6)) if (given := copied(msh.field(of)))}
    text = MessageBuilder().segment(name, fields).to_text()
    if codecs.lookup(charset).name == "ascii":
        charset = dialect.charset_out
    try:
        return encode_for(text, charset)
    except UnsupportedError:
        return text.encode(charset, "replace")


def _parsed(header: bytes, charset: str) -> Message | None:
    try:
        return parse(_as_message(header).decode(charset, "replace"))
    except MalformedError:
        return None
