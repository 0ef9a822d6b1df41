"""Pages of the imaging index that go on behind a row, and its patients, on both databases."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hub.access import Scope
from hub.attribute_matching import parse
from hub.boot import Services
from tests.support import images

KN = Scope(institution="KN")


@pytest.fixture
def filled(hub_services: Services) -> Services:
    """Seven studies of three patients: equal dates and times, numbers of several lengths, one number per issuer."""
    for number in range(1, 7):
        for series, instance in itertools.product((1, 2, 10), (1, 2, 10)):
            if series == 1 or number == 1:
                images.receive(
                    hub_services,
                    images.ct(
                        instance,
                        study=f"{images.ROOT}.{number}",
                        series=series,
                        StudyDate=f"2025061{number // 3}",
                        PatientID="10086" if number < 4 else "10107",
                    ),
                )
    images.receive(hub_services, images.ct(1, study=f"{images.ROOT}.7", IssuerOfPatientID="YL"))
    images.receive(hub_services, images.ct(1, study=f"{images.ROOT}.8"), images.QH)
    return hub_services


def paged(services: Services, read: Callable[[Any, Any], Sequence[Any]]) -> list[Any]:
    rows: list[Any] = []
    while True:
        last = rows[-1] if rows else None
        page = services.database.read(lambda tx, last=last: read(tx.imaging, last))  # type: ignore[misc]
        if not page:
            return rows
        rows += page


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_pages_that_go_on_behind_a_row_give_every_row_once_and_in_order(filled: Services, limit: int) -> None:
    whole = filled.database.read(
        lambda tx: [
            list(tx.imaging.studies(KN, (), limit=100)),
            list(tx.imaging.series(KN, (), limit=100)),
            list(tx.imaging.instances(KN, (), limit=100)),
        ]
    )
    assert [len(rows) for rows in whole] == [7, 9, 25]
    assert paged(filled, lambda index, last: index.studies(KN, (), limit=limit, after=last)) == whole[0]
    assert paged(filled, lambda index, last: index.series(KN, (), limit=limit, after=last)) == whole[1]
    assert paged(filled, lambda index, last: index.instances(KN, (), limit=limit, after=last)) == whole[2]


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("limit", [1, 10])
def test_a_patient_is_a_number_of_one_issuer_with_counts_over_what_is_visible(
    filled: Services, set_clock: Any, limit: int, complete: bool
) -> None:
    if complete:
        set_clock.forward(3600)
        images.settle(filled)

    def read(index: Any, last: Any) -> Any:
        return index.patients(KN, (), limit=limit, after=last["patient_id"] if last else None)

    found = paged(filled, read)
    assert sorted(
        (row["PatientID"], row["IssuerOfPatientID"], row["owner"], row["related_studies"], row["related_series"],
         row["related_instances"], row["StudyInstanceUID"].rpartition(".")[2])
        for row in found
    ) == [
        ("10086", "", "KN", 3, 5, 15, "3"),
        ("10086", "YL", "KN", 1, 1, 1, "7"),
        ("10107", "", "KN", 3, 3, 9, "6"),
    ]  # fmt: skip


@pytest.mark.parametrize(("issuer", "count"), [("KN", 6), ("YL", 1), ("Y*", 1), ("QH", 0)])
def test_a_number_without_an_issuer_is_its_owners(filled: Services, issuer: str, count: int) -> None:
    match = parse("IssuerOfPatientID", issuer, level="study")
    assert match is not None
    assert len(filled.database.read(lambda tx: tx.imaging.studies(KN, [match], limit=100))) == count


def test_the_header_of_a_study_is_that_of_its_first_instance(filled: Services) -> None:
    key = ("KN", f"{images.ROOT}.1")
    found = filled.database.read(lambda tx: tx.imaging.study_attributes([key, ("KN", "1.2.3")]))
    assert found.keys() == {key}
    assert f'"{images.ROOT}.1.1.1"'.encode() in found[key]
