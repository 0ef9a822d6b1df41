"""Headers of a request for metadata: conditions and codings (RFC 9110 sections 13.1.2 and 12.5.3)."""

from __future__ import annotations

import httpx
import pytest

from hub.boot import Services
from tests.support.images import STUDY, ct, receive

PATH = f"/studies/{STUDY}/metadata"


def test_a_star_names_whatever_metadata_there_is(http: httpx.Client, hub: Services) -> None:
    receive(hub, ct())
    answer = http.get(PATH, headers={"If-None-Match": "*"})
    assert (answer.status_code, answer.content) == (304, b"")
    assert http.get(PATH, headers={"If-None-Match": '"another"'}).status_code == 200


@pytest.mark.parametrize(
    ("coding", "packed"), [("gzip;q=0, identity", False), ("identity", False), ("gzip;q=0.5", True)]
)
def test_metadata_is_packed_for_who_takes_it_alone(
    http: httpx.Client, hub: Services, coding: str, packed: bool
) -> None:
    receive(hub, ct())
    answer = http.get(PATH, headers={"Accept-Encoding": coding})
    assert (answer.headers.get("content-encoding") == "gzip") is packed
    assert answer.json()[0]["0020000D"]["Value"] == [STUDY]
