"""A doctor shares a CT with a patient, who opens it on a telephone by link and password, in a headless Chromium.

The pictures that are judged are kept beside those of the viewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.flows.hub_process import HubProcess, eventually
from tests.flows.test_viewer import (  # noqa: F401 - fixtures are found by their names
    PICTURES,
    Reader,
    body_and_lungs,
    browser,
    served,
    viewer_folder,
)
from tests.flows.viewer_studies import Study, cardiac_us, chest_ct, stow_body

pytestmark = [pytest.mark.tool("chromium"), pytest.mark.timeout(300)]

#: A telephone, and what WeChat's browser says it is.
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
    "user_agent": "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/130.0.0.0 "
    "Mobile Safari/537.36 MicroMessenger/8.0.50 NetType/WIFI Language/zh_CN",
}


@pytest.fixture
def doctor(served: HubProcess, browser: Any) -> Iterator[Reader]:  # noqa: F811 - fixtures
    one = Reader(browser, served)
    yield one
    one.context.close()


@pytest.fixture
def patient(served: HubProcess, browser: Any) -> Iterator[Reader]:  # noqa: F811 - fixtures
    one = Reader(browser, served, **PHONE)
    yield one
    one.context.close()


def send(hub: HubProcess, *studies: Study) -> str:
    """Send *studies* as KN; returns the id of the first one's ImagingStudy."""
    sender = hub.asker("KN")
    for study in studies:
        headers, body = stow_body(study.files)
        assert sender.request("POST", "/dicom-web/studies", headers=headers, content=body).status_code == 200
    found = eventually(
        lambda: sender.search(f"/fhir/ImagingStudy?identifier=urn:dicom:uid|urn:oid:{studies[0].uid}"),
        what="the study is complete",
    )
    return str(found[0]["id"])


def test_a_patient_opens_a_shared_ct_on_a_telephone_until_it_is_revoked(
    doctor: Reader,
    patient: Reader,
    served: HubProcess,  # noqa: F811 - a fixture
) -> None:
    ct, other = chest_ct(), cardiac_us()
    study = send(served, ct, other)

    page = doctor.page
    doctor.go(f"/share/?study={study}", served.token("KN", "0231"))
    page.locator("#days").fill("3")
    page.locator("#purpose").fill("外院就诊")
    page.locator("#ask button").click()
    page.locator("#made").wait_for()
    password = page.locator("#secret").inner_text()
    path = urlsplit(page.locator("#url").inner_text()).path
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "share-made.png", full_page=True)
    assert page.locator("#institution").inner_text() == "云岭示范县康宁医院（测试）"
    assert page.locator("#qr").evaluate("image => image.complete && image.naturalWidth > 0")
    assert page.locator("#rows tr").count() == 1
    with page.expect_download() as download:
        page.locator("#png").click()
    assert download.value.suggested_filename == "share-qr.png"

    phone = patient.page
    patient.go(path)
    phone.screenshot(path=PICTURES / "share-ask.png")
    phone.locator("#password").fill("no")
    phone.locator("button").click()
    assert "密码不正确" in phone.locator("#said").inner_text()
    phone.locator("#password").fill(password)
    phone.locator("button").click()
    patient.until_overlay("bottom-right", f"(1/{len(ct.files)})")
    patient.image("share-ct", body_and_lungs)
    assert "#" not in phone.evaluate("location.href")

    patient.go("/viewer/")
    phone.locator("[data-cy^=studyRow-]").first.wait_for(timeout=60_000)
    assert phone.locator("[data-cy^=studyRow-]").count() == 1
    assert phone.locator(f'[data-cy="studyRow-{ct.uid}"]').count() == 1

    token = phone.evaluate("sessionStorage.getItem('yixie.token')")
    page.reload()
    page.locator("#rows button").click()
    page.locator("#rows", has_text="已撤销").wait_for()
    # Opened once, by the right password.
    assert page.locator("#rows td").nth(3).inner_text() == "1"
    patient.read(ct)
    phone.locator("#expired").wait_for(timeout=60_000)
    patient.go(path)
    assert "云岭示范县康宁医院（测试）" in phone.locator("#said").inner_text()
    phone.screenshot(path=PICTURES / "share-gone.png")

    assert (doctor.foreign, patient.foreign) == ([], [])
    assert [error for error in (*doctor.errors, *patient.errors) if "Content Security Policy" in error] == []
    assert [url for url in (*doctor.asked, *patient.asked) if token in url] == []
    # What the doctor's page was given stands in no address but the link's own.
    secret = path.rpartition("/")[2]
    assert [url for url in patient.asked if secret in url and urlsplit(url).path != path] == []
    for told in (secret, token, served.token("KN", "0231")):
        assert told not in served.log()


def test_wrong_passwords_lock_the_link_and_say_so_on_a_telephone(
    doctor: Reader,
    patient: Reader,
    served: HubProcess,  # noqa: F811 - a fixture
) -> None:
    study = send(served, chest_ct(number=41, slices=1))
    doctor.go(f"/share/?study={study}", served.token("KN", "0231"))
    doctor.page.locator("#ask button").click()
    doctor.page.locator("#made").wait_for()
    password = doctor.page.locator("#secret").inner_text()
    patient.go(urlsplit(doctor.page.locator("#url").inner_text()).path)
    phone = patient.page

    def tries(given: str) -> int:
        phone.locator("#password").fill(given)
        with phone.expect_navigation() as answered:
            phone.locator("button").tap()
        assert answered.value is not None
        # Nothing has to be moved sideways to be read.
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
        return int(answered.value.status)

    assert tries("wrong") == 403
    said = phone.locator("#said").inner_text()
    assert said.startswith("密码不正确")
    assert "The password is not right" in said
    # What was typed is not shown again, and the box is ready for another.
    assert phone.locator("#password").input_value() == ""
    phone.screenshot(path=PICTURES / "share-wrong.png")
    for _ in range(20):
        if (status := tries("wrong")) != 403:
            break
    assert status == 429
    said = phone.locator("#said").inner_text()
    assert said.startswith("密码错误次数过多，请约")
    assert "Please try again in about" in said
    # The right password is not taken either while the link is locked.
    assert tries(password) == 429
    phone.screenshot(path=PICTURES / "share-locked.png")

    patient.go("/share/no/page")
    assert "无法查看" in phone.locator("h1").inner_text()
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
