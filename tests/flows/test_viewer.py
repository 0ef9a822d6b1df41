"""A radiologist reads in the browser: OHIF at ``/viewer/``, in a headless Chromium, over the hub's own DICOMweb.

The pictures that are judged are kept under ``build/viewer/`` of the folder that the tests run in, to be looked at.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.conftest import require_tool
from tests.flows.conftest import import_members
from tests.flows.hub_process import HubProcess, eventually
from tests.flows.viewer_studies import Study, cardiac_us, chest_ct, mammogram, report_pdf, segmentation, stow_body

pytestmark = [pytest.mark.tool("chromium"), pytest.mark.timeout(300)]

PICTURES = Path.cwd() / "build" / "viewer"
#: The picture is drawn by the processor, and the browser asks nobody for anything of its own.
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--disable-background-networking",
]
OVERLAY = "[data-cy=viewport-overlay-{}]"


class Reader:
    """A browser's tab with somebody's token, and what it asked the network."""

    def __init__(self, browser: Any, hub: HubProcess, **device: Any) -> None:
        self.hub = hub
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **device})
        self.page = self.context.new_page()
        #: Addresses of other hosts; what the browser brings itself has schemes of its own.
        self.foreign: list[str] = []
        self.asked: list[str] = []
        self.refused: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("websocket", lambda socket: self.foreign.append(socket.url))
        self.page.on("response", lambda answer: answer.status >= 400 and self.refused.append(answer.url))
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))

    def _note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https", "ws", "wss"}:
            self.asked.append(url)
            if f"{parts.scheme}://{parts.netloc}" != self.hub.http:
                self.foreign.append(url)

    def go(self, path: str, token: str = "") -> None:
        """Open *path*, with the token in the fragment as a launch link has it."""
        # Another fragment alone would load nothing.
        self.page.goto("about:blank")
        self.page.goto(f"{self.hub.http}{path}" + (f"#token={token}" if token else ""))

    def read(self, study: Study) -> None:
        """Open *study* in this tab, whose token is known by now."""
        self.go(f"/viewer/viewer?StudyInstanceUIDs={study.uid}")

    def overlay(self, corner: str) -> str:
        """Return what is written over a corner of the image, without spaces."""
        return "".join(self.page.locator(OVERLAY.format(corner)).first.inner_text().split())

    def until_overlay(self, corner: str, text: str) -> None:
        """Wait until *text* is written over the corner."""
        self.page.locator(OVERLAY.format(corner), has_text=text).first.wait_for(timeout=60_000)

    def image(self, name: str, holds: Callable[[np.ndarray[Any, Any]], bool]) -> np.ndarray[Any, Any]:
        """Return the viewport's picture as soon as it is as *holds* says; kept as *name*."""
        pane = self.page.locator("[data-cy=viewport-grid]")
        PICTURES.mkdir(parents=True, exist_ok=True)

        def look() -> tuple[np.ndarray[Any, Any]] | None:
            data = pane.screenshot(path=PICTURES / f"{name}.png")
            found = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
            return (found,) if holds(found) else None

        (found,) = eventually(look, what=f"the picture {name} is painted", deadline_s=60)
        self.page.screenshot(path=PICTURES / f"{name}-page.png")
        return found


def share(picture: np.ndarray[Any, Any], low: tuple[int, int, int], high: tuple[int, int, int]) -> float:
    """Return which part of *picture* has colours between *low* and *high*."""
    return float(((picture >= low) & (picture <= high)).all(axis=2).mean())


def body_and_lungs(picture: np.ndarray[Any, Any]) -> bool:
    """Whether *picture* shows the grey body, the dark lungs and the white spine of the CT."""
    return (
        share(picture, (150, 150, 150), (180, 180, 180)) > 0.2
        and share(picture, (15, 15, 15), (45, 45, 45)) > 0.04
        and share(picture, (250, 250, 250), (255, 255, 255)) > 0.005
    )


