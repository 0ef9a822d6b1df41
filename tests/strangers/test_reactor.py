"""The toolkit's peer waits until its own thread rests, so that no answer is taken from under a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from pynetdicom import AE
from pynetdicom.association import Association


@pytest.fixture
def association() -> Iterator[Association]:
    made = Association(AE("PEER"), "requestor")
    made._reactor_checkpoint.clear()
    yield made
    made._reactor_checkpoint.set()


def test_a_thread_that_only_says_that_it_rests_does_not(association: Association) -> None:
    association._is_paused = True

    assert not association._is_paused


def test_a_thread_that_rests_does(association: Association) -> None:
    association._is_paused = True
    checkpoint = association._reactor_checkpoint
    resting = threading.Thread(target=checkpoint.wait)
    resting.start()
    try:
        while not association._is_paused:
            assert resting.is_alive()
        checkpoint.set()

        assert not association._is_paused, "woken"
    finally:
        checkpoint.set()
        resting.join()
