"""The order groups of ORM, OML, OMG and OMI (HL7 v2 chapters 4.4 and 4.13): each ORC with all that belongs to it.

The structures differ in where a specimen stands: OML^O21 and OMG^O19 name it behind the order, OML^O33 and O35 before
the orders that are done on it. Results that the placer sends along (PRIOR_RESULT) stand behind an order; their own ORC
is optional and would look like another order, so ORC-1 decides: ``PR`` and ``RE`` come with results, all else is work.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fhir_mappings.hl7v2.assembly import Assembly
from fhir_mappings.hl7v2.segments.spm import Sample, check_shared
from fhir_mappings.hl7v2.tokenizer import Message, Segment

#: The structures in which specimens stand before their orders.
_SPECIMEN_FIRST = frozenset({"O33", "O35"})
#: Those that have a place for earlier results (chapter 4.4.6); ORM^O01 and the pharmacy messages have none.
_WITH_PRIORS = frozenset({"O19", "O21", "O23", "O33", "O35"})
_PHARMACY = frozenset({"RXO", "RXE", "RXD", "RXA", "RXR", "RXC"})
_OTHER_DETAIL = frozenset({"RQD", "RQ1", "ODS", "ODT"})
_BEGINS_PRIOR = frozenset({"PID", "PV1", "AL1"})
_PRIOR_CONTROLS = frozenset({"PR", "RE", ""})


@dataclass(slots=True)
class Observed:
    """One OBX with the notes behind it."""

    segment: Segment
    notes: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class Order:
    """One ORC with what follows it until the next.

    Attributes:
        detail: the segment that makes it an order of another kind than a service (diet, supply).
        pharmacy: RXO, RXE, RXD and RXA with the RXR, RXC, TQ1 and NTE behind them, in their order.
        priors: the segments of earlier results, PID included, as an ORU would have them.
        container: SAC of the container that the order is done on (OML^O35), or the one nearest before it.
    """

    orc: Segment
    obr: Segment | None = None
    detail: Segment | None = None
    timings: list[Segment] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)
    diagnoses: list[Segment] = field(default_factory=list)
    observations: list[Observed] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    procedures: list[Segment] = field(default_factory=list)
    zds: Segment | None = None
    pharmacy: list[Segment] = field(default_factory=list)
    priors: list[Segment] = field(default_factory=list)
    container: Segment | None = None


class _Reader:
    """Walks the segments once and remembers which part of the structure it stands in."""

    def __init__(self, trigger: str) -> None:
        self._specimen_first = trigger in _SPECIMEN_FIRST
        self._has_priors = trigger in _WITH_PRIORS
        self._shared: list[Sample] = []
        self._shared_used = True
        self._in_sample = False
        self._in_prior = False
        self._container: Segment | None = None
        self.orders: list[Order] = []

    def read(self, segment: Segment) -> None:
        """Put *segment* where it belongs."""
        name = segment.name
        if name == "ORC":
            self._read_orc(segment)
        elif self._in_sample and self._describes_sample(segment):
            pass
        elif name == "SPM" and (self.orders or self._specimen_first) and not self._in_prior:
            self._begin_sample(segment)
        elif name == "SAC" and self._shared and not self._in_prior:
            # The next container of the same specimen, whose own orders follow it (chapter 4.4.9).
            self._shared[-1].containers.append(segment)
            self._container = segment
        elif not self.orders:
            pass
        elif self._has_priors and (self._in_prior or name in _BEGINS_PRIOR):
            self._in_prior, self._in_sample = True, False
            self.orders[-1].priors.append(segment)
        else:
            self._read_order(segment)

    def _read_orc(self, orc: Segment) -> None:
        control = orc.get(1).strip().upper()
        if self._has_priors and self.orders and control in _PRIOR_CONTROLS and (self._in_prior or control == "PR"):
            self._in_prior, self._in_sample = True, False
            self.orders[-1].priors.append(orc)
            return
        self._in_prior, self._in_sample, self._shared_used = False, False, True
        self.orders.append(Order(orc=orc, samples=self._shared_samples(), container=self._container))

    def _shared_samples(self) -> list[Sample]:
        # The list itself: it is never added to, and copies of a long one for many orders would fill the memory.
        return self._shared if self._specimen_first else []

    def _begin_sample(self, spm: Segment) -> None:
        self._in_sample = True
        if not self._specimen_first:
            self.orders[-1].samples.append(Sample(spm=spm))
            return
        # Specimens in a row share the orders behind them; one that follows an order begins anew.
        self._shared = [*([] if self._shared_used else self._shared), Sample(spm=spm)]
        self._shared_used, self._container = False, None

    def _describes_sample(self, segment: Segment) -> bool:
        sample = (self._shared if self._specimen_first else self.orders[-1].samples)[-1]
        match segment.name:
            case "SAC":
                sample.containers.append(segment)
                self._container = segment
            case "OBX":
                sample.observations.append(segment)
            case "NTE":
                sample.notes.append(segment)
            case _:
                return False
        return True

    def _read_order(self, segment: Segment) -> None:
        order = self.orders[-1]
        match segment.name:
            case "OBR":
                if order.obr is not None:
                    # A second OBR under one ORC is an order of its own with the same control.
                    order = Order(orc=order.orc, timings=order.timings, samples=self._shared_samples())
                    order.container = self._container
                    self.orders.append(order)
                order.obr, self._in_sample = segment, False
            case "NTE":
                if order.pharmacy and not order.observations:
                    order.pharmacy.append(segment)
                else:
                    (order.observations[-1].notes if order.observations else order.notes).append(segment)
            case "TQ1":
                (order.pharmacy or order.timings).append(segment)
            case "OBX":
                order.observations.append(Observed(segment))
            case "DG1":
                order.diagnoses.append(segment)
            case "IPC":
                order.procedures.append(segment)
            case "ZDS":
                order.zds = segment
            case name if name in _PHARMACY:
                order.pharmacy.append(segment)
            case name if name in _OTHER_DETAIL:
                order.detail = segment


def read_orders(message: Message, trigger: str = "") -> list[Order]:
    """Return the order groups of *message*, whose event is *trigger*, in one pass over its segments."""
    reader = _Reader(trigger)
    for segment in message.segments:
        reader.read(segment)
    return reader.orders


def orders(assembly: Assembly, trigger: str = "") -> list[Order]:
    """Return the order groups of the message that *assembly* translates.

    Raises:
        MalformedError: its orders share too many specimens.
    """
    found = read_orders(assembly.message, trigger)
    check_shared(one.samples for one in found)
    return found
