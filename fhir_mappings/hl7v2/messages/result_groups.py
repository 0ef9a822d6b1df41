"""The result groups of ORU and OUL (HL7 v2 chapters 7.3.1 to 7.3.8): each OBR with its order, results and specimens.

In ORU^R01 and OUL^R21 the ORC stands before its OBR and a specimen behind the results. In OUL^R22 and R23 the specimen
(and its container) comes first and the orders done on it follow; there and in OUL^R24 the ORC stands behind its OBR.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fhir_mappings.hl7v2.assembly import Assembly
from fhir_mappings.hl7v2.segments.spm import Sample, check_shared
from fhir_mappings.hl7v2.tokenizer import Segment

_SPECIMEN_FIRST = frozenset({"R22", "R23"})
_ORC_BEHIND = frozenset({"R22", "R23", "R24"})
MAPPED = frozenset(
    {
        *("MSH", "SFT", "PID", "PD1", "NTE", "PV1", "PV2", "ORC", "OBR", "TQ1", "TQ2", "OBX", "SPM", "SAC", "IPC"),
        *("DSC", "CTD"),
    }
)


@dataclass(slots=True)
class Reading:
    """One OBX with the notes behind it."""

    segment: Segment
    notes: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class Group:
    """One OBR with its ORC and its results."""

    orc: Segment | None
    obr: Segment
    notes: list[Segment] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


@dataclass(slots=True)
class PatientResult:
    """One patient with the visit and the reports."""

    pid: Segment
    pv1: Segment | None = None
    groups: list[Group] = field(default_factory=list)


class _Reader:
    def __init__(self, assembly: Assembly, trigger: str) -> None:
        self._assembly = assembly
        self._specimen_first = trigger in _SPECIMEN_FIRST
        self._orc_behind = trigger in _ORC_BEHIND
        self._orc: Segment | None = None
        self._samples: list[Sample] = []
        self._sample: Sample | None = None
        self._samples_used = True
        self.results: list[PatientResult] = []

    @property
    def _groups(self) -> list[Group]:
        return self.results[-1].groups if self.results else []

    def read(self, segment: Segment) -> None:
        name = segment.name
        if name == "PID":
            self.results.append(PatientResult(pid=segment))
            self._orc, self._sample, self._samples = None, None, []
        elif not self.results:
            pass
        elif name == "PV1":
            self.results[-1].pv1 = segment
        elif name == "ORC":
            self._read_orc(segment)
        elif name == "OBR":
            samples = self._samples if self._specimen_first else []
            self._groups.append(Group(orc=self._orc, obr=segment, samples=samples))
            self._orc, self._sample, self._samples_used = None, None, True
        elif name == "SPM" and (self._groups or self._specimen_first):
            self._begin_sample(segment)
        elif self._sample is not None:
            self._read_sample(self._sample, segment)
        elif self._groups:
            self._read_result(self._groups[-1], segment)

    def _read_orc(self, segment: Segment) -> None:
        last = self._groups[-1] if self._groups else None
        if self._orc_behind and last is not None and last.orc is None and not last.readings and self._samples_used:
            last.orc = segment
        else:
            self._orc = segment

    def _begin_sample(self, segment: Segment) -> None:
        self._sample = Sample(spm=segment)
        if not self._specimen_first:
            self._groups[-1].samples.append(self._sample)
            return
        # Specimens in a row share the results behind them; one that follows a result begins anew.
        self._samples = [*([] if self._samples_used else self._samples), self._sample]
        self._samples_used = False

    def _read_sample(self, sample: Sample, segment: Segment) -> None:
        match segment.name:
            case "OBX":
                # They describe the specimen, not the patient.
                sample.observations.append(segment)
            case "SAC":
                sample.containers.append(segment)
            case "NTE":
                sample.notes.append(segment)
            case _:
                self._skip(segment)

    def _read_result(self, group: Group, segment: Segment) -> None:
        match segment.name:
            case "OBX":
                group.readings.append(Reading(segment))
            case "NTE":
                (group.readings[-1].notes if group.readings else group.notes).append(segment)
            case _:
                self._skip(segment)

    def _skip(self, segment: Segment) -> None:
        if segment.name not in MAPPED:
            self._assembly.skip(segment)


def patient_results(assembly: Assembly, trigger: str = "") -> list[PatientResult]:
    """Return the message by patient and order, in one pass over its segments.

    Raises:
        MalformedError: code 100, there is no PID or no OBR; code 102, its orders share too many specimens.
    """
    assembly.require("PID")
    assembly.require("OBR")
    return grouped(list(assembly.message.segments), assembly, trigger)


def grouped(segments: list[Segment], assembly: Assembly, trigger: str = "") -> list[PatientResult]:
    """Return *segments*, which begin with a PID, by patient and order."""
    reader = _Reader(assembly, trigger)
    for segment in segments:
        reader.read(segment)
    check_shared(group.samples for one in reader.results for group in one.groups)
    return reader.results
