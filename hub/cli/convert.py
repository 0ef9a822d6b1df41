"""``hub convert``: what a message file becomes in FHIR, as an integrator wants to see it.

Needs no running hub and stores nothing. Each message gives one line: the transaction Bundle that the hub would apply to
an empty store, or the OperationOutcome that tells why the message is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

import hub
from fhir_mappings.code_maps import NO_MAPS, CodeMaps
from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.bundle import to_bundle
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.tokenizer import Message, parse
from fhir_mappings.hl7v2.translate import translate
from fhir_mappings.json import dumps
from hub import concept_maps, config
from hub.actor import HUB
from hub.cli.common import note, say, state, tool
from hub.cli.members import resources_in
from hub.clock import utc_now
from hub.config import Settings
from hub.directory import dialect_of
from hub.errors import Category, HubError
from hub.members import distil
from hub.outcome import as_hub_error, outcome_bytes
from hub.ports import MemberEndpoint

#: Bytes around a message on the wire (MLLP release 1), which captured files often still have.
_START, _END = b"\x0b", b"\x1c"


@dataclass(frozen=True, slots=True)
class _Consortium:
    """Who may have written the message, and how each writes."""

    members: frozenset[str]
    endpoints: Sequence[MemberEndpoint]
    maps: Mapping[str, CodeMaps] = field(default_factory=dict)

    def sender(self, message: Message | None) -> MemberEndpoint | None:
        """Return the endpoint that calls itself as MSH-3 and MSH-4 of *message* do."""
        if message is None:
            return None
        application, facility = message.get("MSH-3.1").strip(), message.get("MSH-4.1").strip()
        for one in self.endpoints:
            if (
                one.kind == "mllp"
                and facility
                and one.sending_facility == facility
                and one.sending_application in {"", application}
            ):
                return one
        return None

    def of(self, member: str) -> MemberEndpoint | None:
        """Return the first v2 endpoint of *member*."""
        return next((one for one in self.endpoints if one.kind == "mllp" and one.member == member), None)


def convert(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="HL7 v2 文件，- 为标准输入 / - is stdin")],
    member: Annotated[
        str | None, typer.Option(help="发送成员代码 / code of the member that sends it (default: by MSH-4)")
    ] = None,
) -> None:
    """转换 HL7 v2 文件 / Print one FHIR Bundle a line, or an OperationOutcome for a message refused; stores nothing."""
    found = config.load(state.config)
    tool("adapters.ops.logs").configure("warning")
    consortium = _consortium(found)
    if member is not None and member not in consortium.members:
        raise HubError(
            Category.INCORRECT,
            f"There is no member {member}.",
            where="--member",
            remedy=f"Use one of {', '.join(sorted(consortium.members)) or '(none are known here)'}.",
        )
    for path in files:
        for raw in _messages(_read(path)):
            say(convert_message(raw, consortium, member).decode())


def convert_message(raw: bytes, consortium: _Consortium, member: str | None) -> bytes:
    """Return the Bundle of one message as JSON, or the OperationOutcome that tells why it is refused."""
    try:
        text = decode_message(raw).text
        endpoint = consortium.of(member) if member is not None else consortium.sender(_header(text))
        dialect = dialect_of(endpoint, consortium.endpoints, consortium.members)
        if dialect.charset_in is not None:
            text = decode_message(raw, override=dialect.charset_in).text
        institution = member or (endpoint.member if endpoint is not None else HUB.institution)
        context = MappingContext(
            institution=institution,
            dialect=dialect,
            received_at=utc_now(),
            maps=consortium.maps.get(institution, NO_MAPS),
        )
        return dumps(to_bundle(translate(parse(text), context), context))
    except (MappingError, HubError) as error:
        return outcome_bytes(as_hub_error(error))


def _header(text: str) -> Message | None:
    try:
        return parse(text.lstrip("\r\n").replace("\n", "\r").split("\r", 1)[0])
    except MappingError:
        return None


def _consortium(found: Settings) -> _Consortium:
    """Return the members in the database when there is one, else those of the sample consortium.

    Raises:
        HubError: as opening the database; nothing is made when it is missing.
    """
    url = found.database()
    if not url.startswith("sqlite:") or Path(url.removeprefix("sqlite:///")).is_file():
        database = tool("storage.sql").open_database(found, node="convert")
        try:
            members, endpoints, maps = database.read(
                lambda tx: (tx.members.all(), tx.members.endpoints(), concept_maps.load(tx))
            )
        finally:
            database.close()
        if members:
            return _Consortium(
                frozenset(one.code for one in members if one.active), [one for one in endpoints if one.active], maps
            )
    samples = _samples()
    if samples is None:
        note("没有成员目录，按标准方言转换 / no members are known here: every message is read in the standard dialect")
        return _Consortium(frozenset(), ())
    known, points, _ = distil(resources_in([samples]))
    return _Consortium(frozenset(one.code for one in known), points)


def _samples() -> Path | None:
    places = (Path.cwd(), Path(hub.__file__).parent.parent)
    return next((found for place in places if (found := place / "sample_data" / "members").is_dir()), None)


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise HubError(
            Category.INCORRECT,
            f"The file cannot be read: {error.strerror}.",
            where=str(path),
            remedy="Name HL7 v2 message files.",
        ) from error


def _messages(content: bytes) -> Iterator[bytes]:
    """Yield the messages of a file: what stands in its MLLP frames, or else the whole."""
    if not content.lstrip(b"\r\n ").startswith(_START):
        yield content
        return
    for frame in content.split(_START)[1:]:
        yield frame.partition(_END)[0]
