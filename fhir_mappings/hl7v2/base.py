"""What a translated HL7 v2 message is: a list of changes to apply, never a finished state.

HL7 v2 chapter 2.5.3.2 (absent, empty and ``""`` fields) and 2.10 (segments speak only of what they carry). The hub
owns what is stored; these values say what the message asserts about it, so that the same message applied twice, late
or out of order leaves the records as they should be (:mod:`fhir_mappings.hl7v2.status` holds the rules).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from fhir_mappings.code_maps import UnmappedCode

#: ``demographics``: a message about an older moment never overwrites a newer one.
#: ``status``: the lattice of the resource's status decides as well (observations, reports, encounters).
#: ``none``: what arrives last is what stands.
Guard = Literal["demographics", "status", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One finding about a message that was translated all the same; never holds patient data.

    Attributes:
        severity: ``warning`` or ``information``.
        code: FHIR issue-type, for example ``code-invalid`` or ``value``.
        message: what was found and what became of it.
        where: the place, for example ``OBX-8 of segment 6``.
    """

    severity: str
    code: str
    message: str
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upsert:
    """Create the resource, or change the stored one in the elements given here.

    Attributes:
        resource: ``resourceType``, ``id`` and only the elements that the message speaks of.
        cleared: elements that the message nulls with ``""`` or that a full statement no longer makes; a dotted path
            reaches into an object (``period.end``), ``value[x]`` stands for every type, ``participant:ATND`` and
            ``extension:ethnic-group`` for one entry of a list, what is given is not cleared.
        guard: which rule protects the stored resource.
        create_only: leave a stored resource alone altogether (a stub that a richer source fills).
        update_only: do nothing when nothing is stored (superseding a document that never arrived).
        literal: this very record is meant, whatever it was merged into (ADT^A29 deletes a number, not a person).
        defaults: required elements that count only when the resource is made (``Encounter.status`` of an A08).
        by_item: lists that the message changes item by item (SIU^S18 to S22), each with the items that leave it; what
            the resource gives of such a list joins it.
    """

    resource: dict[str, Any]
    cleared: frozenset[str] = frozenset()
    guard: Guard = "none"
    create_only: bool = False
    update_only: bool = False
    literal: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    by_item: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """``Type/id`` of the resource."""
        return f"{self.resource['resourceType']}/{self.resource['id']}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The message listed every resource of this kind; what it no longer lists is no longer so.

    The scope is this sender, this subject and this segment type: stored resources of *resource_type* for the subject
    that came from *source_key* of the same institution and are not in *keep_ids* become inactive
    (:func:`fhir_mappings.hl7v2.status.retire`). An empty list is never sent: a message without the segment says nothing.

    Attributes:
        source_key: segment name (``AL1``), for diagnoses with the visit (``DG1/{encounter id}``): the same text that
            stands in ``meta.tag`` of the listed resources.
    """

    resource_type: str
    subject_id: str
    source_key: str
    keep_ids: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """Two patient records of the sender are one person (ADT^A40, HL7 v2 3.3.40); applying it twice changes nothing.

    Both ids are of the sender's own assigning authority. The dead record becomes inactive with a ``replaced-by`` link,
    the survivor gets a ``replaces`` link, and what arrives later for the dead id lands on the survivor.
    """

    survivor_id: str
    dead_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlink:
    """Two patient records of the sender are two persons after all (ADT^A37, HL7 v2 3.3.37).

    Where the hub knows them as merged, a person decides first; nothing changes by the message itself.
    """

    one_id: str
    other_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """A number of the sender's gives way to another: visits (ADT^A42, A50) and accounts (A35, A41, A49) that are one.

    The dead resource ends with an extension ``replaced-by`` that leads to the survivor, whose old number it becomes, and
    what arrives later under the dead number lands on the survivor. Applying it twice changes nothing.
    """

    resource_type: Literal["Encounter", "Account"]
    survivor_id: str
    dead_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Visits and accounts belong to another patient of the sender from this moment on (ADT^A43, A44, A45).

    What was said of a visit (diagnoses, orders, results) goes with it. An older message that still names the former
    patient does not take it back.

    Attributes:
        references: ``Encounter/id`` or ``Account/id``; empty for all that the source has (A43).
    """

    source_id: str
    target_id: str
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """Bytes that a message carried inline; the hub keeps them as an object and answers ``Binary/{binary_id}``.

    The resource already points at ``Binary/{binary_id}``, so nothing needs rewriting once the bytes are stored.

    Attributes:
        content_type: what the bytes are by their own evidence (``%PDF`` beats a label that says otherwise).
        context: ``Type/id`` of the resource whose access decides (``Binary.securityContext``).
    """

    binary_id: str
    content_type: str
    data: bytes
    context: str


Change = Upsert | Snapshot | Merge | Unlink | Replace | Move | Attachment


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowEvent:
    """Something the message asks of, or reports to, a workflow.

    Attributes:
        kind: ``order.new``, ``referral.requested``, ``report.final`` and so on.
        focus: references of the resources it is about, the request first.
        placer_number: order number of the side that asked.
        filler_number: order number of the side that does the work.
        receiver: code of the institution it is meant for as the sender wrote it; empty when the message does not say.
        performer: the receiving person's number as the sender wrote it.
        reason: why, in the sender's words, for refusals and cancellations.
    """

    kind: str
    focus: tuple[str, ...] = ()
    placer_number: str = ""
    filler_number: str = ""
    receiver: str = ""
    performer: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """Everything one message asserts.

    Attributes:
        event: ``ADT^A01``; MSH-9 decides, EVN-1 is only compared with it.
        asserted_at: the moment the message speaks of: EVN-6, else EVN-2, else MSH-7, else receipt.
        changes: in the order to apply them, all in one commit, because resources may refer to one another both ways.
        patient_id: FHIR id of the patient the message is about, if it is about one.
        issues: what could not be carried over, with its place.
        endings: orders that its final reports end where they are stored; applied before *changes*, whose stand-ins for
            orders that never came are none of them.
        workflow_events: in the order the message states them.
        unmapped: the sender's own codes that nothing standard stands beside, each once.
    """

    event: str
    asserted_at: datetime
    changes: tuple[Change, ...] = ()
    patient_id: str | None = None
    issues: tuple[Issue, ...] = ()
    endings: tuple[Upsert, ...] = ()
    workflow_events: tuple[WorkflowEvent, ...] = ()
    unmapped: tuple[UnmappedCode, ...] = ()
