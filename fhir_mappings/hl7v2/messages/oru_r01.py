"""ORU^R01, OUL^R21 to R24: results (HL7 v2 chapter 7.3) as FHIR DiagnosticReport and Observation. v2-to-FHIR: ORU_R01.

One OBR is one report. Text results are observations and, where the whole report is text, a readable document as well;
an encapsulated PDF becomes an attachment of the report.
"""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any

from fhir_mappings.hl7v2.assembly import Assembly, fill
from fhir_mappings.hl7v2.base import WorkflowEvent
from fhir_mappings.hl7v2.messages import reported_order
from fhir_mappings.hl7v2.messages.result_groups import Group, grouped, patient_results
from fhir_mappings.hl7v2.segments import ed, nte, obr, obx, obx_value, orc, pid, pv1, spm
from fhir_mappings.hl7v2.tokenizer import Segment

#: DiagnosticReport.status to the workflow event; other statuses move nothing.
_EVENTS = {
    "final": "report.final",
    "corrected": "report.corrected",
    "amended": "report.corrected",
    "appended": "report.corrected",
    "preliminary": "report.preliminary",
    "partial": "report.preliminary",
    "cancelled": "report.cancelled",
}

#: What makes a text the impression of an imaging report: LOINC, or what Chinese systems call it.
_IMPRESSION_CODES = frozenset({"19005-8", "8251-1"})
_IMPRESSION_NAMES = ("诊断提示", "诊断意见", "影像诊断", "诊断结论", "检查结论", "印象", "结论", "IMPRESSION")

#: What a report states completely; ``result`` is united, because a correction may carry one result alone.
_STATED_WHOLE = frozenset({"presentedForm", "conclusion", "resultsInterpreter", "performer"})


def translate(assembly: Assembly, trigger: str) -> None:
    """Add the reports of the message.

    Raises:
        MalformedError: PID or OBR is missing (100); PID-3, OBR-3, OBR-4 or OBX-3 is not valued (101); encapsulated data
            cannot be decoded (102); OBR-25 denies the order or the patient (204).
    """
    first: str | None = None
    for result in patient_results(assembly, trigger):
        patient_id = pid.add_patient(result.pid, assembly)
        first = first or patient_id
        encounter: str | None = None
        if result.pv1 is not None:
            visit = pv1.encounter(result.pv1, assembly)
            encounter = pv1.intern_encounter(visit, assembly) if visit is not None else None
        ordinals: dict[tuple[str, str, str], Counter[str]] = {}
        for group in result.groups:
            _report(group, encounter, ordinals, assembly)
    assembly.patient_id = first


def add_prior_results(segments: list[Segment], assembly: Assembly) -> list[str]:
    """Add the earlier results that stand behind an order (PRIOR_RESULT); return the references of their reports.

    They are of the visit that their own PV1 names, and of none without it. They are told and not reported, so that no workflow moves. One without a number of its own cannot be kept apart from
    the next and is left out, with an issue.

    Raises:
        MalformedError: as :func:`translate`.
    """
    made: list[str] = []
    if not segments:
        return made
    head = [assembly.require("PID")] if segments[0].name != "PID" else []
    told = len(assembly.workflow_events)
    ordinals: dict[tuple[str, str, str], Counter[str]] = {}
    for result in grouped([*head, *segments], assembly):
        visit = pv1.encounter(result.pv1, assembly) if result.pv1 is not None else None
        encounter = pv1.intern_encounter(visit, assembly) if visit is not None else None
        for group in result.groups:
            if orc.numbers(group.orc, group.obr).filler_key is None or not obx.code_of(group.obr.field(4)):
                assembly.skip(group.obr)
                continue
            made.append(_report(group, encounter, ordinals, assembly))
    del assembly.workflow_events[told:]
    return made


def _report(
    group: Group,
    encounter: str | None,
    ordinals: dict[tuple[str, str, str], Counter[str]],
    assembly: Assembly,
) -> str:
    numbers = orc.numbers(group.orc, group.obr)
    key = numbers.filler_key
    if key is None:
        raise assembly.missing(group.obr, 3, "Send the filler order number in OBR-3 or the placer's in OBR-2.")
    service = obx.code_of(group.obr.field(4))
    if not service:
        raise assembly.missing(group.obr, 4, "Say in OBR-4 what was done.")
    filled = fill(obr.REPORT_ROWS, group.obr, assembly)
    identity = assembly.ctx.id("DiagnosticReport", key[0], f"{key[1]}|{service}")
    request = reported_order.stand_in(group, numbers, encounter, assembly)
    specimens = spm.add_specimens(group.samples, group.obr, assembly, order_key=key[1])
    results = obx.Results(
        key=key,
        service=service,
        status_default=_default_status(group.obr),
        effective=obr.effective(group.obr, assembly),
        encounter=encounter,
        based_on=request,
        specimen=specimens[0] if len(specimens) == 1 else None,
        category=_categories(filled.elements),
        ordinals=ordinals.setdefault((*key, service), Counter()),
    )
    report: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "id": identity,
        "identifier": orc.identifiers(numbers, assembly) + obr.study_identifiers(group.obr, assembly),
    }
    if request:
        report["basedOn"] = [{"reference": request}]
    documents = _results(group, results, f"DiagnosticReport/{identity}", assembly)
    status = obr.report_status(group.obr, results.statuses, assembly)
    report["status"] = status
    if request:
        reported_order.reported(request, group, numbers, status, assembly)
    report.update(filled.elements)
    report["subject"] = pid.patient_reference(assembly)
    if encounter:
        report["encounter"] = {"reference": encounter}
    report.update(obr.effective(group.obr, assembly))
    performers = obr.performers(group.obr, assembly)
    if performers:
        report["performer"] = performers
    if specimens:
        report["specimen"] = [{"reference": reference} for reference in specimens]
    if results.references:
        report["result"] = [{"reference": reference} for reference in results.references]
    conclusion = _conclusion(group)
    if conclusion:
        report["conclusion"] = conclusion
    forms = _readable(group, filled.elements) + documents
    if forms:
        report["presentedForm"] = forms
    remarks = nte.notes(group.notes)
    if remarks:
        # DiagnosticReport has no note in R4, so what stands behind the OBR goes to the conclusion's end.
        report["conclusion"] = "\n".join(filter(None, [report.get("conclusion"), remarks[0]["text"]]))
    reference = assembly.upsert(report, cleared=filled.open_clears() | _STATED_WHOLE, guard="status")
    _announce(reference, request, status, numbers, results, assembly)
    return reference


