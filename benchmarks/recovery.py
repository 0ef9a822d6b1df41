"""How long a hub is away when all of its processes are killed, and that it has everything it had answered for.

SIGKILL while eight senders push images and two feeds push messages, on an index of the scale's size. What counts begins with
the start of the new ``hub serve``, as a service manager would start it, and ends when ``/readyz`` says 200 and when a C-STORE
is answered. Every object and message that was acknowledged before the kill must be there, byte for byte and done; a single
one that is not ends the benchmark.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import ct, qido_metadata
from benchmarks.cstore import send
from benchmarks.measure import Row, Spread
from benchmarks.mllp import admission
from benchmarks.processes import DCMTK_ENVIRONMENT, Hub, http_status, hub, serving, until
from benchmarks.scale import Scale
from fhir_mappings.dicom.scanner import dataset_offset
from storage.sql.schema import journal

SENDERS = 8
FEEDS = 2
#: The studies that are sent stand behind those of the generator.
_STUDY = 99_100_000
_ACCEPT = "application/dicom; transfer-syntax=*"
_ENOUGH_S = 120.0
#: Images of each sender at the smallest scale, so that some are always on their way when half are answered.
_LEAST = 40


@dataclass(slots=True)
class Answered:
    """What a hub said that it has: files of images of one study, control ids of messages."""

    study: int
    files: list[Path] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return the seconds until a C-STORE is answered; its note says when ``/readyz`` did and what had been answered."""
    ready_s: list[float] = []
    stored_s: list[float] = []
    files = messages = 0
    first = ct.write_series(folder / "first", _STUDY, 1, 1, pixels=scale.cstore_pixels, patient=9_100_000)

    def prepare(services: Any) -> None:
        qido_metadata.fill(services.settings.database(), scale.qido_studies, scale.qido_instances, folder)

    with hub(folder / "hub", prepare=prepare) as running:
        before = load_and_kill(running, scale, folder, 1)
    for turn in range(1, min(3, scale.rounds) + 1):
        start = time.perf_counter()
        with serving(running.folder, running.settings, running.tokens) as running:
            until(lambda: http_status(running.ports["http"], "/readyz") == 200, what="/readyz", every_s=0.01)
            ready_s.append(time.perf_counter() - start)
            send([first], running.ports["dimse"], "YIXIE")
            stored_s.append(time.perf_counter() - start)
            check(running, before, folder)
            files, messages = files + len(before.files), messages + len(before.messages)
            if turn < min(3, scale.rounds):
                before = load_and_kill(running, scale, folder, turn + 1)
    return [
        Row(
            key="recovery",
            work=(
                f"SIGKILL under {SENDERS} senders and {FEEDS} feeds, {scale.qido_instances:,} instances: "
                "from the new start until a C-STORE is answered"
            ),
            unit="s",
            hub=Spread.of(stored_s),
            more_is_better=False,
            counted=scale.name == "full",
            note=(
                f"/readyz after {Spread.of(ready_s).median:.1f} s; all {files:,} objects and {messages:,} messages "
                "answered before were there"
            ),
        )
    ]


