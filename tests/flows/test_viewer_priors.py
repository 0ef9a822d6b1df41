"""A reader of another institution sees the patient's studies of both, side by side, as long as the work is open.

The patients are linked by both desks (``Patient/{id}/$link``), the study is read by a Task; neither alone shows anything.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.flows.hub_process import Asker, HubProcess, eventually
from tests.flows.test_remote_reading import organization, reference, role_of
from tests.flows.test_viewer import (  # noqa: F401 - fixtures are found by their names
    Reader,
    body_and_lungs,
    browser,
    reader,
    served,
    viewer_folder,
)
from tests.flows.test_viewer_trouble import kept, send
from tests.flows.viewer_studies import Study, chest_ct

pytestmark = [pytest.mark.tool("chromium"), pytest.mark.timeout(300)]

#: The day of :func:`chest_ct`, as it is written over the image and once for each study in the list beside it.
STUDY_DAY = "2025-06-11"


def complete(asker: Asker, study: Study) -> dict[str, Any]:
    """Return the ImagingStudy of *study* as soon as it is there."""
    path = f"/fhir/ImagingStudy?identifier=urn:dicom:uid|urn:oid:{study.uid}"
    return eventually(lambda: asker.search(path), what="the study is complete")[0]


def reading_of(hub: HubProcess, imaging: dict[str, Any]) -> tuple[Asker, str]:
    """Return KN's doctor and the Task by which KN has asked YL to read *imaging*; YL has received it and assigned C015."""
    kn = hub.asker("KN", "0231")
    request = kn.post(
        "/fhir/ServiceRequest",
        {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "code": {"text": "胸部CT平扫"},
            "subject": imaging["subject"],
        },
    )
    workflow = "https://yixiehub.example/fhir/CodeSystem/workflow"
    task = kn.post(
        "/fhir/Task",
        {
            "resourceType": "Task",
            "status": "requested",
            "intent": "order",
            "priority": "routine",
            "code": {"coding": [{"system": workflow, "code": "remote-reading"}]},
            "focus": reference("ServiceRequest", request),
            "for": imaging["subject"],
            "requester": {"reference": role_of(kn, "0231")},
            "owner": {"reference": organization(kn, "YL")},
            "input": [{"type": {"text": "影像"}, "valueReference": reference("ImagingStudy", imaging)}],
        },
    )
    desk = hub.asker("YL", role="desk")
    desk.move(task["id"], "receive")
    desk.move(task["id"], "assign", assignee=role_of(desk, "C015"))
    return kn, task["id"]


def link(hub: HubProcess, ours: dict[str, Any], theirs: dict[str, Any], numbers: tuple[str, str]) -> None:
    """Have the desks of YL and KN say that the patients of the two studies are one person."""
    for code, imaging, other, number in (("YL", ours, "KN", numbers[1]), ("KN", theirs, "YL", numbers[0])):
        values = [{"name": "institution", "valueString": other}, {"name": "number", "valueString": number}]
        hub.asker(code, role="desk").post(
            f"/fhir/{imaging['subject']['reference']}/$link",
            {"resourceType": "Parameters", "parameter": values},
            status=200,
        )


def listed(reader: Reader, study: Study) -> None:  # noqa: F811 - a fixture's name
    """Open *study* and wait until what else there is of its patient is known."""
    with reader.page.expect_response(lambda answer: "/dicom-web/studies?00100020=" in answer.url, timeout=60_000):
        reader.read(study)


