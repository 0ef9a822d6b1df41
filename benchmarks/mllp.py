"""HL7 v2 over MLLP with 8 connections: AA after the FHIR commit, AA after storing, and results of 20 observations.

The feed is KN's, in GBK with an empty MSH-18, so that each message costs the evidence about its charset too.
"""

from __future__ import annotations

import time
from pathlib import Path

import sqlalchemy as sa

from benchmarks.measure import Row, Spread, Target, percentile
from benchmarks.processes import hub, messagefoundry, messagefoundry_version
from benchmarks.scale import Scale
from benchmarks.wire import Load, accepted, drive

CONNECTIONS = 8
FAMILY = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨"
GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明"
#: Tests of a blood count and of basic chemistry, so that OBX-3 differs as it does in life.
ANALYTES = (
    "6690-2^白细胞", "789-8^红细胞", "718-7^血红蛋白", "4544-3^红细胞压积", "787-2^平均红细胞体积",
    "785-6^平均血红蛋白量", "786-4^平均血红蛋白浓度", "777-3^血小板", "770-8^中性粒细胞百分比", "736-9^淋巴细胞百分比",
    "5905-5^单核细胞百分比", "713-8^嗜酸性粒细胞百分比", "706-2^嗜碱性粒细胞百分比", "2823-3^钾", "2951-2^钠",
    "2075-0^氯", "3094-0^尿素氮", "2160-0^肌酐", "2345-7^葡萄糖", "17861-6^钙",
)  # fmt: skip


def _msh(event: str, control_id: str) -> str:
    return f"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611080000||{event}|{control_id}|P|2.4"


