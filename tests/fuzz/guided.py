"""One libFuzzer process: ``python -m tests.fuzz.guided TARGET [libFuzzer options] SEEDS``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["adapters.mllp.frames", "fhir_mappings"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()
