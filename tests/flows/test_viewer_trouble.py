"""What a reader sees when something is not as it should be: a token that ends, a hub that is gone, a study out of reach.

Never a blank page, and never only English.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.flows.hub_process import HubProcess, eventually
from tests.flows.test_share import PHONE
from tests.flows.test_viewer import (  # noqa: F401 - fixtures are found by their names
    PICTURES,
    Reader,
    body_and_lungs,
    browser,
    reader,
    served,
    viewer_folder,
)
from tests.flows.viewer_studies import Study, chest_ct, segmentation, stow_body

pytestmark = [pytest.mark.tool("chromium"), pytest.mark.timeout(300)]


def send(hub: HubProcess, institution: str, *studies: Study) -> None:
    headers, body = stow_body([one for study in studies for one in study.files])
    answer = hub.asker(institution).request("POST", "/dicom-web/studies", headers=headers, content=body)
    assert answer.status_code == 200


def opened(reader: Reader, hub: HubProcess, study: Study) -> None:  # noqa: F811 - a fixture's name
    """Open *study* as somebody of KN and put OHIF's notice away."""
    reader.go(f"/viewer/viewer?StudyInstanceUIDs={study.uid}", hub.token("KN"))
    reader.until_overlay("bottom-right", f"(1/{len(study.files)})")
    reader.page.get_by_text("知道了").click()


@pytest.fixture
def phone(served: HubProcess, browser: Any) -> Iterator[Reader]:  # noqa: F811 - fixtures
    one = Reader(browser, served, **PHONE)
    yield one
    one.context.close()


