"""Plays sample data through the real doors of a running hub: C-STORE, MLLP, and FHIR and CDA over HTTP, as members would.

A folder with a ``feed.toml`` is played as that says; any other folder by what its files are: ``*.dcm`` by C-STORE,
``*.hl7`` by MLLP. Playing the same again changes nothing in the hub, because sending twice is harmless.

One file that cannot be read, or that the hub refuses, is a :class:`Failure` of its own and stops nothing. A feed.toml
that cannot be followed is an error before anything is sent.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import httpx

from adapters.dimse.client import RejectedError, StoreClient
from adapters.dimse.negotiation import Context
from adapters.dimse.upper_layer import ConnectionEnd, ProtocolError
from adapters.mllp.client import MllpClient, NoAnswer
from fhir_mappings.dicom.scanner import dataset_offset
from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.ack import parse_ack
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import Message, parse
from hub.actor import Actor
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services

#: Longest wait for what must have happened before a step, for example a study to be complete.
AFTER_S = 120.0
_CONTENT_TYPES = {"fhir": "application/fhir+json", "cda": "application/xml"}
_STEPS = "Give mllp `files`, cda `files` and `institution`, fhir `file` and `institution`; dimse takes what dicom/make.py makes."
_MEND = "Mend the file and play the folder again."
_RUNNING = "Check that `hub serve` runs with these settings, and play the folder again."
_POLL_S = 0.5
_TOKEN_TTL_S = 3600
_AE_TITLE_MAX = 16


class NotTakenError(Exception):
    """The hub has not taken one item; ``str()`` says why, ``remedy`` what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to send; ``send`` returns when the hub took it, and raises :class:`NotTakenError` else."""

    door: str
    name: str
    send: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One item that the hub has not taken: its name in the folder, why, and what to do."""

    name: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message} {self.remedy}"


@dataclass(slots=True, kw_only=True)
class Played:
    """What came of it."""

    taken: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Where the hub's doors are, as ``host:port``."""

    http: str
    mllp: str
    dimse: str