def load_and_kill(running: Hub, scale: Scale, folder: Path, turn: int) -> Answered:
    """Push images and messages, kill every process of the hub in the midst of it, and return what it had answered."""
    each = max(_LEAST, scale.cstore_objects // SENDERS)
    study = _STUDY + turn
    places = [
        ct.write_series(folder / "ct" / str(series), study, series, each, pixels=scale.cstore_pixels, patient=study)
        for series in range(1, SENDERS + 1)
    ]
    answered = Answered(study=study)
    pids = running.pids()
    stop = threading.Event()
    feeds = [
        threading.Thread(target=_feed, args=(running.ports["mllp"], turn * 10 + number, answered, stop))
        for number in range(FEEDS)
    ]
    senders = [_Sender(place, running.ports["dimse"], answered) for place in places]
    try:
        for one in (*feeds, *senders):
            one.start()
        # Half of the images: the other half is on its way or waits.
        until(
            lambda: len(answered.files) >= each * SENDERS // 2 and len(answered.messages) >= FEEDS,
            what="the hub answers half of what is sent",
            deadline_s=_ENOUGH_S,
            every_s=0.002,
        )
        # The supervisor leads a session of its own, so all of its children and nobody else are in the group.
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()
    finally:
        stop.set()
        for one in senders:
            one.end()
        for one in (*feeds, *senders):
            if one.ident is not None:
                one.join()
    until(lambda: not any(map(_lives, pids.values())), what="every process of the hub is gone")
    return answered


def check(running: Hub, answered: Answered, folder: Path) -> None:
    """Raise RuntimeError unless the hub has everything that it had answered for."""
    for path in answered.files:
        uids = ct.uids(answered.study, int(path.parent.name), int(path.stem))
        place = "/dicom-web/studies/{}/series/{}/instances/{}".format(*uids)
        asked = urllib.request.Request(
            f"http://127.0.0.1:{running.ports['http']}{place}",
            headers={"Authorization": f"Bearer {running.tokens['KN']}", "Accept": _ACCEPT},
        )
        with path.open("rb") as stream:
            stream.seek(dataset_offset(stream))
            sent = stream.read()
        # The file meta information is the receiver's own (PS3.10 section 7.1), the data set the sender's.
        with urllib.request.urlopen(asked, timeout=60) as answer:
            if not answer.read().endswith(sent):
                raise RuntimeError(f"{uids[2]} was answered with success before the kill and is another now")
    engine = sa.create_engine(running.settings.database())
    with engine.connect() as connection:
        done = set(
            connection.execute(
                sa.select(journal.c.control_id).where(journal.c.door == "mllp", journal.c.state == "done")
            ).scalars()
        )
    engine.dispose()
    missing = set(answered.messages) - done
    if missing:
        raise RuntimeError(f"answered with AA before the kill and not there: {sorted(missing)[:5]}")
    shutil.rmtree(folder / "ct")


class _Sender(threading.Thread):
    """DCMTK's ``storescu``, which says of each file by name what the answer was."""

    def __init__(self, files: Path, port: int, answered: Answered) -> None:
        super().__init__()
        options = ["-v", "-to", "30", "-pdu", "131072", "-aet", "KN_PACS", "-aec", "YIXIE"]
        self._command = ["storescu", *options, "127.0.0.1", str(port), *map(str, sorted(files.iterdir()))]
        self._answered = answered
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the program and the thread that reads what it says."""
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, **DCMTK_ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        super().start()

    def run(self) -> None:
        """Keep the name of each file that was answered with success."""
        assert self._process is not None
        assert self._process.stdout is not None
        path: Path | None = None
        with self._process:
            for line in self._process.stdout:
                if "Sending file: " in line:
                    path = Path(line.partition("Sending file: ")[2].strip())
                elif "Received Store Response (Success)" in line and path is not None:
                    self._answered.files.append(path)

    def end(self) -> None:
        """Stop what is left of the program: its peer is gone."""
        if self._process is not None:
            self._process.kill()


def _feed(port: int, feed: int, answered: Answered, stop: threading.Event) -> None:
    """Send admissions one by one until nobody answers."""
    number = 0
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        while not stop.is_set():
            number += 1
            control_id = f"K{feed}-{number}"
            connection.sendall(b"\x0b" + admission(control_id, 5_000_000 + feed * 10_000 + number) + b"\x1c\r")
            answer = b""
            while not answer.endswith(b"\x1c\r"):
                piece = connection.recv(1 << 16)
                if not piece:
                    return
                answer += piece
            if b"\rMSA|AA|" + control_id.encode() in answer:
                answered.messages.append(control_id)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    # One that is dead and that nobody has asked for yet holds nothing any more.
    return state not in {"Z", "X"}
