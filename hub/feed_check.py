"""A member's samples held against what the hub would do with them: read, judged, translated, and nothing stored.

What decides is what decides at the door: the member's settings (``validate`` and ``profile`` among them), the rule of character
sets, the tables of the messages.
What is told names places and never values, so that a report can be sent to whoever makes the other system.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2 import batch
from fhir_mappings.hl7v2.ack import AckError, is_ack
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.coverage import FieldUse, observed, uses
from fhir_mappings.hl7v2.queries.osq import is_order_query
from fhir_mappings.hl7v2.queries.qbp import is_query
from fhir_mappings.hl7v2.queries.ref_i15 import is_referral_query
from fhir_mappings.hl7v2.tokenizer import Message, parse
from fhir_mappings.json import loads
from hub import feed_validation
from hub.acknowledge import STORED, Acknowledger
from hub.arrival import Arrival
from hub.config import Settings
from hub.errors import Category, HubError
from hub.outcome import as_hub_error
from hub.ports import MemberEndpoint
from hub.validation import validate

if TYPE_CHECKING:
    from hub.directory import Directory

Json = dict[str, Any]

#: Bytes around a message on the wire (MLLP release 1), which captured files often still have.
_START, _END = b"\x0b", b"\x1c"
_MESSAGE = re.compile(rb"(?:\A|(?<=[\r\n]))MSH(?=[^A-Za-z0-9])")
#: Code of the translation's finding about a code without a row.
_UNMAPPED = "code-invalid"
#: What is wrong by the code of HL7 table 0357.
_KINDS: Mapping[int, str] = {
    100: "segments",
    101: "required",
    102: "value",
    103: "value",
    200: "type",
    201: "event",
    202: "processing-id",
    203: "version",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One message of a file, or a FHIR resource."""

    file: str
    number: int
    raw: bytes


def samples(file: str, content: bytes) -> Iterator[Sample]:
    """Yield the messages of a file: of MLLP frames, of a batch, one after another, or the whole.

    Raises:
        MappingError: a batch whose headers and trailers do not match.
    """
    for number, raw in enumerate(_cut(content), start=1):
        yield Sample(file=file, number=number, raw=raw)


def _cut(content: bytes) -> Iterable[bytes]:
    if content.lstrip(b"\r\n ").startswith(_START):
        frames = [frame.partition(_END)[0] for frame in content.split(_START)[1:]]
        return [one for frame in frames for one in _cut(frame)]
    if batch.is_batch(content):
        return [one for part in batch.split(content).batches for one in part.messages]
    places = [found.start() for found in _MESSAGE.finditer(content)]
    if len(places) > 1:
        return [content[start:end] for start, end in zip(places, [*places[1:], len(content)], strict=True)]
    return [content]