class Feed:
    """The items of one folder, ready to be played; a context manager, because it holds connections and files."""

    def __init__(self, services: Services, folder: Path, doors: Doors) -> None:
        self._services = services
        self._folder = folder
        self._doors = doors
        self._stack = contextlib.ExitStack()
        self._names: dict[str, str] = {}
        self._lines: dict[str, MllpClient] = {}
        self._associations: dict[tuple[str, Context], StoreClient] = {}
        self._tokens: dict[tuple[str, str], str] = {}
        self._http = self._stack.enter_context(
            httpx.Client(base_url=f"http://{doors.http}", timeout=60, trust_env=False)
        )
        try:
            self.items: Sequence[Item] = list(self._items())
            if not self.items:
                raise _wrong(
                    "The folder holds nothing to play.", str(folder), "Give a folder with *.hl7 or *.dcm files."
                )
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines.values():
            line.close()
        self._hang_up()
        self._stack.close()

    def play(self, tick: Callable[[Item], None] = lambda _: None) -> Played:
        """Send every item in order; *tick* is called after each. Goes on after a failure and reports all."""
        played = Played()
        for item in self.items:
            if item.door != "dimse":
                # The end of the association is what tells the hub that no more images come for now.
                self._hang_up()
            try:
                item.send()
            except NotTakenError as error:
                played.failures.append(Failure(name=item.name, message=str(error), remedy=error.remedy))
            else:
                played.taken[item.door] += 1
            tick(item)
        self._hang_up()
        return played

    # --- what to play ----------------------------------------------------------------------------------------

    def _items(self) -> Iterator[Item]:
        manifest = self._folder / "feed.toml"
        if not manifest.exists():
            yield from (self._message(path) for path in sorted(self._folder.rglob("*.hl7")))
            yield from self._loose_images()
            return
        for step in _steps(manifest):
            match step:
                case {"door": "mllp", "files": [*names]}:
                    yield from (self._message(self._folder / "hl7" / name) for name in names)
                case {"door": "dimse"}:
                    yield from self._made_images()
                case {"door": "fhir", "file": str(), "institution": str()}:
                    yield self._posted(step)
                case {"door": "cda", "files": [*names], "institution": str()}:
                    yield from (self._posted({**step, "file": name}) for name in names)
                case {"door": "mllp" | "fhir" | "cda" as door}:
                    raise _wrong(f"A step of door {door} lacks what it sends.", str(manifest), _STEPS)
                case _:
                    raise _wrong(f"{step.get('door')!r} is no door of a feed.", str(manifest), _STEPS)

    def _message(self, path: Path) -> Item:
        return Item(door="mllp", name=str(path.relative_to(self._folder)), send=lambda: self._send_message(path))

    def _made_images(self) -> Iterator[Item]:
        made = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-feed-")))
        for series, paths in _maker(self._folder / "dicom" / "make.py").write(made):
            self._names[series.key] = series.study_uid
            for path in paths:
                yield self._image(path, f"dicom/{series.key}/{path.name}", series.ae_title)

    def _loose_images(self) -> Iterator[Item]:
        for path in sorted(self._folder.rglob("*.dcm")):
            # The folder right above says who sends, because a file does not: KN_PACS/0001.dcm.
            yield self._image(path, str(path.relative_to(self._folder)), path.parent.name)

    def _image(self, path: Path, name: str, ae_title: str) -> Item:
        return Item(door="dimse", name=name, send=lambda: self._send_image(path, ae_title))

    def _posted(self, step: Mapping[str, Any]) -> Item:
        name = f"{step['door']}/{step['file']}"
        return Item(door=step["door"], name=name, send=lambda: self._post(self._folder / name, step))

    # --- sending ---------------------------------------------------------------------------------------------

    def _send_message(self, path: Path) -> None:
        payload = _content(path)
        try:
            message = parse(decode_message(payload).text)
        except MappingError as error:
            raise NotTakenError(f"It is no HL7 v2 message: {error.message}", error.remedy or _MEND) from error
        host, _, port = self._doors.mllp.rpartition(":")
        line = self._lines.setdefault(message.get("MSH-4.1"), MllpClient(host.strip("[]"), int(port), timeout_s=60))
        try:
            ack = parse_ack(parse(decode_message(line.exchange(payload)).text))
        except NoAnswer as error:
            raise NotTakenError(str(error), _RUNNING) from error
        except HubError as error:
            raise NotTakenError(error.message, error.remedy or _MEND) from error
        except MappingError as error:
            raise NotTakenError(f"The hub's answer cannot be read: {error.message}", _RUNNING) from error
        if not ack.accepted:
            raise NotTakenError(f"The hub answered {ack.code}: {ack.text}", _MEND)
        if ack.code == "CA":
            self._require_applied(message)

    def _require_applied(self, message: Message) -> None:
        """Raise NotTakenError when the hub kept *message* but could not use it: CA says no more than that it is kept."""
        criteria = {"sending_facility": message.get("MSH-4.1"), "control_id": message.get("MSH-10")}
        [*entries] = self._services.database.read(lambda tx: tx.journal.search(criteria, limit=1))
        if entries and entries[0].state in {"refused", "failed"}:
            raise NotTakenError(f"The hub kept it and {entries[0].state} it: {entries[0].outcome}", _MEND)

    def _send_image(self, path: Path, ae_title: str) -> None:
        context, sop_instance_uid = _identity(path)
        try:
            client = self._association(context, ae_title)
            status = client.store(context, sop_instance_uid, partial(_fragments, path))
        except HubError as error:
            raise NotTakenError(error.message, error.remedy or _RUNNING) from error
        except (ConnectionEnd, ProtocolError, OSError, MappingError) as error:
            # Half a message may be on its way, which nothing but an abort ends.
            while self._associations:
                self._associations.popitem()[1].abort()
            if isinstance(error, MappingError):
                raise NotTakenError(f"It is no DICOM file: {error.message}", _MEND) from error
            raise NotTakenError(f"The association ended before the answer: {error}.", _RUNNING) from error
        if status:
            raise NotTakenError(
                f"The hub answered C-STORE with status 0x{status:04X}.",
                "Look it up in the DICOM conformance statement.",
            )

    def _association(self, context: Context, ae_title: str) -> StoreClient:
        key = (ae_title, context)
        known = self._associations.get(key)
        if known is not None:
            return known
        self._hang_up()
        host, _, port = self._doors.dimse.rpartition(":")
        settings = self._services.settings
        if not ae_title.isascii() or not 0 < len(ae_title.strip()) <= _AE_TITLE_MAX:
            raise NotTakenError(
                f"{ae_title!r} cannot be an AE title.", "Name the folder above the file after the sender."
            )
        try:
            client = StoreClient(
                host.strip("[]"),
                int(port),
                calling_ae=ae_title,
                called_ae=settings.ae_title,
                contexts=[context],
                timeout_s=60,
                max_pdu_bytes=settings.max_pdu_bytes,
            )
        except RejectedError as error:
            raise NotTakenError(
                f"The hub did not accept an association of {ae_title}.",
                "Check that `hub serve` runs, and that `hub members list` shows this AE title.",
            ) from error
        if not client.takes(context):
            client.abort()
            raise NotTakenError("The hub does not take this SOP class in this transfer syntax.", _MEND)
        self._associations[key] = client
        return client

    def _hang_up(self) -> None:
        for association in self._associations.values():
            association.release()
            association.close()
        self._associations.clear()

    def _post(self, path: Path, step: Mapping[str, Any]) -> None:
        door = step["door"]
        try:
            content = _content(path)
            if door == "fhir":
                content = self._named(content.decode()).encode()
            headers = {"Authorization": f"Bearer {self._token(step['institution'], step.get('practitioner', ''))}"}
            after = self._named(step.get("after", ""))
            if after and not self._found(after, headers):
                raise NotTakenError(f"{after.partition('?')[0]} did not appear in {AFTER_S:.0f} s.", _RUNNING)
            headers["Content-Type"] = _CONTENT_TYPES[door]
            answer = self._http.post(f"/{door}", content=content, headers=headers)
        except UnicodeDecodeError as error:
            raise NotTakenError("It is not UTF-8.", _MEND) from error
        except HubError as error:
            raise NotTakenError(error.message, error.remedy or _MEND) from error
        except httpx.HTTPError as error:
            raise NotTakenError(f"HTTP failed: {type(error).__name__}.", _RUNNING) from error
        if not answer.is_success:
            raise NotTakenError(f"The hub answered HTTP {answer.status_code}: {_diagnostics(answer)}", _MEND)

    def _found(self, search: str, headers: Mapping[str, str]) -> bool:
        deadline = time.monotonic() + AFTER_S
        while time.monotonic() < deadline:
            answer = self._http.get(f"/fhir/{search}", headers=dict(headers))
            # What the asker may not or cannot ask will not come by waiting; 429 and 503 will.
            if answer.status_code in {400, 401, 403, 404}:
                raise NotTakenError(f"The hub answered {search.partition('?')[0]} with {answer.status_code}.", _STEPS)
            if answer.is_success and answer.json().get("entry"):
                return True
            time.sleep(_POLL_S)
        return False

    def _named(self, text: str) -> str:
        for key, study_uid in self._names.items():
            text = text.replace(f"{{{key}}}", study_uid)
        return text

    def _token(self, institution: str, practitioner: str) -> str:
        key = (institution, practitioner)
        if key not in self._tokens:
            actor = Actor(institution=institution, practitioner=practitioner or None, client="hub feed")
            self._tokens[key] = self._services.directory.issue_token(actor, ttl_s=_TOKEN_TTL_S)
        return self._tokens[key]


