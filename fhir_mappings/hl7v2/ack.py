"""Acknowledgements: HL7 v2 chapter 2.9 (original and enhanced mode), MSA 2.14.8 and ERR 2.14.5, tables 0008 and 0357.

What the hub answers is decided here and only here; the door adds the framing and the character set. An acknowledgement
is never acknowledged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from fhir_mappings.errors import MalformedError, MappingError
from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder, Repeat
from fhir_mappings.hl7v2.escapes import STANDARD
from fhir_mappings.hl7v2.tokenizer import Field, Message

AckCode = Literal["AA", "AE", "AR", "CA", "CE", "CR"]

#: ``stored``: durable. ``refused``: type, event or version that the hub does not do (codes 200 to 203), or no message at
#: all. ``invalid``: well formed but wrong in a segment or field. ``unstorable``: nothing could be written down.
Outcome = Literal["stored", "invalid", "refused", "unstorable"]

_ORIGINAL: Final[dict[Outcome, AckCode]] = {"stored": "AA", "invalid": "AE", "refused": "AR", "unstorable": "AE"}
_ACCEPT: Final[dict[Outcome, AckCode]] = {"stored": "CA", "invalid": "CA", "refused": "CR", "unstorable": "CE"}
_APPLICATION: Final[dict[Outcome, AckCode]] = {
    "stored": "AA",
    "invalid": "AE",
    "refused": "AR",
    "unstorable": "AE",
}

#: HL7 table 0357, the conditions that the hub reports.
CONDITIONS: Final[dict[int, str]] = {
    0: "Message accepted",
    100: "Segment sequence error",
    101: "Required field missing",
    102: "Data type error",
    103: "Table value not found",
    200: "Unsupported message type",
    201: "Unsupported event code",
    202: "Unsupported processing id",
    203: "Unsupported version id",
    204: "Unknown key identifier",
    205: "Duplicate key identifier",
    206: "Application record locked",
    207: "Application internal error",
}

_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})(?:-(\d+)(?:\.(\d+))?)?(?: of segment (\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class AckError:
    """One ERR segment.

    Attributes:
        location: ``PID-3 of segment 2`` as :class:`fhir_mappings.errors.MappingError` words it; may be empty.
        code: HL7 table 0357.
        severity: HL7 table 0516, ``E``, ``W`` or ``I``.
        text: for the person who mends it; without patient data.
    """

    location: str
    code: int
    text: str
    severity: str = "E"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedAck:
    """What a partner answered.

    Attributes:
        code: MSA-1; ``accepted`` says what it means.
        control_id: MSA-2, the MSH-10 it answers.
        text: MSA-3 and the ERR texts, in the partner's words.
    """

    code: str
    control_id: str
    text: str

    @property
    def accepted(self) -> bool:
        """Whether the partner took the message (AA or CA)."""
        return self.code in {"AA", "CA"}

    @property
    def refused(self) -> bool:
        """Whether sending the same message again cannot help (AR or CR)."""
        return self.code in {"AR", "CR"}


def error_of(error: MappingError) -> AckError:
    """Return the ERR that reports *error*; an error without a code of its own is an internal one (207)."""
    text = f"{error.message} {error.remedy}".strip()
    return AckError(location=error.where, code=207 if error.code is None else error.code, text=text)


def outcome_of(error: MappingError) -> Outcome:
    """Return whether *error* refuses the message for what it is (200 to 203) or finds it wrong in a place."""
    return "refused" if error.code is not None and 200 <= error.code <= 203 else "invalid"


def is_ack(message: Message) -> bool:
    """Whether *message* is a general acknowledgement; application responses such as RRI are messages of their own."""
    return message.get("MSH-9.1").strip().upper() in {"ACK", "MCF"}


def is_enhanced(message: Message | None) -> bool:
    """Whether the sender asked for enhanced mode: MSH-15 or MSH-16 is valued (chapter 2.9.3)."""
    return message is not None and bool(message.get("MSH-15").strip() or message.get("MSH-16").strip())


def _wanted(condition: str, *, success: bool) -> bool:
    # Table 0155. In enhanced mode an empty field means that this acknowledgement is not wanted.
    match condition.strip().upper():
        case "AL":
            return True
        case "SU":
            return success
        case "ER":
            return not success
        case _:
            return False


def immediate_code(message: Message | None, outcome: Outcome) -> AckCode | None:
    """Return MSA-1 of the answer on the same connection, or ``None`` when the sender wants none.

    Original mode answers AA, AE or AR at once; enhanced mode answers CA, CE or CR as MSH-15 asks. A message that could
    not be cut into segments gets AR, because it cannot have said which mode it wants.
    """
    if message is not None and is_ack(message):
        return None
    if not is_enhanced(message):
        return _ORIGINAL[outcome]
    assert message is not None
    code = _ACCEPT[outcome]
    return code if _wanted(message.get("MSH-15"), success=code == "CA") else None


def application_code(message: Message, outcome: Outcome, *, accepted: bool = False) -> AckCode | None:
    """Return MSA-1 of the later application acknowledgement of enhanced mode, or ``None`` when MSH-16 wants none.

    After a CR or CE there is nothing left to acknowledge; where MSH-15 keeps those quiet, this answer is the only one.
    *accepted* says that the message was accepted (CA) before its outcome was known: then no CR has told of a refusal.
    """
    if is_ack(message) or not is_enhanced(message):
        return None
    if not accepted and _ACCEPT[outcome] != "CA" and _wanted(message.get("MSH-15"), success=False):
        return None
    return _APPLICATION[outcome] if _wanted(message.get("MSH-16"), success=outcome == "stored") else None


def v2_time(moment: datetime) -> str:
    """Return *moment* to the second as its own clock shows it; receivers read it in the time zone agreed with them."""
    return moment.strftime("%Y%m%d%H%M%S")


def build_ack(
    original: Message | None,
    *,
    code: AckCode,
    control_id: str,
    now: datetime,
    errors: Sequence[AckError] = (),
    text: str = "",
    application: str = "YIXIE",
    facility: str = "HUB",
) -> str:
    """Return the acknowledgement of *original* as text; ``None`` stands for input without a usable MSH.

    MSH-3 to MSH-6 are swapped, MSH-11, MSH-12 and MSH-18 are the sender's own, MSA-2 is the sender's MSH-10, and the
    sender's delimiters are used. *now* is shown as given, so hand it over in the sender's time zone.
    """
    version = (original.get("MSH-12").strip() if original else "") or "2.4"
    builder = MessageBuilder(original.delimiters if original else STANDARD)
    header: dict[int, FieldValue] = {
        3: application,
        4: facility,
        7: v2_time(now),
        9: _type_of_ack(original, version),
        10: control_id,
        11: "P",
        12: version,
    }
    if original is not None:
        msh = original.segments[0]
        header[5] = copied(msh.field(3))
        header[6] = copied(msh.field(4))
        # The hub answers under the name it was called by, so that a sender who checks MSH-3 recognises the answer.
        header[3] = copied(msh.field(5)) or application
        header[4] = copied(msh.field(6)) or facility
        header[11] = copied(msh.field(11)) or "P"
        header[12] = copied(msh.field(12)) or version
        header[18] = copied(msh.field(18))
    builder.segment("MSH", header)
    msa: dict[int, FieldValue] = {1: code, 2: original.get("MSH-10") if original else ""}
    summary = text or (errors[0].text if errors else "")
    if summary:
        msa[3] = summary
    builder.segment("MSA", msa)
    for error in errors:
        builder.segment("ERR", err(error, version))
    return builder.to_text()


def parse_ack(message: Message) -> ParsedAck:
    """Return what the acknowledgement or response *message* says.

    Raises:
        MalformedError: there is no MSA, or its code is none of table 0008.
    """
    msa = message.first("MSA")
    if msa is None:
        raise MalformedError("The answer has no MSA segment.", where="MSA", remedy="Answer with MSA.", code=100)
    code = msa.get(1).strip().upper()
    if code not in {"AA", "AE", "AR", "CA", "CE", "CR"}:
        raise MalformedError(
            "MSA-1 is none of AA, AE, AR, CA, CE, CR.",
            where=f"MSA-1 of segment {msa.index + 1}",
            remedy="Send a code of HL7 table 0008.",
            code=103,
        )
    reasons = [err.get(8) or err.get(7) or err.get(3, 2) or err.get(1, 4, 2) for err in message.all("ERR")]
    texts = [text.strip() for text in (msa.get(3), *reasons)]
    return ParsedAck(
        code=code, control_id=msa.get(2).strip(), text="; ".join(dict.fromkeys(text for text in texts if text))
    )


def copied(content: Field) -> FieldValue:
    """Return *content* as a value for :class:`MessageBuilder`: the same meaning, escaped anew."""
    if content.is_absent or content.is_null:
        return None
    repetitions = [
        [list(component.subcomponents) for component in repetition.components] for repetition in content.repetitions
    ]
    return repetitions[0] if len(repetitions) == 1 else Repeat(repetitions)


def _type_of_ack(original: Message | None, version: str) -> FieldValue:
    event = original.get("MSH-9.2").strip() if original else ""
    if not event:
        return "ACK"
    # The third component came with v2.3.1; older parsers take it for an error.
    return ["ACK", event] if version in {"2.1", "2.2", "2.3"} else ["ACK", event, "ACK"]


def err(error: AckError, version: str) -> dict[int, FieldValue]:
    """Return the fields of ERR that report *error* to a reader of *version*."""
    condition = CONDITIONS.get(error.code, CONDITIONS[207])
    place: list[str] = []
    found = _PLACE.match(error.location)
    if found:
        segment, number, component, _position = found.groups()
        place = [segment, "1", number or "", *(["1", component] if component else [])]
    if version in {"2.1", "2.2", "2.3", "2.3.1", "2.4"}:
        # Until v2.4 ERR-1 holds the place and the coded error together (ELD).
        eld: list[str | list[str]] = [*(place[:3] if place else ["", "", ""]), [str(error.code), condition, "HL70357"]]
        return {1: eld}
    fields: dict[int, FieldValue] = {3: [str(error.code), condition, "HL70357"], 4: error.severity, 8: error.text}
    if place:
        fields[2] = place
    return fields
