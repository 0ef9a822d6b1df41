"""Whose ConceptMaps count, and when a running process takes them up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.http.app import build
from hub.actor import Actor
from hub.boot import Services
from hub.concept_maps import compiled_from
from hub.directory import Directory
from hub.errors import HubError
from tests.support.code_maps import LOINC, SEX, concept_map, local
from tests.support.http import Client, client_of
from tests.support.services import running

K = concept_map("kn-lab", local("KN"), LOINC, K="2823-3")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with running(tmp_path) as one:
        yield one


def client(services: Services, institution: str, *roles: str) -> Client:
    return client_of(build(services), services, Actor(institution=institution, roles=frozenset(roles)))


def known(services: Services, member: str = "KN", code: str = "K") -> tuple[dict[str, Any], ...]:
    return services.directory.code_maps(member).codings.get((local(member), code), ())


def test_a_map_is_in_force_with_the_answer_to_its_write_and_gone_with_its_removal(services: Services) -> None:
    admin = client(services, "KN", "admin")
    assert known(services) == ()
    assert admin.put("/fhir/ConceptMap/kn-lab", json=K).status_code in {200, 201}
    assert known(services) == ({"system": LOINC, "code": "2823-3"},)
    changed = concept_map("kn-lab", local("KN"), LOINC, K="6298-4")
    assert admin.put("/fhir/ConceptMap/kn-lab", json=changed).status_code == 200
    assert known(services) == ({"system": LOINC, "code": "6298-4"},)
    assert admin.delete("/fhir/ConceptMap/kn-lab").status_code in {200, 204}
    assert known(services) == ()


def test_another_process_takes_a_changed_map_up_by_the_version_of_the_directory(services: Services) -> None:
    other = Directory(services.database, services.clock)
    assert other.code_maps("KN").codings == {}
    before = services.database.read(lambda tx: tx.members.version())
    client(services, "KN", "admin").put("/fhir/ConceptMap/kn-lab", json=K)
    assert services.database.read(lambda tx: tx.members.version()) == before + 1
    other.refresh()
    assert (local("KN"), "K") in other.code_maps("KN").codings


@pytest.mark.parametrize(
    ("institution", "role"), [("QH", "admin"), ("KN", "system"), ("KN", "doctor"), ("QH", "operator")]
)
def test_nobody_else_decides_how_an_institutions_codes_are_read(
    services: Services, institution: str, role: str
) -> None:
    answer = client(services, institution, role).put("/fhir/ConceptMap/kn-lab", json=K)
    assert answer.status_code == 403, answer.text
    assert known(services) == ()


def test_an_own_map_cannot_be_turned_into_anothers_nor_removed_by_who_may_not_write_it(services: Services) -> None:
    client(services, "KN", "admin").put("/fhir/ConceptMap/kn-lab", json=K)
    harmless = concept_map("kn-lab", "http://snomed.info/sct", LOINC, A="1")
    clerk = client(services, "KN", "system")
    assert clerk.put("/fhir/ConceptMap/kn-lab", json=harmless).status_code == 403
    assert clerk.delete("/fhir/ConceptMap/kn-lab").status_code == 403
    assert known(services)


def test_the_operator_maps_for_a_member_whose_own_word_is_believed_first(services: Services) -> None:
    operators = concept_map("operators", local("KN"), LOINC, K="6298-4", NA="2951-2")
    assert client(services, "YY", "operator").put("/fhir/ConceptMap/operators", json=operators).status_code == 201
    assert known(services) == ({"system": LOINC, "code": "6298-4"},)
    client(services, "KN", "admin").put("/fhir/ConceptMap/kn-lab", json=K)
    assert known(services) == ({"system": LOINC, "code": "2823-3"},)
    assert known(services, code="NA") == ({"system": LOINC, "code": "2951-2"},)


def test_a_map_over_no_institutions_codes_is_an_ordinary_record(services: Services) -> None:
    made = client(services, "KN", "doctor").create(concept_map("x", "http://snomed.info/sct", LOINC, A="1"))
    assert client(services, "QH", "doctor").get(f"/fhir/ConceptMap/{made['id']}").status_code == 200


def test_a_map_that_cannot_be_followed_is_refused_with_its_place(services: Services) -> None:
    wrong = concept_map("kn-sex", local("KN", "table/administrative_sex"), SEX, **{"8": "man"})
    answer = client(services, "KN", "admin").put("/fhir/ConceptMap/kn-sex", json=wrong)
    assert answer.status_code == 422
    (issue,) = answer.json()["issue"]
    assert issue["expression"] == ["ConceptMap.group[0].element[0]"]
    assert "male" in issue["diagnostics"]


def test_maps_are_imported_with_the_members_and_checked_like_a_write(services: Services) -> None:
    services.directory.load([K])
    assert known(services)
    with pytest.raises(HubError) as refused:
        services.directory.load([{**K, "status": "valid"}])
    assert refused.value.status == 422
    with pytest.raises(HubError):
        services.directory.load([{**K, "group": [{**K["group"][0], "unmapped": {"mode": "provided"}}]}])


def test_one_map_that_no_longer_fits_stops_no_other() -> None:
    broken = {**K, "group": [{**K["group"][0], "unmapped": {"mode": "provided"}}]}
    assert compiled_from([("KN", "a", broken), ("KN", "b", K)])["KN"].codings
    assert compiled_from([("QH", "c", K)]) == {}
