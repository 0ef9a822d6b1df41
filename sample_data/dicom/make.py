"""Makes the sample images: synthetic series with the text habits of Chinese modalities.

Two patients of two hospitals share the PatientID 10086. The county hospital's CT has no Specific Character Set although
its text is GBK (PS3.5 section 6.1.2 would demand one), the other hospital declares GB18030. Nothing here is a picture
of a person: the phantom is drawn by a few ellipses. Run ``python sample_data/dicom/make.py FOLDER`` to write the files.
"""

from __future__ import annotations

import struct
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

EXPLICIT = "1.2.840.10008.1.2.1"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
_LONG = frozenset({"OB", "OW", "SQ", "UN", "UT"})
Tags = Mapping[int, tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One sample series.

    Attributes:
        ae_title: who sends it.
        name: PatientName as the modality writes it, in its own bytes.
        charset: Specific Character Set, or ``None`` where the modality leaves it out.
    """

    key: str
    ae_title: str
    sop_class: str
    modality: str
    patient_id: str
    name: bytes
    birth_date: str
    sex: str
    institution: str
    description: str
    body_part: str
    slices: int
    size: int
    charset: bytes | None = None

    @property
    def study_uid(self) -> str:
        """The Study Instance UID, the same at each run."""
        return uid(self.key)


SERIES = (
    Series(
        key="kn-ct-chest",
        ae_title="KN_PACS",
        sop_class=CT_IMAGE_STORAGE,
        modality="CT",
        patient_id="10086",
        name=bytes.fromhex("D6A3CEB0"),
        birth_date="19760229",
        sex="M",
        institution="云岭示范县康宁医院（测试）",
        description="胸部CT平扫",
        body_part="CHEST",
        slices=40,
        size=256,
    ),
    Series(
        key="qh-mr-knee",
        ae_title="QH_PACS",
        sop_class=MR_IMAGE_STORAGE,
        modality="MR",
        patient_id="10086",
        name="Zhou^Jianguo=周^建国".encode("gb18030"),
        birth_date="19591001",
        sex="M",
        institution="青禾骨科医院（测试）",
        description="右膝关节MR平扫",
        body_part="KNEE",
        slices=8,
        size=192,
        charset=b"GB18030",
    ),
)


def uid(key: str) -> str:
    """Return a UID from a UUID made of *key* (PS3.5 annex B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, f'https://yixiehub.example/sample/{key}').int}"


def encode(tags: Tags) -> bytes:
    """Return *tags* as a data set in Explicit VR Little Endian."""
    out = []
    for tag, (vr, raw) in sorted(tags.items()):
        if len(raw) % 2:
            raw += b"\0" if vr in {"UI", "OB", "UN"} else b" "
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
        out.append(head + (struct.pack("<HI", 0, len(raw)) if vr in _LONG else struct.pack("<H", len(raw))) + raw)
    return b"".join(out)


def part10(dataset: bytes, *, sop_class: str, sop_instance: str) -> bytes:
    """Return a Part 10 file (PS3.10 section 7.1) around an encoded data set."""
    meta = encode(
        {
            0x00020001: ("OB", b"\0\1"),
            0x00020002: ("UI", sop_class.encode()),
            0x00020003: ("UI", sop_instance.encode()),
            0x00020010: ("UI", EXPLICIT.encode()),
            0x00020012: ("UI", uid("implementation").encode()),
        }
    )
    return b"\0" * 128 + b"DICM" + encode({0x00020000: ("UL", struct.pack("<I", len(meta)))}) + meta + dataset


def pixels(series: Series, number: int) -> bytes:
    """Return one slice of the phantom: a body, two lungs, a spine and, in the middle slices, a nodule of 8 mm."""
    size = series.size
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> npt.NDArray[np.bool_]:
        return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)

    depth = number / max(1, series.slices)
    noise = np.random.default_rng(number).integers(-12, 13, (size, size))
    image = np.full((size, size), 24, np.int32)
    if series.modality == "CT":
        image[ellipse(0, 0, 0.9, 0.65)] = 1064
        breath = 0.8 + 0.2 * float(np.sin(np.pi * depth))
        for side in (-1, 1):
            image[ellipse(side * 0.42, -0.05, 0.33 * breath, 0.45 * breath)] = 180
        image[ellipse(0, 0.42, 0.11, 0.13)] = 1500
        image[ellipse(0.08, -0.05, 0.16, 0.2)] = 1080
        if abs(depth - 0.3) < 0.06:
            image[ellipse(-0.45, -0.2, 0.023, 0.023)] = 620
    else:
        image[ellipse(0, 0, 0.6, 0.85)] = 420
        image[ellipse(0, -0.45, 0.38, 0.32)] = 900
        image[ellipse(0, 0.45, 0.36, 0.34)] = 880
        image[ellipse(0, 0, 0.3, 0.03 + 0.02 * depth)] = 1500
    return bytes(np.clip(image + noise, 0, 4095).astype("<u2").tobytes())


