"""Objects leave no faster than their receiver's line may carry, and unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import settings as choose
from hypothesis import strategies as st

from adapters.dimse import get as get_service
from adapters.dimse import move as move_service
from adapters.dimse.negotiation import Proposal
from adapters.dimse.pace import Pacer, pacer_to
from adapters.dimse.sender import DimseSender
from hub.boot import Services
from hub.config import Settings
from hub.ports import Member
from storage.objects.memory import MemoryStore
from tests.adapters.dimse.test_sender import delivery, library_scp, partner, row
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT, ROOT, make_ct
from tests.support.dimse import FakeServices
from tests.support.dimse_hub import ae, hub_door, keep
from tests.support.dimse_hub import library_scp as archive
from tests.support.dimse_retrieve import get, keys, move

Maker = Callable[..., Settings]


class Line:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def pieces_of(data: bytes) -> Callable[[int], Iterator[bytes]]:
    return lambda size: (data[start : start + size] for start in range(0, len(data), size))


@choose(deadline=None)
@given(st.integers(8_000, 2_000_000), st.lists(st.integers(1, 3_000_000), min_size=1, max_size=6))
def test_over_any_stretch_no_more_leaves_than_the_rate_and_one_fragment(rate: int, sizes: list[int]) -> None:
    line = Line()
    pacer = Pacer(lambda: rate, clock=line.clock, wait=line.wait)
    sent: list[tuple[float, int]] = []
    for size in sizes:
        data = bytes(size)
        out = b""
        for piece in pacer.paced(pieces_of(data))(128 << 10):
            assert len(piece) <= max(rate, 4096)
            sent.append((line.now, len(piece)))
            out += piece
        assert out == data
    longest = max(size for _, size in sent)
    for first, (began, _) in enumerate(sent):
        through = sum(size for _, size in sent[first:])
        assert through <= (sent[-1][0] - began) * rate + longest + 1


def test_a_line_that_lay_idle_saves_nothing_up() -> None:
    line = Line()
    pacer = Pacer(lambda: 10_000, clock=line.clock, wait=line.wait)
    line.now = 3600.0
    assert sum(map(len, pacer.paced(pieces_of(bytes(100_000)))(5000))) == 100_000
    assert line.now == pytest.approx(3600 + 95_000 / 10_000)


def test_a_rate_that_ends_between_two_instances_holds_back_no_more() -> None:
    line = Line()
    rates = iter([1_000, None])
    pacer = Pacer(lambda: next(rates), clock=line.clock, wait=line.wait)
    assert list(pacer.paced(pieces_of(bytes(1000)))(10_000)) == [bytes(1000)]
    assert list(pacer.paced(pieces_of(bytes(90_000)))(10_000)) == [bytes(10_000)] * 9
    assert line.now == 0.0


@pytest.mark.parametrize(
    ("rule", "zone", "limited"),
    [
        (None, "Asia/Shanghai", False),
        ("640", "Asia/Shanghai", True),
        ("640 10:00-11:00", "Asia/Shanghai", True),
        ("640 10:00-11:00", "America/New_York", False),
        ("640 22:00-23:00", "America/New_York", True),
    ],
)
def test_deliveries_keep_to_the_rate_of_their_endpoint(
    settings: Maker, rule: str | None, zone: str, limited: bool
) -> None:
    store, line = MemoryStore(), Line()
    rows = [row(store, instance=number, size=316) for number in (1, 2)]
    services = FakeServices(settings(), objects=store)
    services.clock = lambda: datetime(2025, 6, 11, 2, 0, tzinfo=UTC)
    services.directory.members["YL"] = Member(code="YL", organization_id="YL", name="YL", settings={"time-zone": zone})
    with library_scp(lambda _: 0) as (port, received):
        asked = {} if rule is None else {"max-kbit-s": rule}
        sender = DimseSender(cast("Services", services), clock=line.clock, wait=line.wait)
        result = sender.send(delivery(*rows), replace(partner(port), settings=asked))
    assert [one["status"] for one in json.loads(result.ack)["instances"]] == ["0000", "0000"]
    stored = [make_ct(instance=number, size=316) for number in (1, 2)]
    assert [whole.endswith(part) for whole, part in zip(stored, received, strict=True)] == [True, True]
    # All but the last fragment, of a second at most, has been waited for.
    seconds = sum(map(len, received)) / 80_000
    assert (seconds - 1 <= line.now < seconds) if limited else line.now == 0.0


@pytest.mark.parametrize("rule", [None, "640"])
def test_instances_that_are_moved_keep_to_the_rate_of_their_destination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str | None
) -> None:
    line = Line()
    monkeypatch.setattr(move_service, "pacer_to", partial(pacer_to, clock=line.clock, wait=line.wait))
    asked = {} if rule is None else {"max-kbit-s": rule}
    with (
        archive(lambda _: 0) as (port, received),
        hub_door(tmp_path, ae("KN", "ARCHIVE", port, **asked)) as (hub, door),
    ):
        keep(hub, *(make_ct(instance=number, size=316) for number in (1, 2)))
        answers = move(door, "ARCHIVE", keys("STUDY", study=f"{ROOT}.1"))
    assert (answers[-1]["status"], answers[-1]["completed"], len(received)) == (0, 2, 2)
    seconds = sum(map(len, received)) / 80_000
    assert (seconds - 1 <= line.now < seconds) if rule else line.now == 0.0


@pytest.mark.parametrize("rule", [None, "640"])
def test_instances_that_are_got_keep_to_the_rate_of_the_asker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str | None
) -> None:
    line = Line()
    monkeypatch.setattr(get_service, "pacer_to", partial(pacer_to, clock=line.clock, wait=line.wait))
    asked = {} if rule is None else {"max-kbit-s": rule}
    context = Proposal(CT_IMAGE_STORAGE, (EXPLICIT,), as_scp=True)
    with hub_door(tmp_path, ae("KN", "READER", **asked)) as (hub, door):
        keep(hub, *(make_ct(instance=number, size=316) for number in (1, 2)))
        answers, received = get(door, keys("STUDY", study=f"{ROOT}.1"), context, calling="READER")
    assert (answers[-1]["status"], answers[-1]["completed"], len(received)) == (0, 2, 2)
    seconds = sum(map(len, received)) / 80_000
    assert (seconds - 1 <= line.now < seconds) if rule else line.now == 0.0
