"""FHIR R4 over HTTP with 8 clients on a filled database: create, read, and search by identifier.

https://hl7.org/fhir/R4/http.html. The database is filled through the storage layer, index rows and all; what is measured
goes through the door. Every read and search leaves its audit line, which is a commit of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Spread, Target, percentile
from benchmarks.processes import BASE, hub
from benchmarks.scale import Scale
from benchmarks.wire import Load, drive, expecting, request
from fhir_mappings.json import dumps
from hub.ports import NewVersion

SYSTEM = f"{BASE}/NamingSystem/KN/patient-id"
#: Observations for each Patient of the filled database.
OBSERVATIONS = 3
BATCH = 500
LOINC = (("2823-3", "钾"), ("2951-2", "钠"), ("718-7", "血红蛋白"), ("6690-2", "白细胞"))


def patient(number: int, *, id: str | None = None) -> dict[str, Any]:
    """Return a fictional Patient."""
    family, given = "赵钱孙李周吴郑王"[number % 8], "伟芳娜敏静丽强磊"[number // 8 % 8]
    made: dict[str, Any] = {
        "resourceType": "Patient",
        "identifier": [{"system": SYSTEM, "value": f"{number}"}],
        "active": True,
        "name": [
            {"use": "official", "text": f"{family}{given}{number}", "family": family, "given": [f"{given}{number}"]}
        ],
        "telecom": [{"system": "phone", "value": f"12{number:09d}", "use": "mobile"}],
        "gender": "male" if number % 2 else "female",
        "birthDate": f"{1940 + number % 70}-{number % 12 + 1:02d}-{number % 28 + 1:02d}",
        "address": [{"text": f"云岭示范县测试路{number}号", "city": "云岭示范县"}],
    }
    return made | {"id": id} if id else made


def observation(number: int, subject: str, *, id: str | None = None) -> dict[str, Any]:
    """Return a fictional laboratory result of *subject*."""
    code, display = LOINC[number % len(LOINC)]
    coding = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}
    made: dict[str, Any] = {
        "resourceType": "Observation",
        "identifier": [{"system": f"{BASE}/NamingSystem/KN/filler", "value": f"L{number}"}],
        "status": "final",
        "category": [{"coding": [coding]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": display}], "text": display},
        "subject": {"reference": subject},
        "effectiveDateTime": f"2025-{number % 12 + 1:02d}-{number % 28 + 1:02d}T08:{number % 60:02d}:00+08:00",
        "valueQuantity": {
            "value": number % 90 + 1,
            "unit": "mmol/L",
            "system": "http://unitsofmeasure.org",
            "code": "mmol/L",
        },
    }
    return made | {"id": id} if id else made


def stock(count: int) -> Iterator[dict[str, Any]]:
    """Yield *count* resources: a Patient, then its Observations, and so on."""
    for number in range(count):
        person, place = divmod(number, OBSERVATIONS + 1)
        if place == 0:
            yield patient(person, id=f"bench-p{person}")
        else:
            yield observation(number, f"Patient/bench-p{person}", id=f"bench-o{number}")


def fill(services: Any, count: int) -> None:
    """Store *count* resources of KN."""
    waiting: list[NewVersion] = []

    def keep() -> None:
        batch = list(waiting)
        services.database.write(lambda tx: tx.records.put_many(batch))
        waiting.clear()

    for resource in stock(count):
        waiting.append(NewVersion(resource=resource, owner="KN"))
        if len(waiting) == BATCH:
            keep()
    if waiting:
        keep()


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return rate and latency of create, read and search; any answer but the wanted one ends the run."""
    people = scale.fhir_resources // (OBSERVATIONS + 1)
    pick = random.Random(7)
    with hub(folder, only=("http", "worker"), prepare=lambda services: fill(services, scale.fhir_resources)) as running:
        token, port = running.tokens["KN"], running.ports["http"]

        def create(number: int) -> bytes:
            body = dumps(
                patient(10_000_000 + number)
                if number % 4 == 0
                else observation(10_000_000 + number, f"Patient/bench-p{pick.randrange(people)}")
            )
            kind = "Patient" if number % 4 == 0 else "Observation"
            return request("POST", f"/fhir/{kind}", token=token, body=body, Content_Type="application/fhir+json")

        def read() -> bytes:
            return request("GET", f"/fhir/Patient/bench-p{pick.randrange(people)}", token=token)

        def search() -> bytes:
            return request("GET", f"/fhir/Patient?identifier={SYSTEM}%7C{pick.randrange(people)}", token=token)

        one_match = expecting(200, lambda body: body.count(b'"fullUrl"') == 1)
        count = scale.fhir_operations
        loads: dict[str, list[Load]] = {"create": [], "read": [], "search": []}
        drive(port, [read() for _ in range(scale.fhir_clients * 4)], expecting(200), connections=scale.fhir_clients)
        for turn in range(min(3, scale.rounds)):
            first = turn * count
            created = [create(first + number) for number in range(count)]
            loads["create"].append(drive(port, created, expecting(201), connections=scale.fhir_clients))
            reads = [read() for _ in range(count)]
            loads["read"].append(drive(port, reads, expecting(200), connections=scale.fhir_clients))
            searches = [search() for _ in range(count)]
            loads["search"].append(drive(port, searches, one_match, connections=scale.fhir_clients))
    counted = scale.name == "full"
    size = f"{scale.fhir_resources:,} resources, {scale.fhir_clients} clients"
    targets = {"create": 400.0, "read": 1500.0, "search": 500.0}
    names = {"create": "FHIR create", "read": "FHIR read", "search": "FHIR search by identifier"}
    rows = []
    for kind, measured in loads.items():
        latencies = [ms for one in measured for ms in one.latencies_ms]
        rows.append(
            Row(
                key=f"fhir-{kind}",
                work=f"{names[kind]}, {size}",
                unit="requests/s",
                hub=Spread.of([one.per_s for one in measured]),
                more_is_better=True,
                target=Target(at_least=targets[kind]),
                counted=counted,
                note=f"p50 {percentile(latencies, 0.5):.1f} ms, p99 {percentile(latencies, 0.99):.1f} ms",
            )
        )
    rows.append(
        Row(
            key="fhir-search-p50",
            work=f"{names['search']}, {size}: p50",
            unit="ms",
            hub=Spread.of([percentile(one.latencies_ms, 0.5) for one in loads["search"]]),
            more_is_better=False,
            target=Target(at_most=10.0),
            counted=counted,
        )
    )
    return rows