def instance(series: Series, number: int) -> bytes:
    """Return slice *number* (from 1) of *series* as a Part 10 file."""
    series_uid, sop_instance = uid(f"{series.key}/1"), uid(f"{series.key}/1/{number}")
    text = "gb18030"
    size = struct.pack("<H", series.size)
    tags: dict[int, tuple[str, bytes]] = {
        0x00080008: ("CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
        0x00080016: ("UI", series.sop_class.encode()),
        0x00080018: ("UI", sop_instance.encode()),
        0x00080020: ("DA", b"20250611"),
        0x00080021: ("DA", b"20250611"),
        0x00080030: ("TM", b"084500"),
        0x00080031: ("TM", b"084600"),
        0x00080050: ("SH", b""),
        0x00080060: ("CS", series.modality.encode()),
        0x00080070: ("LO", b"EXAMPLE IMAGING"),
        0x00080080: ("LO", series.institution.encode(text)),
        0x00080090: ("PN", b""),
        0x00081030: ("LO", series.description.encode(text)),
        0x0008103E: ("LO", series.description.encode(text)),
        0x00100010: ("PN", series.name),
        0x00100020: ("LO", series.patient_id.encode()),
        0x00100030: ("DA", series.birth_date.encode()),
        0x00100040: ("CS", series.sex.encode()),
        0x00180015: ("CS", series.body_part.encode()),
        0x00180050: ("DS", b"5"),
        0x0020000D: ("UI", series.study_uid.encode()),
        0x0020000E: ("UI", series_uid.encode()),
        0x00200010: ("SH", b"1"),
        0x00200011: ("IS", b"1"),
        0x00200013: ("IS", str(number).encode()),
        0x00200032: ("DS", f"-175\\-175\\{number * 5}".encode()),
        0x00200037: ("DS", b"1\\0\\0\\0\\1\\0"),
        0x00200052: ("UI", uid(f"{series.key}/frame").encode()),
        0x00280002: ("US", struct.pack("<H", 1)),
        0x00280004: ("CS", b"MONOCHROME2"),
        0x00280010: ("US", size),
        0x00280011: ("US", size),
        0x00280030: ("DS", f"{350 / series.size:.6f}\\{350 / series.size:.6f}".encode()),
        0x00280100: ("US", struct.pack("<H", 16)),
        0x00280101: ("US", struct.pack("<H", 12)),
        0x00280102: ("US", struct.pack("<H", 11)),
        0x00280103: ("US", struct.pack("<H", 0)),
        0x00281050: ("DS", b"40" if series.modality == "CT" else b"700"),
        0x00281051: ("DS", b"400" if series.modality == "CT" else b"1400"),
        0x7FE00010: ("OW", pixels(series, number)),
    }
    if series.modality == "CT":
        tags[0x00281052] = ("DS", b"-1024")
        tags[0x00281053] = ("DS", b"1")
    if series.charset is not None:
        tags[0x00080005] = ("CS", series.charset)
    return part10(encode(tags), sop_class=series.sop_class, sop_instance=sop_instance)


def write(folder: Path) -> Iterator[tuple[Series, list[Path]]]:
    """Write every series under *folder* and yield it with its files."""
    for series in SERIES:
        inside = folder / series.key
        inside.mkdir(parents=True, exist_ok=True)
        paths = []
        for number in range(1, series.slices + 1):
            path = inside / f"{number:04d}.dcm"
            path.write_bytes(instance(series, number))
            paths.append(path)
        yield series, paths


if __name__ == "__main__":
    for made, files in write(Path(sys.argv[1] if len(sys.argv) > 1 else "sample-dicom")):
        sys.stdout.write(f"{made.ae_title} {made.key}: {len(files)} files\n")
