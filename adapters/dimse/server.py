"""The DIMSE listener: several processes accept from one port, one thread serves each association (PS3.8 section 9.2).

The accept loop only accepts. The TLS handshake, the association request and everything after happen in the peer's own
thread under their own deadlines, so that no peer can keep another one waiting.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from adapters._tls import line_of, server_context, tell_refusal
from adapters.dimse import metrics
from adapters.dimse.association import Association
from adapters.dimse.upper_layer import UpperLayer, tune
from hub.errors import HubError

if TYPE_CHECKING:
    from hub.boot import Services

_log = structlog.get_logger("adapters.dimse")

TLS_HANDSHAKE_S = 5.0
#: Connections of one address that have not yet said who they are.
UNKNOWN_PER_ADDRESS = 16
#: Threads beyond the associations, for peers that are being told that there is no room.
SPARE_THREADS = 32
#: Time that messages in hand get when the hub stops.
STOP_S = 20.0
_POLL_S = 0.25
#: The default of 5 ms would let one association's parsing hold up another one's answer.
_SWITCH_S = 0.0005


class DimseServer:
    """Serves listening sockets until told to stop.

    The caps of the settings hold for each process of the door.
    """

    def __init__(self, services: Services, *, tls: ssl.SSLContext | None = None) -> None:
        self._services = services
        self._settings = services.settings
        self._tls = tls
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._running: dict[Association, UpperLayer] = {}
        self._unknown: Counter[str] = Counter()
        self._per_ae: Counter[str] = Counter()
        self._established = 0
        self._stopping = threading.Event()
        self._fatal: HubError | None = None

    def serve(self, listeners: Mapping[str, socket.socket], stop: threading.Event) -> None:
        """Accept on *listeners* (``plain``, ``tls``) until *stop*; then let what is in hand be answered.

        Raises:
            HubError: fatal, when the disk failed and this node must not take data any more.
        """
        with selectors.DefaultSelector() as selector:
            for name, listener in listeners.items():
                listener.setblocking(False)
                selector.register(listener, selectors.EVENT_READ, name)
            while not stop.is_set() and self._fatal is None:
                for key, _ in selector.select(_POLL_S):
                    self._accept(key.fileobj, tls=key.data == "tls")
        self._finish()
        if self._fatal is not None:
            raise self._fatal

    def _accept(self, listener: object, *, tls: bool) -> None:
        assert isinstance(listener, socket.socket)
        busy = len(self._threads)
        if busy:
            # Processes share the port; the one with less to do gets to the peer first.
            time.sleep(min(busy, 8) * 0.001)
        try:
            connection, address = listener.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            # Out of file descriptors, for example: peers in service go on, new ones wait in the backlog.
            _log.warning("accept_failed", error=type(error).__name__)
            self._stopping.wait(0.1)
            return
        ip = str(address[0]).removeprefix("::ffff:")
        with self._lock:
            full = len(self._threads) >= self._settings.associations + SPARE_THREADS
            if full or self._unknown[ip] >= UNKNOWN_PER_ADDRESS:
                connection.close()
                metrics.associations.labels("too-many-connections").inc()
                _log.warning("connection_refused", peer=ip, reason="too many connections")
                return
            self._unknown[ip] += 1
            thread = threading.Thread(
                target=self._run, args=(connection, (ip, int(address[1])), tls), name=f"dimse-{address[1]}", daemon=True
            )
            self._threads.add(thread)
        thread.start()

    def _run(self, connection: socket.socket, peer: tuple[str, int], tls: bool) -> None:
        known = _Known(self, peer[0])
        association: Association | None = None
        try:
            tune(connection)
            if tls:
                secured = self._secured(connection, peer[0])
                if secured is None:
                    return
                connection = secured
            layer = UpperLayer(
                connection,
                max_pdu_bytes=self._settings.max_pdu_bytes,
                pdu_deadline_s=self._settings.pdu_deadline_s,
            )
            association = Association(self._services, layer, peer, admit=known.admit, line=line_of(connection))
            with self._lock:
                self._running[association] = layer
                stopping = self._stopping.is_set()
            if stopping:
                association.stop()
            association.run()
            if association.fatal is not None:
                self._fatal = association.fatal
        except OSError as error:
            metrics.associations.labels("reset").inc()
            _log.info("connection_lost", peer=peer[0], error=type(error).__name__)
        finally:
            with contextlib.suppress(OSError):
                connection.close()
            known.leave()
            with self._lock:
                if association is not None:
                    self._running.pop(association, None)
                self._threads.discard(threading.current_thread())

    def _secured(self, connection: socket.socket, peer: str) -> ssl.SSLSocket | None:
        """Return the connection after its handshake, or ``None`` where there was none; the log says why."""
        assert self._tls is not None
        connection.settimeout(TLS_HANDSHAKE_S)
        try:
            return self._tls.wrap_socket(connection, server_side=True)
        except OSError as error:
            metrics.associations.labels("tls-failed").inc()
            tell_refusal(_log, error, peer=peer)
            return None

    def _finish(self) -> None:
        self._stopping.set()
        with self._lock:
            running, threads = dict(self._running), list(self._threads)
        for association in running:
            association.stop()
        deadline = time.monotonic() + STOP_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        with self._lock:
            rest = dict(self._running)
        for layer in rest.values():
            layer.interrupt()
        for thread in threads:
            thread.join(1.0)

    def admit(self, ip: str, ae_title: str) -> bool:
        """Count *ae_title* in unless the door or this AE has its fill."""
        with self._lock:
            if (
                self._established >= self._settings.associations
                or self._per_ae[ae_title] >= self._settings.associations_per_ae
            ):
                return False
            self._established += 1
            self._per_ae[ae_title] += 1
            self._forget(self._unknown, ip)
            metrics.open_associations.inc()
            return True

    def leave(self, ip: str, ae_title: str | None) -> None:
        """Give back the place of a connection that was admitted as *ae_title*, or of one that never was."""
        with self._lock:
            if ae_title is None:
                self._forget(self._unknown, ip)
            else:
                self._established -= 1
                self._forget(self._per_ae, ae_title)
                metrics.open_associations.dec()

    @staticmethod
    def _forget(counter: Counter[str], key: str) -> None:
        counter[key] -= 1
        if counter[key] <= 0:
            del counter[key]


class _Known:
    """The place that one connection takes."""

    def __init__(self, server: DimseServer, ip: str) -> None:
        self._server = server
        self._ip = ip
        self._ae_title: str | None = None

    def admit(self, ae_title: str) -> bool:
        admitted = self._server.admit(self._ip, ae_title)
        if admitted:
            self._ae_title = ae_title
        return admitted

    def leave(self) -> None:
        self._server.leave(self._ip, self._ae_title)


def serve(services: Services, sockets: Mapping[str, int], stop: threading.Event) -> None:
    """Serve the inherited listening descriptors until *stop*; see :meth:`DimseServer.serve`."""
    sys.setswitchinterval(_SWITCH_S)
    tls = server_context(services.settings) if "tls" in sockets else None
    with contextlib.ExitStack() as stack:
        listeners = {
            name: stack.enter_context(socket.socket(fileno=os.dup(descriptor))) for name, descriptor in sockets.items()
        }
        DimseServer(services, tls=tls).serve(listeners, stop)
