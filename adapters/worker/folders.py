"""Picks up HL7 v2 files and clinical documents from the folders of members (:mod:`adapters.folder`), on one node at a time for each folder.

Folders of this machine are looked at in turn. Those of SFTP servers have threads of their own, because a server may take
its time for every request, and one that is away rests longer each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from traceback import extract_tb
from typing import TYPE_CHECKING

import structlog

from adapters.folder import base_of, open_remote
from adapters.folder.documents import Told
from adapters.folder.pickup import QUIET_S, PickUp, Rules
from adapters.folder.place import LocalPlace, Place
from hub.arrival import FOLDER_PEER
from hub.errors import HubError
from hub.file_doors import LOCAL, REMOTE
from hub.ports import MemberEndpoint
from hub.quotas import Gate

if TYPE_CHECKING:
    from adapters.folder.sftp_place import SftpPlace
    from hub.boot import Services

log = structlog.get_logger("adapters.worker.folders")

DOOR = "hl7-folder"
#: How often folders are looked at, and how often while there are none.
POLL_S = 1.0
IDLE_S = 5.0
#: How long a folder stays with a node that takes nothing more.
LEASE_S = 60.0

#: How often a server's folder is looked at, by how many threads in all, and the longest rest of one that is away.
REMOTE_POLL_S = 5.0
REMOTE_THREADS = 8
REMOTE_REST_S = 300.0

#: An endpoint's id and all that its pick-up was made of.
_Key = tuple[str, ...]
#: Settings that make a pick-up another one.
_OWN = ("marker", "quiet-s", "host-key", "credential")


class _Folders:
    """What local and remote folders have in common."""

    def __init__(self, services: Services, clock: Callable[[], float]) -> None:
        self._services = services
        self._clock = clock
        self._gate = Gate(services)
        self._away: set[str] = set()
        self._held: dict[str, float] = {}

    def _endpoints(self, scheme: str) -> list[MemberEndpoint]:
        every = self._services.directory.all_endpoints()
        return [one for one in every if one.kind == "mllp" and one.address.startswith(scheme)]

    def _say_away(self, endpoint: MemberEndpoint, why: str) -> None:
        if endpoint.id not in self._away:
            # Told once; a share that is away stays so for hours.
            self._away.add(endpoint.id)
            log.warning("folder_away", endpoint=endpoint.id, error=why)

    def _pick_up(self, endpoint: MemberEndpoint, place: Place) -> PickUp:
        rules = Rules(
            max_bytes=self._services.settings.max_message_bytes,
            marker=str(endpoint.settings.get("marker", "")),
            quiet_s=float(endpoint.settings.get("quiet-s", QUIET_S)),
        )
        documents = partial(self._take_document, endpoint)
        permit = partial(self._permit, endpoint)
        return PickUp(place, rules, partial(self._take, endpoint), self._clock, documents, permit)

    def _permit(self, endpoint: MemberEndpoint, data: bytes) -> float:
        # Files that another node takes count there, and nothing of them here.
        self._hold(endpoint)
        return self._gate.rest_s(endpoint.member, data)

    def _take(self, endpoint: MemberEndpoint, message: bytes) -> bytes | None:
        services = self._services
        self._hold(endpoint)
        return services.messages.receive(
            message, f"{FOLDER_PEER}{endpoint.id}", door=DOOR, institution_hint=endpoint.member
        )

    def _take_document(self, endpoint: MemberEndpoint, document: bytes) -> Told:
        self._hold(endpoint)
        try:
            taken = self._services.documents.receive_file(document, endpoint)
        except HubError as error:
            if error.transient or error.fatal:
                raise
            return Told(refusal=str(error))
        except Exception as error:  # noqa: BLE001 - whatever a document makes the hub do wrong, it must not hold up others
            _say_fault(endpoint, error)
            return Told(
                refusal="枢纽处理该文书时出错，请告知运营方 / The hub failed at this document; tell the operator."
            )
        return Told(
            reference=f"DocumentReference/{taken.document.id}",
            notes=tuple((one.where, one.message) for one in taken.issues),
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


class FolderLoop(_Folders):
    """Looks at every member's folder of this machine in turn."""

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(services, clock)
        self._picking: dict[_Key, PickUp] = {}

    def turn(self) -> float:
        """Take what is whole; returns the seconds until the next look.

        Raises:
            HubError: transient, when the stores cannot work now; files stay where they are.
        """
        endpoints = self._endpoints(LOCAL)
        keys = {_key(one) for one in endpoints}
        self._picking = {key: one for key, one in self._picking.items() if key in keys}
        for endpoint in endpoints:
            self._look(endpoint)
        return POLL_S if endpoints else IDLE_S

    def _look(self, endpoint: MemberEndpoint) -> None:
        try:
            picking = self._picking.get(_key(endpoint))
            if picking is None:
                picking = self._picking[_key(endpoint)] = self._pick_up(endpoint, LocalPlace(base_of(endpoint)))
            picking.turn()
        except OSError as error:
            self._say_away(endpoint, error.strerror or type(error).__name__)
        except HubError as error:
            if error.transient or error.fatal:
                raise
            self._say_away(endpoint, error.message)
        else:
            self._away.discard(endpoint.id)


