"""How a browser comes to its first image: what it asks for, in which order and how often. Counted, never timed.

On the way to a hospital every wave of requests costs a journey there and back, however fast both ends are.
"""

from __future__ import annotations

from typing import Any

import pytest

from adapters.viewer import release
from tests.flows.hub_process import HubProcess, eventually
from tests.flows.test_viewer import (  # noqa: F401 - fixtures are found by their names
    Reader,
    browser,
    reader,
    served,
    viewer_folder,
)
from tests.flows.viewer_studies import chest_ct, stow_body

pytestmark = [pytest.mark.tool("chromium"), pytest.mark.timeout(300)]

#: Notes down which of its parts the program itself asks for, by the elements that it makes for them.
_WATCH = """
window.partsAskedFor = [];
for (const owner of [Node.prototype, Element.prototype]) {
  for (const name of ["append", "appendChild"]) {
    if (!Object.hasOwn(owner, name)) continue;
    const original = owner[name];
    owner[name] = function (...added) {
      for (const one of added) {
        const isPart = one.tagName === "SCRIPT" || (one.tagName === "LINK" && one.rel === "stylesheet");
        const address = isPart ? one.src || one.href : "";
        if (address.includes("/viewer/files/")) partsAskedFor.push(address.split("/").pop());
      }
      return original.apply(this, added);
    };
  }
}
"""
#: Every file that came over the network, by what asked for it; what the browser had already has no size.
_FETCHED = """
() => performance.getEntriesByType("resource")
  .filter((one) => one.name.includes("/viewer/files/") && one.transferSize > 0)
  .map((one) => [one.name.split("/").pop(), one.initiatorType, one.startTime])
"""


def _parts(page: Any) -> set[str]:
    """Return the parts that the program has asked for, without itself and its style."""
    return {
        name
        for name in page.evaluate("partsAskedFor")
        if name != "app.bundle.css" and not name.startswith("app.bundle.")
    }


def test_the_parts_for_the_first_image_come_in_one_wave(reader: Reader, served: HubProcess) -> None:  # noqa: F811
    ct = chest_ct()
    headers, body = stow_body(ct.files)
    assert served.asker("KN").request("POST", "/dicom-web/studies", headers=headers, content=body).status_code == 200
    ahead = set(release.FIRST + release.FIRST_OF_STUDY)
    page = reader.page
    page.add_init_script(_WATCH)

    reader.go(f"/viewer/viewer?StudyInstanceUIDs={ct.uid}", served.token("KN"))
    reader.until_overlay("bottom-right", f"(1/{len(ct.files)})")

    # The program asks for none of its parts that is not on its way already, and in the end for each that is.
    assert _parts(page) <= ahead
    eventually(lambda: _parts(page) == ahead, what="every part that was fetched ahead is used")
    fetched = page.evaluate(_FETCHED)
    early = sorted(name for name, _, _ in fetched if name in ahead)
    assert early == sorted(ahead), "each part is fetched, and once"
    program = next(start for name, _, start in fetched if name.startswith("app.bundle.") and name.endswith(".js"))
    first_data = page.evaluate(
        "() => performance.getEntriesByType('resource').find((one) => one.name.includes('/dicom-web/')).startTime"
    )
    # Asked for by the page, in the same breath as the program: before the program can have run and asked.
    assert {kind for name, kind, _ in fetched if name in ahead} == {"link"}
    order = sorted(fetched, key=lambda one: one[2])
    assert {name for name, _, _ in order[: len(ahead) + 2]} == ahead | {"app.bundle.css", _program(fetched)}
    assert program < first_data


def test_the_study_list_fetches_ahead_what_it_uses(reader: Reader, served: HubProcess) -> None:  # noqa: F811
    page = reader.page
    page.add_init_script(_WATCH)
    reader.go("/viewer/", served.token("KN"))
    page.locator("[data-cy=num-studies]").wait_for(timeout=60_000)
    assert _parts(page) == set(release.FIRST)


def test_who_has_no_token_fetches_nothing_of_the_program(reader: Reader) -> None:  # noqa: F811
    reader.go("/viewer/viewer?StudyInstanceUIDs=1.2.3")
    reader.page.locator("#token").wait_for(timeout=60_000)
    assert [url for url in reader.asked if "/viewer/files/" in url] == []


def _program(fetched: list[list[Any]]) -> str:
    return str(next(name for name, _, _ in fetched if name.startswith("app.bundle.") and name.endswith(".js")))
