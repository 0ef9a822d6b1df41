"""The viewer door: OHIF, a browser application for images, served at ``/viewer/`` and reading ``/dicom-web``.

``package`` fetches, checks and changes OHIF's published build (npm package @ohif/app) and puts it
where ``application`` serves it from. The hub's own part, ``pages/``, starts it with the user's token.
"""

from __future__ import annotations

from adapters.viewer.application import application

__all__ = ["application"]
