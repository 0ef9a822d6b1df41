"""Each kind of search parameter as a client writes it (https://hl7.org/fhir/R4/search.html), on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.http.app import build
from hub.actor import Actor
from hub.boot import Services
from tests.support.http import Client, client_of
from tests.support.services import running

SYSTEM = "urn:oid:1.2.3"


@pytest.fixture
def services(tmp_path: Path, database_url: str) -> Iterator[Services]:
    with running(tmp_path, url=database_url) as one:
        yield one


@pytest.fixture
def kn(services: Services) -> Client:
    return client_of(build(services), services, Actor(institution="KN"))


def patient(value: str, name: str = "欧阳明月", **more: Any) -> dict[str, Any]:
    identifier = [{"system": SYSTEM, "value": value}]
    return {"resourceType": "Patient", "name": [{"text": name}], "identifier": identifier, **more}


def own(kind: str, id: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": kind, "id": id, **more}


def ward(client: Client) -> None:
    """Store one resource that each kind of parameter finds and one that it does not."""
    subject = {"reference": "Patient/p1"}
    basic = {"status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": "2823-3"}]}}
    risk = {"status": "final", "subject": subject}
    for one in (
        {**patient("1", birthDate="1976-02-29", gender="female"), "id": "p1"},
        {**patient("2", "郑伟", birthDate="1990-01-02", gender="male"), "id": "p2"},
        own("Observation", "o1", **basic, subject=subject, valueQuantity={"value": 6.9, "unit": "mmol/L"}),
        own(
            "Observation",
            "o2",
            **{**basic, "code": {"text": "Na"}},
            subject={"reference": "Patient/p2"},
            valueQuantity={"value": 138, "unit": "mmol/L"},
        ),
        own("RiskAssessment", "r1", **risk, prediction=[{"probabilityDecimal": 0.25}]),
        own("RiskAssessment", "r2", **risk, prediction=[{"probabilityDecimal": 0.8}]),
        own("RiskAssessment", "r3", **risk, prediction=[{"qualitativeRisk": {"text": "高"}}]),
        own("ValueSet", "v1", status="active", url="http://a.example/vs/one"),
        own("ValueSet", "v2", status="active", url="http://a.example/vs/one/two"),
    ):
        answer = client.put(f"/fhir/{one['resourceType']}/{one['id']}", json=one)
        assert answer.status_code == 201, answer.text


#: Question -> ids found. Each question has something in the ward that it must leave out.
QUESTIONS = {
    # token
    "Patient?identifier=urn:oid:1.2.3|1": "p1",
    "Patient?gender=male": "p2",
    "Patient?gender:not=male": "p1",
    "Observation?code:text=Na": "o2",
    # string
    "Patient?name=欧阳": "p1",
    "Patient?name=明月": "",
    "Patient?name:contains=明月": "p1",
    "Patient?name:exact=郑伟": "p2",
    "Patient?name:exact=郑": "",
    "Patient?name=ouyangmingyue": "p1",
    "Patient?name=oymy": "p1",
    "Patient?name=zw": "p2",
    # reference
    "Observation?subject=Patient/p1": "o1",
    "Observation?subject:Patient=p2": "o2",
    "Observation?patient=p1": "o1",
    # date
    "Patient?birthdate=1976-02-29": "p1",
    "Patient?birthdate=ge1980": "p2",
    "Patient?birthdate=lt1976-02-29": "",
    # quantity
    "Observation?value-quantity=gt5||mmol/L&value-quantity=lt7||mmol/L": "o1",
    "Observation?value-quantity=138": "o2",
    # number
    "RiskAssessment?probability=0.25": "r1",
    "RiskAssessment?probability=gt0.5": "r2",
    "RiskAssessment?probability=le0.25": "r1",
    "RiskAssessment?probability=ne0.25": "r2",
    "RiskAssessment?probability=0.3": "r1",
    "RiskAssessment?probability=0.30": "",
    "RiskAssessment?probability:missing=true": "r3",
    # uri
    "ValueSet?url=http://a.example/vs/one": "v1",
    "ValueSet?url:below=http://a.example/vs/one": "v1 v2",
    # every resource
    "Patient?_id=p2": "p2",
    "Patient?_lastUpdated=lt2000": "",
    "Patient?_lastUpdated=gt2000": "p1 p2",
    # chains, one level
    "Observation?subject:Patient.name=zhengwei": "o2",
    "Observation?patient.identifier=urn:oid:1.2.3|1": "o1",
}


def test_every_kind_of_parameter_finds_what_it_names_and_nothing_else(kn: Client) -> None:
    ward(kn)

    for question, ids in QUESTIONS.items():
        found = sorted(one["id"] for one in kn.search(f"/fhir/{question}"))
        assert found == ids.split(), question


def test_post_search_asks_the_same_as_get(kn: Client) -> None:
    ward(kn)

    answer = kn.post("/fhir/Patient/_search?gender=male", data={"name": "郑"})

    assert [entry["resource"]["id"] for entry in answer.json()["entry"]] == ["p2"]


def test_what_comes_along_is_marked_and_does_not_count_as_found(kn: Client) -> None:
    ward(kn)

    page = kn.get("/fhir/Observation?code=2823-3&_include=Observation:subject&_total=accurate").json()
    back = kn.get("/fhir/Patient?_id=p1&_revinclude=Observation:subject&_total=accurate").json()

    for one, expected in ((page, [("o1", "match"), ("p1", "include")]), (back, [("p1", "match"), ("o1", "include")])):
        assert [(entry["resource"]["id"], entry["search"]["mode"]) for entry in one["entry"]] == expected
        assert one["total"] == 1


def test_the_order_asked_for_holds_across_pages(kn: Client) -> None:
    for number, born in enumerate(("1980-05-04", "1976-02-29", "1990-01-02", "1980-05-04", "2001-10-10")):
        kn.create(patient(str(number), birthDate=born))

    for order, reverse in (("birthdate", False), ("-birthdate", True)):
        dates: list[str] = []
        url: str | None = f"/fhir/Patient?_sort={order}&_count=2"
        while url:
            page = kn.get(url).json()
            dates += [entry["resource"]["birthDate"] for entry in page["entry"]]
            following = [link["url"] for link in page["link"] if link["relation"] == "next"]
            url = "/fhir" + following[0].split("/fhir", 1)[1] if following else None
        assert dates == sorted(dates, reverse=reverse)
        assert len(dates) == 5


def test_sorted_pages_neither_repeat_nor_lose_while_rows_arrive_and_change(kn: Client) -> None:
    made = [kn.create(patient(str(number), birthDate=f"19{number + 50}-01-01")) for number in range(9)]
    seen: list[str] = []
    url: str | None = "/fhir/Patient?_sort=birthdate&_count=2"
    while url:
        page = kn.get(url).json()
        seen += [entry["resource"]["id"] for entry in page["entry"]]
        # One arrives before the place reached, one behind it, and one that was shown is changed and one taken away.
        kn.create(patient("before", birthDate="1900-01-01"))
        kn.create(patient("behind", birthDate="2020-01-01"))
        kn.put(f"/fhir/Patient/{made[0]['id']}", json={**made[0], "gender": "male"})
        kn.delete(f"/fhir/Patient/{made[1]['id']}")
        following = [link["url"] for link in page["link"] if link["relation"] == "next"]
        url = "/fhir" + following[0].split("/fhir", 1)[1] if following and len(seen) < 12 else None

    assert len(seen) == len(set(seen))
    assert [one for one in seen if one in {item["id"] for item in made}] == [one["id"] for one in made]


def test_a_total_is_told_when_asked_for(kn: Client) -> None:
    for number in range(5):
        kn.create(patient(str(number)))

    accurate = kn.get("/fhir/Patient?_count=2&_total=accurate").json()
    none = kn.get("/fhir/Patient?_count=2&_total=none").json()
    counted = kn.get("/fhir/Patient?_summary=count").json()
    wrong = kn.get("/fhir/Patient?_total=roughly")

    assert (accurate["total"], len(accurate["entry"])) == (5, 2)
    assert "total" not in none
    assert (counted["total"], counted.get("entry")) == (5, None)
    assert wrong.status_code == 400


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("naem=x", "naem"),
        ("code:nonsense=x", ":nonsense"),
        ("_include=Observation:nonsense", "_include"),
        ("_sort=nonsense", "_sort"),
        ("subject:Patient.nonsense=x", "nonsense"),
    ],
)
def test_what_the_hub_does_not_know_is_refused_by_name(kn: Client, query: str, named: str) -> None:
    answer = kn.get(f"/fhir/Observation?{query}")

    assert answer.status_code == 400
    [issue] = answer.json()["issue"]
    assert issue["severity"] == "error"
    assert named in str(issue)


def test_lenient_handling_leaves_an_unknown_parameter_out_and_says_so(kn: Client) -> None:
    ward(kn)

    answer = kn.get("/fhir/Patient?naem=x&gender=male", headers={"Prefer": "handling=lenient"}).json()

    matches = [one["resource"]["id"] for one in answer["entry"] if one["search"]["mode"] == "match"]
    [told] = [one["resource"] for one in answer["entry"] if one["search"]["mode"] == "outcome"]
    assert matches == ["p2"]
    assert "naem" in str(told)
    assert "naem" not in next(link["url"] for link in answer["link"] if link["relation"] == "self")
