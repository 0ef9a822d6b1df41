"""Which DIMSE services the hub offers, by SOP class: one row each, one file each (PS3.4, PS3.6 annex A).

A handler is loaded when the first peer asks for it. It is made once for each association, with the
:class:`~adapters.dimse.exchange.Exchange` as its only argument, and gets every message of its presentation contexts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import pynetdicom.sop_class
from pydicom.uid import UID

from fhir_mappings.dicom.scanner import valid_uid

if TYPE_CHECKING:
    from adapters.dimse.exchange import Exchange, Message


class Service(Protocol):
    """Serves the messages of one service class on one association."""

    def handle(self, message: Message) -> None:
        """Read the whole of *message* and send every response to it.

        Raises:
            ConnectionEnd, ProtocolError: the association is over. Trouble with one message is answered, not raised.
        """
        ...

    def ended(self) -> None:
        """Do what the end of the association asks for; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Offer:
    """A service that a peer may ask for.

    Attributes:
        right: the word in an Endpoint's setting ``services`` that allows it.
        handler: ``module:Class`` of the :class:`Service`.
        any_syntax: data sets are objects and come in any transfer syntax; else they are short and come in native ones.
        peer_scp: the peer may also take the role of SCP, for what the hub sends on the peer's own association.
        extended: the extended negotiation that is understood, by byte (PS3.4 annex C.5.1).
    """

    right: str
    handler: str
    any_syntax: bool = False
    peer_scp: bool = False
    extended: bytes = b""


VERIFICATION = "1.2.840.10008.1.1"
_STORE = Offer("store", "adapters.dimse.store:Store", any_syntax=True, peer_scp=True)

#: Services by SOP class; storage SOP classes are known by :func:`offer_for` and not listed.
OFFERS: Mapping[str, Offer] = {
    VERIFICATION: Offer("echo", "adapters.dimse.echo:Echo"),
    # Patient Root, Study Root, and Patient/Study Only, which is retired and still asked for. Relational queries, combined
    # dates and times, and fuzzy names can be negotiated (PS3.4 annex C.5.1.1); times are never adjusted.
    **{
        f"1.2.840.10008.5.1.4.1.2.{model}.1": Offer("find", "adapters.dimse.find:Find", extended=b"\1\1\1\0")
        for model in (1, 2, 3)
    },
    "1.2.840.10008.5.1.4.31": Offer("worklist", "adapters.dimse.worklist:Worklist", extended=b"\1\1\1\0"),
    # Patient Root, Study Root, and Patient/Study Only, which is retired and still asked for.
    **{f"1.2.840.10008.5.1.4.1.2.{model}.2": Offer("move", "adapters.dimse.move:Move") for model in (1, 2, 3)},
    **{f"1.2.840.10008.5.1.4.1.2.{model}.3": Offer("get", "adapters.dimse.get:Get") for model in (1, 2, 3)},
    "1.2.840.10008.1.20.1": Offer("commitment", "adapters.dimse.commitment:Commitment", peer_scp=True),
    "1.2.840.10008.3.1.2.3.3": Offer("mpps", "adapters.dimse.mpps:PerformedProcedureStep"),
    "1.2.840.10008.3.1.2.3.4": Offer("mpps", "adapters.dimse.mpps:PerformedProcedureStep"),
    "1.2.840.10008.5.1.4.33": Offer("availability", "adapters.dimse.availability_notices:Availability"),
    # Push, Watch, Pull and Query; events are reported on associations of the hub's own, so Event is not offered.
    **{
        f"1.2.840.10008.5.1.4.34.6.{kind}": Offer("ups", "adapters.dimse.ups:UnifiedProcedureStep")
        for kind in (1, 2, 3, 5)
    },
}
#: Every word of the setting ``services``.
RIGHTS = frozenset({_STORE.right, *(offer.right for offer in OFFERS.values())})


@lru_cache(maxsize=1024)
def offer_for(abstract_syntax: str) -> Offer | None:
    """Return the service that takes *abstract_syntax*, ``None`` when the hub has none.

    Every storage SOP class is taken, private and unknown ones included.
    """
    offer = OFFERS.get(abstract_syntax)
    if offer is not None or not valid_uid(abstract_syntax):
        return offer
    uid = UID(abstract_syntax)
    if uid.is_private or abstract_syntax in pynetdicom.sop_class._STORAGE_CLASSES.values():  # noqa: SLF001 - the table has no public name
        return _STORE
    # A UID of the standard that the library has a service for is not storage; one that it never heard of may be new.
    return None if uid.keyword and hasattr(pynetdicom.sop_class, uid.keyword) else _STORE


def rights_of(settings: Mapping[str, Any]) -> frozenset[str]:
    """Return the services that an Endpoint's *settings* allow its AE; all of them unless ``services`` names some."""
    named = settings.get("services")
    if named is None:
        return RIGHTS
    return frozenset(named.split() if isinstance(named, str) else map(str, named))


@lru_cache(maxsize=64)
def handler(name: str) -> Any:
    """Return the class that *name* (``module:Class``) means."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def start(offer: Offer, exchange: Exchange) -> Service:
    """Return the service of *offer* for the association of *exchange*."""
    made: Service = handler(offer.handler)(exchange)
    return made
