"""What members show at the TLS doors is noted with its end, and forgotten once something else takes its place."""

from __future__ import annotations

from datetime import timedelta

from hub.boot import Services
from hub.certificates import OPEN_LINE, Certificate, Line
from hub.errors import Category, HubError
from hub.ports import Database, Tx
from hub.presented_certificates import NOTED, Presented, PresentedCertificates, days_left, presented
from tests.support.hub import SetClock

OLD, NEW = "ab" * 32, "cd" * 32


def line(clock: SetClock, fingerprint: str = OLD, *, days: int = 90) -> Line:
    return Line(True, Certificate(fingerprint, frozenset({"pacs.kn.example"}), clock.now + timedelta(days=days)))


def shown(database: Database) -> list[Presented]:
    return database.read(lambda tx: presented(tx, "KN/dicom"))


def test_a_certificate_is_noted_with_its_end_and_its_endpoint(sqlite_services: Services, set_clock: SetClock) -> None:
    notes = PresentedCertificates(sqlite_services.database, set_clock)
    notes.note("KN/dicom", OPEN_LINE)
    notes.note("KN/dicom", Line(encrypted=True))
    assert shown(sqlite_services.database) == []
    notes.note("KN/dicom", line(set_clock, days=90))
    (one,) = shown(sqlite_services.database)
    assert (one.fingerprint, days_left(one.ends, set_clock.now)) == (OLD, 90)
    assert sqlite_services.database.read(lambda tx: presented(tx, "QH/dicom")) == []


def test_two_machines_of_a_member_each_show_their_own_the_first_to_end_first(
    sqlite_services: Services, set_clock: SetClock
) -> None:
    notes = PresentedCertificates(sqlite_services.database, set_clock)
    notes.note("KN/dicom", line(set_clock, OLD, days=90))
    notes.note("KN/dicom", line(set_clock, NEW, days=9))
    assert [one.fingerprint for one in shown(sqlite_services.database)] == [NEW, OLD]


def test_one_that_another_has_replaced_for_a_day_is_forgotten(sqlite_services: Services, set_clock: SetClock) -> None:
    notes = PresentedCertificates(sqlite_services.database, set_clock)
    notes.note("KN/dicom", line(set_clock, OLD, days=9))
    set_clock.forward(30 * 86_400)
    assert [one.fingerprint for one in shown(sqlite_services.database)] == [OLD]
    notes.note("KN/dicom", line(set_clock, NEW, days=365))
    assert [one.fingerprint for one in shown(sqlite_services.database)] == [NEW]


def test_it_is_written_once_an_hour_and_again_after_a_write_that_failed(
    sqlite_services: Services, set_clock: SetClock
) -> None:
    class Counting:
        def __init__(self, database: Database) -> None:
            self._database, self.writes, self.away = database, 0, False

        def write(self, work: object) -> object:
            if self.away:
                raise HubError(Category.UNAVAILABLE, "The database is away.", where="database")
            self.writes += 1
            return self._database.write(work)  # type: ignore[arg-type]

    database = Counting(sqlite_services.database)
    notes = PresentedCertificates(database, set_clock)  # type: ignore[arg-type]
    database.away = True
    notes.note("KN/dicom", line(set_clock))
    database.away = False
    for _ in range(3):
        notes.note("KN/dicom", line(set_clock))
    assert database.writes == 1
    set_clock.forward(NOTED.total_seconds())
    notes.note("KN/dicom", line(set_clock))
    assert database.writes == 2


def test_both_databases_keep_it(database: Database, set_clock: SetClock) -> None:
    PresentedCertificates(database, set_clock).note("KN/dicom", line(set_clock))

    def again(tx: Tx) -> list[str]:
        return [one.fingerprint for one in presented(tx, "KN/dicom")]

    assert database.read(again) == [OLD]
