"""The DIMSE door over real stores, and archives around it that are programs of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pynetdicom
from pynetdicom import evt

from hub.actor import Actor
from hub.boot import Services
from hub.clock import Clock, utc_now
from hub.ports import Grant, MemberEndpoint, StudyKey
from tests.support.databases import migrate, opened
from tests.support.dicom import CT_IMAGE_STORAGE
from tests.support.dimse import Door, FakeServices, running
from tests.support.hub import register
from tests.support.images import receive, services

NO_DELAY = {**os.environ, "TCP_NODELAY": "1"}
#: PatientRootQueryRetrieveInformationModelMOVE and its kin, by root and service.
MODELS = {
    (root, service): f"1.2.840.10008.5.1.4.1.2.{root_number}.{service_number}"
    for root, root_number in (("patient", 1), ("study", 2), ("patient-study", 3))
    for service, service_number in (("find", 1), ("move", 2), ("get", 3))
}


def dcmtk(name: str) -> str:
    """Return DCMTK's tool; the DICOM library installs scripts of the same names beside Python."""
    ours = Path(sys.prefix, "bin")
    path = os.pathsep.join(one for one in os.environ.get("PATH", "").split(os.pathsep) if Path(one) != ours)
    found = shutil.which(name, path=path)
    assert found is not None
    return found


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run DCMTK's *name*."""
    command = [dcmtk(name), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=100, env=NO_DELAY, check=False
    )


def dataset_of(part10: bytes) -> bytes:
    """Return what stands behind the File Meta Information, which each receiver writes anew."""
    return part10[144 + struct.unpack("<I", part10[140:144])[0] :]


def taken(folder: Path) -> list[bytes]:
    """Return the data sets that a program wrote to *folder*, in an order that does not depend on their names."""
    return sorted(dataset_of(path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def ae(member: str, title: str, port: int = 0, **settings: Any) -> MemberEndpoint:
    """Return an endpoint of *member*, reached on *port* of the loopback where there is one."""
    return MemberEndpoint(
        id=f"{member}/dicom/{title}",
        member=member,
        kind="dicom",
        ae_title=title,
        address=f"127.0.0.1:{port}" if port else "",
        settings=settings,
    )


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def hub_door(
    folder: Path, *endpoints: MemberEndpoint, clock: Clock = utc_now, **settings: Any
) -> Iterator[tuple[Services, Door]]:
    """Serve real services that know *endpoints*, and KN_PACS of KN and QH_PACS of QH, who are not reached."""
    folder.mkdir(exist_ok=True)
    url = f"sqlite:///{folder / 'hub.db'}"
    migrate(url)
    with opened(url, clock=clock) as database:
        made = services(database, folder, clock, **settings)
        register(made, ae("KN", "KN_PACS"), ae("QH", "QH_PACS"), *endpoints)
        with running(cast("FakeServices", made)) as door:
            yield made, door


def keep(hub: Services, *parts10: bytes, owner: str = "KN") -> None:
    """Store *parts10* as *owner*'s."""
    for one in parts10:
        assert receive(hub, one, Actor(institution=owner, client=f"{owner}_PACS")) == "new"


def grant(hub: Services, grantee: str, study: str, *, owner: str = "KN") -> None:
    """Let *grantee* see *owner*'s *study*, as an open Task does."""

    def work(tx: Any) -> None:
        row = tx.imaging.study(StudyKey(owner=owner, StudyInstanceUID=study))
        one = Grant(grantee=grantee, target_type="ImagingStudy", target_id=row["resource_id"], task_id="t1")
        tx.grants.open(one, now=hub.clock())

    hub.database.write(work)


def audit_lines(hub: Services, subtype: str) -> list[dict[str, Any]]:
    """Return the audit lines of *subtype*, oldest first."""
    found = hub.database.read(
        lambda tx: tx.audit.search({"subtype": subtype}, institution=None, limit=100, before=None)
    )
    return [dict(one) for one in reversed(found)]


@contextlib.contextmanager
def program(port: int, name: str, *arguments: object) -> Iterator[None]:
    """Run a listening DCMTK program until the end of the block; it is entered when *port* takes connections."""
    process = subprocess.Popen(
        [dcmtk(name), *map(str, arguments)], env=NO_DELAY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, f"{name} ended"
            assert time.monotonic() < deadline, f"{name} does not listen"
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def storescp(folder: Path, *arguments: object) -> Iterator[int]:
    """Run DCMTK's storescp, which writes the bits it gets to *folder*; yields its port."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    with program(port, "storescp", "--bit-preserving", "-od", folder, *arguments, port):
        yield port


@contextlib.contextmanager
def library_scp(
    answer: Callable[[Any], int], *classes: str, syntaxes: list[str] | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """Run a receiver made of the DICOM library; yields its port and the data sets it was sent."""
    received: list[bytes] = []

    def store(event: Any) -> int:
        received.append(event.request.DataSet.getvalue())
        return answer(event)

    entity = pynetdicom.AE("ANY")
    for uid in classes or (CT_IMAGE_STORAGE,):
        entity.add_supported_context(uid, syntaxes or pynetdicom.ALL_TRANSFER_SYNTAXES)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        yield server.socket.getsockname()[1], received
    finally:
        server.shutdown()
