"""Event channels: GET /subscribers/{aetitle} as a WebSocket, on which an AE is told of workitems (PS3.18 sections 8.10, 11.13).

Each event is a text message, one data set of the DICOM JSON Model. Nothing is taken from the peer. The token is the bearer token
of the opening request, in its header like everywhere, and is looked at again as long as the channel is open.

Close codes (RFC 6455 section 7.4.1): 1001 the hub stops, 1003 the peer sent a message, 1008 the token is good no more or the peer
reads too slowly, 1011 a fault, 1013 the database cannot be asked now, and 4000 where a later channel of the AE took the place.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import structlog
from starlette.requests import HTTPConnection, Request
from starlette.types import Receive, Scope, Send

from adapters._http import Workers, actor_of, correlation_id, error_response, peer_of
from adapters.dicomweb.metrics import WORKITEMS, open_channels
from fhir_mappings.json import dumps
from hub import metrics
from hub.actor import Actor
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.workitem_channel import Handed, WorkitemChannel

if TYPE_CHECKING:
    from hub.boot import Services

_log = structlog.get_logger("adapters.dicomweb")

_PATH = re.compile(r"/dicom-web/subscribers/([^/]{1,16})")
TAKEN_OVER = 4000
#: Why a channel was closed, by the code that it was closed with.
_WHY = {1003: "message", 1008: "token", 1011: "fault", 1013: "unavailable", TAKEN_OVER: "taken-over"}
#: The database is asked this often for each open channel.
POLL_S = 0.5
#: Open channels of one process, and of those one institution's: each costs two small reads at every poll.
CHANNELS, CHANNELS_OF_MEMBER = 200, 20
#: Threads that ask the database.
_THREADS = 4
#: Message IDs are of two bytes (PS3.7 table E.1-1).
_MESSAGE_IDS = 0xFFFF


class _EndedError(Exception):
    """The channel is closed from this side."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class EventChannels:
    """The application of WebSockets."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._workers = Workers(threads=_THREADS)
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket from its opening request to its end; what is refused is answered by HTTP."""
        # Who asks is found by headers and address, which the opening request has like any other.
        request = cast("Request", HTTPConnection(scope))
        accepted = False
        try:
            title, actor = await self._asked(request)
            with self._counted(actor.institution):
                envelope = Envelope(
                    door="dicomweb",
                    actor=actor,
                    peer=peer_of(request),
                    kind="UPS-RS Open Event Channel",
                    correlation_id=correlation_id(request),
                )
                channel = WorkitemChannel(self._services, envelope, title)
                await self._workers.run(channel.open)
                accepted = True
                with _measured() as end:
                    await send({"type": "websocket.accept"})
                    end.why = await self._serve(request, channel, receive, send)
        except OSError:
            _log.info("event_channel_lost", peer=peer_of(request))
        except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it is, the peer hears of it
            if not accepted:
                await error_response(error, request)(scope, receive, send)
                return
            _log.exception("event_channel_fault", peer=peer_of(request))
            with contextlib.suppress(OSError, RuntimeError):
                await send({"type": "websocket.close", "code": 1011})

    @contextlib.contextmanager
    def _counted(self, member: str) -> Iterator[None]:
        """Hold one of the places that *member* and the process have, from before anything is waited for."""
        if self._open[member] >= CHANNELS_OF_MEMBER or self._open.total() >= CHANNELS:
            raise HubError(Category.BUSY, "Too many event channels are open.", remedy="Close those that nobody reads.")
        self._open[member] += 1
        try:
            yield
        finally:
            self._open[member] -= 1

    async def _asked(self, request: Request) -> tuple[str, Actor]:
        """Return the AE title that is meant and who asks; raises HubError for an address or a page that is none of ours."""
        found = _PATH.fullmatch(request.scope["path"])
        if found is None:
            raise HubError(Category.NOT_FOUND, "There is no WebSocket at this address.", where="URL")
        actor = await self._workers.run(lambda: actor_of(request, self._services))
        _check_origin(request, self._services.settings.public())
        return found[1], actor

    async def _serve(self, request: Request, channel: WorkitemChannel, receive: Receive, send: Send) -> str:
        """Serve the open channel and return why it ended, in a word of :data:`_WHY`."""
        reading = asyncio.create_task(_read(receive))
        sent: list[int] = []
        try:
            await self._tell(request, channel, send, reading, sent)
            return "left"
        except _EndedError as end:
            await send({"type": "websocket.close", "code": end.code, "reason": str(end)})
            return _WHY[end.code]
        except HubError as error:
            code = 1013 if error.transient else 1011
            await send({"type": "websocket.close", "code": code, "reason": error.category.value})
            return _WHY[code]
        finally:
            reading.cancel()
            if sent:
                # Where the database cannot be asked they stay, and are sent again.
                with contextlib.suppress(HubError):
                    await self._workers.run(lambda: channel.forget(sent))

    async def _tell(
        self, request: Request, channel: WorkitemChannel, send: Send, reading: asyncio.Task[None], sent: list[int]
    ) -> None:
        number = 0

        def turn() -> Sequence[Handed]:
            try:
                actor_of(request, self._services)
            except HubError as error:
                if error.status == 401:
                    raise _EndedError(1008, "The token is not valid any more.") from error
                raise
            if not channel.is_mine():
                raise _EndedError(TAKEN_OVER, "A later channel of this AE took the place.")
            return channel.turn(tuple(sent))

        while not reading.done():
            events = await self._workers.run(turn)
            sent.clear()
            for one in events:
                number = number % _MESSAGE_IDS + 1
                told = {**one.attributes, "00000110": {"vr": "US", "Value": [number]}}
                await send({"type": "websocket.send", "text": dumps(dict(sorted(told.items()))).decode()})
                sent.append(one.id)
                metrics.count("channel_events", kind=WORKITEMS, outcome="sent")
            if not events:
                await asyncio.wait({reading}, timeout=POLL_S)
        reading.result()


@dataclass(slots=True)
class _End:
    why: str


@contextlib.contextmanager
def _measured() -> Iterator[_End]:
    """Count one channel while it is open, and why it ended; the connection was lost unless something else is said."""
    end = _End("lost")
    open_channels.labels(WORKITEMS).inc()
    try:
        yield end
    except OSError:
        raise
    except Exception:
        end.why = "fault"
        raise
    finally:
        open_channels.labels(WORKITEMS).dec()
        metrics.count("event_channels", kind=WORKITEMS, why=end.why)


async def _read(receive: Receive) -> None:
    """Return when the peer has left; raises _EndedError when it sends a message."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message["type"] == "websocket.receive":
            raise _EndedError(1003, "An event channel takes no messages.")


def _check_origin(request: Request, public: str) -> None:
    """Refuse what a page of another site opens (RFC 6455 section 10.2).

    Programs send no Origin, or, as table 8.10.4-1 has it, one: then that of the address which they were given.
    """
    origin = request.headers.get("origin")
    if origin is None:
        return
    ours, (_, _, theirs) = urlsplit(public), origin.lower().partition("://")
    if origin.lower() != f"{ours.scheme}://{ours.netloc}".lower() and theirs != request.headers.get("host", "").lower():
        raise HubError(Category.FORBIDDEN, "Pages of other sites open no event channel.", where="Origin")
