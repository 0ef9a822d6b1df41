"""The study list's pickers, clicked as a radiologist does: days in the calendar, modalities in their list."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flows.hub_process import HubProcess, eventually
from tests.flows.test_viewer import (  # noqa: F401 - fixtures are found by their names
    Reader,
    browser,
    reader,
    served,
    viewer_folder,
)
from tests.flows.viewer_studies import Study, cardiac_us, chest_ct, mammogram, stow_body

pytestmark = [pytest.mark.tool("chromium"), pytest.mark.timeout(300)]


def pick(page: Any, end: str, date: str) -> None:
    """Choose *date* (DICOM DA) in the calendar that opens at the *end* ``start`` or ``end`` of the range."""
    page.locator(f"[data-cy=input-date-range-{end}]").click()
    calendar = page.locator("[role=dialog] [data-slot=calendar]")
    calendar.wait_for()
    calendar.locator("select.rdp-years_dropdown").select_option(str(int(date[:4])))
    calendar.locator("select.rdp-months_dropdown").select_option(str(int(date[4:6]) - 1))
    calendar.locator(f'[data-day="{date[:4]}-{date[4:6]}-{date[6:]}"] button').click()
    page.keyboard.press("Escape")
    calendar.wait_for(state="detached")


def choose(page: Any, modality: str) -> None:
    """Tick *modality* in the list, or untick it."""
    page.locator("#input-modalities").click()
    page.locator(".customSelect__option").get_by_text(modality, exact=True).click()
    page.keyboard.press("Escape")


def test_days_and_modalities_are_picked_by_clicks(
    reader: Reader,  # noqa: F811 - a fixture
    served: HubProcess,  # noqa: F811 - a fixture
) -> None:
    ct, us, mg = studies = (chest_ct(), cardiac_us(), mammogram())
    sender = served.asker("KN")
    for study in studies:
        headers, body = stow_body(study.files)
        assert sender.request("POST", "/dicom-web/studies", headers=headers, content=body).status_code == 200
    page = reader.page
    reader.go("/viewer/", served.token("KN"))
    rows = page.locator("[data-cy^=studyRow-]")
    rows.nth(len(studies) - 1).wait_for(timeout=60_000)
    page.get_by_text("知道了").click()

    def shows(*expected: Study) -> None:
        def found() -> bool:
            # All at once: the list is drawn anew while it is being looked at.
            listed = rows.evaluate_all("rows => rows.map(row => row.dataset.cy)")
            return set(listed) == {f"studyRow-{one.uid}" for one in expected}

        eventually(found, what=f"the list shows {[one.modality for one in expected]}")

    assert [one.date for one in studies] == ["20250611", "20250612", "20250613"]
    pick(page, "start", us.date)
    pick(page, "end", mg.date)
    shows(us, mg)
    pick(page, "end", us.date)
    shows(us)
    pick(page, "start", ct.date)
    shows(ct, us)
    choose(page, ct.modality)
    shows(ct)
    choose(page, us.modality)
    shows(ct, us)
    choose(page, ct.modality)
    shows(us)
    assert reader.refused == []
