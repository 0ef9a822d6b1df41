"""The DICOM library's own test files, put through the doors of a running hub: what comes back, and what is refused and why.

They are the files of the wheels ``pydicom`` and ``pydicom-data``: made by many vendors, in all transfer syntaxes, some of them
broken on purpose. Several share their SOP Instance UID, and of two objects with one UID the hub shows the first, so each goes
in as another institution's.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pynetdicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom import _config

from fhir_mappings.dicom.header import read_header
from fhir_mappings.errors import MappingError
from tests.strangers.running import RunningHub

AS_STORED = "application/dicom; transfer-syntax=*"
#: PS3.18 table CC.2.3-1's words for the failure reasons of PS3.7 annex C that STOW-RS answers with.
REASONS = {0xC000: "cannot understand", 0xA900: "does not match", 0x0122: "SOP class not supported", 0x0110: "failure"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFile:
    """One file and what its File Meta Information says.

    Attributes:
        name: the wheel and the path in it, with forward slashes.
        turn: how many files before it have the same SOP Instance UID.
    """

    name: str
    path: Path
    sop_class: str = ""
    sop_instance: str = ""
    transfer_syntax: str = ""
    turn: int = 0

    @property
    def sendable(self) -> bool:
        """Whether a C-STORE can name it: the command carries what the File Meta Information says."""
        return all((self.sop_class, self.sop_instance, self.transfer_syntax))

    @property
    def by_dimse(self) -> str:
        """The AE title and institution that sends it by C-STORE."""
        return f"D{self.turn}"

    @property
    def by_web(self) -> str:
        """The institution that sends it by STOW-RS; files without a UID are refused, whoever sends them."""
        return f"W{self.turn if self.sendable else 0}"

    def dataset_bytes(self) -> bytes:
        """Return what stands behind the File Meta Information."""
        return dataset_of(self.path.read_bytes())


def dataset_of(part10: bytes) -> bytes:
    """Return what stands behind the File Meta Information, whose group length not all files state (PS3.10 section 7.1)."""
    stream = io.BytesIO(part10)
    stream.seek(132)
    while True:
        start = stream.tell()
        head = stream.read(8)
        if head[:2] != b"\2\0":
            return part10[start:]
        long = head[4:6] in {b"OB", b"UN", b"UT"}
        length = int.from_bytes(stream.read(4), "little") if long else int.from_bytes(head[6:8], "little")
        stream.seek(length, 1)


@cache
def corpus() -> Sequence[CorpusFile]:
    """Return every file of the two wheels, in a fixed order."""
    found: list[CorpusFile] = []
    seen: Counter[str] = Counter()
    for wheel, folder in (("pydicom", files("pydicom") / "data"), ("pydicom-data", files("data_store") / "data")):
        root = Path(str(folder))
        for path in sorted(root.rglob("*")):
            # The wheels' programs and their byte code are no test files.
            if not path.is_file() or path.suffix in {".py", ".pyc"}:
                continue
            said = {}
            with contextlib.suppress(InvalidDicomError):
                meta = read_file_meta_info(path)
                said = {
                    "sop_class": str(meta.get("MediaStorageSOPClassUID", "")),
                    "sop_instance": str(meta.get("MediaStorageSOPInstanceUID", "")),
                    "transfer_syntax": str(meta.get("TransferSyntaxUID", "")),
                }
            uid = said.get("sop_instance", "")
            found.append(
                CorpusFile(name=f"{wheel}: {path.relative_to(root).as_posix()}", path=path, turn=seen[uid], **said)
            )
            seen[uid] += 1
    return found


def turns() -> int:
    """Return how many institutions it takes to keep the files apart."""
    return 1 + max(one.turn for one in corpus() if one.sendable)


def members() -> list[dict[str, Any]]:
    """Return the institutions: ``D0``... send by DIMSE, ``W0``... by DICOMweb."""
    resources: list[dict[str, Any]] = []
    kind = "https://yixiehub.example/fhir/CodeSystem/connection-type"
    for code in (f"{door}{turn}" for door in "DW" for turn in range(turns())):
        naming = "https://yixiehub.example/fhir/NamingSystem"
        organization = {
            "resourceType": "Organization",
            "id": code.lower(),
            "identifier": [{"system": f"{naming}/member", "value": code}],
            "active": True,
            "type": [
                {"coding": [{"system": "https://yixiehub.example/fhir/CodeSystem/member-kind", "code": "member"}]}
            ],
            "name": f"检验文件 {code}",
        }
        endpoint = {
            "resourceType": "Endpoint",
            "id": f"{code.lower()}-dicom",
            "identifier": [{"system": f"{naming}/endpoint", "value": f"{code}/dicom"}],
            "status": "active",
            "connectionType": {"system": kind, "code": "dicom"},
            "managingOrganization": {"reference": f"Organization/{code.lower()}"},
            "payloadType": [{"text": "DICOM"}],
            "address": f"dicom://{code}@127.0.0.1:104",
        }
        resources += [organization, endpoint]
    return resources


@dataclass(kw_only=True)
class Outcome:
    """What a door did with a file: ``refused`` says why, or ``url`` where it is."""

    refused: str = ""
    url: str = ""


def store_all(hub: RunningHub) -> Mapping[str, Outcome]:
    """Send every file by C-STORE, as the library sends a file: its data set as it is; return the outcomes by name."""
    outcomes: dict[str, Outcome] = {}
    by_turn: dict[int, list[CorpusFile]] = defaultdict(list)
    for one in corpus():
        if one.sendable:
            by_turn[one.turn].append(one)
        else:
            outcomes[one.name] = Outcome(refused="not sent: no File Meta Information to name it by")
    for turn, sent in by_turn.items():
        outcomes.update(_store_turn(hub, f"D{turn}", sent))
    return outcomes


def _store_turn(hub: RunningHub, sender: str, sent: Sequence[CorpusFile]) -> Iterator[tuple[str, Outcome]]:
    entity = pynetdicom.AE(sender)
    for pair in sorted({(one.sop_class, one.transfer_syntax) for one in sent}):
        entity.add_requested_context(*pair)
    with library_sends_files_as_they_are():
        association = entity.associate("127.0.0.1", hub.ports["dimse"], ae_title="YIXIE")
        assert association.is_established
        try:
            accepted = {
                (str(context.abstract_syntax), str(context.transfer_syntax[0]))
                for context in association.accepted_contexts
            }
            for one in sent:
                if (one.sop_class, one.transfer_syntax) not in accepted:
                    yield one.name, Outcome(refused="presentation context not accepted: no storage SOP class")
                    continue
                answer = association.send_c_store(one.path)
                assert "Status" in answer, f"{one.name}: the association broke"
                if answer.Status == 0:
                    yield one.name, Outcome()
                else:
                    yield one.name, Outcome(refused=f"{answer.Status:04X} {answer.get('ErrorComment', '')}".strip())
        finally:
            association.release()


@contextlib.contextmanager
def library_sends_files_as_they_are() -> Iterator[None]:
    """Let the library send a file's bytes; else it would read the data set and write one of its own."""
    before = _config.STORE_SEND_CHUNKED_DATASET
    _config.STORE_SEND_CHUNKED_DATASET = True
    try:
        yield
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = before


