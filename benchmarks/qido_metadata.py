"""QIDO-RS and series metadata (PS3.18 10.6, 10.4.1.1.2) at the size of a county, beside Orthanc's answers to the same calls.

The hub's index is filled with rows from a generator. Orthanc has no such way in, so it gets as many studies by upload,
one small instance each: a hundredth of the hub's instances, which favours Orthanc.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import ct
from benchmarks.cstore import send
from benchmarks.measure import Row, Spread, Target, percentile
from benchmarks.processes import hub, orthanc, orthanc_version, until
from benchmarks.scale import Scale
from benchmarks.wire import drive, expecting, fetch, request
from fhir_mappings.dicom.header import read_header
from hub.attribute_matching import name_search
from storage.sql.schema import imaging_instance, imaging_series, imaging_study

SERIES = 4
#: Times that an upload to the peer is tried.
UPLOADS = 5
JSON = "application/dicom+json"
#: Studies are spread over this many days, so that one day has 10,000 / 1,000 = 10 studies.
DAYS = 1000
_FIRST_DAY = date(2023, 1, 1)


def day_of(study: int) -> str:
    """Return the StudyDate of the study."""
    return (_FIRST_DAY + timedelta(days=study % DAYS)).strftime("%Y%m%d")


# --- filling ---------------------------------------------------------------------------------------------------


def fill(database: str, studies: int, instances: int, folder: Path) -> None:
    """Write rows of *studies* complete studies with *instances* instances in all straight into the tables."""
    sample = folder / "sample.dcm"
    sample.write_bytes(ct.part10(1, 1, 1))
    with sample.open("rb") as stream:
        header = read_header(stream)
    attributes = zlib.compress(header.attributes, 1)
    per_series = max(1, instances // studies // SERIES)
    path = sa.make_url(database).database
    assert path is not None
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size=-400000")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN IMMEDIATE")
    now_us = time.time_ns() // 1000
    for table, rows in (
        (imaging_study, (_study(number, header, per_series, now_us) for number in range(studies))),
        (imaging_series, (row for number in range(studies) for row in _series(number, header, per_series))),
        (imaging_instance, _instances(studies, per_series, header, attributes, now_us)),
    ):
        _insert(connection, table, rows)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _insert(connection: sqlite3.Connection, table: sa.Table, rows: Iterator[dict[str, Any]]) -> None:
    names = [column.name for column in table.c if column.name != "iid"]
    defaults = {c.name: c.default.arg for c in table.c if c.default is not None and c.default.is_scalar}  # type: ignore[attr-defined]
    marks = ", ".join(f":{name}" for name in names)
    columns = ", ".join(f'"{name}"' for name in names)
    connection.executemany(
        f"INSERT INTO {table.name} ({columns}) VALUES ({marks})",
        (dict.fromkeys(names) | defaults | row for row in rows),
    )


def _study(number: int, header: Any, per_series: int, now_us: int) -> dict[str, Any]:
    uid, _, _ = ct.uids(number, 1, 1)
    name = f"测试^{number}"
    taken = {
        field: getattr(header, field)
        for field in (
            "PatientBirthDate",
            "PatientSex",
            "StudyTime",
            "StudyDescription",
            "charset_used",
            "charset_evidence",
        )
    }
    return taken | {
        "owner": "KN",
        "StudyInstanceUID": uid,
        "resource_id": f"bench-s{number}",
        "patient_id": f"bench-p{number}",
        "state": "complete",
        "PatientID": f"P{number:07d}",
        "PatientName": name,
        "name_search": name_search(name, ""),
        "StudyDate": day_of(number),
        "StudyID": str(number),
        "AccessionNumber": f"A{number:08d}",
        "ModalitiesInStudy": "CT",
        "SOPClassesInStudy": ct.CT_IMAGE_STORAGE,
        "NumberOfStudyRelatedSeries": SERIES,
        "NumberOfStudyRelatedInstances": SERIES * per_series,
        "first_received_at": now_us,
    }


def _series(number: int, header: Any, per_series: int) -> Iterator[dict[str, Any]]:
    for series in range(1, SERIES + 1):
        study_uid, series_uid, _ = ct.uids(number, series, 1)
        yield {
            "owner": "KN",
            "StudyInstanceUID": study_uid,
            "SeriesInstanceUID": series_uid,
            "Modality": "CT",
            "SeriesNumber": str(series),
            "SeriesDescription": header.SeriesDescription,
            "NumberOfSeriesRelatedInstances": per_series,
        }


def _instances(studies: int, per_series: int, header: Any, attributes: bytes, now_us: int) -> Iterator[dict[str, Any]]:
    for number in range(studies):
        for series in range(1, SERIES + 1):
            for instance in range(1, per_series + 1):
                study_uid, series_uid, sop_uid = ct.uids(number, series, instance)
                yield {
                    "owner": "KN",
                    "StudyInstanceUID": study_uid,
                    "SeriesInstanceUID": series_uid,
                    "SOPInstanceUID": sop_uid,
                    "digest": f"{number:032x}{series:08x}{instance:024x}",
                    "current": 1,
                    "size": 526_000,
                    "SOPClassUID": ct.CT_IMAGE_STORAGE,
                    "TransferSyntaxUID": ct.EXPLICIT,
                    "InstanceNumber": str(instance),
                    "Rows": 512,
                    "Columns": 512,
                    "BitsAllocated": 16,
                    "pixel_offset": header.pixel_offset,
                    "received_at": now_us,
                    "attributes": attributes,
                }


# --- measuring -------------------------------------------------------------------------------------------------


def _ask(port: int, paths: Sequence[str], token: str, *, matches: int) -> list[float]:
    """Return the latencies of GETs on one connection; each answer must hold *matches* studies."""
    asked = [request("GET", path, token=token, Accept=JSON) for path in paths]
    return drive(port, asked, expecting(200, lambda body: len(json.loads(body)) == matches), connections=1).latencies_ms


def _paths(studies: int, count: int) -> dict[str, tuple[list[str], int]]:
    pick = random.Random(3)
    numbers = [pick.randrange(studies) for _ in range(count)]
    alike = sum(1 for number in range(studies) if number % DAYS == 0)
    # Only days that hold as many studies as the first one, so that every answer can be checked.
    days = [number % DAYS % max(1, studies % DAYS or DAYS) for number in numbers]
    return {
        "PatientID": ([f"/dicom-web/studies?PatientID=P{number:07d}" for number in numbers], 1),
        "StudyDate": ([f"/dicom-web/studies?StudyDate={day_of(day)}" for day in days], alike),
    }


def latencies(port: int, token: str, studies: int, count: int, rounds: int) -> dict[str, list[float]]:
    """Return the p50 in ms of each round of the hub's QIDO answers, by the name of the key."""
    found = {}
    for kind, (paths, matches) in _paths(studies, count).items():
        _ask(port, paths[:5], token, matches=matches)
        found[kind] = [percentile(_ask(port, paths, token, matches=matches), 0.5) for _ in range(rounds)]
    return found


