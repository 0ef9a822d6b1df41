"""`kill -9` while peers send: what was acknowledged is there with its hash, what was not can be sent again."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from adapters.mllp.client import MllpClient, NoAnswer
from storage.objects import open_store
from tests.support.databases import migrate, opened
from tests.support.mllp import PATIENCE_S
from tests.support.v2 import V2Hub, adt

ROOT = Path(__file__).parents[3]
PEERS = 4


def message(peer: int, number: int) -> bytes:
    # Every third message is larger than what the journal holds inline, so that objects are cut off too.
    note = ("NTE|1||" + "说明" * 20_000,) if number % 3 == 0 else ()
    key = f"{peer}{number:04d}"
    return adt("A01", f"{peer}-{number}", *note, number=key, visit=f"V{key}").encode("gb18030")


def test_acknowledged_messages_survive_and_sending_everything_again_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    migrate(url)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.adapters.mllp.serve_until_killed", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    acknowledged: list[bytes] = []
    sent: list[bytes] = []
    enough = threading.Event()
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())

        def feed(peer: int) -> None:
            client = MllpClient("127.0.0.1", port, timeout_s=PATIENCE_S)
            for number in range(10_000):
                raw = message(peer, number)
                sent.append(raw)
                try:
                    answer = client.exchange(raw)
                except NoAnswer:
                    break
                assert b"MSA|AA" in answer
                acknowledged.append(raw)
                if len(acknowledged) >= 40:
                    enough.set()
            client.close()

        feeders = [threading.Thread(target=feed, args=(peer,)) for peer in range(1, PEERS + 1)]
        for feeder in feeders:
            feeder.start()
        assert enough.wait(PATIENCE_S)
        process.send_signal(signal.SIGKILL)
        for feeder in feeders:
            feeder.join(PATIENCE_S)
            assert not feeder.is_alive()
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        if process.stdout is not None:
            process.stdout.close()

    with opened(url) as database:
        hub = V2Hub(database, objects=open_store(f"file://{tmp_path / 'objects'}", data_dir=tmp_path))
        kept = {entry.digest: entry for entry in hub.journal()}
        for raw in acknowledged:
            entry = kept[hashlib.sha256(raw).hexdigest()]
            assert entry.state == "done"
            assert (entry.body if entry.body is not None else hub.objects.read(entry.digest)) == raw
        # Nothing is half there: as many patients as messages, with or without an acknowledgement that arrived.
        assert len(hub.all("Patient")) == len(kept) == len(hub.all("Provenance"))
        for raw in sent:
            answer = hub.raw(raw)
            assert answer is not None
            assert b"MSA|AA" in answer
        assert len(hub.all("Patient")) == len(set(sent)) == len(hub.journal())
        assert {one["meta"]["versionId"] for one in hub.all("Patient")} == {"1"}
