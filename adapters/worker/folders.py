"""Picks up HL7 v2 files from the folders of members (:mod:`adapters.folder`), on one node at a time for each folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog

from adapters.folder import SCHEME, base_of
from adapters.folder.pickup import QUIET_S, PickUp, Rules
from adapters.folder.place import LocalPlace
from hub.arrival import FOLDER_PEER
from hub.errors import HubError
from hub.ports import MemberEndpoint

if TYPE_CHECKING:
    from hub.boot import Services

log = structlog.get_logger("adapters.worker.folders")

DOOR = "hl7-folder"
#: How often folders are looked at, and how often while there are none.
POLL_S = 1.0
IDLE_S = 5.0
#: How long a folder stays with a node that takes nothing more.
LEASE_S = 60.0

#: An endpoint's id and all that its pick-up was made of.
_Key = tuple[str, str, str, str]


class FolderLoop:
    """Looks at every member's folder in turn."""

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._picking: dict[_Key, PickUp] = {}
        self._away: set[str] = set()
        self._held: dict[str, float] = {}

    def turn(self) -> float:
        """Take what is whole; returns the seconds until the next look.

        Raises:
            HubError: transient, when the stores cannot work now; files stay where they are.
        """
        endpoints = [
            one
            for one in self._services.directory.all_endpoints()
            if one.kind == "mllp" and one.address.startswith(SCHEME)
        ]
        keys = {_key(one) for one in endpoints}
        self._picking = {key: one for key, one in self._picking.items() if key in keys}
        for endpoint in endpoints:
            self._look(endpoint)
        return POLL_S if endpoints else IDLE_S

    def _look(self, endpoint: MemberEndpoint) -> None:
        try:
            picking = self._picking.get(_key(endpoint))
            if picking is None:
                picking = self._picking[_key(endpoint)] = self._open(endpoint)
            picking.turn()
        except OSError as error:
            self._say_away(endpoint, error.strerror or type(error).__name__)
        except HubError as error:
            if error.transient or error.fatal:
                raise
            self._say_away(endpoint, error.message)
        else:
            self._away.discard(endpoint.id)

    def _say_away(self, endpoint: MemberEndpoint, why: str) -> None:
        if endpoint.id not in self._away:
            # Told once; a share that is away stays so for hours.
            self._away.add(endpoint.id)
            log.warning("folder_away", endpoint=endpoint.id, error=why)

    def _open(self, endpoint: MemberEndpoint) -> PickUp:
        rules = Rules(
            max_bytes=self._services.settings.max_message_bytes,
            marker=str(endpoint.settings.get("marker", "")),
            quiet_s=float(endpoint.settings.get("quiet-s", QUIET_S)),
        )
        return PickUp(LocalPlace(base_of(endpoint)), rules, partial(self._take, endpoint), self._clock)

    def _take(self, endpoint: MemberEndpoint, message: bytes) -> bytes | None:
        services = self._services
        self._hold(endpoint)
        return services.messages.receive(
            message, f"{FOLDER_PEER}{endpoint.id}", door=DOOR, institution_hint=endpoint.member
        )

    def _hold(self, endpoint: MemberEndpoint) -> None:
        """Make sure that this node has the folder; the intake makes twice harmless, and this makes it rare."""
        services, moment = self._services, self._clock()
        if moment - self._held.get(endpoint.id, -LEASE_S) < LEASE_S / 3:
            return
        now = services.clock()
        name = f"folder {endpoint.id}"
        if services.database.write(lambda tx: tx.timers.lease(name, services.node, now=now, lease_s=LEASE_S)) is None:
            raise _ElsewhereError
        self._held[endpoint.id] = moment


class _ElsewhereError(OSError):
    """Another node works on this folder."""

    def __init__(self) -> None:
        super().__init__(0, "another node works on it")


def _key(endpoint: MemberEndpoint) -> _Key:
    settings = endpoint.settings
    return endpoint.id, endpoint.address, str(settings.get("marker", "")), str(settings.get("quiet-s", ""))
