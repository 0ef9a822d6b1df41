"""MFK: what answers a master file message, with an MFA for each record (HL7 v2 chapter 8.4.1, 8.5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.ack import AckCode, AckError, copied, error_of, v2_time
from fhir_mappings.hl7v2.builder import FieldValue
from fhir_mappings.hl7v2.context import MappingContext
from fhir_mappings.hl7v2.messages.mfn import Record, records
from fhir_mappings.hl7v2.queries.head import begin
from fhir_mappings.hl7v2.tokenizer import Message


def is_master_file(message: Message | None) -> bool:
    """Return whether *message* is answered by an MFK."""
    return message is not None and message.get("MSH-9.1").strip().upper() == "MFN"


def build(
    original: Message,
    ctx: MappingContext,
    *,
    code: AckCode,
    control_id: str,
    now: datetime,
    errors: Sequence[AckError] = (),
    application: str = "YIXIE",
    facility: str = "HUB",
) -> str:
    """Return the MFK for *original*. Where a message is taken, AE says that a record of it is not, and its MFA why.

    *now* is shown as given, so hand it over in the sender's time zone.
    """
    try:
        judged = records(original, ctx) if code == "AA" else []
    except MappingError:
        # The message as a whole was refused; its error says so.
        judged = []
    failed = [one.error for one in judged if one.error is not None]
    if failed:
        code, errors = "AE", [error_of(one) for one in failed[:10]]
    builder = begin(
        original,
        # One structure answers every master file (table 0354).
        ["MFK", original.get("MSH-9.2").strip().upper(), "MFK_M01"],
        code=code,
        errors=errors,
        application=application,
        facility=facility,
        control_id=control_id,
        now=now,
    )
    mfi = original.first("MFI")
    if mfi is not None:
        builder.segment("MFI", {number: copied(mfi.field(number)) for number in range(1, mfi.field_count + 1)})
    # Table 0155 for MFI-6: NE wants no record told, ER the failed, SU the others; every other value all.
    wanted = mfi.get(6).strip().upper() if mfi is not None else "AL"
    for one in judged:
        if wanted == "NE" or (wanted == "ER" and one.error is None) or (wanted == "SU" and one.error is not None):
            continue
        builder.segment("MFA", _mfa(one, now))
    return builder.to_text()


def _mfa(record: Record, now: datetime) -> dict[int, FieldValue]:
    mfe = record.mfe
    told: FieldValue = ["S", "Successful", "HL70181"]
    if record.error is not None:
        told = ["U", f"{record.error.message} {record.error.remedy}".strip(), "HL70181"]
    return {1: mfe.get(1), 2: mfe.get(2), 3: v2_time(now), 4: told, 5: copied(mfe.field(4)), 6: copied(mfe.field(5))}
