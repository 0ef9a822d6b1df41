"""From a field to a FHIR element: the data types of :mod:`fhir_mappings.hl7v2.datatypes` as row converters.

A converter takes the field and the place it stands at; what it cannot carry over it reports there.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Place
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.tokenizer import Field, Repetition, Segment

Json = dict[str, Any]

_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"


def code_of(content: Field) -> str:
    """The first component of the first repetition, trimmed."""
    return content.component(1).strip()


def text_of(content: Field) -> str:
    """The second component of the first repetition (CE.2, CWE.2), trimmed."""
    return content.component(2).strip()


def system(ctx: MappingContext, kind: str) -> str:
    """The identifier system of the sender's own numbers of *kind*."""
    return ctx.system(kind)


def institution(code: str, ctx: MappingContext, display: str = "") -> Json:
    """A reference to a member institution by its code; which Organization that is, the hub knows."""
    reference: Json = {
        "type": "Organization",
        "identifier": {"system": f"{ctx.base}/NamingSystem/member", "value": code},
    }
    if display:
        reference["display"] = display
    return reference


def segment_tag(name: str, ctx: MappingContext) -> Json:
    """``meta`` that marks a resource as one of a list in an ADT, so that a later list can retire it."""
    return {"tag": [{"system": f"{ctx.base}/CodeSystem/v2-segment", "code": name}]}


def order_identifier(ctx: MappingContext, kind: str, code: str, value: str, namespace: str = "") -> Json:
    """An Identifier of an order, specimen or result with its type of table 0203."""
    return {
        "type": {"coding": [{"system": _V2_0203, "code": code}]},
        "system": ctx.system(kind, namespace),
        "value": value,
    }


def _each(content: Field) -> list[Repetition]:
    return [repetition for repetition in content.repetitions if repetition.raw and not repetition.is_null]


def identifiers(content: Field, place: Place) -> list[Json]:
    """CX repetitions as Identifiers; a repetition that only names a type says nothing."""
    return [made for item in _each(content) if (made := datatypes.cx_identifier(item, place.ctx))]


def national_id(content: Field, place: Place) -> Json | None:
    """A social security number in the USA; in China this is where the number of the identity card stands."""
    value = code_of(content)
    return datatypes.national_id_identifier(value, place.ctx) if value else None


def names(content: Field, place: Place) -> list[Json]:
    """XPN repetitions as HumanNames."""
    return [made for item in _each(content) for made in datatypes.xpn_human_names(item, place.ctx)]


def aliases(content: Field, place: Place) -> list[Json]:
    """XPN repetitions as HumanNames that the person also goes by."""
    return [{"use": "nickname", **made} for made in names(content, place)]


def name_text(content: Field, place: Place) -> str:
    """The first name as text."""
    made = names(content, place)
    return str(made[0]["text"]) if made else ""


def addresses(content: Field, place: Place) -> list[Json]:
    """XAD repetitions as Addresses."""
    return [made for item in _each(content) if (made := datatypes.xad_address(item, place.ctx))]


def telecoms(content: Field, place: Place) -> list[Json]:
    """XTN repetitions as ContactPoints."""
    return [made for item in _each(content) for made in datatypes.xtn_contact_points(item, place.ctx)]


def work_telecoms(content: Field, place: Place) -> list[Json]:
    """XTN repetitions of a business number."""
    return [made for item in _each(content) for made in datatypes.xtn_contact_points(item, place.ctx, use="work")]


def concept_of(repetition: Repetition, place: Place) -> Json | None:
    """One CWE, CE or bare code as a CodeableConcept."""
    return datatypes.cwe_codeable_concept(repetition, place.ctx)


def concept(content: Field, place: Place) -> Json | None:
    """The first repetition as a CodeableConcept."""
    return concept_of(content.first, place)


def concepts(content: Field, place: Place) -> list[Json]:
    """Every repetition as a CodeableConcept."""
    return [made for item in _each(content) if (made := concept_of(item, place))]


