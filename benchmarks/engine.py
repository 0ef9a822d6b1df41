"""The v2 engine beside its rates: cutting a message, its cost by stage, a large document, search, and memory over time."""

from __future__ import annotations

import base64
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import journal_rows
from benchmarks.measure import Row, Spread, Target, percentile
from benchmarks.memory import watched
from benchmarks.mllp import CONNECTIONS, admission, results
from benchmarks.processes import Hub, hub
from benchmarks.scale import Scale
from benchmarks.wire import accepted, drive, expecting, request

#: Bytes of the document that an ORU carries in OBX-5 (ED, Base64).
PDF_BYTES = 10_000_000
_PDF_S = 2.0
_SEARCH_MS = 1000.0
_REPEATS = 200
#: What is asked of the stored messages, and what the generator wrote for it.
_ASKED = {
    "control id": "control_id=C500",
    "sender and type": "sending_facility=KNYY&message_type=ADT^A08",
    "placer number": "placer=O700",
    "accession": "accession=A902",
    "visit": "visit=V301",
    "failed, newest first": "state=failed",
    "one day": "since=2023-01-02T00:00:00%2B00:00&until=2023-01-03T00:00:00%2B00:00",
    "a patient's number": "number=301",
    "words, within one day": (
        "text=%E7%BA%B9%E7%90%86&since=2023-01-02T00:00:00%2B00:00&until=2023-01-03T00:00:00%2B00:00"
    ),
}


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return the rows of the engine; each kind of work has a hub of its own."""
    return [
        *tokenizer(scale),
        *document(scale, folder / "document"),
        *search(scale, folder / "search"),
        *steady(scale, folder / "steady"),
    ]


# --- the cut ---------------------------------------------------------------------------------------------------


def four_levels(text: str) -> list[Any]:
    """Return *text* cut by ``str.split`` into fields, repetitions, components and subcomponents, and nothing else done."""
    return [
        [[[part.split("&") for part in one.split("^")] for one in field.split("~")] for field in line.split("|")]
        for line in text.split("\r")
        if line
    ]


def _micro(work: Callable[[], object], rounds: int) -> list[float]:
    """Return the microseconds of one call, for each of *rounds* of :data:`_REPEATS` calls."""
    found = []
    for _ in range(max(3, rounds)):
        start = time.perf_counter()
        for _ in range(_REPEATS):
            work()
        found.append((time.perf_counter() - start) / _REPEATS * 1e6)
    return found


def fields_read(text: str) -> list[tuple[int, int]]:
    """Return (segment, field) of every field that the translation of *text* reads, in its order."""
    from fhir_mappings.hl7v2 import tokenizer as module
    from fhir_mappings.hl7v2.context import MappingContext
    from fhir_mappings.hl7v2.dialects import HIS_CN
    from fhir_mappings.hl7v2.translate import translate

    read: list[tuple[int, int]] = []
    original = module.Segment.field

    def noting(segment: Any, number: int) -> Any:
        read.append((segment.index, number))
        return original(segment, number)

    module.Segment.field = noting  # type: ignore[method-assign]
    try:
        ctx = MappingContext(institution="KN", dialect=HIS_CN, received_at=datetime(2025, 6, 11, 8, tzinfo=UTC))
        translate(module.parse(text), ctx)
    finally:
        module.Segment.field = original  # type: ignore[method-assign]
    return read


def tokenizer(scale: Scale) -> list[Row]:
    """Return the row of a 24-segment ORU: cut, and read where its translation reads it."""
    from fhir_mappings.hl7v2.tokenizer import parse

    text = results("R1", 1).decode("gb18030")
    read = fields_read(text)

    def cut_and_read() -> None:
        segments = parse(text).segments
        for index, number in read:
            segments[index].field(number).component(1)

    return [
        Row(
            key="tokenizer",
            work=f"cut an ORU^R01 of {text.count(chr(13))} segments and read the {len(read)} fields that its translation reads",
            unit="µs",
            hub=Spread.of(_micro(cut_and_read, scale.rounds)),
            more_is_better=False,
            peer=Spread.of(_micro(lambda: four_levels(text), scale.rounds)),
            peer_name="str.split to four levels",
            target=Target(ratio=1.0),
            counted=scale.name == "full",
        )
    ]


# --- a large document ------------------------------------------------------------------------------------------


def with_document(control_id: str, number: int, size: int) -> bytes:
    """Return an ORU^R01 with a PDF of *size* bytes in OBX-5."""
    data = b"%PDF-1.4\n" + random.Random(number).randbytes(size)
    line = f"OBX|21|ED|PDF^报告^L||^application^pdf^Base64^{base64.b64encode(data).decode()}||||||F\r"
    return results(control_id, number) + line.encode("gb18030")


def document(scale: Scale, folder: Path) -> list[Row]:
    """Return the time of a large document, and what it costs those who send beside it."""
    size = PDF_BYTES if scale.name == "full" else min(PDF_BYTES, scale.memory_bytes // 100)
    large: list[float] = []
    beside: list[float] = []
    with hub(folder, only=("dimse", "mllp", "worker")) as running:
        port = running.ports["mllp"]
        drive(port, [admission(f"W{n}", 900_000 + n) for n in range(CONNECTIONS * 4)], accepted, connections=4)
        for turn in range(max(3, scale.rounds)):
            message = with_document(f"D{turn}", 800_000 + turn, size)
            done: list[float] = []

            def send(message: bytes = message, done: list[float] = done) -> None:
                done.append(drive(port, [message], accepted, connections=1).seconds)

            sender = threading.Thread(target=send)
            sender.start()
            count = 0
            while sender.is_alive():
                first = 10_000 * (turn + 1) + count
                batch = [admission(f"B{first + n}", first + n) for n in range(40)]
                beside += drive(port, batch, accepted, connections=4).latencies_ms
                count += 40
            sender.join()
            large += done
    return [
        Row(
            key="document",
            work=f"ORU^R01 with a PDF of {size / 1e6:.3g} MB, AA after the FHIR commit",
            unit="s",
            hub=Spread.of(large),
            more_is_better=False,
            target=Target(at_most=_PDF_S),
            counted=scale.name == "full",
        ),
        Row(
            key="document-beside",
            work="ADT^A01 of others while that document is taken in: p99",
            unit="ms",
            hub=Spread.of([percentile(beside, 0.99)]),
            more_is_better=False,
            target=Target(at_most=200.0),
            counted=scale.name == "full",
            note=f"p50 {percentile(beside, 0.5):.0f} ms of {len(beside)}",
        ),
    ]


# --- search ----------------------------------------------------------------------------------------------------


def fill(database: str, count: int, after: int = 0) -> None:
    """Write *count* messages straight into the journal; *after* is how many the generator has written already."""
    made = sa.create_engine(database)
    try:
        journal_rows.fill(made, count, after=after)
    finally:
        made.dispose()


def searches(port: int, token: str, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each kind of search, *rounds* times, through ``/ops/messages``."""
    found: dict[str, list[float]] = {}
    # The pages of the operator are loaded by the first who asks a process for one.
    drive(port, [request("GET", "/ops/messages?limit=1", token=token)] * 16, expecting(200), connections=8)
    for kind, asked in _ASKED.items():
        wanted = [request("GET", f"/ops/messages?limit=50&{asked}", token=token)] * rounds
        found[kind] = drive(port, wanted, expecting(200), connections=1).latencies_ms
    return found