def _pid(number: int) -> str:
    name = FAMILY[number % 16] + GIVEN[number // 16 % 16] + GIVEN[number // 256 % 16]
    return f"PID|1|{number}|{number}^^^^IDCard||{name}||19760229|M|||云岭示范县测试路{number}号||12{number % 10**9:09d}"


def admission(control_id: str, number: int) -> bytes:
    """Return an ADT^A01 of patient *number* in GBK."""
    lines = [
        _msh("ADT^A01", control_id),
        "EVN|A01|20250611080000||||20250611080000",
        _pid(number),
        "NK1|1|王芳|SPO^配偶||12000000009",
        f"PV1|1|I|3W^301^1^KNYY||||0231^刘敏|||心血管内科|||||||||V{number}|||||||||||||||||||||||||20250611080000",
        "DG1|1||I20.000^不稳定性心绞痛^ICD10CN||20250611|A",
    ]
    return ("\r".join(lines) + "\r").encode("gb18030")


def results(control_id: str, number: int) -> bytes:
    """Return an ORU^R01 of patient *number* with 20 numeric observations in GBK."""
    lines = [
        _msh("ORU^R01", control_id),
        _pid(number),
        f"ORC|RE|KN{number}|L{number}",
        f"OBR|1|KN{number}|L{number}|LAB001^血液分析^L|||20250611070000|||||||20250611073000|||||||||20250611080000||LAB|F",
    ]
    lines += [
        f"OBX|{place}|NM|{code}^LN||{(number * place) % 900 / 10 + 1:.1f}|mmol/L|3.5-55.3|N|||F|||20250611080000"
        for place, code in enumerate(ANALYTES, 1)
    ]
    return ("\r".join(lines) + "\r").encode("gb18030")


def _measured(
    key: str,
    work: str,
    load: list[Load],
    per_s: float,
    p99_ms: float | None,
    scale: Scale,
    peer: tuple[str, list[Load]] = ("", []),
) -> list[Row]:
    counted = scale.name == "full"
    name, theirs = peer
    latencies = [ms for one in load for ms in one.latencies_ms]
    rows = [
        Row(
            key=key,
            work=work,
            unit="messages/s",
            hub=Spread.of([one.per_s for one in load]),
            more_is_better=True,
            peer=Spread.of([one.per_s for one in theirs]) if theirs else None,
            peer_name=name,
            target=Target(at_least=per_s),
            counted=counted,
            note=f"p50 {percentile(latencies, 0.5):.1f} ms",
        )
    ]
    if p99_ms is not None:
        rows.append(
            Row(
                key=f"{key}-p99",
                work=f"{work}: p99",
                unit="ms",
                hub=Spread.of([percentile(one.latencies_ms, 0.99) for one in load]),
                more_is_better=False,
                peer=Spread.of([percentile(one.latencies_ms, 0.99) for one in theirs]) if theirs else None,
                peer_name=name,
                target=Target(at_most=p99_ms),
                counted=counted,
            )
        )
    return rows


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return rate and p99 of each kind of feed; every message must be answered AA."""
    rounds = min(3, scale.rounds)
    doors = ("dimse", "mllp", "worker")
    with hub(folder / "processed", only=doors) as running:
        port = running.ports["mllp"]
        drive(
            port, [admission(f"W{n}", 900_000 + n) for n in range(CONNECTIONS * 4)], accepted, connections=CONNECTIONS
        )
        admitted, resulted = [], []
        for turn in range(rounds):
            first = 100_000 * (turn + 1)
            batch = [admission(f"A{first + n}", first + n) for n in range(scale.messages)]
            admitted.append(drive(port, batch, accepted, connections=CONNECTIONS))
            batch = [results(f"R{first + n}", first + n) for n in range(scale.results)]
            resulted.append(drive(port, batch, accepted, connections=CONNECTIONS))
    with hub(folder / "stored", only=doors, ack_stored=True) as running:
        port = running.ports["mllp"]
        stored, drained = [], []
        for turn in range(rounds):
            first = 100_000 * (turn + 1)
            batch = [admission(f"S{first + n}", first + n) for n in range(scale.stored_messages)]
            stored.append(drive(port, batch, accepted, connections=CONNECTIONS))
            start = time.perf_counter()
            _wait_until_applied(running.settings.database(), scale.stored_messages * (turn + 1))
            drained.append(time.perf_counter() - start)
    peer = beside(scale, folder / "peer", rounds)
    rows = _measured("adt", "MLLP ADT^A01, AA after the FHIR commit", admitted, 150, 100, scale)
    stored_rows = _measured("stored", "MLLP ADT^A01, AA after storing", stored, 500, 50, scale, peer)
    behind = f"all applied {Spread.of(drained).median:.1f} s after the last AA"
    rows += [_with_note(stored_rows[0], behind), *stored_rows[1:]]
    return rows + _measured("oru", "MLLP ORU^R01 with 20 OBX, AA after the FHIR commit", resulted, 60, None, scale)


def beside(scale: Scale, folder: Path, rounds: int) -> tuple[str, list[Load]]:
    """Return what MessageFoundry makes of the same feed; in UTF-8, because it takes no GBK."""
    version = messagefoundry_version()
    if not version:
        return "", []
    found = []
    with messagefoundry(folder) as port:
        for turn in range(rounds + 1):
            first = 100_000 * (turn + 1)
            batch = [
                admission(f"S{first + n}", first + n).decode("gb18030").encode() for n in range(scale.stored_messages)
            ]
            # The first round warms it up, as the hub was.
            found.append(drive(port, batch, accepted, connections=CONNECTIONS))
    return f"MessageFoundry {version}, UTF-8", found[1:]


def _with_note(row: Row, more: str) -> Row:
    from dataclasses import replace

    return replace(row, note=f"{row.note}; {more}")


def _wait_until_applied(database: str, count: int, *, deadline_s: float = 180.0) -> None:
    engine = sa.create_engine(database)
    end = time.monotonic() + deadline_s
    try:
        while time.monotonic() < end:
            with engine.connect() as connection:
                done = connection.exec_driver_sql("SELECT count(*) FROM journal WHERE state = 'done'").scalar() or 0
            if done >= count:
                return
            time.sleep(0.1)
    finally:
        engine.dispose()
    raise TimeoutError(f"{count} stored messages were not applied in {deadline_s:.0f} s")