def _default_status(segment: Segment) -> str:
    """What an OBX without OBX-11 is: as far along as the report."""
    return {"F": "final", "P": "preliminary", "C": "corrected", "R": "preliminary", "X": "cancelled"}.get(
        segment.get(25).strip().upper(), "unknown"
    )


def _categories(elements: dict[str, Any]) -> list[dict[str, Any]]:
    """Observation.category by the section of the report: imaging or laboratory, as FHIR's own code system has it."""
    sections = {coding["code"] for item in elements.get("category", []) for coding in item["coding"]}
    imaging = {"RAD", "RX", "CT", "NMR", "NMS", "RUS", "OUS", "VUS", "CUS", "XRC", "CTH"}
    code = "imaging" if sections & imaging else "laboratory" if sections else ""
    system = "http://terminology.hl7.org/CodeSystem/observation-category"
    return [{"coding": [{"system": system, "code": code}]}] if code else []


def _results(group: Group, results: obx.Results, report: str, assembly: Assembly) -> list[dict[str, Any]]:
    """Add the observations; return the attachments that the OBX of type ED carry."""
    documents: list[dict[str, Any]] = []
    index = 0
    while index < len(group.readings):
        reading = group.readings[index]
        index += 1
        kind = reading.segment.get(2).strip().upper()
        if kind == "ED":
            # v2-to-FHIR makes an Observation with an R5 extension; readers look for the PDF of a report in its
            # presentedForm.
            documents.append(ed.attachment(reading.segment, report, assembly))
            continue
        if kind == "RP":
            pointer = ed.pointer(reading.segment, assembly)
            if pointer:
                documents.append(pointer)
            continue
        lines: list[Segment] = []
        notes = list(reading.notes)
        while index < len(group.readings) and obx.continues(reading.segment, group.readings[index].segment):
            lines.append(group.readings[index].segment)
            notes += group.readings[index].notes
            index += 1
        obx.add_observation(reading.segment, lines, notes, results, assembly)
    return documents


def _texts(group: Group) -> list[tuple[str, str]]:
    """The (title, text) of the text results in order, lines of one result joined."""
    made: list[tuple[str, str]] = []
    previous: Segment | None = None
    for reading in group.readings:
        segment = reading.segment
        if segment.get(2).strip().upper() not in obx_value.TEXT_TYPES:
            continue
        # A note behind a text is read where it stands.
        notes = [item.text() for note in reading.notes for item in note.field(3).repetitions]
        text = "\n".join([*(item.text() for item in segment.field(5).repetitions), *notes])
        if previous is not None and obx.continues(previous, segment):
            title, before = made[-1]
            made[-1] = (title, f"{before}\n{text}")
        else:
            made.append((segment.get(3, 2).strip() or segment.get(3, 5).strip(), text))
        previous = segment
    return made


def _readable(group: Group, elements: dict[str, Any]) -> list[dict[str, Any]]:
    """A report of text alone (imaging, pathology) as one plain document in the order of its OBX."""
    kinds = {reading.segment.get(2).strip().upper() for reading in group.readings}
    if not kinds & {"TX", "FT"} or kinds - obx_value.TEXT_TYPES - {"ED", "RP"}:
        return []
    text = "\n\n".join(f"{title}：\n{text}" if title else text for title, text in _texts(group))
    data = text.encode("utf-8")
    return [
        {
            "contentType": "text/plain; charset=utf-8",
            "data": base64.b64encode(data).decode(),
            "title": elements.get("code", {}).get("text", "") or "报告 report",
        }
    ]


def _conclusion(group: Group) -> str:
    parts = []
    for reading in group.readings:
        segment = reading.segment
        if segment.get(2).strip().upper() not in obx_value.TEXT_TYPES:
            continue
        name = (segment.get(3, 2).strip() or segment.get(3, 5).strip()).upper()
        if obx.observation_code(segment) in _IMPRESSION_CODES or any(word in name for word in _IMPRESSION_NAMES):
            parts += [item.text() for item in segment.field(5).repetitions]
    return "\n".join(part for part in parts if part.strip())


def _announce(
    reference: str,
    request: str | None,
    status: str,
    numbers: orc.OrderNumbers,
    results: obx.Results,
    assembly: Assembly,
) -> None:
    kinds: list[tuple[str, tuple[str, ...]]] = []
    if status in _EVENTS:
        kinds.append((_EVENTS[status], tuple(filter(None, (request, reference)))))
    kinds += [("observation.critical", (item, reference)) for item in results.critical]
    for kind, focus in kinds:
        assembly.workflow_events.append(
            WorkflowEvent(
                kind=kind,
                focus=focus,
                placer_number=numbers.placer,
                filler_number=numbers.filler,
                receiver=assembly.message.get("MSH-6").strip(),
            )
        )
