"""The DICOMweb door: QIDO-RS, WADO-RS, STOW-RS (PS3.18 section 10), WADO-URI (section 9) and
UPS-RS (chapter 11); beyond the standard, DELETE as a mark and a change feed.

Each address of images exists twice: under ``/dicom-web``, where the asker's own copy of a study is meant first, and under
``/dicom-web/institutions/{owner}``, which names the institution whose copy is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route

from adapters._http import Workers
from adapters.dicomweb import capabilities, subscriptions, workitems
from adapters.dicomweb.bulkdata import Bulkdata
from adapters.dicomweb.changes import Changes
from adapters.dicomweb.deletion import Delete
from adapters.dicomweb.errors import Handler, guarded
from adapters.dicomweb.qido import Search
from adapters.dicomweb.rendered import Rendered
from adapters.dicomweb.stow import Store
from adapters.dicomweb.wado import Retrieve
from adapters.dicomweb.wado_uri import WadoUri
from adapters.pixels.pool import Pool

if TYPE_CHECKING:
    from hub.boot import Services

PREFIXES = ("/dicom-web", "/dicom-web/institutions/{owner}")
#: Threads for the synchronous core behind this door; uploads and downloads wait on disks, not on the processor.
_THREADS = 16
#: Threads that wait for decoders, so that those who only search and fetch never wait behind them.
_RENDERERS = 8


def routes(services: Services) -> list[BaseRoute]:
    """Return the routes of the door, for the application that serves HTTP."""
    workers = Workers(threads=_THREADS)
    # Nothing is started here: the first image that must be decoded starts the first process.
    renderers, pool = Workers(threads=_RENDERERS), Pool.of(services.settings)
    search, store = Search(services, workers), Store(services, workers)
    retrieve = Retrieve(services, workers, pool, renderers)
    bulk = Bulkdata(services, workers, pool, retrieve)
    rendered = Rendered(services, retrieve, pool, renderers)
    wado_uri = WadoUri(services, retrieve, rendered, renderers)
    delete, changes = Delete(services, workers), Changes(services, workers)
    study, series = "/studies/{study}", "/studies/{study}/series/{series}"
    instance = f"{series}/instances/{{instance}}"
    found: list[tuple[str, str, Handler]] = [
        ("GET", "/studies", search.studies),
        ("GET", "/series", search.series),
        ("GET", "/instances", search.instances),
        ("GET", f"{study}/series", search.series),
        ("GET", f"{study}/instances", search.instances),
        ("GET", f"{series}/instances", search.instances),
        *(("GET", place, bulk.objects) for place in (study, series, instance)),
        ("GET", f"{study}/metadata", retrieve.metadata),
        ("GET", f"{series}/metadata", retrieve.metadata),
        ("GET", f"{instance}/metadata", retrieve.metadata),
        ("GET", f"{instance}/frames/{{frames}}", retrieve.frames),
        ("GET", f"{instance}/bulk/{{path:path}}", bulk.one),
        *(("GET", f"{place}/bulkdata", bulk.bulkdata) for place in (study, series, instance)),
        *(("GET", f"{place}/pixeldata", bulk.pixeldata) for place in (study, series, instance)),
        *(
            ("GET", f"{place}/{name}", handler)
            for name, handler in (("rendered", rendered.rendered), ("thumbnail", rendered.thumbnail))
            for place in (study, series, instance, f"{instance}/frames/{{frames}}")
        ),
        ("POST", "/studies", store.store),
        ("POST", study, store.store),
        *(("DELETE", place, delete.delete) for place in (study, series, instance)),
        ("GET", "/changefeed", changes.feed),
        ("GET", "/changefeed/latest", changes.latest),
        *workitems.routes(services, workers),
        *subscriptions.routes(services, workers),
    ]
    made: list[BaseRoute] = [Route("/wado", guarded(wado_uri.get), methods=["GET"])]
    for prefix in PREFIXES:
        for method, path, handler in found:
            # Storing is always into the asker's own institution; feed and worklist are of all that the asker may see.
            if "{owner}" in prefix and (method == "POST" or path.startswith(("/changefeed", "/workitems"))):
                continue
            made.append(Route(prefix + path, guarded(handler), methods=[method]))
    return [*made, *capabilities.routes(services, made)]
