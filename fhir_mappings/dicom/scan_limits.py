"""What one object may hold, so that a hostile one costs little (the hub's own limits; the standard has none of them)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLimits:
    """What one object may hold; far above real objects, far below what would hurt.

    Attributes:
        element_bytes: longest value other than pixels, documents, waveforms and spectra.
        held_bytes: longest text or number value handed on; longer ones stay in the object.
        held_binary_bytes: longest opaque value handed on.
        held_total_bytes: sum of the values handed on; what comes after them stays in the object.
    """

    depth: int = 32
    items: int = 50_000
    elements: int = 1_000_000
    element_bytes: int = 64 << 20
    held_bytes: int = 64 << 10
    held_binary_bytes: int = 1024
    held_total_bytes: int = 16 << 20
    inflated_bytes: int = 256 << 20
    inflated_ratio: int = 100


LIMITS = ScanLimits()
