"""Words of an Endpoint's settings about the HL7 v2 messages that it is sent: ``send``, ``lab-orders``, ``imaging-orders`` and ``ack-out``."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from fhir_mappings.hl7v2.outbound.target import Acknowledgements
from hub.ports import MemberEndpoint

#: Words of ``send``: what :mod:`hub.dispatch.news` can tell a partner of the records that it may see.
EVENTS = frozenset(
    {"ADT^A08", "ADT^A31", "ADT^A40", "ORU^R01", "MDM^T02", "MDM^T06", "MDM^T08", "MDM^T10", "MDM^T11", "SIU^S12"}
)
#: Word of ``send`` for bookings and all that becomes of them (S12, S13, S14, S15, S17, S26): a diary that hears of bookings
#: and not of cancellations is wrong.
BOOKINGS = "SIU^S12"
#: Word of ``send`` of a partner that does not want to hear that a document it has was withdrawn.
NO_WITHDRAWALS = "-MDM^T11"

#: Words of ``lab-orders`` and ``imaging-orders``: the messages of an order that a partner may take, the usual one first.
LAB_ORDERS = ("ORM^O01", "OML^O21", "OML^O33", "OMG^O19")
IMAGING_ORDERS = ("ORM^O01", "OMG^O19", "OMI^O23")

#: Name of the setting that says which acknowledgements an endpoint is asked for (MSH-15, MSH-16), and its words.
ACK_OUT = "ack-out"
ACKNOWLEDGEMENTS = ("original", "accept", "both")


def acknowledgements_of(endpoint: MemberEndpoint) -> Acknowledgements:
    """Return what *endpoint* is asked for; empty where each message asks for what it calls for."""
    return cast("Acknowledgements", str(endpoint.settings.get(ACK_OUT, "")))


def are_events(value: str) -> bool:
    """Return whether *value* holds words of ``send`` that go together."""
    events = value.upper().split()
    # A08 and A31 say the same, so whoever took both would be told everything twice.
    if {"ADT^A08", "ADT^A31"}.issubset(events):
        return False
    if NO_WITHDRAWALS in events and ("MDM^T11" in events or not _hears_of_documents(events)):
        return False
    return bool(events) and (EVENTS | {NO_WITHDRAWALS}).issuperset(events)


def wanted_events(value: str) -> frozenset[str]:
    """Return the events that ``send`` asks for.

    Whoever gets documents hears by MDM^T11 that one was withdrawn, because it would go on treating by it otherwise; only
    a partner that says so does not.
    """
    events = frozenset(value.upper().split())
    more = {"MDM^T11"} if _hears_of_documents(events) and NO_WITHDRAWALS not in events else set()
    return (events | more) - {NO_WITHDRAWALS}


def _hears_of_documents(events: Collection[str]) -> bool:
    return any(one.startswith("MDM^") and one != "MDM^T11" for one in events)
