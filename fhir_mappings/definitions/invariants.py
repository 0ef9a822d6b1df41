"""The invariants of datatypes and resources that a wrong sender breaks most (https://hl7.org/fhir/R4/conformance-rules.html).

Each is a named function over the JSON object and yields the key and wording of every rule that is broken. They run on
unchecked input, so they look before they touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fhir_mappings.definitions.dates import range_us
from fhir_mappings.errors import MalformedError

_Value = Mapping[str, Any]
_Broken = Iterator[tuple[str, str]]


def _extension(value: _Value) -> _Broken:
    has_value = any(name.startswith(("value", "_value")) for name in value)
    if has_value == ("extension" in value):
        yield "ext-1", "An extension has either a value or extensions of its own."


def _period(value: _Value) -> _Broken:
    start, end = value.get("start"), value.get("end")
    if isinstance(start, str) and isinstance(end, str):
        try:
            if range_us(start)[0] >= range_us(end)[1]:
                yield "per-1", "The end lies before the start."
        except MalformedError:
            return


def _quantity(value: _Value) -> _Broken:
    if "code" in value and "system" not in value:
        yield "qty-3", "A unit code needs its system."


def _contact_point(value: _Value) -> _Broken:
    if "value" in value and "system" not in value:
        yield "cpt-2", "A contact value needs its system."


def _attachment(value: _Value) -> _Broken:
    if "data" in value and "contentType" not in value:
        yield "att-1", "Data needs a contentType."


def _patient_contact(value: _Value) -> _Broken:
    if not value.keys() & {"name", "telecom", "address", "organization"}:
        yield "pat-1", "A contact needs a name, telecom, address or organization."


def _observation(value: _Value) -> _Broken:
    has_value = any(name.startswith("value") for name in value)
    if has_value and "dataAbsentReason" in value:
        yield "obs-6", "dataAbsentReason belongs only where there is no value."


def _organization(value: _Value) -> _Broken:
    if "identifier" not in value and "name" not in value:
        yield "org-1", "An organization needs an identifier or a name."


def _bundle_entry(value: _Value) -> _Broken:
    if not value.keys() & {"resource", "request", "response"}:
        yield "bdl-5", "An entry needs a resource, a request or a response."


#: By type name or backbone path.
INVARIANTS: Final[dict[str, Callable[[_Value], _Broken]]] = {
    "Extension": _extension,
    "Period": _period,
    "Quantity": _quantity,
    "Age": _quantity,
    "Count": _quantity,
    "Distance": _quantity,
    "Duration": _quantity,
    "ContactPoint": _contact_point,
    "Attachment": _attachment,
    "Patient.contact": _patient_contact,
    "Observation": _observation,
    "Observation.component": _observation,
    "Organization": _organization,
    "Bundle.entry": _bundle_entry,
}