def kept(page: Any, name: str) -> None:
    """Keep a picture of the whole page, to be looked at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def test_a_token_that_ends_while_somebody_reads_is_told_and_the_study_comes_back(
    reader: Reader,  # noqa: F811 - a fixture
    served: HubProcess,  # noqa: F811 - a fixture
) -> None:
    ct = chest_ct()
    send(served, "KN", ct)
    page = reader.page
    with page.expect_response(lambda answer: "/dicom-web/studies?" in answer.url):
        reader.go("/viewer/", served.token("KN"))
    page.locator(f'[data-cy="studyRow-{ct.uid}"]').wait_for(timeout=60_000)
    page.get_by_text("知道了").click()
    # From here on the hub knows the token no longer, as after its last second.
    page.evaluate("sessionStorage.setItem('yixie.token', 'A'.repeat(43))")
    page.locator("[data-cy=input-patientName]").fill("zheng")
    page.locator("#expired").wait_for(timeout=60_000)
    said = page.locator("#expired").inner_text()
    assert "已过期" in said
    assert "come in again" in said
    # A patient has no token and would not know where to get one.
    assert "重新扫码并输入密码" in said
    kept(page, "token-ended")

    reader.go(f"/viewer/viewer?StudyInstanceUIDs={ct.uid}", served.token("KN"))
    reader.until_overlay("bottom-right", f"(1/{len(ct.files)})")
    page.evaluate("sessionStorage.setItem('yixie.token', 'A'.repeat(43))")
    page.reload()
    page.locator("#expired").wait_for(timeout=60_000)
    page.locator("#token").fill(served.token("KN"))
    page.locator("#enter button").click()
    reader.until_overlay("bottom-right", f"(1/{len(ct.files)})")
    reader.image("token-again", body_and_lungs)


def test_a_hub_that_is_gone_is_told_and_the_list_goes_on_when_it_is_back(
    browser: Any,  # noqa: F811 - a fixture
    viewer_folder: Any,  # noqa: F811 - a fixture
    tmp_path: Any,
) -> None:
    from tests.flows.conftest import import_members

    hub = HubProcess(tmp_path, viewer_dir=str(viewer_folder))
    hub.run("migrate")
    import_members(hub)
    hub.start()
    one = Reader(browser, hub)
    try:
        ct = chest_ct(slices=2)
        send(hub, "KN", ct)
        page, before = one.page, hub.http
        one.go("/viewer/", hub.token("KN"))
        page.locator(f'[data-cy="studyRow-{ct.uid}"]').wait_for(timeout=60_000)
        page.get_by_text("知道了").click()

        hub.kill()
        page.locator("[data-cy=input-patientName]").fill("nobody")
        page.get_by_text("枢纽连接失败").wait_for()
        # The rows that still stand there are those of before.
        assert page.get_by_text("列表未更新").count() == 1
        kept(page, "hub-gone")

        hub.start()
        # It has another port now, as behind a proxy it would not.
        one.context.route(
            f"{before}/**", lambda route: route.continue_(url=route.request.url.replace(before, hub.http))
        )
        page.get_by_role("button", name="重试").click()
        rows = page.locator("[data-cy^=studyRow-]")
        eventually(lambda: rows.count() == 0, what="the list is that of the filter")
        page.locator("[data-cy=input-patientName]").fill("zheng")
        eventually(lambda: rows.count() == 1, what="the list is found again")
    finally:
        one.context.close()
        hub.stop()


def test_a_namesake_of_another_hospital_is_absent_and_an_earlier_study_stands_beside(
    reader: Reader,  # noqa: F811 - a fixture
    served: HubProcess,  # noqa: F811 - a fixture
) -> None:
    now, earlier, elsewhere = chest_ct(), chest_ct(number=31, slices=2), chest_ct(number=32, slices=2)
    assert now.patient_id == earlier.patient_id == elsewhere.patient_id
    send(served, "KN", now, earlier)
    send(served, "QH", elsewhere)
    opened(reader, served, now)
    page = reader.page
    # Whose images these are stands beside them, without a click.
    header = page.locator("div:has(> div > [data-cy=return-to-work-list])")
    told = header.inner_text()
    assert "郑伟" in told
    assert now.patient_id in told
    kept(page, "patient-beside")
    # OHIF asks for all studies with the patient's number and lists them beside the one that is read.
    listed = page.get_by_text("胸部CT平扫")
    eventually(lambda: listed.count() >= 2, what="the earlier study is listed")
    answer = served.asker("KN").get(f"/dicom-web/studies?PatientID={now.patient_id}")
    assert {one["0020000D"]["Value"][0] for one in answer} == {now.uid, earlier.uid}

    reader.read(elsewhere)
    page.locator("[data-cy=study-not-found-message]").wait_for(timeout=60_000)
    assert "检查不存在，或您无权查看" in page.locator("[data-cy=study-not-found-message]").inner_text()
    kept(page, "out-of-reach")
    page.get_by_text("返回检查列表").click()
    rows = page.locator("[data-cy^=studyRow-]")
    rows.first.wait_for(timeout=60_000)
    assert page.locator(f'[data-cy="studyRow-{earlier.uid}"]').count() == 1
    assert page.locator(f'[data-cy="studyRow-{elsewhere.uid}"]').count() == 0


def test_a_length_is_measured_and_the_questions_are_in_chinese(
    reader: Reader,  # noqa: F811 - a fixture
    served: HubProcess,  # noqa: F811 - a fixture
) -> None:
    ct = chest_ct()
    send(served, "KN", ct, Study(**{**_fields(ct), "files": [segmentation(ct)]}))
    opened(reader, served, ct)
    page = reader.page
    reader.image("measure-before", body_and_lungs)
    page.locator("[data-cy=MeasurementTools-split-button-primary]").first.click()
    box = page.locator("[data-cy=viewport-pane]").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 100, y)
    page.mouse.down()
    page.mouse.move(x + 100, y, steps=5)
    page.mouse.up()
    page.get_by_text("要跟踪该序列的测量吗？").wait_for()
    kept(page, "measured")
    assert page.get_by_text("否，不再询问").count() == 1
    # 320 mm fill the smaller side of the pane, so 200 pixels are so many millimetres.
    millimetres = 200 * 320 / min(box["width"], box["height"])
    shown = page.locator("svg text", has_text="mm").first
    value = float(shown.text_content().split("mm")[0])
    assert value == pytest.approx(millimetres, rel=0.03)
    page.get_by_text("是", exact=True).click()

    reader.go(f"/viewer/segmentation?StudyInstanceUIDs={ct.uid}")
    page.locator("[data-cy=study-browser-thumbnail-no-image]").dblclick(timeout=60_000)
    page.get_by_text("要打开这个分割吗？").wait_for(timeout=60_000)
    kept(page, "segmentation-asked")


def _fields(study: Study) -> dict[str, Any]:
    return {name: getattr(study, name) for name in ("uid", "name", "patient_id", "modality", "date")}


def test_on_a_telephone_nothing_lies_over_another(phone: Reader, served: HubProcess) -> None:  # noqa: F811 - a fixture
    ct = chest_ct()
    send(served, "KN", ct)
    opened(phone, served, ct)
    page = phone.page
    header = page.locator("div:has(> div > [data-cy=return-to-work-list])")
    boxes = [one.bounding_box() for one in header.locator("> div").all()]
    spans = sorted((one["x"], one["x"] + one["width"]) for one in boxes if one and one["width"])
    assert len(spans) == 3
    assert spans[0][0] >= 0
    assert spans[-1][1] <= PHONE["viewport"]["width"]
    assert [(left, right) for left, right in pairwise(spans) if left[1] > right[0]] == []
    kept(page, "phone-viewer")
    # The tools that have no room are reached by scrolling.
    page.locator("[data-cy=Reset]").first.scroll_into_view_if_needed()
    assert page.locator("[data-cy=Reset]").first.is_visible()

    phone.go("/viewer/")
    row = page.locator(f'[data-cy="studyRow-{ct.uid}"]')
    row.wait_for(timeout=60_000)
    name = row.get_by_text("郑伟").bounding_box()
    assert name is not None
    # Two characters of a readable size, in the picture without scrolling.
    assert name["width"] >= 24
    assert name["x"] + name["width"] <= PHONE["viewport"]["width"]
    kept(page, "phone-list")
