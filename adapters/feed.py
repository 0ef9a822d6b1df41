"""Plays sample data through the real doors of a running hub: C-STORE, MLLP and FHIR over HTTP, as members would.

A folder with a ``feed.toml`` is played as that says; any other folder by what its files are: ``*.dcm`` by C-STORE,
``*.hl7`` by MLLP. Playing the same again changes nothing in the hub, because sending twice is harmless.
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
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import httpx

from adapters.mllp.client import MllpClient, NoAnswer
from fhir_mappings.errors import MappingError
from fhir_mappings.hl7v2.ack import parse_ack
from fhir_mappings.hl7v2.charset import decode_message
from fhir_mappings.hl7v2.tokenizer import parse
from hub.actor import Actor
from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services

#: Longest wait for what must have happened before a step, for example a study to be complete.
AFTER_S = 120.0
_POLL_S = 0.5
_TOKEN_TTL_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to send; ``send`` returns what went wrong, empty when the hub took it."""

    door: str
    name: str
    send: Callable[[], str]


@dataclass(slots=True, kw_only=True)
class Played:
    """What came of it."""

    taken: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


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
        self._associations: dict[str, Any] = {}
        self._tokens: dict[tuple[str, str], str] = {}
        self._http = self._stack.enter_context(
            httpx.Client(base_url=f"http://{doors.http}", timeout=60, trust_env=False)
        )
        self.items: Sequence[Item] = list(self._items())
        if not self.items:
            raise _wrong("The folder holds nothing to play.", str(folder), "Give a folder with *.hl7 or *.dcm files.")

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
            trouble = item.send()
            if trouble:
                played.failures.append(f"{item.name}: {trouble}")
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
        try:
            steps = tomllib.loads(manifest.read_text("utf-8")).get("step", [])
        except tomllib.TOMLDecodeError as error:
            raise _wrong(f"The feed cannot be read: {error}", str(manifest), "Mend it.") from error
        for step in steps:
            match step.get("door"):
                case "mllp":
                    yield from (self._message(self._folder / "hl7" / name) for name in step["files"])
                case "dimse":
                    yield from self._made_images()
                case "fhir":
                    yield self._bundle(step)
                case other:
                    raise _wrong(f"{other!r} is no door of a feed.", str(manifest), "Use mllp, dimse or fhir.")

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

    def _bundle(self, step: Mapping[str, Any]) -> Item:
        path = self._folder / "fhir" / step["file"]
        return Item(door="fhir", name=f"fhir/{step['file']}", send=lambda: self._send_bundle(path, step))

    # --- sending ---------------------------------------------------------------------------------------------

    def _send_message(self, path: Path) -> str:
        payload = path.read_bytes()
        message = decode_message(payload).text
        try:
            sender = parse(message).get("MSH-4.1")
            host, _, port = self._doors.mllp.rpartition(":")
            line = self._lines.setdefault(sender, MllpClient(host.strip("[]"), int(port), timeout_s=60))
            ack = parse_ack(parse(decode_message(line.exchange(payload)).text))
        except (NoAnswer, MappingError) as error:
            return str(error)
        return "" if ack.accepted else f"the hub answered {ack.code}"

    def _send_image(self, path: Path, ae_title: str) -> str:
        association = self._association(path, ae_title)
        if association is None:
            return f"the hub refused the association of {ae_title}"
        status = association.send_c_store(path).get("Status")
        if status is None:
            return "the association ended"
        return "" if status == 0 else f"C-STORE status 0x{status:04X}"

    def _association(self, path: Path, ae_title: str) -> Any:
        from pydicom import dcmread
        from pynetdicom import AE

        meta = dcmread(path, stop_before_pixels=True, specific_tags=[]).file_meta
        key = f"{ae_title}|{meta.MediaStorageSOPClassUID}|{meta.TransferSyntaxUID}"
        known = self._associations.get(key)
        if known is not None and known.is_established:
            return known
        self._hang_up()
        entity = AE(ae_title=ae_title)
        entity.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
        host, _, port = self._doors.dimse.rpartition(":")
        association = entity.associate(
            host.strip("[]"), int(port), ae_title=self._services.settings.ae_title, max_pdu=1 << 17
        )
        if not association.is_established:
            return None
        self._associations[key] = association
        return association

    def _hang_up(self) -> None:
        for association in self._associations.values():
            association.release()
        self._associations.clear()

    def _send_bundle(self, path: Path, step: Mapping[str, Any]) -> str:
        headers = {"Authorization": f"Bearer {self._token(step['institution'], step.get('practitioner', ''))}"}
        after = self._named(step.get("after", ""))
        try:
            if after and not self._found(after, headers):
                return f"{after.partition('?')[0]} did not appear in {AFTER_S:.0f} s"
            answer = self._http.post(
                "/fhir",
                content=self._named(path.read_text("utf-8")).encode(),
                headers={**headers, "Content-Type": "application/fhir+json"},
            )
        except httpx.HTTPError as error:
            return f"HTTP failed: {type(error).__name__}"
        return "" if answer.is_success else f"HTTP {answer.status_code}: {_diagnostics(answer)}"

    def _found(self, search: str, headers: Mapping[str, str]) -> bool:
        deadline = time.monotonic() + AFTER_S
        while time.monotonic() < deadline:
            answer = self._http.get(f"/fhir/{search}", headers=dict(headers))
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
    except json.JSONDecodeError:
        return ""
    return "; ".join(str(issue.get("diagnostics", "")) for issue in issues)[:400]


def _wrong(message: str, where: str, remedy: str) -> HubError:
    return HubError(Category.INCORRECT, message, where=where, remedy=remedy)
