"""The one place that wires: settings in, services out.

Doors and stores are loaded by name so that the imports keep pointing one way (``adapters | storage -> hub``). A door
is a module ``adapters.<name>`` that has ``DOOR: Door``; a sender is a module ``adapters.<name>.sender`` that has
``open_sender(services) -> Sender``; ``tests/contracts`` proves that each keeps its port.
"""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from fhir_mappings.text import full_pinyin
from hub.clock import Clock, utc_now
from hub.config import Settings
from hub.ports import Database, ObjectStore, Sender
from hub.ports.packing import FrameCodec

if TYPE_CHECKING:
    from hub.directory import Directory
    from hub.dispatch.news import News
    from hub.documents import DocumentService
    from hub.identity import IdentityService
    from hub.imaging import ImagingService
    from hub.messages import MessageService
    from hub.presented_certificates import PresentedCertificates
    from hub.quotas import Minutes
    from hub.resources import ResourceService
    from hub.sharing import SharingService
    from hub.tasks import TaskService

#: Doors by the name that ``--only`` takes; ``http`` carries FHIR, DICOMweb and ops.
DOORS: Mapping[str, str] = {
    "dimse": "adapters.dimse",
    "mllp": "adapters.mllp",
    "http": "adapters.http",
    "worker": "adapters.worker",
}
#: Senders by ``NewDelivery.kind``.
SENDERS: Mapping[str, str] = {
    "mllp": "adapters.mllp.sender",
    "folder": "adapters.folder.sender",
    "dimse": "adapters.dimse.sender",
    "fhir": "adapters.fhir.sender",
    "commitment": "adapters.dimse.commitment_sender",
    "commitment-request": "adapters.dimse.commitment_sender",
    "availability": "adapters.dimse.availability",
    "priors": "adapters.dimse.priors_sender",
    "workitem-event": "adapters.dimse.ups_events",
    "webhook": "adapters.webhook.sender",
}
#: Packages of which every process needs nearly all; commands are left out, and the drivers that a setting chooses.
_SHARED = ("fhir_mappings", "hub", "storage.sql")
_APART = ("hub.cli", "hub.__main__")


@dataclass(frozen=True)
class Services:
    """Everything a door may call, built once per process.

    Attributes:
        node: name of this process, unique among those that share the database (``http-0``); names its audit chain.
    """

    settings: Settings
    database: Database
    objects: ObjectStore
    node: str
    clock: Clock = utc_now

    @cached_property
    def directory(self) -> Directory:
        """Members, their endpoints and credentials, cached until they change."""
        from hub.directory import Directory

        return Directory(self.database, self.clock)

    @cached_property
    def tasks(self) -> TaskService:
        """The workflow tables applied to stored Tasks."""
        from hub.tasks import TaskService

        return TaskService(self.settings, self.directory, self.objects, self.clock)

    @cached_property
    def news(self) -> News:
        """What partners are told of records that change."""
        from hub.dispatch.news import News

        return News(self.settings, self.directory, self.objects, self.clock)

    @cached_property
    def resources(self) -> ResourceService:
        """FHIR interactions."""
        from hub.resources import ResourceService

        return ResourceService(self)

    @cached_property
    def imaging(self) -> ImagingService:
        """DICOM instances in, studies complete, ImagingStudy out."""
        from hub.imaging import ImagingService

        return ImagingService(self)

    @cached_property
    def identity(self) -> IdentityService:
        """Links between patients of different institutions."""
        from hub.identity import IdentityService

        return IdentityService(self)

    @cached_property
    def presented_certificates(self) -> PresentedCertificates:
        """When the certificates end that members show at the TLS doors."""
        from hub.presented_certificates import PresentedCertificates

        return PresentedCertificates(self.database, self.clock)

    @cached_property
    def sharing(self) -> SharingService:
        """Links by which patients see their studies."""
        from hub.sharing import SharingService

        return SharingService(self)

    @cached_property
    def minutes(self) -> Minutes:
        """What is left of the members' quotas by the minute, for all processes of this node together."""
        path = self.settings.data_dir / "run" / "quotas"
        made: Minutes = importlib.import_module("storage.quotas").SharedMinutes(path)
        return made

    @cached_property
    def messages(self) -> MessageService:
        """HL7 v2 messages in, acknowledgements out."""
        from hub.messages import MessageService

        return MessageService(self)

    @cached_property
    def documents(self) -> DocumentService:
        """Clinical documents (CDA) in."""
        from hub.documents import DocumentService

        return DocumentService(self)

    def close(self) -> None:
        """Finish the commits under way and let the database go."""
        self.database.close()


class Door(Protocol):
    """A protocol's listener."""

    def serve(self, services: Services, sockets: Mapping[str, int], stop: threading.Event, index: int) -> None:
        """Serve until *stop* is set, then finish what is in flight.

        Args:
            sockets: file descriptors of sockets that are bound and listening, by purpose (``plain``, ``tls``).
            index: number of this process among those of the same door.
        """
        ...


def assemble(settings: Settings, *, node: str) -> Services:
    """Return the services of one process.

    Raises:
        HubError: unavailable or fault when a store is missing or weaker than the rules demand.
    """
    inner = importlib.import_module("storage.objects").open_from(settings)
    database: Database = importlib.import_module("storage.sql").open_database(settings, node=node)
    codec: FrameCodec = importlib.import_module("adapters.pixels.lossless").open_codec(settings)
    objects: ObjectStore = importlib.import_module("storage.objects.packed").packed_store(inner, database, codec)
    return Services(settings=settings, database=database, objects=objects, node=node)


def preload(doors: Sequence[str]) -> None:
    """Load the code that processes of *doors* will need, so that those forked from this one share it.

    Opens nothing and starts no thread.
    """
    for name in doors:
        importlib.import_module(DOORS[name])
    for name in SENDERS.values() if "worker" in doors else ():
        importlib.import_module(name)
    importlib.import_module("storage.objects")
    for package in _SHARED:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.startswith(_APART):
                importlib.import_module(module.name)
    # The dictionary of pinyin is read at its first use.
    full_pinyin("医")


def door(name: str) -> Door:
    """Return the door called *name*."""
    loaded: Door = importlib.import_module(DOORS[name]).DOOR
    return loaded


def sender(kind: str, services: Services) -> Sender:
    """Return a new sender for deliveries of *kind*."""
    opened: Sender = importlib.import_module(SENDERS[kind]).open_sender(services)
    return opened
