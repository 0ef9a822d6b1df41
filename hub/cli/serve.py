"""``hub serve`` and the processes it starts."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from hub import config
from hub.boot import DOORS, Services, assemble, door, preload
from hub.cli.common import node, note, prepare, say, settings, state, tool
from hub.config import Settings
from hub.errors import Category, HubError

log = structlog.get_logger("hub.serve")

#: How often a process asks its stores whether they still take data.
HEALTH_S = 5.0


def chosen_doors(only: str) -> Sequence[str]:
    """Return the doors named in *only*, all for an empty one.

    Raises:
        HubError: incorrect for a name that is no door.
    """
    names = [name.strip() for name in only.split(",") if name.strip()] or list(DOORS)
    unknown = sorted(set(names) - set(DOORS))
    if unknown:
        raise HubError(
            Category.INCORRECT,
            f"There is no door {', '.join(unknown)}.",
            where="--only",
            remedy=f"Use {', '.join(DOORS)}.",
        )
    return tuple(dict.fromkeys(names))


def check_stores(found: Settings) -> None:
    """Open and close every store once, so that a wrong setting stops the command and not its children.

    Raises:
        HubError: what is wrong with the stores, or with the workflow tables.
    """
    prepare(found)
    with node(found) as name:
        services = assemble(found, node=name)
        try:
            services.database.healthy()
            services.objects.healthy()
            _ = services.tasks
        finally:
            services.close()


def check_stores_apart(found: Settings) -> None:
    """As :func:`check_stores`, in a process of its own: the supervisor would else keep some 50 MB that it never uses."""
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            check_stores(found)
            status = 0
        except HubError as error:
            note(f"错误 / error ({error.category.value}): {error}")
        except BaseException:  # noqa: BLE001 - nothing may run on in the child; the parent ends the command
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(ended) != 0:
        raise typer.Exit(1)


def announce(addresses: Mapping[str, Mapping[str, str]]) -> None:
    """Print where the doors are."""
    schemes = {"http": ("http://", "https://"), "mllp": ("mllp://", "mllps://"), "dimse": ("dicom://", "dicoms://")}
    for name, ways in addresses.items():
        for purpose, address in ways.items():
            say(f"{name:<6} {schemes[name][purpose == 'tls']}{address}")


def serve(
    only: Annotated[str, typer.Option(help="只启动这些门 / only these doors: dimse,mllp,http,worker")] = "",
) -> None:
    """启动枢纽 / Serve: DIMSE, MLLP, HTTP and the worker, each in its own processes."""
    found = settings()
    doors = chosen_doors(only)
    check_stores_apart(found)
    raise typer.Exit(supervise(found, doors))


def supervise(found: Settings, doors: Sequence[str], *, announced: threading.Event | None = None) -> int:
    """Run the supervisor in this thread until SIGTERM or SIGINT; returns its exit status."""

    def tell(addresses: Mapping[str, Mapping[str, str]]) -> None:
        announce(addresses)
        if announced is not None:
            announced.set()

    extra = {"HUB_CONFIG": str(state.config.resolve())} if state.config is not None else {}
    # Relative paths in the settings mean the parent's working directory, which its children share.
    supervisor = tool("adapters.ops.supervisor").Supervisor(found, doors, extra, tell)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    status: int = supervisor.run()
    return status


def template(control: Annotated[int, typer.Option()], only: Annotated[str, typer.Option()] = "") -> None:
    """Load the code of the doors and fork their processes; started by ``hub serve`` only."""
    # A numeric library that some codec loads would start threads, and what has threads must not be forked.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    found = config.load(Path(os.environ["HUB_CONFIG"]) if os.environ.get("HUB_CONFIG") else None)
    preload(chosen_doors(only))
    tool("adapters.ops.template").serve(control, lambda order: _child(found, order))


def _child(found: Settings, order: Any) -> int:
    node = found.node(f"{order.door}-{order.index}")
    tool("adapters.ops.logs").configure(found.log_level, process=node)
    tool("adapters.ops.metrics").install()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # Ctrl-C reaches the whole group; the parent decides and sends SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_stop_with_parent, args=(order.lifeline, stop), name="lifeline", daemon=True).start()
    return _run(found, node, order.door, order.index, order.sockets, stop)


def _run(found: Settings, node: str, name: str, index: int, sockets: Mapping[str, int], stop: threading.Event) -> int:
    fatal = threading.Event()
    try:
        services = assemble(found, node=node)
    except HubError as error:
        log.critical("cannot_start", category=error.category.value, error=error.message, remedy=error.remedy)
        return _status(error)
    threading.Thread(target=_watch_health, args=(services, stop, fatal), name="health", daemon=True).start()
    try:
        door(name).serve(services, sockets, stop, index)
    except HubError as error:
        log.critical("door_failed", category=error.category.value, error=error.message, remedy=error.remedy)
        return _status(error)
    finally:
        services.close()
    return _fatal_status() if fatal.is_set() else 0


def _fatal_status() -> int:
    status: int = tool("adapters.ops.supervisor").EXIT_FATAL
    return status


def _status(error: HubError) -> int:
    return _fatal_status() if error.fatal else 1


def _stop_with_parent(lifeline: int, stop: threading.Event) -> None:
    # The parent never writes, so the read ends when the parent does.
    os.read(lifeline, 1)
    stop.set()


def _watch_health(services: Services, stop: threading.Event, fatal: threading.Event) -> None:
    while not stop.wait(HEALTH_S):
        for store in (services.database, services.objects):
            try:
                store.healthy()
            except HubError as error:
                if error.fatal:
                    log.critical("disk_failed", error=error.message, remedy=error.remedy)
                    fatal.set()
                    stop.set()
                    return
                log.warning("store_unhealthy", category=error.category.value, error=error.message)