def _steps(manifest: Path) -> Sequence[Mapping[str, Any]]:
    try:
        steps = tomllib.loads(manifest.read_text("utf-8")).get("step", [])
    except (OSError, ValueError) as error:
        raise _wrong(f"The feed cannot be read: {error}", str(manifest), "Mend it.") from error
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise _wrong("The feed has no list of steps.", str(manifest), "Write each as [[step]].")
    return steps


def _content(path: Path) -> bytes:
    """Return the bytes of the file at *path*; raises NotTakenError where there are none to be had."""
    # A pipe or a device would hold the feed up for ever.
    if not path.is_file():
        raise NotTakenError("There is no such file.", "Put it there, or take it out of feed.toml.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotTakenError(f"It cannot be read: {error.strerror}.", "Mend its permissions or its disk.") from error


def _identity(path: Path) -> tuple[Context, str]:
    """Return SOP class with transfer syntax, and SOP Instance UID, of the file at *path* (PS3.10 section 7.1)."""
    from pydicom import dcmread

    if not path.is_file():
        raise NotTakenError("There is no such file.", "Put it there, or take it away.")
    try:
        meta = dcmread(path, stop_before_pixels=True, specific_tags=[]).file_meta
        context = Context(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
        return context, str(meta.MediaStorageSOPInstanceUID)
    except Exception as error:  # whatever the toolkit stumbles over in a broken file is the file's trouble
        raise NotTakenError(f"It is no DICOM file: {type(error).__name__}.", _MEND) from error


def _fragments(path: Path, size: int) -> Iterator[bytes]:
    """Yield the data set of the file at *path* as it stands there."""
    with path.open("rb") as file:
        file.seek(dataset_offset(file))
        held = file.read(size)
        while following := file.read(size):
            yield held
            held = following
        yield held


def _maker(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_images", path)
    if spec is None or spec.loader is None or not path.exists():
        raise _wrong("The folder has no dicom/make.py.", str(path), "Take the dimse step out of feed.toml.")
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up while they are made.
    sys.modules["sample_images"] = module
    spec.loader.exec_module(module)
    return module


def _diagnostics(answer: httpx.Response) -> str:
    try:
        issues = answer.json().get("issue", [])
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        return "no OperationOutcome"
    return "; ".join(str(issue.get("diagnostics", "")) for issue in issues)[:400]


def _wrong(message: str, where: str, remedy: str) -> HubError:
    return HubError(Category.INCORRECT, message, where=where, remedy=remedy)
