"""Delivers stored objects to a partner by C-STORE (PS3.7 section 9.1.1, PS3.4 annex B).

The data set goes out in the bytes it came in wherever the partner takes them: contexts are proposed from what is stored,
and only where that is refused is the object turned into a native syntax (:mod:`adapters.dimse.recode`). The digest is
checked on the way, so that a damaged object is broken off before its last fragment.

A delivery may have waited for days, so whether another institution may still see the study is asked before a connection
is opened; where it may not, the delivery is skipped with an audit line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from adapters.dimse import negotiation, recode
from adapters.dimse.client import RejectedError, StoreClient
from adapters.dimse.outgoing import MAX_CONTEXTS, address, secured
from adapters.dimse.pace import Pacer, pacer_to
from adapters.dimse.recode import Pieces
from adapters.dimse.upper_layer import ConnectionEnd, ProtocolError
from fhir_mappings.dicom.scanner import valid_uid
from fhir_mappings.errors import MappingError
from fhir_mappings.json import dumps, loads
from hub.config import Settings
from hub.errors import Category, HubError
from hub.ports import Delivery, MemberEndpoint, ObjectStore, Sender, SendResult, Tx
from hub.routing import may_leave, study_of, withhold

if TYPE_CHECKING:
    from hub.boot import Services

_log = structlog.get_logger("adapters.dimse")

#: Success, the storage warnings (coercion, elements discarded, mismatch), and the partner has this very object.
_DELIVERED = frozenset({0x0000, 0xB000, 0xB006, 0xB007, 0x0111})
_NOT_NEGOTIATED = "not-negotiated"
#: Categories of what the codecs say of an image that they cannot decode.
_CANNOT_BE_MADE = frozenset({Category.UNSUPPORTED, Category.INCORRECT})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instance:
    digest: str
    SOPClassUID: str
    SOPInstanceUID: str
    TransferSyntaxUID: str

    @property
    def contexts(self) -> Sequence[negotiation.Context]:
        """What it can go out in, best first."""
        return recode.contexts(self.SOPClassUID, self.TransferSyntaxUID)


def open_sender(services: Services) -> Sender:
    """Return a sender for deliveries of kind ``dimse``; safe for several threads, as it keeps nothing between calls."""
    return DimseSender(services)


class DimseSender:
    """The :class:`hub.ports.Sender` for DIMSE."""

    def __init__(
        self,
        services: Services,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._services = services
        self._monotonic = clock
        self._wait = wait
        self._settings: Settings = services.settings
        self._objects: ObjectStore = services.objects

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """Send every instance the payload names and wait for each answer; never raises for a partner's fault.

        The stored acknowledgement is JSON with one status for each instance. Out of resources (A7xx) and everything
        that breaks the connection may be tried again; other failures, and contexts the partner does not take, are
        permanent. An object that was delivered twice is the same object.
        """
        try:
            instances = _instances(delivery.payload)
            host, port, tls = address(endpoint)
        except (MappingError, ValueError) as error:
            return SendResult(
                error=f"The delivery to {endpoint.id} cannot be read: {error}", permanent=True, reached=False
            )
        withheld = self._withheld(delivery, endpoint)
        if withheld:
            # It is skipped already; what is said here makes the worker take up what is behind it.
            return SendResult(error=withheld)
        statuses: dict[_Instance, str] = {}
        pacer = pacer_to(self._services, endpoint, clock=self._monotonic, wait=self._wait)
        try:
            for batch in _batches(instances):
                self._batch(batch, endpoint, (host, port, tls), statuses, pacer)
        except HubError as error:
            why = f"{error.message} {error.where}".strip()
            return _result(instances, statuses, error=why, permanent=not error.transient, reached=bool(statuses))
        except MappingError as error:
            return _result(instances, statuses, error=f"A stored object is no Part 10 file: {error}", permanent=True)
        except RejectedError as error:
            why = f"{endpoint.id} rejected the association ({error})."
            return _result(instances, statuses, error=why, reached=not error.transient)
        except ConnectionEnd as error:
            return _result(
                instances,
                statuses,
                error=f"The connection to {endpoint.id} ended: {error.why}.",
                reached=bool(statuses),
            )
        except ProtocolError as error:
            return _result(instances, statuses, error=f"{endpoint.id} broke the upper layer protocol: {error.why}.")
        except OSError as error:
            return _result(
                instances,
                statuses,
                error=f"The connection to {endpoint.id} failed: {type(error).__name__}.",
                reached=bool(statuses),
            )
        return _judged(instances, statuses, endpoint)

    def close(self) -> None:
        """Nothing is kept open between deliveries."""

    def _withheld(self, delivery: Delivery, endpoint: MemberEndpoint) -> str:
        """Skip a delivery whose receiver may not see the study now, and return why; empty when it may leave.

        Raises:
            HubError: unavailable when the database cannot be asked; nothing is sent then.
        """
        if endpoint.member == delivery.owner:
            return ""
        services = self._services

        def work(tx: Tx) -> str:
            if may_leave(tx, services.directory, study_of(delivery), endpoint):
                return ""
            return withhold(tx, delivery, now=services.clock())

        return services.database.write(work)

    def _batch(
        self,
        instances: Sequence[_Instance],
        endpoint: MemberEndpoint,
        address: tuple[str, int, bool],
        statuses: dict[_Instance, str],
        pacer: Pacer,
    ) -> None:
        """Send *instances*, of at most 128 contexts, over one association; fills *statuses* as answers come."""
        host, port, tls = address
        client = StoreClient(
            host,
            port,
            calling_ae=self._settings.ae_title,
            called_ae=endpoint.ae_title,
            contexts=list(dict.fromkeys(context for instance in instances for context in instance.contexts)),
            timeout_s=self._settings.delivery_timeout_s,
            max_pdu_bytes=self._settings.max_pdu_bytes,
            secured=secured(self._settings, host) if tls else None,
        )
        with client:
            try:
                for instance in instances:
                    context = next((one for one in instance.contexts if client.takes(one)), None)
                    if context is None:
                        statuses[instance] = _NOT_NEGOTIATED
                        continue
                    fragments = recode.fragments(
                        self._settings,
                        self._objects,
                        instance.digest,
                        instance.TransferSyntaxUID,
                        context.transfer_syntax,
                    )
                    pieces = Pieces(pacer.paced(fragments))
                    try:
                        status = client.store(context, instance.SOPInstanceUID, pieces)
                    except HubError as error:
                        if pieces.begun or error.category not in _CANNOT_BE_MADE:
                            raise
                        # Its pixels cannot be turned into what the partner takes; the other objects may go.
                        statuses[instance] = _NOT_NEGOTIATED
                        continue
                    statuses[instance] = f"{status:04X}"
                    if status >> 8 == 0xA7:
                        # The partner has no room: sending the rest at it would not help it.
                        break
                client.release()
            except ProtocolError as error:
                client.abort(reason=error.reason)
                raise
            except (HubError, MappingError, ConnectionEnd):
                client.abort()
                raise


def _instances(payload: bytes) -> list[_Instance]:
    """Return what the payload names; raises MappingError or ValueError."""
    body = loads(payload)
    rows: Any = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not rows:
        raise ValueError("it names no instances")
    found = []
    for row in rows:
        try:
            instance = _Instance(
                digest=row["digest"],
                SOPClassUID=row["SOPClassUID"],
                SOPInstanceUID=row["SOPInstanceUID"],
                TransferSyntaxUID=row["TransferSyntaxUID"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError("an instance lacks its digest or a UID") from error
        for uid in (instance.SOPClassUID, instance.SOPInstanceUID, instance.TransferSyntaxUID):
            if not isinstance(uid, str) or not valid_uid(uid):
                raise ValueError("an instance has something other than a UID")
        found.append(instance)
    return found


def _batches(instances: Sequence[_Instance]) -> Iterator[list[_Instance]]:
    """Yield the instances in order, cut where an association would need more contexts than it can have."""
    batch: list[_Instance] = []
    contexts: set[negotiation.Context] = set()
    for instance in instances:
        if len(contexts.union(instance.contexts)) > MAX_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(instance)
        contexts.update(instance.contexts)
    yield batch


def _judged(instances: Sequence[_Instance], statuses: dict[_Instance, str], endpoint: MemberEndpoint) -> SendResult:
    undelivered = {instance: said for instance, said in statuses.items() if not _delivered(said)}
    if not undelivered and len(statuses) == len(set(instances)):
        return SendResult(ack=_ack(instances, statuses))
    kinds = sorted(set(undelivered.values()))
    full = any(said.startswith("A7") for said in kinds)
    return _result(
        instances,
        statuses,
        error=f"{endpoint.id} did not take {len(undelivered)} of {len(instances)} objects: {', '.join(kinds)}.",
        permanent=not full,
    )


def _delivered(said: str) -> bool:
    return said != _NOT_NEGOTIATED and int(said, 16) in _DELIVERED


def _result(
    instances: Sequence[_Instance],
    statuses: dict[_Instance, str],
    *,
    error: str,
    permanent: bool = False,
    reached: bool = True,
) -> SendResult:
    _log.warning("delivery_failed", error=error, delivered=sum(map(_delivered, statuses.values())), of=len(instances))
    return SendResult(
        ack=_ack(instances, statuses) if statuses else b"", error=error, permanent=permanent, reached=reached
    )


def _ack(instances: Sequence[_Instance], statuses: dict[_Instance, str]) -> bytes:
    rows = [
        {"SOPInstanceUID": instance.SOPInstanceUID, "status": statuses.get(instance, "not-sent")}
        for instance in instances
    ]
    return dumps({"instances": rows})
