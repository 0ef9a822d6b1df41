"""What is served under ``/viewer``: which files, with which headers, and what is answered to everything else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from adapters.http.app import build
from adapters.viewer import package, release
from adapters.viewer.application import HEADERS, OWN
from hub.boot import Services
from tests.adapters.viewer.conftest import SCRIPT, pack
from tests.adapters.viewer.conftest import package as whole

Pin = Callable[[Path], Path]
PAGES = Path(package.__file__).parent / "pages"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "viewer"


@pytest.fixture
def client(sqlite_services: Services, folder: Path) -> TestClient:
    settings = sqlite_services.settings.model_copy(update={"viewer_dir": folder})
    object.__setattr__(sqlite_services, "settings", settings)
    return TestClient(build(sqlite_services), follow_redirects=False)


@pytest.fixture
def installed(client: TestClient, tmp_path: Path, folder: Path, pinned: Pin) -> TestClient:
    package.install(pinned(pack(tmp_path, whole())), folder)
    return client


@pytest.mark.parametrize("path", ["/viewer/", "/viewer/viewer?StudyInstanceUIDs=1.2.3", "/viewer/viewer/hub"])
def test_a_deep_link_gets_the_start_page(installed: TestClient, path: str) -> None:
    answer = installed.get(path)
    assert answer.status_code == 200
    assert f'data-script="{release.PLACE}{SCRIPT}"' in answer.text
    assert answer.headers["cache-control"] == "no-cache"
    again = installed.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("/viewer/", release.FIRST),
        ("/viewer/viewer?StudyInstanceUIDs=1.2.3", release.FIRST + release.FIRST_OF_STUDY),
        ("/viewer/viewer/hub", release.FIRST + release.FIRST_OF_STUDY),
    ],
)
def test_the_start_page_names_the_parts_that_are_needed_first(
    client: TestClient, tmp_path: Path, folder: Path, pinned: Pin, path: str, needed: tuple[str, ...]
) -> None:
    parts = {release.ROOT + name: b"// part" for name in release.FIRST + release.FIRST_OF_STUDY}
    package.install(pinned(pack(tmp_path, {**whole(), **parts})), folder)
    named = _named_first(client.get(path).text)
    assert named == [release.PLACE + name for name in needed]
    assert {client.get(address).status_code for address in named} == {200}


def test_a_part_that_is_not_there_is_not_asked_for(installed: TestClient) -> None:
    assert _named_first(installed.get("/viewer/viewer").text) == []


def _named_first(page: str) -> list[str]:
    (found,) = re.findall(r'data-first="([^"]*)"', page)
    return str(found).split()


@pytest.mark.parametrize("path", ["/viewer/", "/viewer/viewer"])
def test_without_the_viewer_its_page_says_what_to_do(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 503
    assert "未安装" in answer.text
    assert "not installed" in answer.text
    assert f"npm pack {release.PACKAGE}@{release.VERSION}" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert client.get(f"{release.PLACE}{SCRIPT}").status_code == 404


def test_what_is_installed_while_the_hub_runs_is_served(
    client: TestClient, tmp_path: Path, folder: Path, pinned: Pin
) -> None:
    assert client.get("/viewer/").status_code == 503
    package.install(pinned(pack(tmp_path, whole())), folder)
    assert client.get("/viewer/").status_code == 200


def test_a_file_is_for_ever_and_comes_compressed_to_whom_that_pleases(installed: TestClient) -> None:
    answer = installed.get(f"{release.PLACE}{SCRIPT}")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["vary"] == "Accept-Encoding"
    plain = installed.get(f"{release.PLACE}{SCRIPT}", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == answer.content
    assert installed.get(f"{release.PLACE}0123456789abcdef.wasm").headers["content-type"] == "application/wasm"
    assert installed.head(f"{release.PLACE}{SCRIPT}").content == b""


@pytest.mark.parametrize("path", ["/viewer/own/launch.js", "/viewer/own/app-config.js", "/viewer/own/launch.css"])
def test_the_hubs_own_files_are_asked_for_anew(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-cache"
    assert client.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        "/viewer/files/../../hub.db",
        "/viewer/files/%2e%2e/%2e%2e/hub.db",
        f"{release.PLACE}../viewer.json",
        f"{release.PLACE}%2e%2e/viewer/viewer.json",
        f"{release.PLACE}..%2fviewer.json",
        f"{release.PLACE}%5c..%5cviewer.json",
        f"{release.PLACE}/etc/passwd",
        f"{release.PLACE}viewer.json",
        f"{release.PLACE}{SCRIPT}.gz",
        f"{release.PLACE}{SCRIPT}%00.css",
        f"{release.PLACE}assets",
        f"{release.PLACE}assets/images/",
        f"/viewer/files/{'0' * 16}/{SCRIPT}",
        "/viewer/files",
        "/viewer/own/../app-config.js",
        "/viewer/own/index.html",
        "/viewer/own/",
        "/viewer/viewer/app.js",
        "/viewer/unknown",
        "/viewer/hub.db",
        "/viewer//etc/passwd",
    ],
)
def test_no_path_leads_anywhere_else(installed: TestClient, path: str) -> None:
    # The client would resolve dots itself; the application must see them as they came.
    url = installed.base_url.copy_with(raw_path=path.encode())
    assert installed.get(url).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/viewer", "/viewer/", "/viewer/absent", "/viewer/own/launch.js", f"{release.PLACE}0123456789abcdef.wasm"],
)
def test_every_answer_carries_the_headers(installed: TestClient, path: str) -> None:
    answer = installed.get(path)
    for name, value in HEADERS.items():
        assert answer.headers.get_list(name) == [value]


def test_other_areas_keep_their_own_policy(installed: TestClient) -> None:
    assert installed.get("/").headers.get_list("content-security-policy")[0].startswith("default-src 'none'; style-src")


def test_the_policy_names_no_other_host_and_runs_no_text_of_a_page() -> None:
    directives = dict(one.strip().split(" ", 1) for one in HEADERS["Content-Security-Policy"].split(";"))
    assert [value for value in directives.values() if re.search(r"https?:|//|\*", value)] == []
    assert directives["default-src"] == "'none'"
    assert directives["connect-src"] == "'self' blob: data:"
    assert "'unsafe-inline'" not in directives["script-src"]


@pytest.mark.parametrize("name", ["token", "Token", "TOKEN"])
def test_a_token_in_the_query_is_refused(installed: TestClient, name: str) -> None:
    answer = installed.get(f"/viewer/viewer?StudyInstanceUIDs=1.2.3&{name}=secret-token-value")
    assert answer.status_code == 400
    assert "不得" in answer.text
    assert "must not" in answer.text
    assert "secret-token-value" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_is_written_here(installed: TestClient, method: str) -> None:
    answer = installed.request(method, "/viewer/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_the_bare_name_leads_to_the_folder(installed: TestClient) -> None:
    answer = installed.get("/viewer")
    assert (answer.status_code, answer.headers["location"]) == (308, "/viewer/")


def test_our_own_pages_name_no_other_host() -> None:
    # The one address is that of the documentation, in a comment.
    texts = {path.name: re.sub(r"/\*.*?\*/", "", path.read_text("utf-8"), flags=re.DOTALL) for path in PAGES.iterdir()}
    assert set(OWN) < set(texts)
    assert [name for name, text in texts.items() if re.search(r"https?://|['\"(]//", text)] == []


def test_the_pages_run_no_script_of_their_own() -> None:
    for path in PAGES.glob("*.html"):
        assert not re.search(r"<script(?![^>]*\ssrc=)|\son[a-z]+=|<style|\sstyle=", path.read_text("utf-8")), path.name
