"""PPR^PC1, PC2, PC3: problems added, updated and deleted (HL7 v2 chapter 12.2.1) as FHIR Condition.

The action code of each PRB decides (table 0287), the event only where a PRB has none. Goals (GOL), pathways and the
orders inside a problem have no mapping and stay in the original message.
"""

from __future__ import annotations

from fhir_mappings.hl7v2.assembly import Assembly
from fhir_mappings.hl7v2.segments import pid, prb, pv1
from fhir_mappings.hl7v2.tokenizer import Segment

_MAPPED = frozenset({"MSH", "SFT", "PID", "PD1", "PV1", "PV2", "PRB", "NTE"})
#: Table 0287: nothing is said of the problem itself (link, unlink, unchanged).
_UNCHANGED = frozenset({"LI", "UN", "UC"})


def translate(assembly: Assembly, trigger: str) -> None:
    """Add the problems of the message.

    Raises:
        MalformedError: PID or PRB is missing (100), or PRB-3 is not valued (101).
    """
    pid.add_patient(assembly.require_one("PID"), assembly)
    assembly.require("PRB")
    encounter = pv1.mention_encounter(assembly)
    found: list[tuple[Segment, list[Segment]]] = []
    last = ""
    for segment in assembly.message.segments:
        if segment.name == "PRB":
            found.append((segment, []))
        elif segment.name == "NTE" and found and last in {"PRB", "NTE"}:
            found[-1][1].append(segment)
            continue
        elif segment.name not in _MAPPED:
            assembly.skip(segment)
        last = segment.name
    for problem, notes in found:
        if problem.get(1).strip().upper() not in _UNCHANGED:
            prb.add_problem(problem, notes, encounter, assembly, deletes=trigger == "PC3")
