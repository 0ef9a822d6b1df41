"""The study list as a radiologist works with it: every filter, the calendars, the pages and the order, all by hand.

Each step waits for facts and never for time: for the answer to the very query that the step must cause (what was asked is
compared whole), and then for the rows. OHIF asks 0.2 s after the last change, so a step begins when the one before was
answered. A calendar is known by the button that controls it: picking the first day opens the second calendar by itself,
and a test that looks for "the" calendar, or closes "it" by Escape, meets one or the other as the focus moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.flows.hub_process import HubProcess, eventually
from tests.flows.test_viewer import (  # noqa: F401 - fixtures are found by their names
    PICTURES,
    Reader,
    browser,
    reader,
    served,
    viewer_folder,
)
from tests.flows.viewer_studies import Study, cardiac_us, chest_ct, mammogram, plain_film, stow_body

pytestmark = [pytest.mark.tool("chromium"), pytest.mark.timeout(300)]

#: What OHIF asks for with every query of the list.
ALWAYS = {"limit", "offset", "fuzzymatching", "includefield"}
#: Rows of a page before somebody chooses otherwise.
PAGE = 25


class List:
    """The study list in a browser's tab."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.rows = page.locator("[data-cy^=studyRow-]")

    @contextmanager
    def asks(self, keys: Mapping[str, str]) -> Iterator[None]:
        """Do the block and wait for the answer to a query with exactly *keys* as its matching keys."""

        def fits(answer: Any) -> bool:
            parts = urlsplit(answer.url)
            asked = {key: value for key, value in parse_qsl(parts.query) if key not in ALWAYS}
            return bool(parts.path == "/dicom-web/studies" and asked == keys)

        with self.page.expect_response(fits, timeout=60_000) as answered:
            yield
        assert answered.value.status in {200, 204}

    def uids(self) -> list[str]:
        """Return the studies that are listed, in their order; all at once, because the list is drawn anew meanwhile."""
        found = self.rows.evaluate_all("rows => rows.map(row => row.dataset.cy)")
        return [one.removeprefix("studyRow-") for one in found]

    def shows(self, *expected: Study) -> None:
        """Wait until exactly *expected* are listed, the latest first."""
        newest = [one.uid for one in sorted(expected, key=lambda one: one.date, reverse=True)]
        eventually(lambda: self.uids() == newest, what=f"the list shows {[one.modality for one in expected]}")

    def box(self, name: str) -> Any:
        """Return the button that opens the calendar of *name* (``start`` or ``end``)."""
        return self.page.locator("[aria-haspopup=dialog]").filter(
            has=self.page.locator(f"[data-cy=input-date-range-{name}]")
        )

    def is_open(self, name: str, *, yes: bool) -> None:
        """Wait until the calendar of *name* is open, or closed."""
        state = "open" if yes else "closed"
        eventually(lambda: self.box(name).get_attribute("data-state") == state, what=f"calendar {name} is {state}")

    def pick(self, name: str, date: str) -> None:
        """Choose *date* (DICOM DA) in the open calendar of *name*."""
        self.is_open(name, yes=True)
        calendar = self.page.locator(f'[id="{self.box(name).get_attribute("aria-controls")}"]')
        calendar.locator("select.rdp-years_dropdown").select_option(str(int(date[:4])))
        calendar.locator("select.rdp-months_dropdown").select_option(str(int(date[4:6]) - 1))
        calendar.locator(f'[data-day="{date[:4]}-{date[4:6]}-{date[6:]}"] button').click()

    def open(self, name: str) -> None:
        """Open the calendar of *name* by its field, when both are closed."""
        self.is_open("start", yes=False)
        self.is_open("end", yes=False)
        self.page.locator(f"[data-cy=input-date-range-{name}]").click()

    def leave(self, name: str) -> None:
        """Close the calendar of *name* by Escape."""
        self.is_open(name, yes=True)
        self.page.keyboard.press("Escape")
        self.is_open(name, yes=False)

    def tick(self, modality: str) -> None:
        """Tick *modality* in the list of modalities, or untick it; the list stays open until somebody leaves it."""
        option = self.page.locator(".customSelect__option").get_by_text(modality, exact=True)
        if not self.page.locator(".customSelect__menu").count():
            self.page.locator("#input-modalities").click()
        option.click()


@pytest.fixture(scope="module")
def studies(served: HubProcess) -> tuple[Study, Study, Study]:  # noqa: F811 - a fixture
    sent = (chest_ct(), cardiac_us(), mammogram())
    send(served, *sent)
    return sent


def send(hub: HubProcess, *studies: Study) -> None:
    headers, body = stow_body([one for study in studies for one in study.files])
    assert hub.asker("KN").request("POST", "/dicom-web/studies", headers=headers, content=body).status_code == 200


@pytest.fixture
def listed(
    reader: Reader,  # noqa: F811 - a fixture
    served: HubProcess,  # noqa: F811 - a fixture
    studies: tuple[Study, Study, Study],
) -> List:
    """The list with all studies, and with OHIF's notice put away."""
    found = List(reader.page)
    with found.asks({}):
        reader.go("/viewer/", served.token("KN"))
    found.rows.first.wait_for(timeout=60_000)
    reader.page.get_by_text("知道了").click()
    return found


