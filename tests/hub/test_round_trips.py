"""Asking for a study costs the database few statements, however many images the study has: each is a round trip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hub.boot import Services
from tests.support.databases import opened
from tests.support.images import KN, STUDY, FakeClock, ct, receive, services, settle

SERIES = f"{STUDY}.1"


@pytest.fixture
def hub(database_url: str, tmp_path: Path) -> Iterator[Services]:
    clock = FakeClock()
    with opened(database_url, clock=clock) as database:
        yield services(database, tmp_path, clock)


def complete(hub: Services, images: range) -> None:
    for number in images:
        receive(hub, ct(number))
    assert isinstance(hub.clock, FakeClock)
    hub.clock.forward(hub.settings.study_quiet_s + 1)
    assert settle(hub)


@pytest.mark.parametrize(
    ("most", "ask"),
    [
        (4, lambda hub: hub.imaging.retrieve(KN, STUDY)),
        (4, lambda hub: hub.imaging.retrieve(KN, STUDY, SERIES, f"{SERIES}.1", attributes=True)),
        (6, lambda hub: hub.imaging.metadata(KN, STUDY)),
        (6, lambda hub: hub.imaging.find(KN, "study", [("PatientID", "10086")])),
        (6, lambda hub: hub.imaging.find(KN, "series", [("StudyInstanceUID", STUDY)])),
    ],
    ids=["study", "instance", "metadata", "search for studies", "search for series"],
)
def test_the_number_of_statements_does_not_grow_with_the_study(
    hub: Services, most: int, ask: Callable[[Services], object]
) -> None:
    def statements() -> list[str]:
        asked: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.lstrip().upper().startswith("SELECT"):
                asked.append(statement)

        # Of every engine, because reading has connections of its own.
        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        try:
            ask(hub)
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)
        return asked

    complete(hub, range(1, 3))
    ask(hub)
    few = len(statements())
    complete(hub, range(3, 23))
    ask(hub)
    assert 1 <= few == len(statements()) <= most