@dataclass(slots=True)
class _Remote:
    """One server's folder between its looks."""

    endpoint: MemberEndpoint
    place: SftpPlace
    picking: PickUp
    due: float = 0.0
    failures: int = 0
    look: Future[None] | None = None


class RemoteFolderLoop(_Folders):
    """Has every member's SFTP folder looked at when it is due; one connection to each, kept while all is well."""

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(services, clock)
        self._remotes: dict[_Key, _Remote] = {}
        self._pool: ThreadPoolExecutor | None = None

    def turn(self) -> float:
        """Begin the looks that are due, and see what became of those before; returns the seconds until the next time.

        Raises:
            HubError: when the stores cannot work now, or not any more; files stay where they are.
        """
        endpoints = {_key(one): one for one in self._endpoints(REMOTE)}
        for key in [key for key in self._remotes if key not in endpoints]:
            # Its look, if there is one, ends by this, and its rest by the next turn of whatever took its place.
            self._remotes.pop(key).place.close()
        for key, endpoint in endpoints.items():
            one = self._remotes.get(key) or self._open(key, endpoint)
            if one is None or (one.look is not None and not one.look.done()):
                continue
            if one.look is not None:
                self._ended(one, one.look)
            if self._clock() >= one.due:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(REMOTE_THREADS, thread_name_prefix="sftp")
                one.look = self._pool.submit(self._look, one)
        return POLL_S if endpoints else IDLE_S

    def close(self) -> None:
        """End every look and connection."""
        for one in self._remotes.values():
            one.place.close()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _open(self, key: _Key, endpoint: MemberEndpoint) -> _Remote | None:
        try:
            place = open_remote(endpoint, self._services.settings)
        except HubError as error:
            self._say_away(endpoint, error.message)
            return None
        one = self._remotes[key] = _Remote(endpoint, place, self._pick_up(endpoint, place))
        return one

    def _look(self, one: _Remote) -> None:
        # Before anything is asked of the server, so that nodes without the folder open no connection.
        self._hold(one.endpoint)
        one.picking.turn()

    def _ended(self, one: _Remote, look: Future[None]) -> None:
        one.look = None
        error = look.exception()
        if error is None:
            one.failures, one.due = 0, self._clock() + REMOTE_POLL_S
            self._away.discard(one.endpoint.id)
            return
        rest = min(REMOTE_REST_S, REMOTE_POLL_S * 2 ** min(one.failures, 10))
        one.failures, one.due = one.failures + 1, self._clock() + rest
        if isinstance(error, HubError) and not (error.transient or error.fatal):
            self._say_away(one.endpoint, error.message)
        elif isinstance(error, _ElsewhereError):
            one.failures, one.due = 0, self._clock() + LEASE_S / 2
        elif isinstance(error, OSError):
            self._say_away(one.endpoint, error.strerror or type(error).__name__)
        else:
            raise error


class _ElsewhereError(OSError):
    """Another node works on this folder."""

    def __init__(self) -> None:
        super().__init__(0, "another node works on it")


def _say_fault(endpoint: MemberEndpoint, error: Exception) -> None:
    # The text of an unforeseen error may quote the document, so only its kind and place are logged.
    last = extract_tb(error.__traceback__)[-1]
    place = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
    log.error("document_fault", endpoint=endpoint.id, error=type(error).__name__, place=place)


def _key(endpoint: MemberEndpoint) -> _Key:
    return endpoint.id, endpoint.address, *(str(endpoint.settings.get(name, "")) for name in _OWN)