def test_a_linked_study_of_another_hospital_is_a_prior_while_its_reading_is_open(
    reader: Reader,  # noqa: F811 - a fixture
    served: HubProcess,  # noqa: F811 - a fixture
) -> None:
    theirs = chest_ct(number=71, slices=4)
    ours = chest_ct(number=72, slices=3, patient_id="YL770077")
    send(served, "KN", theirs)
    send(served, "YL", ours)
    their_imaging, our_imaging = complete(served.asker("KN"), theirs), complete(served.asker("YL"), ours)
    link(served, our_imaging, their_imaging, (ours.patient_id, theirs.patient_id))
    radiologist = served.asker("YL", "C015")
    by_number = f"/dicom-web/studies?PatientID={ours.patient_id}"

    def seen() -> set[str]:
        return {one["0020000D"]["Value"][0] for one in radiologist.get(by_number)}

    # The link alone shows nothing.
    assert seen() == {ours.uid}
    kn, task = reading_of(served, their_imaging)
    assert seen() == {ours.uid, theirs.uid}

    page = reader.page
    reader.go(f"/viewer/viewer?StudyInstanceUIDs={theirs.uid}", served.token("YL", "C015"))
    reader.until_overlay("bottom-right", "(1/4)")
    page.get_by_text("知道了").click()
    # The study that is read, and YL's own of the same person, which has another number there.
    rows = page.get_by_text(STUDY_DAY, exact=True)
    eventually(lambda: rows.count() == 3, what="both studies are listed, and one is named over the image")
    kept(page, "prior")
    listed(reader, ours)
    eventually(lambda: rows.count() == 3, what="from either side")
    reader.image("prior-own", body_and_lungs)

    # The grant ends while the list is open somewhere: the next look does not find the study, and its address opens nothing.
    kn.move(task, "withdraw", reason="不再需要")
    assert seen() == {ours.uid}
    listed(reader, ours)
    reader.until_overlay("bottom-right", "(1/3)")
    assert theirs.uid not in "".join(page.locator("body").evaluate("e => e.innerHTML"))
    eventually(lambda: rows.count() == 2, what="the prior is gone from the list")
    kept(page, "prior-ended")
    reader.read(theirs)
    page.get_by_text("检查不存在，或您无权查看").wait_for(timeout=60_000)


def frames(page: Any, *, after: int, change: Any) -> None:
    """Have *change* continue every request for a frame but the first *after*."""
    count = iter(range(1 << 20))
    page.route("**/frames/*", lambda route: change(route) if next(count) >= after else route.continue_())


def test_images_that_are_taken_away_while_somebody_reads_are_told(
    reader: Reader,  # noqa: F811 - a fixture
    served: HubProcess,  # noqa: F811 - a fixture
) -> None:
    study = chest_ct(number=73, slices=6)
    send(served, "KN", study)
    page = reader.page
    # As when the study is removed after its first images: the hub answers these addresses with 404.
    frames(
        page,
        after=3,
        change=lambda route: route.continue_(url=route.request.url.replace("/instances/", "/instances/9.")),
    )
    reader.go(f"/viewer/viewer?StudyInstanceUIDs={study.uid}", served.token("KN"))
    page.locator("#gone").wait_for(timeout=60_000)
    said = page.locator("#gone").inner_text()
    assert "有影像已取不到" in said
    assert "can no longer be had" in said
    # What came before stays, and the notice is put away by a touch.
    page.get_by_text("知道了").click()
    reader.image("images-gone", body_and_lungs)
    # In one step of the page: another image that is refused meanwhile would bring the notice back.
    put_away = "() => { document.getElementById('gone').click(); return document.getElementById('gone'); }"
    assert page.evaluate(put_away) is None


def test_a_token_that_ends_between_two_images_is_told(reader: Reader, served: HubProcess) -> None:  # noqa: F811
    study = chest_ct(number=74, slices=6)
    send(served, "KN", study)
    page = reader.page

    def ended(route: Any) -> None:
        route.continue_(headers={**route.request.headers, "authorization": "Bearer " + "A" * 43})

    frames(page, after=3, change=ended)
    reader.go(f"/viewer/viewer?StudyInstanceUIDs={study.uid}", served.token("KN"))
    page.locator("#expired").wait_for(timeout=60_000)
    assert "已过期" in page.locator("#expired").inner_text()
    kept(page, "token-ended-between-images")
    page.unroute("**/frames/*")
    page.locator("#token").fill(served.token("KN"))
    page.locator("#enter button").click()
    reader.until_overlay("bottom-right", "(1/6)")
    reader.image("token-between-again", body_and_lungs)
