"""Small synthetic images for the imaging tests, and services over real stores.

The people are the fictional ones of the sample consortium; the pixels are a ramp.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless

from fhir_mappings.dicom.header import read_header
from hub.actor import Actor
from hub.boot import Services
from hub.config import Settings
from hub.envelope import Envelope
from hub.ports import Database
from storage.objects.file import FileStore

ROOT = "1.2.826.0.1.3680043.10.99"
STUDY = f"{ROOT}.1"
KN = Actor(institution="KN", client="KN_PACS")
QH = Actor(institution="QH", client="QH_PACS")
YL = Actor(institution="YL", practitioner="0231", roles=frozenset({"doctor"}))


def ct(
    number: int = 1,
    *,
    study: str = STUDY,
    series: int = 1,
    frames: int = 1,
    compressed: list[bytes] | None = None,
    meta: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> bytes:
    """Return a 16 x 16 CT of 郑伟 as a Part 10 file; *attributes* override or add elements by keyword."""
    dataset = Dataset()
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{study}.{series}.{number}",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.{series}",
        "StudyDate": "20250611",
        "StudyTime": "093015",
        "Modality": "CT",
        "PatientName": "ZHENG^WEI=郑^伟",
        "PatientID": "10086",
        "PatientBirthDate": "19760229",
        "PatientSex": "M",
        "StudyDescription": "胸部CT平扫",
        "SeriesNumber": series,
        "InstanceNumber": number,
        "SeriesDescription": "Lung",
        "BodyPartExamined": "CHEST",
        "Rows": 16,
        "Columns": 16,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
    }
    if frames > 1:
        values["NumberOfFrames"] = frames
    for keyword, value in {**values, **attributes}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if compressed is not None:
        dataset.PixelData = encapsulate(compressed, has_bot=False)
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
    else:
        dataset.PixelData = b"".join(
            ((number + frame * 256 + i) & 0xFFF).to_bytes(2, "little") for frame in range(frames) for i in range(256)
        )
        dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless if compressed is not None else ExplicitVRLittleEndian
    for keyword, value in (meta or {}).items():
        setattr(dataset.file_meta, keyword, value)
    dataset.preamble = b"\0" * 128
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


@dataclass
class FakeClock:
    """A clock that moves when it is told to."""

    now: datetime = field(default_factory=lambda: datetime(2025, 6, 11, 2, 0, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> datetime:
        """Move on by *seconds*."""
        self.now += timedelta(seconds=seconds)
        return self.now


class RecordedTasks:
    """Stands in for the workflows: keeps what it was told."""

    def __init__(self) -> None:
        self.completed: list[tuple[str, dict[str, Any]]] = []

    def on_study_complete(
        self, _tx: Any, owner: str, imaging_study: dict[str, Any], *, correlation_id: str = ""
    ) -> None:
        """Note the call."""
        assert correlation_id
        self.completed.append((owner, imaging_study))


def services(database: Database, folder: Path, clock: Any, **settings: Any) -> Services:
    """Return services over *database* and files under *folder*, without workflows."""
    made = Services(
        settings=Settings(data_dir=folder, **settings),
        database=database,
        objects=FileStore(folder / "objects"),
        node="test",
        clock=clock,
    )
    made.__dict__["tasks"] = RecordedTasks()
    return made


def envelope(services: Services, actor: Actor = KN, **values: Any) -> Envelope:
    """Return the envelope of a C-STORE by *actor*."""
    return Envelope(
        **{
            "door": "dimse",
            "actor": actor,
            "peer": "127.0.0.1:104",
            "kind": "C-STORE",
            "received_at": services.clock(),
            **values,
        }
    )


def receive(services: Services, data: bytes, actor: Actor = KN, **values: Any) -> str:
    """Hand *data* to the imaging service as a door does; returns its answer."""
    with services.objects.spool(max_bytes=1 << 30) as spool:
        spool.write(data)
        with spool.open() as stream:
            header = read_header(stream)
        return services.imaging.receive(envelope(services, actor, **values), spool, header)


def settle(services: Services) -> list[Any]:
    """Do what the worker does: take every timer that is due and complete quiet studies; returns the studies completed."""

    def work(tx: Any) -> list[Any]:
        done = []
        for timer in tx.timers.due(services.clock(), limit=100):
            assert tx.timers.take(timer)
            key = services.imaging.on_study_quiet(tx, timer)
            if key is not None:
                done.append(key)
        return done

    return services.database.write(work)


def resources(services: Services, resource_type: str) -> list[dict[str, Any]]:
    """Return every current resource of a type, oldest first, without regard to who may see it."""
    import sqlalchemy as sa

    from fhir_mappings.json import loads
    from storage.sql.schema import record

    def work(tx: Any) -> list[dict[str, Any]]:
        rows = tx.connection.execute(
            sa.select(record.c.body).where(record.c.type == resource_type).order_by(record.c.rid)
        )
        return [loads(bytes(row.body)) for row in rows]

    return services.database.read(work)
