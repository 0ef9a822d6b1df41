"""Drops HL7 v2 messages into a partner's folder ``out``, one file each, for systems that import files.

A file appears under its final name only when it is whole and durable. That is all most folders can say, so a delivery counts
when its file is there; of a partner that answers by files the answer counts (:mod:`hub.acknowledged`). Names rise in the order of delivery, and importers that go by name keep it.
The setting ``batch-out`` puts each into a batch or file of its own (HL7 v2 chapter 2.10.3), for importers that want one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from adapters.folder import base_of, open_remote
from adapters.folder.place import write_whole
from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2 import batch
from fhir_mappings.hl7v2.charset import decode_message
from hub.acknowledge import UNANSWERED
from hub.acknowledged import AWAITING, UNACKNOWLEDGED, awaited_s, came
from hub.errors import HubError
from hub.file_doors import REMOTE
from hub.ports import Delivery, MemberEndpoint, Sender, SendResult

if TYPE_CHECKING:
    from adapters.folder.sftp_place import SftpPlace
    from hub.boot import Services
    from hub.config import Settings


def open_sender(services: Services) -> Sender:
    """Return a sender for v2 deliveries to ``file:///path`` and ``sftp://...``; safe for several threads."""
    return FolderSender(services.settings)


class FolderSender:
    """The :class:`hub.ports.Sender` for folders, with one connection to each server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._places: dict[str, tuple[MemberEndpoint, SftpPlace]] = {}

    def send(self, delivery: Delivery, endpoint: MemberEndpoint) -> SendResult:
        """Write the payload as a file; never raises for a folder's fault.

        A delivery sent again writes the same file again: its name is the delivery's number. Where acknowledgement files
        are awaited, it is sent again only after one said so, or none came.
        """
        awaits_s = 0.0 if UNANSWERED in delivery.headers else awaited_s(endpoint)
        if awaits_s and delivery.last_error == AWAITING:
            return SendResult(error=UNACKNOWLEDGED)
        if (told := came(delivery, endpoint)) is not None:
            return told
        local = not endpoint.address.startswith(REMOTE)
        try:
            data = _wrapped(delivery.payload, str(endpoint.settings.get("batch-out", "")))
            files = {f"{delivery.id:012d}.hl7": data}
            if marker := str(endpoint.settings.get("marker", "")):
                files[f"{delivery.id:012d}.hl7{marker}"] = b""
            for name, content in files.items():
                if local:
                    write_whole(base_of(endpoint) / "out", name, content, make=False)
                else:
                    self._place(endpoint).drop("out", name, content)
        except HubError as error:
            # An address is as wrong tomorrow; a key that is missing comes, and until then all waits.
            return SendResult(error=error.message, permanent=local, reached=local)
        except MappingError as error:
            return SendResult(error=str(error), permanent=True)
        except OSError as error:
            # A share that is not mounted has no folder `out`; making one would fill the disk below it.
            return SendResult(error=f"The folder out cannot be written: {error.strerror}.", reached=False)
        return SendResult(awaits_s=awaits_s)

    def close(self) -> None:
        """End the connections."""
        with self._lock:
            for _, place in self._places.values():
                place.close()
            self._places.clear()

    def _place(self, endpoint: MemberEndpoint) -> SftpPlace:
        with self._lock:
            known = self._places.get(endpoint.id)
            if known is not None and known[0] == endpoint:
                return known[1]
            place = open_remote(endpoint, self._settings)
            if known is not None:
                known[1].close()
            self._places[endpoint.id] = endpoint, place
            return place


def _wrapped(payload: bytes, how: str) -> bytes:
    if not how:
        return payload
    return batch.enveloped(payload, charset=decode_message(payload).charset, file=how == "file")
