"""The HTTP door: FHIR, DICOMweb, OAuth, v2 over HTTP and operation, composed into one application on one port."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.http.server import HttpDoor

if TYPE_CHECKING:
    from hub.boot import Door

DOOR: Door = HttpDoor()
