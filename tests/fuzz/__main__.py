"""``python -m tests.fuzz SECONDS [TARGET...]``: fuzz the parsers of HL7 v2 (``make fuzz TIME=60``).

With atheris (libFuzzer for Python, the extra ``fuzz``) coverage leads the way; without it the same targets are fed with
mutations of the same seeds, and the run says so. What breaks a rule is kept in ``tests/fuzz/kept`` as ``TARGET-digest`` and
replayed by the ordinary tests from then on. The exit status is 1 when something broke.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.blind import blind_run
from tests.fuzz.kept_files import FOLDER, keep
from tests.fuzz.seeds import LARGEST_BYTES, WORDS, seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Fuzz each target for its share of the time and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("seconds", type=float)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--blind", action="store_true", help="without atheris")
    asked = parser.parse_args()
    names = asked.targets or list(TARGETS)
    if not set(names) <= set(TARGETS):
        parser.error(f"the targets are {', '.join(TARGETS)}")
    guided = not asked.blind and importlib.util.find_spec("atheris") is not None
    if not guided:
        print("没有 atheris，不按覆盖率引导 / Without atheris: no coverage guides this run.", flush=True)
    share = asked.seconds / len(names)
    broken = [name for name in names if not (_guided(name, share) if guided else _blind(name, share))]
    print(f"发现问题 / broken: {', '.join(broken) or '-'}", flush=True)
    return 1 if broken else 0


def _blind(name: str, seconds: float) -> bool:
    until = time.monotonic() + seconds
    ran, found = blind_run(TARGETS[name], goes_on=lambda _: time.monotonic() < until, seed=os.getpid())
    print(f"{name}: {ran} inputs", flush=True)
    if found is not None:
        print(f"{name}: {keep(name, found.data)}: {found.error!r}", flush=True)
    return found is None


def _guided(name: str, seconds: float) -> bool:
    """Run libFuzzer in a process of its own, which it ends itself."""
    with tempfile.TemporaryDirectory(prefix="hub-fuzz-") as folder:
        start, made = Path(folder) / "seeds", Path(folder) / "made"
        start.mkdir()
        made.mkdir()
        for number, seed in enumerate(seeds()):
            (start / str(number)).write_bytes(seed)
        words = Path(folder) / "words"
        words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in WORDS))
        options = [
            f"-max_total_time={max(int(seconds), 1)}", f"-max_len={LARGEST_BYTES}", f"-artifact_prefix={made}/",
            f"-dict={words}", "-timeout=10", "-rss_limit_mb=1024", "-verbosity=0", "-print_final_stats=1",
        ]  # fmt: skip
        ended = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", name, *options, str(start)], cwd=ROOT, check=False
        )
        for crash in made.iterdir():
            print(f"{name}: {keep(name, crash.read_bytes())} ({crash.name})", flush=True)
    if ended.returncode:
        print(f"{name}: libFuzzer ended with {ended.returncode}; what it kept is in {FOLDER}", flush=True)
    return ended.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
