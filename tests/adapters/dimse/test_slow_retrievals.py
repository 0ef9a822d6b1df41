"""Peers that take what they fetch slowly hold up nobody else: counted over real sockets, with nothing timed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pynetdicom
from pynetdicom.sop_class import Verification

from adapters.dimse.negotiation import Proposal
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT, ROOT, make_ct
from tests.support.dimse import Door
from tests.support.dimse_hub import ae, hub_door, keep, library_scp
from tests.support.dimse_peer import AssociatedPeer
from tests.support.dimse_retrieve import get, keys, move

STUDY = f"{ROOT}.1"
CT = Proposal(CT_IMAGE_STORAGE, (EXPLICIT,), as_scp=True)
#: A test that hangs fails by this; no result depends on it.
_HANGS_S = 60


@contextmanager
def another(door: Door) -> Iterator[Any]:
    """An association of another institution with the same door."""
    entity = pynetdicom.AE("QH_PACS")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", door.port, ae_title="YIXIE")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def echoes(door: Door, count: int) -> int:
    """Return how many of *count* associations, one after the other, are answered."""
    answered = 0
    for _ in range(count):
        with another(door) as association:
            answered += association.send_c_echo().Status == 0
    return answered


class Gate:
    """Holds the receiver of the first instance until it is opened."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def wait(self) -> int:
        self.reached.set()
        assert self.open.wait(_HANGS_S)
        return 0


def test_others_are_served_while_the_destination_of_a_move_is_slow(tmp_path: Path) -> None:
    gate = Gate()
    with (
        library_scp(lambda _: gate.wait()) as (port, received),
        hub_door(tmp_path, ae("KN", "ARCHIVE", port)) as (hub, door),
        ThreadPoolExecutor(1) as pool,
    ):
        keep(hub, *(make_ct(instance=number) for number in range(1, 31)))
        moving = pool.submit(move, door, "ARCHIVE", keys("STUDY", study=STUDY))
        try:
            assert gate.reached.wait(_HANGS_S)
            served = echoes(door, 5)
            keep(hub, make_ct(study=2))
            found, _ = get(door, keys("STUDY", study=f"{ROOT}.2"), CT)
            taken = len(received)
        finally:
            gate.open.set()
        answers = moving.result(_HANGS_S)
    assert (served, found[-1]["status"], found[-1]["completed"], taken) == (5, 0, 1, 1)
    assert (answers[-1]["status"], answers[-1]["completed"], len(received)) == (0, 30, 30)


def test_others_are_served_while_who_gets_instances_is_slow(tmp_path: Path) -> None:
    gate = Gate()

    def stored(_peer: AssociatedPeer, _number: int) -> int:
        return gate.wait()

    with hub_door(tmp_path) as (hub, door), ThreadPoolExecutor(1) as pool:
        keep(hub, *(make_ct(instance=number) for number in range(1, 31)))
        getting = pool.submit(get, door, keys("STUDY", study=STUDY), CT, stored=stored)
        try:
            assert gate.reached.wait(_HANGS_S)
            served = echoes(door, 5)
            answers, received = get(door, keys("STUDY", study=STUDY), CT)
        finally:
            gate.open.set()
        slow, slowly = getting.result(_HANGS_S)
    assert (served, answers[-1]["completed"], len(received)) == (5, 30, 30)
    assert (slow[-1]["status"], slow[-1]["completed"]) == (0, 30)
    assert slowly == received
