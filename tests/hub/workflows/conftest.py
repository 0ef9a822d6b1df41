"""Fixtures of the workflow tests."""

from __future__ import annotations

import pytest

from tests.support.workflows import LIU, Play, entry, make


@pytest.fixture
def reading() -> Play:
    """A remote reading that was submitted."""
    play = make("remote-reading")
    play.create(LIU, input=[entry("ImagingStudy/is1")])
    return play


@pytest.fixture
def referral() -> Play:
    """A referral that was submitted."""
    play = make("referral")
    play.create(LIU)
    return play


@pytest.fixture
def lab() -> Play:
    """An outsourced laboratory order that was sent."""
    play = make("lab-outsourcing")
    play.create(LIU, owner="QM")
    return play
