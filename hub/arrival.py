"""A received HL7 v2 message before anything is done with it: decoded, cut, its sender known or not.

HL7 v2 chapter 2.14.9 (MSH). The sender is who MSH-3 and MSH-4 say, if the directory knows them from that address; a
message is decoded before it is split, and a sender with a fixed character set is read again in that one.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime

import structlog

from fhir_mappings.errors import MalformedError, MappingError
from fhir_mappings.hl7v2.charset import Decoded, decode_message
from fhir_mappings.hl7v2.tokenizer import Message, parse
from fhir_mappings.identifiers import patient_key
from hub.actor import HUB, Actor
from hub.business_answers import ANSWER_PEER, sender_of
from hub.certificates import Line, why_not
from hub.directory import Directory
from hub.envelope import new_correlation_id
from hub.errors import Category, HubError
from hub.ports import MemberEndpoint, NewEntry

log = structlog.get_logger("hub.arrival")

#: A body of at most this size stands in the journal itself; a larger one is an object.
INLINE_MAX_BYTES = 64 * 1024
_NAME_MAX = 64
#: Begins the peer of what was picked up from a member's folder; the id of that endpoint follows.
FOLDER_PEER = "folder/"
#: Begins the peer of what the hub read from a member's database view; the view's name follows.
VIEW_PEER = "view/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One message as it came.

    Attributes:
        message: the whole message, or its MSH alone when ``error`` is set, or ``None`` when even that is unreadable.
        endpoint: the sender, or ``None`` for a stranger.
        error: why the message cannot be cut into segments.
    """

    raw: bytes
    peer: str
    door: str
    received_at: datetime
    correlation_id: str
    digest: str
    decoded: Decoded
    message: Message | None
    endpoint: MemberEndpoint | None
    error: MappingError | None = None

    def field(self, path: str) -> str:
        """Return a field of the message, trimmed; empty when it is absent."""
        return self.message.get(path).strip() if self.message is not None else ""

    @property
    def institution(self) -> str:
        """Code of the member that sent it; the operator's for strangers."""
        return self.endpoint.member if self.endpoint is not None else HUB.institution

    @property
    def event(self) -> str:
        """MSH-9 as ``ADT^A01``."""
        kind, trigger = self.field("MSH-9.1")[:_NAME_MAX], self.field("MSH-9.2")[:_NAME_MAX]
        return f"{kind}^{trigger}" if trigger else kind

    def check_processing_id(self) -> None:
        """Make sure that the feed of a known sender takes messages of this MSH-11; an empty one is production.

        The endpoint setting ``processing-ids`` names what it takes, ``P`` (production) if it is absent. Training and
        debugging messages of other feeds must not reach production data (HL7 v2 chapter 2.9.2.2, table 0103).

        Raises:
            HubError: unsupported (202).
        """
        assert self.endpoint is not None
        allowed = str(self.endpoint.settings.get("processing-ids", "")).upper().split() or ["P"]
        if (self.field("MSH-11.1").upper() or "P") not in allowed:
            raise HubError(
                Category.UNSUPPORTED,
                "本接口不接收此处理类型的消息 / This feed takes no messages of that processing id.",
                where="MSH-11 of segment 1",
                remedy=f"Send {' or '.join(allowed)} in MSH-11, or ask the operator to allow another one.",
                code=202,
            )

    @property
    def is_answer(self) -> bool:
        """Whether it came in answer to a delivery, on that connection, so that nobody awaits an acknowledgement of it."""
        return self.peer.startswith(ANSWER_PEER)

    @property
    def actor(self) -> Actor:
        """The sender for the audit line."""
        client = f"{self.field('MSH-3.1')[:_NAME_MAX]}|{self.field('MSH-4.1')[:_NAME_MAX]}"
        return Actor(institution=self.institution, client=client, address=address_of(self.peer))

    @property
    def order_key(self) -> str:
        """A key that is the same for all messages of this sender about one patient number, and tells neither."""
        number = self.field("PID-3.1") or self.field("PID-2.1")
        who = f"{self.institution}|{self.field('MSH-3.1')}|{self.field('MSH-4.1')}|{patient_key(number)}"
        return hashlib.sha256(who.encode("utf-8", "replace")).hexdigest()[:24]

    def entry(
        self, *, state: str, outcome: str = "", ack: bytes | None = None, flags: tuple[str, ...] = ()
    ) -> NewEntry:
        """Return the journal entry; the body of a known sender's large message must already be an object.

        Of a stranger's message only what fits inline is kept, so that strangers cannot fill the store.
        """
        body: bytes | None = self.raw
        if len(self.raw) > INLINE_MAX_BYTES:
            body = self.raw[:INLINE_MAX_BYTES] if self.endpoint is None else None
            flags = (*flags, "truncated") if self.endpoint is None else flags
        if self.decoded.flagged:
            flags = (*flags, "charset-doubtful")
        if self.decoded.disagrees:
            flags = (*flags, "charset-mislabelled")
        flags = (*flags, *(f"missing:{name}" for name in self.decoded.missing))
        return NewEntry(
            door=self.door,
            institution=self.institution,
            peer=self.peer,
            correlation_id=self.correlation_id,
            message_type=self.event,
            digest=self.digest,
            size=len(self.raw),
            received_at=self.received_at,
            body=body,
            sending_application=self.field("MSH-3.1")[:_NAME_MAX],
            sending_facility=self.field("MSH-4.1")[:_NAME_MAX],
            control_id=self.field("MSH-10")[:_NAME_MAX],
            version=self.field("MSH-12.1")[:_NAME_MAX],
            charset=self.decoded.charset,
            state=state,
            outcome=outcome,
            ack=ack,
            flags=" ".join(flags),
            placer=(self.field("ORC-2.1") or self.field("OBR-2.1"))[:_NAME_MAX],
            filler=(self.field("ORC-3.1") or self.field("OBR-3.1"))[:_NAME_MAX],
            accession=self.field("OBR-18")[:_NAME_MAX],
            visit=self.field("PV1-19.1")[:_NAME_MAX],
        )

    @property
    def is_large(self) -> bool:
        """Whether the body goes to the object store."""
        return len(self.raw) > INLINE_MAX_BYTES


