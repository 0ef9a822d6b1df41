"""RXC and the product fields of RXO, RXE and RXD: what a medicine is made of (HL7 v2 chapter 4.14.3) as FHIR Medication.

v2-to-FHIR (RXO[MedicationRequest]) puts form and strength into a Medication that the request refers to. The code of the
medicine stays in ``medicationCodeableConcept``, where searches by code find it; the rest is a contained Medication under
``supportingInformation``.
"""

from __future__ import annotations

from typing import Any

from fhir_mappings.hl7v2 import datatypes
from fhir_mappings.hl7v2.assembly import Assembly, Place
from fhir_mappings.hl7v2.segments import convert
from fhir_mappings.hl7v2.tokenizer import Segment

Json = dict[str, Any]

_LOCAL_ID = "product"


def quantity(segment: Segment, number: int, unit: int, assembly: Assembly) -> Json | None:
    """Return the Quantity of an NM field and the field of its unit, or ``None`` where it is no number."""
    text = segment.get(number).strip()
    if not text:
        return None
    made = datatypes.nm_quantity(text, segment.field(unit).first, assembly.ctx)
    if made is None:
        Place(assembly, segment, number).warn("The amount is no number; it was left out.")
    return made


def product(
    code: Json,
    assembly: Assembly,
    *,
    form: Json | None = None,
    strength: Json | None = None,
    volume: Json | None = None,
    components: list[Segment] | None = None,
    lot: str = "",
    expires: str = "",
    manufacturer: str = "",
) -> Json:
    """Return ``contained`` and ``supportingInformation`` for what is known of a product beyond its *code*; often empty."""
    medication: Json = {"resourceType": "Medication", "id": _LOCAL_ID, "code": code}
    if manufacturer:
        medication["manufacturer"] = {"display": manufacturer}
    if form:
        medication["form"] = form
    ingredients: list[Json] = []
    if strength:
        ingredients.append({"itemCodeableConcept": code, "strength": _ratio(strength, volume)})
    for segment in components or ():
        item = convert.concept(segment.field(2), Place(assembly, segment, 2))
        if item is None:
            continue
        ingredient: Json = {"itemCodeableConcept": item, "isActive": segment.get(1).strip().upper() != "B"}
        amount = quantity(segment, 3, 4, assembly) or quantity(segment, 5, 6, assembly)
        if amount:
            ingredient["strength"] = _ratio(amount, None)
        ingredients.append(ingredient)
    if ingredients:
        medication["ingredient"] = ingredients
    batch = {key: value for key, value in (("lotNumber", lot), ("expirationDate", expires)) if value}
    if batch:
        medication["batch"] = batch
    if medication.keys() == {"resourceType", "id", "code"}:
        return {}
    return {"contained": [medication], "supportingInformation": [{"reference": f"#{_LOCAL_ID}"}]}


def _ratio(numerator: Json, denominator: Json | None) -> Json:
    # A Ratio has both sides or none (rat-1); without a volume the strength is that of one unit of the product.
    return {"numerator": numerator, "denominator": denominator or {"value": 1}}