def stow_all(hub: RunningHub, http: httpx.Client) -> Mapping[str, Outcome]:
    """Send every file by STOW-RS, each in a request of its own; return the outcomes by name."""
    outcomes: dict[str, Outcome] = {}
    for one in corpus():
        answer = http.post(
            "/studies",
            content=b"--part\r\nContent-Type: application/dicom\r\n\r\n" + one.path.read_bytes() + b"\r\n--part--\r\n",
            headers={
                **hub.bearer(one.by_web),
                "Content-Type": 'multipart/related; type="application/dicom"; boundary=part',
            },
        )
        assert answer.status_code in {200, 409}, f"{one.name}: {answer.status_code} {answer.text}"
        body = answer.json()
        if answer.status_code == 200:
            (stored,) = body["00081199"]["Value"]
            outcomes[one.name] = Outcome(url=stored["00081190"]["Value"][0])
        else:
            (failed,) = body["00081198"]["Value"]
            reason = failed["00081197"]["Value"][0]
            outcomes[one.name] = Outcome(refused=f"{reason:04X} {REASONS.get(reason, '')}".strip())
    return outcomes


def fetched(hub: RunningHub, http: httpx.Client, one: CorpusFile, outcome: Outcome) -> bytes:
    """Return the Part 10 file that the hub hands out for *one*, as it is stored."""
    who = hub.bearer(one.by_web if outcome.url else one.by_dimse)
    url = outcome.url
    if not url:
        (found,) = http.get("/instances", params={"SOPInstanceUID": one.sop_instance}, headers=who).json()
        url = found["00081190"]["Value"][0]
    answer = http.get(url, headers={**who, "Accept": AS_STORED})
    assert answer.status_code == 200, f"{one.name}: {answer.status_code} {answer.text[:500]}"
    return answer.content


def why_not(one: CorpusFile) -> str:
    """Return what is wrong with a file that the hub's scanner refuses, in the words of its log; else ``""``."""
    try:
        with one.path.open("rb") as stream:
            read_header(stream)
    except MappingError as error:
        return f"{error.where}: {error.message}"
    return ""


def page(by_dimse: Mapping[str, Outcome], by_web: Mapping[str, Outcome]) -> str:
    """Return docs/conformance/test-files.md."""
    refused = [one for one in corpus() if by_dimse[one.name].refused or by_web[one.name].refused]
    lines = [
        "# 检验文件 / Test files",
        "",
        "DICOM 库自带的检验文件（pydicom 与 pydicom-data 两个发行包）经 C-STORE 与 STOW-RS 送入，再由 WADO-RS 取回，逐字节相同；",
        "下表列出被拒绝的文件及原因。本页由程序生成（`make docs`），测试比对。",
        "The test files of the DICOM library (of the wheels pydicom and pydicom-data) go in by C-STORE and by STOW-RS and come back by",
        "WADO-RS, byte for byte. The table has those that are refused, and why. This page is generated (`make docs`); a test compares.",
        "",
        "| | files | kept | refused or not sendable |",
        "|---|---|---|---|",
        *(
            f"| {door} | {len(outcomes)} | {sum(not one.refused for one in outcomes.values())} "
            f"| {sum(bool(one.refused) for one in outcomes.values())} |"
            for door, outcomes in (("C-STORE", by_dimse), ("STOW-RS", by_web))
        ),
        "",
        "C-STORE: status and Error Comment, or why no command can be sent. STOW-RS: Failure Reason (0008,1197). Reason: what the hub logs",
        "of the file as it is; where it is empty, only the door's rules forbid it.",
        "",
        "| file | C-STORE | STOW-RS | reason |",
        "|---|---|---|---|",
        *(
            f"| {one.name} | {by_dimse[one.name].refused or 'kept'} | {by_web[one.name].refused or 'kept'} | {why_not(one)} |"
            for one in refused
        ),
    ]
    return "\n".join(lines) + "\n"