def read_arrival(
    raw: bytes,
    directory: Directory,
    *,
    peer: str,
    door: str,
    received_at: datetime,
    institution_hint: str | None = None,
    line: Line | None = None,
    correlation_id: str | None = None,
) -> Arrival:
    """Return what *raw* is; never fails for what the message holds.

    *institution_hint* is the member that the door itself has proved (a bearer token); another member's MSH is then a
    stranger's. *line* is how the peer came in where the door has proved nothing; a member that asks for more than that is
    then a stranger too.
    """
    decoded = decode_message(raw)
    message, error = _cut(decoded.text)
    endpoint: MemberEndpoint | None = None
    if message is not None:
        names = message.get("MSH-3.1").strip(), message.get("MSH-4.1").strip()
        if peer.startswith(ANSWER_PEER):
            endpoint = sender_of(directory, peer, *names)
        else:
            endpoint = directory.mllp_member(*names, address_of(peer))
        if endpoint is not None and institution_hint not in {None, endpoint.member}:
            endpoint = None
        if endpoint is not None and line is not None:
            untrusted = why_not(endpoint, line, directory.all_endpoints())
            if untrusted:
                log.warning("sender_not_trusted", peer=peer, endpoint=endpoint.id, why=untrusted)
                endpoint = None
    if endpoint is not None:
        override = directory.dialect(endpoint).charset_in
        if override is not None:
            again = decode_message(raw, override=override)
            if again.text != decoded.text:
                message, error = _cut(again.text)
            decoded = again
    return Arrival(
        raw=raw,
        peer=peer,
        door=door,
        received_at=received_at,
        correlation_id=correlation_id or new_correlation_id(),
        digest=hashlib.sha256(raw).hexdigest(),
        decoded=decoded,
        message=message,
        endpoint=endpoint,
        error=error,
    )


def _cut(text: str) -> tuple[Message | None, MappingError | None]:
    """Return the message; of one that cannot be cut, its MSH if that is readable, and why."""
    try:
        return parse(text), None
    except MalformedError as error:
        head = text.lstrip("\r\n").replace("\n", "\r").split("\r", 1)[0]
        try:
            return parse(head), error
        except MalformedError:
            return None, error


def address_of(peer: str) -> str:
    """Return the IP address in ``host:port`` or ``[host]:port``, or *peer* itself when it is bare or no address."""
    if peer.startswith((FOLDER_PEER, VIEW_PEER, ANSWER_PEER)):
        return peer
    try:
        return str(ipaddress.ip_address(peer.strip("[]")))
    except ValueError:
        return peer.rpartition(":")[0].strip("[]") or peer
