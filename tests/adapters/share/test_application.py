"""What a link opens and what it does not, over the whole HTTP application."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog
from starlette.routing import Route
from starlette.testclient import TestClient

from adapters import dicomweb, fhir
from adapters.http.app import build
from adapters.share.application import HEADERS
from hub.actor import Actor
from hub.boot import Services
from hub.imaging_ids import study_resource_id
from tests.support.http import Client, client_of
from tests.support.images import QH, ROOT, STUDY, FakeClock, ct, receive, settle
from tests.support.services import running

DOCTOR = Actor(institution="KN", practitioner="0231", roles=frozenset({"doctor"}))
EARLIER, OTHERS, ELSEWHERE = f"{ROOT}.2", f"{ROOT}.3", f"{ROOT}.4"
PLACE = f"/fhir/ImagingStudy/{study_resource_id('KN', STUDY)}"
PARAMETERS = {"resourceType": "Parameters"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def services(tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    with running(tmp_path, clock=clock, public_url="http://testserver") as one:
        for data in (
            ct(), ct(2), ct(1, series=2), ct(study=EARLIER, StudyDate="20240101"),
            ct(study=OTHERS, PatientID="20001", PatientName="LI^SI"),
        ):  # fmt: skip
            receive(one, data)
        receive(one, ct(), actor=QH)
        receive(one, ct(study=ELSEWHERE), actor=QH)
        clock.forward(3600)
        settle(one)
        yield one


@pytest.fixture
def app(services: Services) -> Any:
    return build(services)


@pytest.fixture
def doctor(app: Any, services: Services) -> Client:
    return client_of(app, services, DOCTOR)


@pytest.fixture
def patient(app: Any) -> TestClient:
    return TestClient(app, follow_redirects=False)


def shared(doctor: Client, **parameters: Any) -> dict[str, str]:
    """Make a link; returns the texts of the answer by name."""
    kinds = {int: "valueInteger", bool: "valueBoolean", str: "valueString"}
    given = [{"name": name, kinds[type(value)]: value} for name, value in parameters.items()]
    answer = doctor.post(f"{PLACE}/$share", json={**PARAMETERS, **({"parameter": given} if given else {})})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = {}
    for one in answer.json()["parameter"]:
        (kind,) = (name for name in one if name.startswith("value"))
        found.setdefault(one["name"], one[kind])
    return found


def path_of(link: dict[str, str]) -> str:
    return urlsplit(link["url"]).path


def token_of(patient: TestClient, link: dict[str, str]) -> str:
    answer = patient.post(path_of(link), data={"password": link["password"]})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].partition("#token=")[2]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# --- pages ---------------------------------------------------------------------------------------------------------


def test_the_right_password_leads_into_the_viewer_with_a_token_in_the_fragment(
    doctor: Client, patient: TestClient
) -> None:
    link = shared(doctor)
    page = patient.get(path_of(link))
    answer = patient.post(path_of(link), data={"password": link["password"]})

    assert page.status_code == 200
    assert "请输入医院给您的密码" in page.text
    assert page.text.index("查看") < page.text.index("Open")
    assert re.fullmatch(
        rf"/viewer/viewer\?StudyInstanceUIDs={re.escape(STUDY)}#token=share\.[A-Za-z0-9_-]{{43}}",
        answer.headers["location"],
    )


def test_every_answer_is_kept_from_searchers_referrers_and_caches(doctor: Client, patient: TestClient) -> None:
    path = path_of(shared(doctor))
    answers = [patient.get(one) for one in (path, "/share/", "/share/own/share.css", "/share/a/b", "/share/own/x")]
    answers += [patient.post(path, data={"password": "x"}), patient.put(path), patient.post(path, content=b"{}")]

    assert [one.status_code for one in answers] == [200, 200, 200, 404, 404, 403, 405, 415]
    for one in answers:
        assert {name: one.headers[name] for name in HEADERS} == HEADERS
        assert len(one.headers.get_list("content-security-policy")) == 1


def test_a_link_that_nobody_made_gets_the_pages_of_a_wrong_password(doctor: Client, patient: TestClient) -> None:
    known, unknown = path_of(shared(doctor)), "/share/" + "A" * 43

    def seen(path: str) -> list[tuple[int, str, str]]:
        answers = [patient.get(path), *(patient.post(path, data={"password": "no"}) for _ in range(6))]
        return [(one.status_code, one.text, one.headers.get("retry-after", "")) for one in answers]

    assert seen(known) == seen(unknown)


def test_after_five_wrong_passwords_the_page_says_how_long_to_wait(
    doctor: Client, patient: TestClient, clock: FakeClock
) -> None:
    link = shared(doctor)
    wrong = [patient.post(path_of(link), data={"password": "no"}).status_code for _ in range(5)]
    locked = patient.post(path_of(link), data={"password": link["password"]})
    clock.forward(900)

    assert wrong == [403] * 5
    assert (locked.status_code, locked.headers["retry-after"]) == (429, "900")
    assert "15 分钟" in locked.text
    assert token_of(patient, link)


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_link_that_has_ended_is_gone_and_says_whom_to_ask(
    doctor: Client, patient: TestClient, clock: FakeClock, services: Services, how: str
) -> None:
    link = shared(doctor, days=1)
    token = token_of(patient, link)
    if how == "revoked":
        answer = doctor.post(f"{PLACE}/$revoke-share", json={**PARAMETERS, "parameter": [{"name": "share", "valueId": link["id"]}]})  # fmt: skip
        assert answer.status_code == 200, answer.text
    else:
        clock.forward(86_400)
    for answer in (patient.get(path_of(link)), patient.post(path_of(link), data={"password": link["password"]})):
        assert answer.status_code == 410
        assert "云岭示范县康宁医院（测试）" in answer.text
    assert patient.get("/dicom-web/studies", headers=bearer(token)).status_code == 401


def test_a_form_that_is_too_large_or_too_full_is_refused(doctor: Client, patient: TestClient) -> None:
    path = path_of(shared(doctor))

    assert patient.post(path, data={"password": "9" * 5000}).status_code == 413
    assert patient.post(path, data={f"f{number}": "" for number in range(20)} | {"password": "1"}).status_code == 400


# --- what the token opens ------------------------------------------------------------------------------------------

LISTS = frozenset({"studies", "series", "instances"})
VALUES = {"frames": "1", "path": "7FE00010", "workitem": "2.25.1", "aetitle": "KN_PACS"}


def addresses(services: Services, study: str, owner: str) -> Iterator[tuple[str, str]]:
    """Yield (method, path) of every DICOMweb address of a study, from the table of routes."""
    values = {"study": study, "series": f"{study}.1", "instance": f"{study}.1.1", "owner": owner, **VALUES}
    for route in dicomweb.routes(services):
        assert isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"}):
            path = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: values[found[1]], route.path)
            if route.path == "/wado":
                path += f"?requestType=WADO&studyUID={study}&seriesUID={study}.1&objectUID={study}.1.1"
            yield method, path


def test_a_token_reads_the_shared_studies_at_every_dicomweb_address_and_nothing_else(
    doctor: Client, patient: TestClient, services: Services
) -> None:
    token = bearer(token_of(patient, shared(doctor, history=True)))
    tried = 0
    for study, owner, inside in (
        (STUDY, "KN", True),
        (EARLIER, "KN", True),
        (OTHERS, "KN", False),
        (ELSEWHERE, "QH", False),
        (STUDY, "QH", False),
    ):
        for method, path in addresses(services, study, owner):
            answer = patient.request(method, path, headers={**token, "Accept": "*/*"})
            tried += 1
            last = path.partition("?")[0].rpartition("/")[2]
            if method != "GET" or (study not in path and last not in LISTS):
                # Whatever is neither a search nor below a study is not for links.
                assert answer.status_code == 403, path
                continue
            # The address without an institution means the copy that is in scope.
            mine = inside or (study == STUDY and "/institutions/" not in path)
            if last in LISTS:
                found = {(STUDY if not row else row["0020000D"]["Value"][0]) for row in _rows(answer)}
                if study in path:
                    assert bool(_rows(answer)) is mine, path
                elif "/institutions/QH" in path:
                    assert not found, path
                else:
                    assert found == {STUDY, EARLIER}, path
            else:
                assert (answer.status_code in {200, 206}) is mine, (path, answer.status_code, answer.text[:200])
                assert mine or answer.status_code == 404, path
    assert tried > 200


def _rows(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code in {200, 204}, answer.text
    rows: list[dict[str, Any]] = answer.json() if answer.content else []
    return rows


def test_a_token_opens_nothing_at_the_other_doors(
    doctor: Client, patient: TestClient, services: Services, app: Any
) -> None:
    token = bearer(token_of(patient, shared(doctor)))
    open_to_all = {"/fhir/metadata", "/fhir/.well-known/smart-configuration", "/.well-known/smart-configuration"}
    for route in fhir.routes(services):
        assert isinstance(route, Route)
        if route.path in open_to_all or route.path == "/oauth/token":
            continue
        path = re.sub(r"\{type\}", "ImagingStudy", route.path).replace("{version}", "1")
        path = path.replace("{id}", study_resource_id("KN", STUDY))
        for method in (route.methods or set()) - {"HEAD"}:
            kind = "application/json-patch+json" if method == "PATCH" else "application/fhir+json"
            if path == "/hl7":
                kind = "application/hl7-v2"
            form = path.endswith("/_search")
            answer = patient.request(
                method,
                path,
                headers={**token, "Content-Type": "application/x-www-form-urlencoded" if form else kind},
                content=None if method == "GET" else b"" if form else b"{}",
            )
            assert answer.status_code == 403, (method, path, answer.text[:300])
    for path in ("/ops/queue", "/ops/messages", "/ops/work-items"):
        assert patient.get(path, headers=token).status_code == 403, path


def test_two_links_to_one_study_stand_and_fall_alone(doctor: Client, patient: TestClient) -> None:
    first, second = shared(doctor), shared(doctor, history=True)
    tokens = [bearer(token_of(patient, one)) for one in (first, second)]
    wrong = [patient.post(path_of(first), data={"password": second["password"]}).status_code for _ in range(5)]
    assert wrong == [403] * 5 or first["password"] == second["password"]
    counts = [len(_rows(patient.get("/dicom-web/studies", headers=one))) for one in tokens]
    doctor.post(f"{PLACE}/$revoke-share", json={**PARAMETERS, "parameter": [{"name": "share", "valueId": first["id"]}]})

    assert counts == [1, 2]
    assert [patient.get("/dicom-web/studies", headers=one).status_code for one in tokens] == [401, 200]
    assert token_of(patient, second)


def test_what_is_on_its_way_when_a_link_is_revoked_is_the_last_that_comes(
    doctor: Client, patient: TestClient, services: Services
) -> None:
    link = shared(doctor)
    token = bearer(token_of(patient, link))
    url = f"/dicom-web/studies/{STUDY}"
    whole = patient.get(url, headers=token).content
    real, revoked = services.objects.stream, []

    def slowly(digest: str, **more: Any) -> Iterator[bytes]:
        if not revoked:
            revoked.append(services.sharing.revoke(DOCTOR, PLACE.rpartition("/")[2], link["id"]))
        yield from real(digest, **more)

    object.__setattr__(services.objects, "stream", slowly)
    under_way = patient.get(url, headers=token)

    assert len(under_way.content) == len(whole)
    assert revoked
    assert patient.get(url, headers=token).status_code == 401


def test_each_look_is_in_the_access_log_of_the_link(doctor: Client, patient: TestClient) -> None:
    link = shared(doctor)
    patient.post(path_of(link), data={"password": "no"})
    token = bearer(token_of(patient, link))
    patient.get(f"/dicom-web/studies/{STUDY}/metadata", headers=token)
    (share,) = doctor.get(f"{PLACE}/$shares").json()["parameter"]
    values = {one["name"]: one for one in share["part"]}
    looks = [{part["name"]: part for part in one["part"]} for one in share["part"] if one["name"] == "access"]

    assert values["state"]["valueCode"] == "open"
    assert values["createdBy"]["valueString"] == "0231"
    assert (looks[0]["what"]["valueString"], looks[0]["outcome"]["valueCode"]) == ("WADO-RS metadata", "0")
    assert {one["what"]["valueString"] for one in looks} == {"share-open", "WADO-RS metadata"}
    assert {one["address"]["valueString"] for one in looks} == {"testclient"}
    event = doctor.get(f"/fhir/{looks[0]['event']['valueReference']['reference']}").json()
    assert event["agent"][0]["altId"] == f"share:{link['id']}"


def test_no_log_holds_a_secret_a_password_or_a_token(doctor: Client, patient: TestClient) -> None:
    with structlog.testing.capture_logs() as logs:
        link = shared(doctor)
        token = token_of(patient, link)
        patient.post(path_of(link), data={"password": "no"})
        patient.get("/dicom-web/studies", headers=bearer(token))
        patient.post(path_of(link), content=b"password=%FF", headers={"Content-Type": "application/json"})
    told = json.dumps(logs, default=str) + json.dumps(doctor.get(f"{PLACE}/$shares").json())
    told += json.dumps(doctor.get("/fhir/AuditEvent?_count=200").json())

    for secret in (link["url"].rpartition("/")[2], token):
        assert secret not in told


# --- making --------------------------------------------------------------------------------------------------------


def test_the_statement_lists_the_operations(doctor: Client) -> None:
    resources = doctor.get("/fhir/metadata").json()["rest"][0]["resource"]
    (listed,) = (one["operation"] for one in resources if one["type"] == "ImagingStudy")

    assert {"share", "shares", "revoke-share"} <= {one["name"] for one in listed}


@pytest.mark.parametrize(
    "parameter",
    [
        {"name": "days", "valueInteger": 0},
        {"name": "days", "valueInteger": 9999},
        {"name": "days", "valueString": "7"},
        {"name": "password", "valueString": "123456"},
        {"name": "note", "valueString": "x" * 501},
    ],
)
def test_a_parameter_that_is_wrong_is_named(doctor: Client, parameter: dict[str, Any]) -> None:
    answer = doctor.post(f"{PLACE}/$share", json={**PARAMETERS, "parameter": [parameter]})

    assert answer.status_code in {400, 422}
    assert parameter["name"] in answer.text


def test_the_answer_holds_the_code_for_the_page_and_for_print_and_is_not_cached(doctor: Client) -> None:
    answer = doctor.post(f"{PLACE}/$share", json=PARAMETERS)
    kinds = [one["valueAttachment"]["contentType"] for one in answer.json()["parameter"] if one["name"] == "qr"]

    assert kinds == ["image/svg+xml", "image/png"]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("actor", "status"),
    [
        (Actor(institution="QH", roles=frozenset({"doctor"})), 404),
        (Actor(institution="KN", roles=frozenset({"nurse"})), 403),
        (Actor(institution="KN"), 403),
    ],
)
def test_whose_study_it_is_not_or_whose_role_it_is_not_makes_no_link(
    app: Any, services: Services, actor: Actor, status: int
) -> None:
    assert client_of(app, services, actor).post(f"{PLACE}/$share", json=PARAMETERS).status_code == status


def test_the_makers_page_loads_nothing_from_elsewhere(patient: TestClient) -> None:
    page = patient.get("/share/").text

    assert set(re.findall(r'(?:src|href)="([^"#]+)"', page)) == {
        "/share/own/share.css",
        "/share/own/make.js",
        "data:,",
    }
    assert "onclick" not in page
    assert patient.get("/share/own/make.js").headers["content-type"].startswith("text/javascript")