def search(scale: Scale, folder: Path) -> list[Row]:
    """Return the slowest kind of search over all stored messages."""
    count = scale.stored_rows
    with hub(folder, prepare=lambda services: fill(services.settings.database(), count)) as running:
        found = searches(running.ports["http"], administrator_token(running), max(5, scale.rounds))
    slowest = max(found, key=lambda kind: percentile(found[kind], 0.95))
    return [
        Row(
            key="search",
            work=f"search of {count:,} stored messages, the slowest of {len(found)} kinds",
            unit="ms",
            hub=Spread.of(found[slowest]),
            more_is_better=False,
            target=Target(at_most=_SEARCH_MS),
            counted=scale.name == "full",
            note=slowest,
        )
    ]


def administrator_token(running: Hub) -> str:
    """Return a token of KN's administrator, who may search its messages for numbers and words too."""
    from hub.actor import Actor
    from hub.boot import assemble

    services = assemble(running.settings, node="bench-desk")
    try:
        actor = Actor(institution="KN", roles=frozenset({"admin"}), client="bench")
        return services.directory.issue_token(actor, ttl_s=3600)
    finally:
        services.close()


# --- over time -------------------------------------------------------------------------------------------------


def steady(scale: Scale, folder: Path) -> list[Row]:
    """Return the growth of memory from the first tenth of many messages to the last."""
    count = scale.steady_messages
    part = max(CONNECTIONS, count // 10)
    with hub(folder, only=("dimse", "mllp", "worker"), ack_stored=True) as running:
        port = running.ports["mllp"]

        def send(parts: Sequence[int]) -> None:
            for turn in parts:
                first = turn * part
                # The same patients come again, as they do in a hospital.
                batch = [admission(f"M{first + n}", (first + n) % 5000) for n in range(part)]
                drive(port, batch, accepted, connections=CONNECTIONS)

        send(range(1))
        with watched(running) as growth:
            send(range(1, 10))
    return [
        Row(
            key="steady",
            work=f"growth of memory over {count:,} messages after the first tenth",
            unit="MB",
            hub=Spread.of([growth.megabytes]),
            more_is_better=False,
            target=Target(at_most=64.0),
            counted=scale.name == "full",
            note=growth.where,
        )
    ]