@pytest.fixture(scope="module")
def viewer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the viewer is installed: by ``make setup``, else fetched here."""
    installed = Path(sys.prefix) / "share" / "yixie-hub" / "viewer"
    hub = HubProcess(tmp_path_factory.mktemp("viewer"), viewer_dir=str(installed))
    if "OHIF" in hub.run("viewer", "status", check=False):
        return installed
    fetched = HubProcess(hub.folder, viewer_dir=str(hub.folder / "viewer"))
    said = fetched.run("viewer", "add", check=False)
    if "OHIF" not in said:
        if os.environ.get("CI") == "true":
            pytest.fail("The viewer is missing and cannot be fetched; `hub viewer add` says why.")
        pytest.skip("needs the viewer (hub viewer add)")
    return hub.folder / "viewer"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, viewer_folder: Path) -> Iterator[HubProcess]:
    hub = HubProcess(tmp_path_factory.mktemp("hub"), viewer_dir=str(viewer_folder))
    hub.run("migrate")
    import_members(hub)
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=require_tool("chromium"), args=FLAGS)
        yield one
        one.close()


@pytest.fixture
def reader(served: HubProcess, browser: Any) -> Iterator[Reader]:
    one = Reader(browser, served)
    yield one
    one.context.close()


def test_a_radiologist_finds_studies_and_reads_each_kind(reader: Reader, served: HubProcess) -> None:
    ct, us, mg, pdf = chest_ct(), cardiac_us(), mammogram(), report_pdf()
    sender = served.asker("KN")
    for study in (ct, us, mg, pdf):
        headers, body = stow_body(study.files)
        assert sender.request("POST", "/dicom-web/studies", headers=headers, content=body).status_code == 200

    list_shows_and_filters(reader, served, (ct, us, mg, pdf))
    # The first study is opened by the link that its ImagingStudy carries.
    found = eventually(
        lambda: sender.search(f"/fhir/ImagingStudy?identifier=urn:dicom:uid|urn:oid:{ct.uid}"),
        what="the study is complete",
    )
    links = [one["valueUri"] for one in found[0]["extension"] if one["url"].endswith("/StructureDefinition/viewer")]
    assert links == [f"/viewer/viewer?StudyInstanceUIDs={ct.uid}"]
    reader.go(links[0])
    ct_scrolls_and_windows(reader, ct)
    ultrasound_moves(reader, us)

    reader.read(mg)
    reader.until_overlay("top-left", "乳腺X线摄影")
    reader.image(
        "mammogram-j2k",
        lambda picture: (
            share(picture, (100, 100, 100), (125, 125, 125)) > 0.2
            and share(picture, (215, 215, 215), (235, 235, 235)) > 0.01
        ),
    )

    reader.read(pdf)
    reader.image("pdf", lambda picture: share(picture, (20, 90, 190), (40, 115, 215)) > 0.005)

    headers, body = stow_body([segmentation(ct)])
    assert sender.request("POST", "/dicom-web/studies", headers=headers, content=body).status_code == 200
    segmentation_is_coloured(reader, ct)

    assert reader.foreign == []
    assert reader.refused == []
    assert [error for error in reader.errors if "Content Security Policy" in error] == []
    # The token is in no address that went over the wire.
    token = served.token("KN")
    assert [url for url in reader.asked if token in url] == []
    assert token not in served.log()


def list_shows_and_filters(reader: Reader, hub: HubProcess, studies: tuple[Study, ...]) -> None:
    page = reader.page
    reader.go("/viewer/", hub.token("KN"))
    rows = page.locator("[data-cy^=studyRow-]")
    rows.nth(len(studies) - 1).wait_for(timeout=60_000)
    page.get_by_text("知道了").click()
    assert {row.split()[0] for row in rows.all_inner_texts()} == {"郑伟", "周建国", "李秀英", "王芳"}
    assert page.get_by_text("检查列表").count() == 1
    # The fragment is gone from the address bar.
    assert "#" not in page.evaluate("location.href")
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "list.png")

    def leaves(study: Study) -> None:
        only = page.locator(f'[data-cy="studyRow-{study.uid}"]')

        def alone() -> bool:
            return rows.count() == 1 and only.count() == 1

        eventually(alone, what=f"the list shows {study.modality} alone")

    ct, us, mg, _ = studies
    for field, text, study in (
        ("input-patientName", "郑伟", ct),
        ("input-patientName", "zhou", us),
        ("input-mrn", "3002", mg),
        ("input-accession", "KN000002", us),
        ("input-description", "平扫", ct),
    ):
        page.locator(f"[data-cy={field}]").fill(text)
        leaves(study)
        page.locator(f"[data-cy={field}]").fill("")
        eventually(lambda: rows.count() == len(studies), what="the whole list is back")

    page.goto(f"{hub.http}/viewer/?modalities=US")
    leaves(us)
    page.goto(f"{hub.http}/viewer/?startDate=20250613&endDate=20250613")
    leaves(mg)


def ct_scrolls_and_windows(reader: Reader, study: Study) -> None:
    page = reader.page
    reader.until_overlay("bottom-right", f"(1/{len(study.files)})")
    first = reader.image("ct-first", body_and_lungs)
    assert reader.overlay("bottom-left") == "W:1600L:-200"

    box = page.locator("[data-cy=viewport-pane]").bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    for turn in range(2, 13):
        page.mouse.wheel(0, 100)
        reader.until_overlay("bottom-right", f"({turn}/{len(study.files)})")
    # The nodule is larger in one end of the series than in its middle.
    scrolled = reader.image(
        "ct-scrolled", lambda picture: body_and_lungs(picture) and not np.array_equal(picture, first)
    )
    assert share(scrolled, (150, 150, 150), (180, 180, 180)) < share(first, (150, 150, 150), (180, 180, 180))

    page.mouse.down()
    page.mouse.move(middle[0] + 120, middle[1] + 80, steps=6)
    page.mouse.up()
    eventually(lambda: reader.overlay("bottom-left") != "W:1600L:-200", what="the window changes")
    reader.image("ct-windowed", lambda picture: not body_and_lungs(picture) and len(np.unique(picture)) > 3)

    # The patient's name stands beside the images as it is written in Chinese.
    page.get_by_text("郑伟").first.wait_for(timeout=10_000)


def ultrasound_moves(reader: Reader, study: Study) -> None:
    page = reader.page
    reader.read(study)
    reader.until_overlay("bottom-right", "(1/12)")

    def disc(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return (picture[:, :, 0] > 180) & (picture[:, :, 1] < 110) & (picture[:, :, 2] < 90)

    first = reader.image("us-first", lambda picture: bool(disc(picture).mean() > 0.02))
    page.mouse.move(640, 500)
    for turn in range(2, 8):
        page.mouse.wheel(0, 100)
        reader.until_overlay("bottom-right", f"({turn}/12)")
    was = float(np.nonzero(disc(first))[1].mean())
    reader.image(
        "us-later", lambda picture: disc(picture).any() and float(np.nonzero(disc(picture))[1].mean()) > was + 50
    )


def segmentation_is_coloured(reader: Reader, study: Study) -> None:
    reader.go(f"/viewer/segmentation?StudyInstanceUIDs={study.uid}")
    reader.until_overlay("bottom-right", f"(1/{len(study.files)})")
    reader.image("seg-without", body_and_lungs)
    reader.page.locator("[data-cy=study-browser-thumbnail-no-image]").dblclick()

    def coloured(picture: np.ndarray[Any, Any]) -> bool:
        spread = picture.max(axis=2) - picture.min(axis=2)
        middle = spread[200:600, 50:-50]
        return bool((middle > 40).mean() > 0.02)

    reader.image("seg", coloured)


def test_who_has_no_token_is_told_how_to_come_in(reader: Reader, served: HubProcess) -> None:
    page = reader.page
    reader.go("/viewer/")
    page.locator("#entry").wait_for()
    said = page.locator("#entry").inner_text()
    assert "粘贴访问令牌" in said
    assert "paste an access token" in said
    assert not page.locator("#expired").is_visible()
    # Nothing of the program was loaded for it, and nothing was asked of the hub.
    assert [url for url in reader.asked if "/files/" in url or "/dicom-web" in url] == []

    page.locator("#token").fill(served.token("KN"))
    page.locator("#enter button").click()
    page.locator("[data-cy=num-studies]").wait_for(timeout=60_000)
    assert page.evaluate("location.pathname").rstrip("/") == "/viewer"
    assert reader.foreign == []


def test_a_token_that_has_ended_is_told_and_forgotten(reader: Reader) -> None:
    page = reader.page
    reader.go("/viewer/viewer?StudyInstanceUIDs=1.2.3", "A" * 43)
    page.locator("#expired").wait_for(timeout=60_000)
    said = page.locator("#expired").inner_text()
    assert "已过期" in said
    assert "no longer" in said
    assert page.evaluate("sessionStorage.getItem('yixie.token')") is None
    assert any("/dicom-web" in url for url in reader.refused)
    # The study that was asked for is opened after coming in again.
    assert page.evaluate("location.search") == "?StudyInstanceUIDs=1.2.3"