def date(content: Field, place: Place) -> str | None:
    """A date; a birth date padded with zeros to a time stays a date."""
    text = content.component(1).strip()
    made = datatypes.dtm_date(text, place.ctx)
    if made is None and text:
        place.warn(f"The date does not exist or is not YYYY[MM[DD]]; it was left out.{_hint(text, place)}")
    return made


def _hint(text: str, place: Place) -> str:
    """What to do about a date that only another form of the sender's dates would read; empty where that would not help."""
    if datatypes.is_separated(text) and place.ctx.dialect.dates == "compact":
        return " If this sender writes dashes or slashes, set dates=separated at its endpoint."
    return ""


def moment_text(text: str, place: Place) -> str | None:
    """A dateTime from the text of a DTM."""
    text = text.strip()
    if not text or text == '""':
        return None
    made = datatypes.dtm_datetime(text, place.ctx)
    if made is None:
        place.warn(f"The time does not exist or is not YYYY[MM[DD[HHMM[SS]]]]; it was left out.{_hint(text, place)}")
    return made


def moment(content: Field, place: Place) -> str | None:
    """A dateTime."""
    return moment_text(content.component(1), place)


def instant(content: Field, place: Place) -> str | None:
    """An instant: FHIR wants the second, so a bare date is left out with an issue."""
    made = moment(content, place)
    if made is not None and "T" not in made:
        place.warn("The moment has no time of day, which FHIR requires here; it was left out.")
        return None
    return made


def decimal(content: Field, place: Place) -> Decimal | None:
    """An exact number."""
    made = datatypes.nm_value(content.component(1))
    if made is None:
        place.warn("The value is no number; it was left out.")
    return made


def practitioners(content: Field, place: Place) -> list[Json]:
    """XCN repetitions as references; each numbered person is stated once."""
    made = []
    for item in _each(content):
        person = datatypes.xcn_practitioner(item, place.ctx)
        if person:
            place.assembly.intern(person)
        reference = datatypes.xcn_practitioner_ref(item, place.ctx)
        if reference and reference not in made:
            made.append(reference)
    return made


def ndl_practitioners(content: Field, place: Place) -> list[Json]:
    """NDL repetitions (OBR-32 to OBR-35) as references; each numbered person is stated once."""
    made = []
    for item in _each(content):
        person = datatypes.ndl_practitioner(item, place.ctx)
        if person:
            place.assembly.intern(person)
        reference = datatypes.ndl_practitioner_ref(item, place.ctx)
        if reference and reference not in made:
            made.append(reference)
    return made


def organizations(content: Field, place: Place) -> list[Json]:
    """XON repetitions; a member goes by its code, any other organisation by the name that the sender gives it."""
    made: list[Json] = []
    for item in content.repetitions:
        name = item.component(1).strip()
        number = item.component(10).strip() or item.component(3).strip()
        owner = place.ctx.dialect.authorities.get(number)
        if owner is not None:
            made.append(institution(owner, place.ctx, name))
        elif name:
            made.append({"type": "Organization", "display": name})
    return made


def location(content: Field, place: Place) -> Json | None:
    """A PL as a reference to its smallest place; the places it lies in are stated once each."""
    for item in datatypes.pl_locations(content.first, place.ctx):
        place.assembly.intern(item)
    return datatypes.pl_reference(content.first, place.ctx)


def diagnosis(content: Field, place: Place) -> Json | None:
    """DG1-3 as a CodeableConcept; a code without a system takes the one that DG1-2 names."""
    made = concept(content, place)
    scheme = place.segment.get(2).strip()
    if made and scheme and not content.component(3).strip() and made.get("coding"):
        made["coding"][0]["system"] = place.ctx.code_system(scheme)
    return made


def first(segment: Segment, number: int) -> str:
    """The first component of the first repetition of a field, trimmed; empty when absent or null."""
    return segment.get(number).strip()