class FeedCheck:
    """The check of one member's samples; pure but for the directory that it asks."""

    def __init__(self, settings: Settings, directory: Directory, member: str) -> None:
        """Check what *member* (a code, or one of its endpoints: ``KN``, ``KN/mllp``) writes.

        Raises:
            HubError: not-found when it has no endpoint of HL7 v2.
        """
        self._directory = directory
        self._acknowledger = Acknowledger(settings, directory)
        code = member.partition("/")[0]
        points = [one for one in directory.endpoints(code, "mllp") if one.active and member in {code, one.id}]
        self._points = [one for one in points if one.sending_facility or one.sending_application] or points
        if not self._points:
            raise HubError(
                Category.NOT_FOUND,
                "该成员没有 HL7 v2 接口 / This member has no active endpoint of HL7 v2.",
                where=member[:64],
                remedy="`hub members list` shows the names, for example KN or KN/mllp.",
            )

    def check(self, sample: Sample) -> Json:
        """Return what the hub would make of *sample*; never fails for what it holds.

        ``taken`` says whether the hub would accept it; ``findings`` why not, and what was found; ``fields`` what became of
        each valued field.
        """
        if sample.raw.lstrip()[:1] == b"{" and b'"resourceType"' in sample.raw[:4096]:
            return _resource(sample)
        arrival = self._arrival(sample.raw)
        found: list[Json] = [*self._sender(arrival), *_charset(arrival), *_judged(arrival)]
        fields: Sequence[FieldUse] = ()
        try:
            if arrival.error is not None:
                raise arrival.error
            assert arrival.message is not None
            assert arrival.endpoint is not None
            arrival.check_processing_id()
            context = self._directory.context(arrival.endpoint)
            translation, fields = uses(arrival.message, context, self._door(arrival, arrival.message))
            found += [
                _finding(
                    "warning" if one.severity == "warning" else "information",
                    "unmapped-code" if one.code == _UNMAPPED else "value" if one.severity == "warning" else one.code,
                    one.where,
                    one.message,
                )
                for one in translation.issues
            ]
        except (MappingError, HubError) as error:
            wrong = as_hub_error(error)
            kind = _KINDS.get(getattr(error, "code", None) or 0, "refused")
            found.append(_finding("error", kind, wrong.where, wrong.message, wrong.remedy))
        return {
            "file": sample.file,
            "number": sample.number,
            "event": arrival.event,
            "version": arrival.field("MSH-12.1"),
            "charset": arrival.decoded.charset,
            "declared": arrival.decoded.declared,
            "taken": not any(one["severity"] == "error" for one in found),
            "findings": found,
            "fields": [
                {"field": f"{one.segment}-{one.number}", "use": one.use, "elements": list(one.elements)}
                for one in fields
            ],
        }

    def _door(self, arrival: Arrival, message: Message) -> set[tuple[int, int]]:
        """Return the fields that are asked for to take and to answer the message, whatever it is about."""
        asked: set[tuple[int, int]] = set()
        watched = replace(arrival, message=observed(message, asked))
        watched.check_processing_id()
        watched.entry(state="", flags=(watched.order_key,))
        self._acknowledger.answer(watched, STORED, arrival.received_at)
        return asked

    def _arrival(self, raw: bytes) -> Arrival:
        """Return *raw* as the door would read it if it came from the member."""
        arrival = _read(raw, None, self._points[0], self._directory.context(self._points[0]).received_at)
        point = self._point(arrival)
        return _read(raw, self._directory.dialect(point).charset_in, point, arrival.received_at)

    def _point(self, arrival: Arrival) -> MemberEndpoint:
        names = (arrival.field("MSH-3.1"), arrival.field("MSH-4.1"))
        return next((one for one in self._points if _names(one, names)), self._points[0])

    def _sender(self, arrival: Arrival) -> Iterator[Json]:
        names = (arrival.field("MSH-3.1"), arrival.field("MSH-4.1"))
        if arrival.message is None or any(_names(one, names) for one in self._points):
            return
        wanted = ", ".join(
            f"{one.sending_application or '*'}|{one.sending_facility or '*'} ({one.id})" for one in self._points
        )
        yield _finding(
            "error",
            "sender",
            "MSH-4 of segment 1",
            "MSH-3、MSH-4 不是该成员登记的名称，会被当作陌生人拒绝"
            " / MSH-3 and MSH-4 are not the names that the member is known by; it would be refused as a stranger.",
            f"写成 / write {wanted}，或修改 / or change sending-application, sending-facility.",
        )


def _read(raw: bytes, charset: str | None, endpoint: MemberEndpoint, received_at: datetime) -> Arrival:
    decoded = decode_message(raw, override=charset)
    message, error = None, None
    try:
        message = parse(decoded.text)
    except MappingError as wrong:
        error = wrong
    return Arrival(
        raw=raw,
        peer="",
        door="feed-test",
        received_at=received_at,
        correlation_id="",
        digest="",
        decoded=decoded,
        message=message,
        endpoint=endpoint,
        error=error,
    )


def _names(one: MemberEndpoint, names: tuple[str, str]) -> bool:
    return one.sending_facility == names[1] and one.sending_application in {"", names[0]}


def _charset(arrival: Arrival) -> Iterator[Json]:
    decoded, ascii_only = arrival.decoded, arrival.raw.isascii()
    declared = decoded.declared or "-"
    if decoded.flagged:
        yield _finding(
            "warning",
            "charset",
            "MSH-18 of segment 1",
            f"字符集不确定，按 {decoded.charset} 读取（MSH-18：{declared}）"
            f" / It is not sure in which character set this is; it was read as {decoded.charset} (MSH-18: {declared}).",
            "设置 charset-in 为对方实际使用的字符集 / set charset-in to what the system really writes, for example GB18030.",
        )
    elif decoded.disagrees:
        yield _finding(
            "warning",
            "charset",
            "MSH-18 of segment 1",
            f"MSH-18 写的是 {declared}，文字却是 {decoded.charset}"
            f" / MSH-18 says {declared}, and the text is {decoded.charset}.",
            f"改正 MSH-18，或设置 charset-in = {decoded.charset} / mend MSH-18, or set charset-in = {decoded.charset}.",
        )
    elif not ascii_only and not decoded.declared:
        yield _finding(
            "information",
            "charset",
            "MSH-18 of segment 1",
            f"MSH-18 为空，文字按 {decoded.charset} 读取 / MSH-18 is empty; the text was read as {decoded.charset}.",
            f"填写 MSH-18，或设置 charset-in = {decoded.charset} / fill it, or set charset-in = {decoded.charset}.",
        )


