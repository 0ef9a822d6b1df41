"""The forms of an order: OML^O21, O33, OMG^O19 and OMI^O23 beside ORM^O01 (HL7 v2 chapters 4.4.1 to 4.4.10), their own segments.

OML^O21 and OMG came with v2.4, OML^O33 and OMI with v2.5, so an order in such a form is in that version at least. From v2.5 on priority
and time stand in TQ1 in place of ORC-7 and OBR-27. ORM^O01 stays what every partner of any version reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from fhir_mappings.hl7v2.builder import FieldValue, MessageBuilder
from fhir_mappings.hl7v2.outbound import fields
from fhir_mappings.hl7v2.outbound.target import OutboundTarget

Json = Mapping[str, Any]

Form = Literal["ORM^O01", "OML^O21", "OML^O33", "OMG^O19", "OMI^O23"]
FORMS: tuple[Form, ...] = get_args(Form)

#: The first version that has the form.
_SINCE: Mapping[str, str] = {"OML^O21": "2.4", "OML^O33": "2.5", "OMG^O19": "2.4", "OMI^O23": "2.5"}
#: IPC needs the numbers of the study, and these are not given out by the receiver; PS3.5 chapter 9 gives the form.
_DICOM = "urn:dicom:uid"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedStudy:
    """A study that an order is about.

    Attributes:
        uid: Study Instance UID (0020,000D).
        accession: Accession Number (0008,0050), if it has one.
        modality: Modality (0008,0060) of its first series.
    """

    uid: str
    accession: str = ""
    modality: str = ""


def ordered_study(study: Json) -> OrderedStudy | None:
    """Return what an order says of an ImagingStudy; ``None`` for one without Study Instance UID."""
    numbers = study.get("identifier", [])
    uid = next((str(one.get("value", "")) for one in numbers if one.get("system") == _DICOM), "")
    modalities = [str(one.get("code", "")) for one in study.get("modality", [])]
    uid = uid.removeprefix("urn:oid:")
    accession = fields.typed_number(numbers, "ACSN")
    return OrderedStudy(uid=uid, accession=accession, modality=modalities[0] if modalities else "") if uid else None


def form_for(form: Form, request: Json, studies: Sequence[OrderedStudy], specimens: Sequence[Json] = ()) -> Form:
    """Return the form that can say what is known of *request*.

    The newer forms require OBR, and with it OBR-4, so an order that is known by its number alone is an ORM^O01; IPC
    requires a Study Instance UID, so an order about no study is an OMG^O19, which has the same segments without IPC; and an
    OML^O33 begins with the specimen, so an order without one that SPM can describe is an OML^O21.
    """
    if form != "ORM^O01" and not request.get("code"):
        return "ORM^O01"
    if form == "OML^O33" and not specimens:
        return "OML^O21"
    return "OMG^O19" if form == "OMI^O23" and not studies else form


def target_for(form: Form, target: OutboundTarget) -> OutboundTarget:
    """Return *target* in a version that has *form*: its own, or the first with the form."""
    least = _SINCE.get(form, target.dialect.version_out)
    if target.dialect.version_out < least:
        return replace(target, dialect=replace(target.dialect, version_out=least))
    return target


def tq1(request: Json, priority: str, target: OutboundTarget) -> dict[int, FieldValue]:
    """Return TQ1 with when (TQ1-7) and how soon (TQ1-9) the order is wanted."""
    return {1: "1", 7: fields.time(request.get("occurrenceDateTime"), target), 9: priority}


def add_ipc(
    builder: MessageBuilder,
    request: Json,
    studies: Sequence[OrderedStudy],
    number: str,
    accession: str,
    target: OutboundTarget,
) -> None:
    """Add IPC of each study; the number of the order stands for the procedure that nobody else has numbered.

    IPC-1 to IPC-4 are EI and required (chapter 4.5.6): accession number, requested procedure, study, scheduled step. The
    last is known by its modality where the order has several steps.
    """
    name = target.sending_application
    procedure = _step_number(request, "requested-procedure") or number
    for study in studies:
        builder.segment(
            "IPC",
            {
                1: [study.accession or accession or number, name],
                2: [procedure, name],
                3: [study.uid, name],
                4: [_step_number(request, "scheduled-step", study.modality) or number, name],
                5: [study.modality, "", "DCM"] if study.modality else None,
            },
        )


def _step_number(request: Json, kind: str, modality: str = "") -> str:
    """Return the number of *kind* that the placer gave (IPC-2, IPC-4), the step of *modality* first; empty where none fits.

    Of several numbers none is taken that may be another study's.
    """
    found = [one for one in request.get("identifier", ()) if str(one.get("system", "")).rpartition("/")[2] == kind]
    fitting = [
        one
        for one in found
        if modality and any(extension.get("valueString") == modality for extension in one.get("extension", ()))
    ]
    chosen = fitting or [one for one in found if not one.get("extension")]
    return str(chosen[0]["value"]) if len(chosen) == 1 else ""


def add_zds(builder: MessageBuilder, studies: Sequence[OrderedStudy], target: OutboundTarget) -> None:
    """Add ZDS of each study: its Study Instance UID as RP (IHE RAD TF-2, 4.4.4.1.2.6)."""
    for study in studies:
        builder.segment("ZDS", {1: [study.uid, target.sending_application, "Application", "DICOM"]})