def timed(port: int, token: str, study: str, series: str, slices: int) -> float:
    """Return the ms that the metadata of a series of *slices* take; fails unless all of them come."""
    path = f"/dicom-web/studies/{study}/series/{series}/metadata"
    start = time.perf_counter()
    status, body = fetch(port, path, token=token, Accept=JSON)
    took = (time.perf_counter() - start) * 1000
    if status != 200 or len(json.loads(body)) != slices:
        raise RuntimeError(f"{path} -> {status}: {body[:300]!r}")
    return took


def warm(port: int, token: str, study: str, series: str, slices: int) -> bool:
    """Return whether the series can be read whole; its metadata are kept from then on."""
    status, body = fetch(port, f"/dicom-web/studies/{study}/series/{series}/metadata", token=token, Accept=JSON)
    return status == 200 and len(json.loads(body)) == slices


def _upload(port: int, studies: int) -> None:
    def one(number: int) -> None:
        data = ct.part10(number, 1, 1, patient=number, date=day_of(number))
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/instances", data=data, method="POST")
        for attempt in range(UPLOADS):
            try:
                with urllib.request.urlopen(asked, timeout=60):
                    return
            except urllib.error.HTTPError as error:
                # Now and then it fails at one of several uploads at a time; filling it is not what is measured.
                if error.code < 500 or attempt == UPLOADS - 1:
                    raise

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(studies)))


