"""Fetches the earlier studies that an accepted reading asks for, as SCU of an archive (PS3.4 annex C).

The partner is the archive of the institution that asked for the reading; whether the Task still wants anything is asked
before it is called. A fetch may take long, so it ends early when the hub stops, and what is here by then is not fetched again.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from adapters.dimse.client import RejectedError
from adapters.dimse.scu import DimseArchive
from hub.actor import HUB
from hub.errors import Category, HubError
from hub.ports import Delivery, MemberEndpoint, Sender, SendResult
from hub.prior_requests import PriorRequest, PriorRequests, acknowledgement
from hub.priors import Priors

if TYPE_CHECKING:
    from hub.boot import Services

#: What will not pass by itself: the archive does not know us, or does not do what is asked.
_PERMANENT = frozenset({Category.FORBIDDEN, Category.UNSUPPORTED, Category.INCORRECT})


def open_sender(services: Services) -> Sender:
    """Return a sender for deliveries of kind ``priors``; safe for several threads."""
    return PriorsSender(services)


class PriorsSender:
    """The :class:`hub.ports.Sender` of requests for earlier studies."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._requests = PriorRequests(services.directory, services.clock)

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """Fetch what is wanted and not here; the acknowledgement names each study. Never raises for the archive's fault.

        Raises:
            HubError: unavailable when the database cannot be asked.
        """
        wanted = self._services.database.write(lambda tx: self._requests.wanted(tx, delivery, endpoint))
        if wanted is None:
            # It is skipped already; what is said here makes the worker take up what is behind it.
            return SendResult(error="The Task wants no earlier studies any more.")
        try:
            return self._fetch(delivery, endpoint, wanted)
        except HubError as error:
            return SendResult(error=error.message, permanent=error.category in _PERMANENT, reached=_reached(error))

    def interrupt(self) -> None:
        """Let fetches in progress end, to be tried again at the next start."""
        self._stopping.set()

    def close(self) -> None:
        """Nothing is kept open between deliveries."""

    def _fetch(self, delivery: Delivery, endpoint: MemberEndpoint, wanted: PriorRequest) -> SendResult:
        priors = Priors(self._services, lambda services, to: DimseArchive(services, to, stopping=self._stopping.is_set))
        done = priors.pull(
            HUB,
            endpoint.member,
            wanted.PatientID,
            rule=wanted.rule,
            issuer=wanted.issuer,
            endpoint=endpoint,
            apart=wanted.apart,
            task_id=delivery.task_id,
        )
        ack = acknowledgement(done, shown=wanted.rule.shown)
        failed = [one for one in done if one.missing or one.why]
        if not failed:
            return SendResult(ack=ack)
        missing = sum(one.missing for one in failed)
        return SendResult(
            ack=ack,
            error=f"{len(failed)} of {len(done)} studies are not whole, {missing} instances are missing: {failed[0].why}",
            # While the hub stops nothing is the archive's fault.
            reached=not self._stopping.is_set(),
        )


def _reached(error: HubError) -> bool:
    """Return whether the archive answered at all."""
    if error.category is Category.INTERRUPTED:
        return False
    cause = error.__cause__
    return not (isinstance(cause, OSError) or (isinstance(cause, RejectedError) and cause.transient))
