"""The browser's view of it: from a study's link to its first painted slice, in OHIF and a headless Chromium.

Debian's browser draws with the processor here, on the cores that the hub needs too; a reader's machine is faster. The
first visit fetches and compiles the whole program, later ones find it in the browser's cache.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import ct
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
_SAID = "first image after ms:"
_WATCH = f"""
(() => {{
  let there = false, said = false;
  document.addEventListener("CORNERSTONE_STACK_NEW_IMAGE", () => {{ there = true; }}, true);
  document.addEventListener("CORNERSTONE_IMAGE_RENDERED", () => {{
    if (there && !said) {{ said = true; console.info("{_SAID}", performance.now()); }}
  }}, true);
}})();
"""
_DEADLINE_MS = 60_000


def is_here() -> bool:
    """Return whether there is a browser, and a viewer for it."""
    return Path(CHROMIUM).exists() and (VIEWER / "viewer.json").exists()


def address(port: int, study: str) -> str:
    """Return the page that opens *study*."""
    return f"http://127.0.0.1:{port}/viewer/viewer?StudyInstanceUIDs={study}"


def visits(page: str, token: str, cold: int, warm: int) -> tuple[list[float], list[float]]:
    """Return the seconds to the first painted slice of first visits, and of later ones."""
    from playwright.sync_api import sync_playwright

    first: list[float] = []
    later: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            for number in range(cold):
                context = browser.new_context(viewport={"width": 1280, "height": 800})
                context.add_init_script(_WATCH)
                first.append(_visit(context, page, token))
                # The last of them stays, with what it has in its cache.
                for _ in range(warm if number == cold - 1 else 0):
                    later.append(_visit(context, page, token))
                context.close()
        finally:
            browser.close()
    return first, later


def _visit(context: Any, page: str, token: str) -> float:
    tab = context.new_page()
    with tab.expect_console_message(lambda said: said.text.startswith(_SAID), timeout=_DEADLINE_MS) as heard:
        tab.goto(f"{page}#token={token}", wait_until="commit")
    taken = float(heard.value.text.removeprefix(_SAID)) / 1000
    tab.close()
    return taken


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
        cold, warm = visits(address(port, study), token, min(3, scale.rounds), scale.rounds)
    return [
        _row("viewer-cold", "first visit", cold, Target(), scale, slices),
        _row("viewer", "program in the browser's cache", warm, Target(at_most=2.0), scale, slices),
    ]