def _qido(scale: Scale, folder: Path, version: str) -> list[Row]:
    rounds = min(3, scale.rounds)
    place = folder / "qido"
    place.mkdir(parents=True)
    theirs: dict[str, list[float]] = {}
    if version:
        with orthanc(place / "orthanc") as peer:
            _upload(peer.http_port, scale.qido_peer_studies)
            count = max(5, scale.qido_queries // 10)
            theirs = latencies(peer.http_port, "", scale.qido_peer_studies, count, rounds)

    def prepare(services: Any) -> None:
        fill(services.settings.database(), scale.qido_studies, scale.qido_instances, place)

    with hub(place / "hub", only=("http",), prepare=prepare) as running:
        ours = latencies(running.ports["http"], running.tokens["KN"], scale.qido_studies, scale.qido_queries, rounds)
    size = f"{scale.qido_studies:,} studies / {scale.qido_instances:,} instances"
    keys = {"PatientID": "patient", "StudyDate": "date"}
    return [
        Row(
            key=f"qido-{keys[kind]}",
            work=f"QIDO studies by {kind}, {size}: p50",
            unit="ms",
            hub=Spread.of(values),
            more_is_better=False,
            peer=Spread.of(theirs[kind]) if theirs else None,
            peer_name=f"Orthanc {version}" if version else "",
            target=Target(at_most=10.0, ratio=1.0),
            counted=scale.name == "full",
            note=f"Orthanc holds {scale.qido_peer_studies:,} instances" if version else "",
        )
        for kind, values in ours.items()
    ]


def _metadata(scale: Scale, folder: Path, version: str) -> list[Row]:
    rounds = max(3, scale.rounds)
    files = ct.write_series(folder / "ct", 1, 1, scale.series_slices, pixels=scale.cstore_pixels)
    study, series, _ = ct.uids(1, 1, 1)
    theirs: list[float] = []

    if version:
        with orthanc(folder / "orthanc") as peer:
            send([files], peer.dicom_port, "ORTHANC")
            timed(peer.http_port, "", study, series, scale.series_slices)
            theirs = [timed(peer.http_port, "", study, series, scale.series_slices) for _ in range(rounds)]
    with hub(folder / "hub", study_quiet_s="1") as running:
        send([files], running.ports["dimse"], "YIXIE")
        token = running.tokens["KN"]
        engine = sa.create_engine(running.settings.database())

        def complete() -> bool:
            with engine.connect() as connection:
                return bool(
                    connection.exec_driver_sql("SELECT 1 FROM imaging_series WHERE metadata_etag != ''").first()
                )

        until(complete, what="the study is complete and its metadata kept")
        engine.dispose()
        cold = timed(running.ports["http"], token, study, series, scale.series_slices)
        ours = [timed(running.ports["http"], token, study, series, scale.series_slices) for _ in range(rounds)]
    return [
        Row(
            key="metadata",
            work=f"metadata of a {scale.series_slices}-slice series, warm",
            unit="ms",
            hub=Spread.of(ours),
            more_is_better=False,
            peer=Spread.of(theirs) if theirs else None,
            peer_name=f"Orthanc {version}" if version else "",
            target=Target(at_most=100.0, ratio=1.0),
            counted=scale.name == "full",
            note=f"first call {cold:.0f} ms",
        )
    ]


def run(scale: Scale, folder: Path) -> list[Row]:
    """Return the rows of QIDO by PatientID and by date, and of the metadata of one series."""
    version = orthanc_version()
    return _metadata(scale, folder / "metadata", version) + _qido(scale, folder, version)
