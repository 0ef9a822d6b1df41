"""Query parameters that DICOMweb knows but the hub does not have (PS3.18 sections 8.3, 8.3.4.5 and 8.3.4.6)."""

from __future__ import annotations

import httpx
import pytest

from hub.boot import Services
from tests.support.images import STUDY, ct, receive


@pytest.mark.parametrize("name", ["emptyvaluematching", "multiplevaluematching"])
@pytest.mark.parametrize("address", ["/studies", "/series", "/instances", "/workitems"])
def test_a_way_of_matching_that_is_not_offered_is_said_in_a_warning(
    http: httpx.Client, hub: Services, address: str, name: str
) -> None:
    receive(hub, ct())
    plain = http.get(address)
    assert plain.status_code in {200, 204}
    for value in ("false", "FALSE"):
        answer = http.get(f"{address}?{name}={value}")
        assert (answer.status_code, answer.content) == (plain.status_code, plain.content)
        assert "warning" not in answer.headers
    answer = http.get(f"{address}?{name}=true")
    assert (answer.status_code, answer.content) == (plain.status_code, plain.content)
    assert f"The {name} parameter is not supported." in answer.headers["warning"]
    assert http.get(f"{address}?{name}=perhaps").status_code == 400


@pytest.mark.parametrize("address", ["/studies", "/workitems", f"/studies/{STUDY}/rendered"])
def test_what_a_program_adds_to_get_round_a_cache_changes_nothing(
    http: httpx.Client, hub: Services, address: str
) -> None:
    receive(hub, ct())
    plain = http.get(address)
    answer = http.get(f"{address}?_=1732411")
    assert (answer.status_code, answer.content) == (plain.status_code, plain.content)
    assert plain.status_code != 400