def test_words_that_are_typed_find_studies(listed: List, studies: tuple[Study, Study, Study]) -> None:
    ct, us, mg = studies
    listed.shows(*studies)
    for field, text, key, found in (
        ("patientName", "郑伟", "PatientName", (ct,)),
        ("patientName", "zheng", "PatientName", (ct,)),
        ("patientName", "Zhou Jian", "PatientName", (us,)),
        ("patientName", "查无此人", "PatientName", ()),
        ("mrn", "3002", "00100020", (mg,)),
        ("accession", "KN000002", "AccessionNumber", (us,)),
        ("description", "平扫", "StudyDescription", (ct,)),
    ):
        box = listed.page.locator(f"[data-cy=input-{field}]")
        with listed.asks({key: f"*{text}*"}):
            box.fill(text)
        listed.shows(*found)
        with listed.asks({}):
            box.fill("")
        listed.shows(*studies)


def test_days_are_picked_in_the_calendars(listed: List, reader: Reader, studies: tuple[Study, Study, Study]) -> None:  # noqa: F811 - a fixture
    ct, us, mg = studies
    assert [one.date for one in studies] == ["20250611", "20250612", "20250613"]
    listed.open("start")
    listed.pick("start", us.date)
    # The other calendar opens in its place, and is as good a place to go on.
    listed.is_open("start", yes=False)
    with listed.asks({"StudyDate": f"{us.date}-{us.date}"}):
        listed.pick("end", us.date)
    listed.is_open("end", yes=False)
    listed.shows(us)

    listed.open("end")
    with listed.asks({"StudyDate": f"{us.date}-{mg.date}"}):
        listed.pick("end", mg.date)
    listed.shows(us, mg)

    listed.open("start")
    with listed.asks({"StudyDate": f"{ct.date}-{mg.date}"}):
        listed.pick("start", ct.date)
    listed.is_open("start", yes=False)
    listed.leave("end")
    listed.shows(*studies)
    assert reader.refused == []


def test_a_date_that_is_typed_counts_when_it_is_whole(listed: List, studies: tuple[Study, Study, Study]) -> None:
    _, _, mg = studies
    asked: list[str] = []
    listed.page.on("request", lambda request: "StudyDate=" in request.url and asked.append(request.url))
    for name, keys in (("start", "20250613-"), ("end", "20250613-20250613")):
        field = listed.page.locator(f"[data-cy=input-date-range-{name}]")
        # From the keyboard: a click would open the calendar, which takes the keys to itself.
        field.focus()
        with listed.page.expect_response(lambda answer, keys=keys: f"StudyDate={keys}" in answer.url):
            field.press_sequentially("2025-06-13")
        assert field.input_value() == "2025-06-13"
        if name == "start":
            listed.leave("end")
    listed.shows(mg)
    # The first of June, which is what 2025-06-1 could be read as, was never asked for.
    assert asked
    assert [url for url in asked if "20250601" in url] == []


def test_modalities_are_ticked_and_all_filters_are_emptied_at_once(
    listed: List, studies: tuple[Study, Study, Study]
) -> None:
    _, us, mg = studies
    with listed.asks({"ModalitiesInStudy": "US"}):
        listed.tick("US")
    listed.shows(us)
    with listed.asks({"ModalitiesInStudy": "US,MG"}):
        listed.tick("MG")
    listed.shows(us, mg)
    with listed.asks({"ModalitiesInStudy": "MG"}):
        listed.tick("US")
    listed.shows(mg)
    listed.page.keyboard.press("Escape")
    with listed.asks({"ModalitiesInStudy": "MG", "PatientName": "*zheng*"}):
        listed.page.locator("[data-cy=input-patientName]").fill("zheng")
    listed.shows()
    with listed.asks({}):
        listed.page.get_by_text("清空条件").click()
    listed.shows(*studies)
    assert listed.page.locator("[data-cy=input-patientName]").input_value() == ""


def test_a_click_on_a_heading_orders_the_list(listed: List, studies: tuple[Study, Study, Study]) -> None:
    ct, us, mg = studies
    for heading, rising in (
        ("病例号", [ct, us, mg]),
        ("检查号", [ct, us, mg]),
        ("成像设备", [ct, mg, us]),
    ):
        orders = []
        for way in (rising, rising[::-1]):
            listed.page.get_by_text(heading, exact=True).click()
            eventually(
                lambda way=way: listed.uids() == [one.uid for one in way],
                what=f"the list is ordered by {heading}: {[one.modality for one in way]}",
            )
            orders.append(listed.uids())
        assert orders[0] == orders[1][::-1]


def test_a_long_list_has_pages(listed: List, reader: Reader, served: HubProcess) -> None:  # noqa: F811 - fixtures
    films = [plain_film(number) for number in range(100, 100 + PAGE + 3)]
    send(served, *films)
    page = listed.page
    with listed.asks({"ModalitiesInStudy": "DX"}):
        listed.tick("DX")
    page.keyboard.press("Escape")
    newest = [one.uid for one in reversed(films)]
    eventually(lambda: listed.uids() == newest[:PAGE], what="the first page")
    # The last box with a list; the one before it is that of the modalities.
    per_page = page.locator(".customSelect__control").last
    assert per_page.inner_text().strip() == str(PAGE)
    page.get_by_text("下一页").click()
    eventually(lambda: listed.uids() == newest[PAGE:], what="the second page")
    page.get_by_text("上一页").click()
    eventually(lambda: listed.uids() == newest[:PAGE], what="the first page again")
    per_page.click()
    page.locator(".customSelect__option").get_by_text("50", exact=True).click()
    eventually(lambda: listed.uids() == newest, what="all on one page")
    # Times are written as in China: 14:05, not 02:05 PM.
    assert "14:05" in listed.rows.first.inner_text()
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / "list-long.png")
    assert reader.refused == []
