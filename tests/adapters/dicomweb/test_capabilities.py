"""Capabilities (PS3.18 section 8.9): what OPTIONS lists is what answers, no more and no less."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest
from starlette.routing import Route

from adapters.dicomweb import routes
from adapters.dicomweb.capabilities import WADL_TYPE
from hub.boot import Services
from hub.deletion import Deletion
from tests.adapters.dicomweb.test_dicomweb import SERIES
from tests.support.images import KN, STUDY, ct, receive

NAME = {"wadl": "http://wadl.dev.java.net/2009/02"}
PLACES = {
    "owner": "KN",
    "study": STUDY,
    "series": SERIES,
    "instance": f"{SERIES}.1",
    "frames": "1",
    "path": "7FE00010",
}


def listed(http: httpx.Client, path: str = "") -> list[tuple[str, str]]:
    """Return (method, path template) of every method that OPTIONS lists at *path*."""
    answer = http.options(path, headers={"Authorization": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, WADL_TYPE)
    (resources,) = ET.fromstring(answer.content)
    assert resources.attrib["base"] == str(http.base_url).rstrip("/")
    return [
        (method.attrib["name"], "/" + resource.attrib["path"])
        for resource in resources
        for method in resource.findall("wadl:method", NAME)
    ]


def test_every_route_is_listed_and_nothing_else(http: httpx.Client, hub: Services) -> None:
    expected = {
        (method, one.path.removeprefix("/dicom-web").replace(":path", ""))
        for one in routes(hub)
        if isinstance(one, Route) and one.path.startswith("/dicom-web/")
        for method in (one.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert set(listed(http)) == expected
    assert len(listed(http)) == len(expected)


def test_every_listed_method_answers(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    for method, template in listed(http):
        if template.startswith("/workitems"):
            # They have bodies and states of their own: tests/adapters/dicomweb/test_workitems.py asks them.
            continue
        path = template.format(**PLACES)
        more: dict[str, Any] = {}
        if method == "POST":
            more = {"content": ct(), "headers": {"Content-Type": "application/dicom"}}
        if method == "DELETE":
            more = {"params": {"reason": "错误"}}
        answer = http.request(method, path, **more)
        assert answer.status_code == 200, (method, template, answer.text)
        if method == "DELETE":
            Deletion(hub).restore(KN, STUDY, reason="误删")


def test_every_listed_representation_is_given(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    document = http.options("", headers={"Accept": "application/json"}).json()
    for resource in document["resources"]:
        for method in resource["methods"]:
            if method["name"] == "GET" and not resource["path"].startswith("workitems"):
                for media_type in method["response"]:
                    path = resource["path"].format(**PLACES)
                    answer = http.get(f"/{path}", headers={"Accept": media_type})
                    given = answer.headers["content-type"].partition("; boundary")[0].partition("; transfer")[0]
                    # A whole study has more than one object, so its single part is not to be had.
                    assert answer.status_code == 200, (path, media_type)
                    assert given == media_type or given.startswith("multipart/related"), (path, given)


def test_each_resource_lists_itself_and_its_methods(http: httpx.Client) -> None:
    assert listed(http, f"/studies/{STUDY}") == [(method, "/studies/{study}") for method in ("GET", "POST", "DELETE")]
    assert http.options("/studies").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert listed(http, f"/studies/{STUDY}/metadata") == [("GET", "/studies/{study}/metadata")]


def test_names_of_methods_are_unique(http: httpx.Client) -> None:
    document = http.options("", headers={"Accept": "application/json"}).json()
    names = [method["id"] for resource in document["resources"] for method in resource["methods"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        ("*/*", WADL_TYPE),
        (WADL_TYPE, WADL_TYPE),
        ("application/xml", WADL_TYPE),
        ("application/json", "application/json"),
    ],
)
def test_the_list_comes_as_wadl_or_json(http: httpx.Client, accept: str, given: str) -> None:
    assert http.options("", headers={"Accept": accept}).headers["content-type"] == given


def test_other_forms_of_the_list_are_406(http: httpx.Client) -> None:
    assert http.options("", headers={"Accept": "text/html"}).status_code == 406


def test_the_root_answers_with_and_without_a_slash(http: httpx.Client, door: str) -> None:
    assert http.options(door).content == http.options(f"{door}/").content
