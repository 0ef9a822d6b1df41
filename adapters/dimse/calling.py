"""Associations that the hub opens for a DIMSE-N request of its own, and what their end means for a delivery (PS3.7 section 10).

A partner that cannot be reached is tried for as long as it takes. One that answers, and then breaks off, has been reached:
it is tried a few times, so that one message that it cannot bear does not keep everything else from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from adapters.dimse import metrics, status
from adapters.dimse.client import RejectedError, Requestor
from adapters.dimse.exchange import Exchange
from adapters.dimse.negotiation import Proposal
from adapters.dimse.outgoing import address, secured
from adapters.dimse.upper_layer import ConnectionEnd, ProtocolError, UpperLayer
from fhir_mappings.json import dumps
from hub.actor import Actor
from hub.errors import HubError
from hub.ports import MemberEndpoint, SendResult

if TYPE_CHECKING:
    from hub.boot import Services

_log = structlog.get_logger("adapters.dimse")

#: What short data sets are proposed in.
SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
#: Statuses of DIMSE-N that may pass: the partner is in trouble, not the message (PS3.7 annex C.5).
_PASSING = frozenset({status.PROCESSING_FAILURE, status.RESOURCE_LIMITATION})


class UndeliveredError(Exception):
    """The request was not answered; carries what the delivery is to be told."""

    def __init__(self, result: SendResult) -> None:
        super().__init__(result.error)
        self.result = result


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An association that stands, with the one context that was asked for."""

    exchange: Exchange
    context_id: int

    @property
    def transfer_syntax(self) -> str:
        """What the partner chose for data sets."""
        return self.exchange.contexts[self.context_id].transfer_syntax


class _Caller(Requestor):
    """A :class:`Requestor` whose connection serves an :class:`Exchange`."""

    @property
    def layer(self) -> UpperLayer:
        """The connection."""
        return self._layer

    def may_serve(self, sop_class: str) -> bool:
        """Return whether the partner lets the hub be the SCP of *sop_class* here."""
        return sop_class in self._as_scp


@contextlib.contextmanager
def called(services: Services, endpoint: MemberEndpoint, proposal: Proposal, *, called_ae: str = "") -> Iterator[Call]:
    """Open an association for *proposal* with *endpoint* for the block.

    Args:
        called_ae: the AE to call, where it is not the endpoint's.

    Raises:
        UndeliveredError: it did not come about, or the partner broke it off.
        HubError: what the block raised, or unavailable when nobody listens.
    """
    caller, host = _opened(services, endpoint, proposal, called_ae or endpoint.ae_title)
    with caller:
        try:
            if not caller.accepted:
                raise UndeliveredError(_refused(f"{endpoint.id} does not take {proposal.abstract_syntax}."))
            if proposal.as_scp and not caller.may_serve(proposal.abstract_syntax):
                raise UndeliveredError(
                    _refused(f"{endpoint.id} does not let the hub be SCP of {proposal.abstract_syntax}.")
                )
            yield Call(exchange=_exchange(services, endpoint, caller, host), context_id=next(iter(caller.accepted)))
            caller.release()
        except UndeliveredError:
            caller.release()
            raise
        except ProtocolError as error:
            caller.abort(reason=error.reason)
            raise UndeliveredError(SendResult(error=f"{endpoint.id} broke the DIMSE protocol: {error.why}.")) from error
        except ConnectionEnd as error:
            caller.abort()
            raise UndeliveredError(SendResult(error=f"{endpoint.id} broke the connection off: {error.why}.")) from error
        except HubError:
            caller.abort()
            raise


def _opened(services: Services, endpoint: MemberEndpoint, proposal: Proposal, called_ae: str) -> tuple[_Caller, str]:
    settings = services.settings
    try:
        host, port, tls = address(endpoint)
        caller = _Caller(
            host,
            port,
            calling_ae=settings.ae_title,
            called_ae=called_ae,
            contexts=[proposal],
            timeout_s=settings.delivery_timeout_s,
            max_pdu_bytes=settings.max_pdu_bytes,
            secured=secured(settings, host) if tls else None,
        )
    except RejectedError as error:
        why = f"{endpoint.id} rejected the association ({error})."
        raise UndeliveredError(SendResult(error=why, reached=not error.transient)) from error
    except ProtocolError as error:
        why = f"{endpoint.id} broke the upper layer protocol: {error.why}."
        raise UndeliveredError(SendResult(error=why)) from error
    except (ConnectionEnd, OSError) as error:
        why = error.why if isinstance(error, ConnectionEnd) else type(error).__name__
        raise UndeliveredError(
            SendResult(error=f"The connection to {endpoint.id} failed: {why}.", reached=False)
        ) from error
    except ValueError as error:
        raise UndeliveredError(SendResult(error=f"{endpoint.id} cannot be called: {error}", reached=False)) from error
    return caller, host


def _exchange(services: Services, endpoint: MemberEndpoint, caller: _Caller, host: str) -> Exchange:
    return Exchange(
        services=services,
        layer=caller.layer,
        endpoint=endpoint,
        actor=Actor(institution=endpoint.member, client=endpoint.ae_title, address=host, roles=frozenset({"system"})),
        calling_ae=endpoint.ae_title,
        peer=host,
        contexts=caller.accepted,
        max_pdu_bytes=caller.max_peer_pdu_bytes,
    )


def _refused(error: str) -> SendResult:
    return SendResult(error=error, permanent=True)


def judged(service: str, endpoint: MemberEndpoint, code: int, *, fine: frozenset[int], **facts: int) -> SendResult:
    """Return what the status *code* means for a delivery; *facts* are kept with it as the acknowledgement."""
    metrics.requests.labels(service=service, status=f"{code:04X}").inc()
    ack = dumps({"status": f"{code:04X}", **facts})
    if code == status.SUCCESS or code in fine:
        return SendResult(ack=ack)
    _log.warning("request_refused", service=service, destination=endpoint.id, status=f"{code:04X}")
    return SendResult(
        ack=ack, error=f"{endpoint.id} answered {service} with {code:04X}.", permanent=code not in _PASSING
    )
