"""Whatever a radiologist meets in a day opens in the viewer, and its pixels are those that were sent.

Cards of many makers' encodings, an ultrasound that plays, two series side by side, reports, key images and presentation
states beside a CT, an enhanced CT, an ECG; the language that is chosen, and the study as a file. No step waits for time.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from tests.flows.hub_process import HubProcess, eventually
from tests.flows.test_viewer import (  # noqa: F401 - fixtures are found by their names
    OVERLAY,
    Reader,
    body_and_lungs,
    browser,
    reader,
    served,
    share,
    viewer_folder,
)
from tests.flows.test_viewer_trouble import kept, send
from tests.flows.viewer_cards import CARDS, cards
from tests.flows.viewer_kinds import FINDINGS, documented_ct, ecg, enhanced_ct
from tests.flows.viewer_studies import cardiac_us

pytestmark = [pytest.mark.tool("chromium"), pytest.mark.timeout(300)]

SERIES = "[data-cy=study-browser-thumbnail]"
BESIDE = "[data-cy=study-browser-thumbnail-no-image]"
#: The header's menu: its last button.
MENU = "div:has(> div > [data-cy=return-to-work-list]) [aria-haspopup=menu]"
ACTIVE = "[data-is-active=true]"
PLAY = "[data-cy=cine-player-play-pause]"
#: Rounding of YBR to RGB in both directions; greys come exact.
COLOUR_OFF = 2


def quarters(picture: np.ndarray[Any, Any]) -> list[list[int]]:
    """Return the colours in the middle of the four quarters of a card that fills the height of *picture*."""
    height, width, _ = picture.shape
    off = height // 5
    places = [(y, x) for y in (height // 2 - off, height // 2 + off) for x in (width // 2 - off, width // 2 + off)]
    return [[int(one) for one in picture[place]] for place in places]


def looks_like(picture: np.ndarray[Any, Any], shown: tuple[Any, ...]) -> bool:
    """Whether the four quarters have the colours of *shown*."""
    expected = [[one] * 3 if isinstance(one, int) else list(one) for one in shown]
    return bool((np.abs(np.array(quarters(picture)) - np.array(expected)) <= COLOUR_OFF).all())


def menu(page: Any, item: str) -> None:
    """Choose *item* in the menu of the header."""
    page.locator(MENU).last.click()
    page.get_by_role("menuitem", name=item).click()


def no_trouble(reader: Reader) -> None:  # noqa: F811 - a fixture's name
    """Nothing was refused, no part of the page fell over, and no message says so."""
    assert reader.refused == []
    assert [one for one in reader.errors if "Error" in one] == []
    assert reader.page.get_by_text("发生错误").count() == 0


def test_every_encoding_shows_the_pixels_that_were_sent(reader: Reader, served: HubProcess) -> None:  # noqa: F811
    study = cards()
    send(served, "KN", study)
    reader.go(f"/viewer/viewer?StudyInstanceUIDs={study.uid}", served.token("KN"))
    page = reader.page
    page.get_by_text("知道了").click()
    series = page.locator(SERIES)
    eventually(lambda: series.count() == len(CARDS), what="all series are listed")
    for number, (description, shown) in enumerate(CARDS.items(), 1):
        series.filter(has_text=description).dblclick()
        reader.until_overlay("top-left", description)
        reader.image(f"card-{number}", lambda picture, shown=shown: looks_like(picture, shown))

    # The small picture of the inverted film is bright where the film is.
    small = series.filter(has_text="CR 反相")

    def bright() -> bool:
        from PIL import Image

        picture = np.asarray(Image.open(io.BytesIO(small.locator("img").screenshot())).convert("L")).astype(int)
        height, width = picture.shape
        return bool(picture[height // 4, width // 3] > 250 and picture[height * 3 // 5, width * 2 // 3] < 5)

    eventually(bright, what="the small picture is not inverted")
    no_trouble(reader)


def test_an_ultrasound_plays_and_stops(reader: Reader, served: HubProcess) -> None:  # noqa: F811 - fixtures
    study = cardiac_us()
    send(served, "KN", study)
    reader.go(f"/viewer/viewer?StudyInstanceUIDs={study.uid}", served.token("KN"))
    page = reader.page
    page.get_by_text("知道了").click()
    reader.until_overlay("bottom-right", "(1/12)")
    # The frame rate is that of the machine: one frame every 40 ms (PS3.3 C.7.6.5.1.1).
    assert page.locator(f"div:has(> {PLAY}) input").input_value() == "25"
    play = page.locator(PLAY)
    still = play.inner_html()
    seen: set[str] = set()
    play.click()

    def moved() -> bool:
        seen.add(reader.overlay("bottom-right"))
        return len(seen) >= 4

    eventually(moved, what="four different frames were on the screen")
    eventually(lambda: play.inner_html() != still, what="the button offers to stop")

    def disc(picture: np.ndarray[Any, Any]) -> float:
        red = (picture[:, :, 0] > 180) & (picture[:, :, 1] < 110) & (picture[:, :, 2] < 90)
        return float(np.nonzero(red)[1].mean()) if red.any() else -1

    # The picture moves with the numbers: the disc is found in two places at least.
    first = disc(reader.image("us-plays", lambda picture: disc(picture) > 0))
    reader.image("us-plays-on", lambda picture: disc(picture) > 0 and abs(disc(picture) - first) > 20)
    play.click()
    eventually(lambda: play.inner_html() == still, what="the button offers to play again")
    no_trouble(reader)


def test_the_language_is_chosen_and_remembered(reader: Reader, served: HubProcess) -> None:  # noqa: F811 - fixtures
    send(served, "KN", cardiac_us())
    page = reader.page
    reader.go("/viewer/", served.token("KN"))
    page.locator("[data-cy^=studyRow-]").first.wait_for(timeout=60_000)
    page.get_by_text("知道了").click()
    assert page.get_by_text("检查列表").count() == 1

    def choose(now: str, language: str, *, save: str, asked: str) -> None:
        menu(page, asked)
        dialog = page.locator("[role=dialog]")
        dialog.locator("[role=combobox]", has_text=now).click()
        page.get_by_role("option", name=language).click()
        dialog.get_by_role("button", name=save).click()

    menu(page, "偏好")
    dialog = page.locator("[role=dialog]")
    assert "语言" in dialog.inner_text()
    assert "Zoom" not in dialog.inner_text()
    kept(page, "preferences")
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")

    choose("中文", "English (US)", save="保存", asked="偏好")
    page.get_by_text("Study List").wait_for()
    page.reload()
    page.get_by_text("Patient Name").wait_for(timeout=60_000)
    assert page.get_by_text("检查列表").count() == 0
    kept(page, "list-english")
    choose("English (US)", "Chinese", save="Save", asked="Preferences")
    page.get_by_text("检查列表").wait_for()
    page.reload()
    page.get_by_text("检查列表").wait_for(timeout=60_000)
    assert page.get_by_text("Patient Name").count() == 0
    no_trouble(reader)


def test_reports_key_images_and_presentation_states_stand_beside_a_ct(
    reader: Reader,  # noqa: F811 - a fixture
    served: HubProcess,  # noqa: F811 - a fixture
) -> None:
    study = documented_ct()
    send(served, "KN", study)
    reader.go(f"/viewer/viewer?StudyInstanceUIDs={study.uid}", served.token("KN"))
    page = reader.page
    page.get_by_text("知道了").click()
    reader.until_overlay("bottom-right", "(1/3)")
    eventually(lambda: page.locator(SERIES).count() == 2, what="both series are listed")
    beside = page.locator(BESIDE)
    eventually(lambda: beside.count() == 3, what="what stands beside the images is listed")
    assert {"肺窗显示状态", "关键图像", "诊断报告"} <= set("\n".join(beside.all_inner_texts()).split("\n"))

    # These two are no images of their own: it is said, and the image stays.
    for name in ("肺窗显示状态", "关键图像"):
        beside.filter(has_text=name).dblclick()
    page.get_by_text("该序列不能作为图像显示").first.wait_for()
    reader.image("beside-state", body_and_lungs)

    # The report's last item has no name; it is read all the same.
    beside.filter(has_text="诊断报告").dblclick()
    pane = page.locator("[data-cy=viewport-grid]")
    pane.get_by_text(FINDINGS).wait_for(timeout=60_000)
    said = pane.inner_text()
    assert "影像诊断报告" in said
    assert "影像所见" in said
    assert "is not supported" not in said
    kept(page, "report")

    # Side by side: the report gives way to the two series.
    page.locator("[data-cy=Layout]").click()
    page.locator("[data-cy=Layout-1-0]").click()
    panes = page.locator("[data-cy=viewport-pane]")
    eventually(lambda: panes.count() == 2, what="two panes stand side by side")
    for number, name, window in ((0, "胸部CT平扫", "W:1600L:-200"), (1, "骨窗", "W:600L:500")):
        pane = panes.nth(number)
        pane.click(position={"x": 200, "y": 300})
        pane.and_(page.locator(ACTIVE)).wait_for()
        page.locator(SERIES).filter(has_text=name).first.dblclick()
        pane.locator(OVERLAY.format("top-left"), has_text=name).wait_for(timeout=60_000)
        corner = pane.locator(OVERLAY.format("bottom-left"))
        eventually(
            lambda corner=corner, window=window: "".join(corner.inner_text().split()) == window,
            what=f"{name} has its own window",
        )

    def both(picture: np.ndarray[Any, Any]) -> bool:
        half = picture.shape[1] // 2
        body = [share(side, (150, 150, 150), (180, 180, 180)) for side in (picture[:, :half], picture[:, half:])]
        return body[0] > 0.1 and body[1] < 0.01

    reader.image("side-by-side", both)
    no_trouble(reader)


def test_a_study_is_downloaded_as_one_file(reader: Reader, served: HubProcess, tmp_path: Any) -> None:  # noqa: F811
    study = cardiac_us()
    send(served, "KN", study)
    reader.go(f"/viewer/viewer?StudyInstanceUIDs={study.uid}", served.token("KN"))
    page = reader.page
    page.get_by_text("知道了").click()
    reader.until_overlay("bottom-right", "(1/12)")
    with page.expect_download() as begun:
        menu(page, "下载检查")
    assert begun.value.suggested_filename == f"{study.uid}.zip"
    begun.value.save_as(tmp_path / "study.zip")
    with zipfile.ZipFile(tmp_path / "study.zip") as archive:
        found = [archive.read(name) for name in archive.namelist() if name.endswith(".dcm")]
    assert [dcmread(io.BytesIO(one)).StudyInstanceUID for one in found] == [study.uid]
    assert served.token("KN") not in "".join(reader.asked)

    # A study that is gone meanwhile is said, and the page stays.
    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.evaluate("history.replaceState(null, '', '/viewer/viewer?StudyInstanceUIDs=1.2.3')")
    # Only a call of the browser's library lets it tell of the dialog, so the wait for it is the library's own.
    with page.expect_event("dialog"):
        menu(page, "下载检查")
    assert "检查不存在，或您无权查看" in said[0]
    assert reader.overlay("bottom-right") != ""


def test_an_enhanced_ct_is_read_by_its_functional_groups(reader: Reader, served: HubProcess) -> None:  # noqa: F811
    study = enhanced_ct()
    send(served, "KN", study)
    reader.go(f"/viewer/viewer?StudyInstanceUIDs={study.uid}", served.token("KN"))
    reader.page.get_by_text("知道了").click()
    reader.until_overlay("bottom-right", "(1/5)")
    assert reader.overlay("bottom-left") == "W:2048L:0"
    reader.image("enhanced-ct", lambda picture: looks_like(picture, (32, 96, 160, 224)))
    no_trouble(reader)


def test_an_ecg_is_drawn_with_its_leads(reader: Reader, served: HubProcess) -> None:  # noqa: F811 - fixtures
    study = ecg()
    send(served, "KN", study)
    reader.go(f"/viewer/viewer?StudyInstanceUIDs={study.uid}", served.token("KN"))
    reader.page.get_by_text("知道了").click()
    reader.image(
        "ecg",
        lambda picture: (
            # White curves over a red grid, and yellow names of the leads.
            share(picture, (230, 230, 230), (255, 255, 255)) > 0.005
            and share(picture, (80, 0, 0), (200, 20, 20)) > 0.01
            and share(picture, (230, 230, 0), (255, 255, 90)) > 0.001
        ),
    )
    no_trouble(reader)
