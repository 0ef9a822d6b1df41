"""The browser's view of it: from a study's link to its first painted slice, in OHIF and a headless Chromium.

Debian's browser draws with the processor here, on the cores that the hub needs too; a reader's machine is faster. The
first visit fetches and compiles the whole program, later ones find it in the browser's cache.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ct
from benchmarks.browser import Browser
from benchmarks.cstore import send
from benchmarks.measure import Row, Spread, Target
from benchmarks.processes import hub, until
from benchmarks.scale import Scale
from benchmarks.wire import fetch

CHROMIUM = "/usr/bin/chromium"
VIEWER = Path(sys.prefix) / "share" / "yixie-hub" / "viewer"
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--disable-background-networking",
]
SLICES = 100
#: Cornerstone, which paints for OHIF, says on its element that it has a new image, and then that it has painted.
_WATCH = """
window.firstImage = new Promise((resolve) => {
  let there = false;
  document.addEventListener("CORNERSTONE_STACK_NEW_IMAGE", () => { there = true; }, true);
  document.addEventListener("CORNERSTONE_IMAGE_RENDERED", () => { if (there) resolve(performance.now()); }, true);
});
"""


def is_here() -> bool:
    """Return whether there is a browser, and a viewer for it."""
    return Path(CHROMIUM).exists() and (VIEWER / "viewer.json").exists()


def address(port: int, study: str) -> str:
    """Return the page that opens *study*."""
    return f"http://127.0.0.1:{port}/viewer/viewer?StudyInstanceUIDs={study}"


def visits(page: str, token: str, cold: int, warm: int) -> tuple[list[float], list[float]]:
    """Return the seconds to the first painted slice of first visits, and of later ones."""
    entrance = f"{page}#token={token}"
    with Browser(CHROMIUM, FLAGS) as browser:
        first = [browser.visit(browser.context(), entrance, _WATCH, "window.firstImage") for _ in range(cold)]
        visitor = browser.context()
        browser.visit(visitor, entrance, _WATCH, "window.firstImage")
        later = [browser.visit(visitor, entrance, _WATCH, "window.firstImage") for _ in range(warm)]
    return [one / 1000 for one in first], [one / 1000 for one in later]


def _row(key: str, work: str, seconds: Sequence[float], target: Target, scale: Scale, slices: int) -> Row:
    return Row(
        key=key,
        work=f"first image in the viewer, CT of {slices} slices, {work}",
        unit="s",
        hub=Spread.of(seconds),
        more_is_better=False,
        target=target,
        counted=scale.name == "full",
        note="Chromium without a graphics card, on the same cores",
    )


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return the time to the first image, for a new browser and for one that has been here; none without the viewer."""
    if not is_here():
        print("viewer: needs chromium and `hub viewer add`; left out", file=sys.stderr)
        return []
    slices = min(SLICES, scale.series_slices)
    files = ct.write_series(folder / "ct", 1, 1, slices, pixels=scale.cstore_pixels)
    study, series, _ = ct.uids(1, 1, 1)
    with hub(folder / "hub", study_quiet_s="1", viewer_dir=str(VIEWER)) as running:
        send([files], running.ports["dimse"], "YIXIE")
        port, token = running.ports["http"], running.tokens["KN"]
        path = f"/dicom-web/studies/{study}/series/{series}/metadata"

        def kept() -> bool:
            return fetch(port, path, token=token, Accept="application/dicom+json")[0] == 200

        until(kept, what="the study can be read")
        cold, warm = visits(address(port, study), token, scale.rounds, scale.rounds)
    return [
        _row("viewer-cold", "first visit", cold, Target(), scale, slices),
        _row("viewer", "program in the browser's cache", warm, Target(at_most=2.0), scale, slices),
    ]