def _judged(arrival: Arrival) -> Iterator[Json]:
    """Yield what the standard and the feed's profile say of the message, as severe as the feed's ``validate`` makes it.

    A feed that rejects is refused for errors and told nothing else; one that warns is told everything afterwards; one that
    is not judged would hear none of it, and may still want to know.
    """
    message = arrival.message
    if message is None or is_ack(message):
        return
    if is_query(message) or is_order_query(message) or is_referral_query(message):
        # The door answers these without judging them.
        return
    level = feed_validation.level_of(arrival.endpoint)
    for one in feed_validation.findings(arrival):
        if level == "reject" and one.severity == "E":
            yield _by_standard("error", one)
        else:
            yield _by_standard("warning" if level == "warn" else "information", one)


def _by_standard(severity: str, found: AckError) -> Json:
    remedy = (
        "改正消息；也可将 profile 改为实际约定的内容，或将 validate 改为 warn"
        f" / mend the message ({found.code} of table 0357), or mend the profile, or set validate = warn."
        if severity == "error"
        else ""
    )
    return _finding(severity, "standard", found.location, found.text, remedy)


def _resource(sample: Sample) -> Json:
    """Return what is wrong with a FHIR resource, and with each that a Bundle holds."""
    found: list[Json] = []
    event = ""
    try:
        resource = loads(sample.raw)
        event = str(resource.get("resourceType", ""))
        parts = [("", resource)]
        if event == "Bundle":
            entries = enumerate(resource.get("entry") or ())
            parts += [(f"entry[{n}].", one["resource"]) for n, one in entries if isinstance(one.get("resource"), dict)]
        for place, one in parts:
            found += [
                _finding(issue.severity, "fhir", f"{place}{issue.expression}", issue.diagnostics)
                for issue in validate(one, None)
            ]
    except (MappingError, AttributeError, TypeError) as error:
        found.append(
            _finding("error", "fhir", sample.file, f"这不是 FHIR 资源 / This is no resource ({type(error).__name__}).")
        )
    return {
        "file": sample.file,
        "number": sample.number,
        "event": event,
        "version": "",
        "charset": "utf-8",
        "declared": "",
        "taken": not any(one["severity"] in {"error", "fatal"} for one in found),
        "findings": found,
        "fields": [],
    }


def _finding(severity: str, kind: str, where: str, message: str, remedy: str = "") -> Json:
    return {"severity": severity, "kind": kind, "where": where, "message": message, "remedy": remedy}


def summed(checked: Sequence[Json]) -> Json:
    """Return what a run came to: counts, and by event what became of each field."""
    fields: dict[tuple[str, str], Json] = {}
    for one in checked:
        for use in one["fields"]:
            row = fields.setdefault(
                (one["event"], use["field"]),
                {"event": one["event"], "field": use["field"], "uses": Counter(), "elements": set()},
            )
            row["uses"][use["use"]] += 1
            row["elements"].update(use["elements"])
    kinds = Counter(
        (
            finding["severity"],
            finding["kind"],
            re.sub(r" of segment \d+| \(segment \d+\)", "", finding["where"]),
            finding["message"],
        )
        for one in checked
        for finding in one["findings"]
    )
    return {
        "messages": len(checked),
        "taken": sum(one["taken"] for one in checked),
        "findings": [
            {"severity": key[0], "kind": key[1], "where": key[2], "message": key[3], "count": count}
            for key, count in sorted(kinds.items(), key=lambda item: (_rank(item[0][0]), -item[1], item[0]))
        ],
        "fields": [
            {**row, "uses": dict(row["uses"]), "elements": sorted(row["elements"])}
            for _, row in sorted(fields.items(), key=lambda item: (item[0][0], _place(item[0][1])))
        ],
    }


def _rank(severity: str) -> int:
    return ("fatal", "error", "warning", "information").index(severity)


def _place(field: str) -> tuple[str, int]:
    segment, _, number = field.partition("-")
    return segment, int(number)
