"""Fuzzing without coverage: mutations of the seeds, the same ones for the same seed of the dice."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.seeds import LARGEST_BYTES, WORDS, seeds


@dataclass(frozen=True, slots=True)
class Found:
    """An input that breaks a rule, made as short as cutting out pieces makes it."""

    data: bytes
    error: Exception


def blind_run(
    target: Callable[[bytes], None], *, goes_on: Callable[[int], bool], seed: int
) -> tuple[int, Found | None]:
    """Feed *target* first the seeds, then mutations, while ``goes_on(inputs so far)``; return how many, and what broke."""
    dice = random.Random(seed)
    ran = 0
    start = seeds()
    while goes_on(ran):
        data = start[ran] if ran < len(start) else mutated(dice.choice(start), dice)
        ran += 1
        error = _error(target, data)
        if error is not None:
            return ran, _shortened(target, data, error)
    return ran, None


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Return *data* after a few changes: words put in, bytes changed, pieces cut out, doubled or moved in from elsewhere."""
    made = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        at = dice.randint(0, len(made))
        to = min(at + dice.randint(0, 30), len(made))
        match dice.randrange(6):
            case 0 | 1:
                made[at:at] = dice.choice(WORDS)
            case 2:
                made[at : at + 1] = bytes([dice.randrange(256)])
            case 3:
                del made[at:to]
            case 4:
                made[at:at] = made[at:to] * dice.randint(1, 8)
            case _:
                other = dice.choice(seeds())
                made[at:to] = other[: dice.randint(0, len(other))]
    return bytes(made[:LARGEST_BYTES])


def _error(target: Callable[[bytes], None], data: bytes) -> Exception | None:
    try:
        target(data)
    except Exception as error:
        return error
    return None


def _shortened(target: Callable[[bytes], None], data: bytes, error: Exception) -> Found:
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            again = _error(target, shorter)
            if type(again) is type(error):
                data, error = shorter, again or error
            else:
                at += size
        size //= 2
    return Found(data, error)
