"""Words of an Endpoint's settings about the HL7 v2 messages that it is sent: ``send``, ``lab-orders`` and ``imaging-orders``."""

from __future__ import annotations

#: Words of ``send``: what :mod:`hub.dispatch.news` can tell a partner of the records that it may see.
EVENTS = frozenset({"ADT^A08", "ADT^A31", "ADT^A40", "ORU^R01", "MDM^T02", "MDM^T06", "MDM^T08", "MDM^T10", "MDM^T11"})

#: Words of ``lab-orders`` and ``imaging-orders``: the messages of an order that a partner may take, the usual one first.
LAB_ORDERS = ("ORM^O01", "OML^O21", "OMG^O19")
IMAGING_ORDERS = ("ORM^O01", "OMG^O19", "OMI^O23")


def are_events(value: str) -> bool:
    """Return whether *value* holds words of ``send`` that go together."""
    events = value.upper().split()
    # A08 and A31 say the same, so whoever took both would be told everything twice.
    return bool(events) and EVENTS.issuperset(events) and not {"ADT^A08", "ADT^A31"}.issubset(events)
