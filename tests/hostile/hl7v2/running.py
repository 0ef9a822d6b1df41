"""A hub with its doors open, to which the hostile cases are sent, and what it said and wrote to each."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from adapters.mllp import DOOR
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.config import Settings
from hub.ports import Database, Entry, Member, MemberEndpoint
from hub.search.ast import Query
from tests.hostile.hl7v2 import er7
from tests.hostile.hl7v2.cases import Case, admit, framed
from tests.hostile.hl7v2.framing import HURRIED_MAX_BYTES, MAX_BYTES
from tests.support.mllp import PATIENCE_S, Peer, door, limits, listening
from tests.support.v2 import MEMBERS, V2Hub

_EVERYWHERE = ("127.0.0.0/8",)
#: Short, because every case at this door waits for it; only peers that do nothing more meet it, so no machine is too slow.
HURRIED = limits(max_bytes=HURRIED_MAX_BYTES, frame_deadline_s=0.6, idle_s=0.6)


def _members() -> tuple[Member, ...]:
    more = ("QM", "WJ", "TY")
    return (*MEMBERS, *(Member(code=code, organization_id=f"org-{code}", name=code) for code in more))


def _endpoints() -> tuple[MemberEndpoint, ...]:
    def endpoint(code: str, facility: str, **more: object) -> MemberEndpoint:
        values: dict[str, object] = {"cidr": _EVERYWHERE, **more}
        return MemberEndpoint(id=f"{code}/mllp", member=code, kind="mllp", sending_facility=facility, **values)  # type: ignore[arg-type]

    return (
        endpoint("KN", "KNYY", sending_application="HIS", settings={"dialect": "his-cn"}),
        endpoint("QH", "QHYY", cidr=("192.0.2.0/24",)),
        endpoint("YL", "YLYY", settings={"certificates": "sha256:" + "a" * 64}),
        endpoint("QM", "QMJY", settings={"tls": "required"}),
        endpoint("WJ", "WJYY", address="file:/nowhere"),
        endpoint("TY", "TYYY", active=False),
    )


@dataclass
class Outcome:
    """What came of one case: the answers in order, how it ended, and the journal lines it left."""

    case: Case
    answers: list[bytes] = field(default_factory=list)
    ending: str = ""
    journal: list[Entry] = field(default_factory=list)

    def said(self) -> tuple[str, ...]:
        """Return the answers in the words of :attr:`Case.says`."""
        return tuple(one for answer in self.answers for one in summaries(answer))

    def controls(self) -> list[str]:
        """Return MSA-2 of each answer."""
        return [one.value(2) for answer in self.answers for one in er7.read(text_of(answer)) if one.name == "MSA"]


def text_of(answer: bytes) -> str:
    """Return *answer* as text, by its width and by what it can be."""
    if answer.startswith((b"M\0", b"\0M")):
        return answer.decode("utf-16-le" if answer[1] == 0 else "utf-16-be")
    try:
        return answer.decode("utf-8")
    except UnicodeDecodeError:
        return answer.decode("gb18030", "replace")


def summaries(answer: bytes) -> Iterator[str]:
    """Yield ``MSA-1`` and the code of the first ERR of each acknowledgement in *answer*."""
    code = error = ""
    for one in er7.read(text_of(answer)):
        if one.name == "MSA":
            if code:
                yield f"{code} {error}".strip()
            code, error = one.value(1), ""
        elif one.name == "ERR" and not error:
            # ERR-1.4 (ELD) until v2.4, ERR-3 (CWE) from v2.5 on.
            sub = one.separators[4]
            parts = one.fields.get(1, "").split(one.separators[1])
            error = parts[3].split(sub)[0] if len(parts) > 3 else one.value(3)
    if code:
        yield f"{code} {error}".strip()


class Target:
    """A hub that is up, with an ordinary door and a hurried one."""

    def __init__(self, hub: V2Hub, address: tuple[str, int], hurried: tuple[str, int]) -> None:
        self.hub = hub
        self._addresses = {False: address, True: hurried}
        self._probes = 0
        self._seen = 0

    def probe(self) -> tuple[bytes, str]:
        """Return an ordinary message and its control id."""
        self._probes += 1
        control = f"PROBE{self._probes}"
        return framed(admit(control, "7000").encode("gb18030")), control

    def send(self, case: Case) -> Outcome:
        """Send *case* and read until the hub closes or has answered the ordinary message behind it."""
        outcome = Outcome(case)
        with Peer(self._addresses[case.hurried]) as peer:
            probe, control = self.probe()
            pieces = case.wire if case.hurried or case.ends else (*case.wire, probe)
            # The answers to a stream of messages are read while it is still being sent, as a sender does.
            sender = threading.Thread(target=_send, args=(peer, pieces, case.ends))
            sender.start()
            while (answer := peer.answer()) is not None:
                if f"MSA|AA|{control}\r".encode() in answer:
                    outcome.ending = "goes on"
                    break
                outcome.answers.append(answer)
            else:
                outcome.ending = "closed"
            sender.join(PATIENCE_S)
            assert not sender.is_alive(), case.name
        outcome.journal = self._written(control)
        return outcome

    def patient_numbers(self) -> set[str]:
        """Return every number of every patient in the store."""
        found: set[str] = set()
        cursor: str | None = None
        while True:
            query = Query(resource_type="Patient", count=500, cursor=cursor)
            page = self.hub.database.read(lambda tx, query=query: tx.records.search(query, UNRESTRICTED))
            for one in page.matches:
                found.update(number["value"] for number in loads(one.body).get("identifier", []))
            cursor = page.next_cursor
            if cursor is None:
                return found

    def _written(self, control: str) -> list[Entry]:
        """Return each journal line since the last look, without the probe's."""
        found = self.hub.database.read(lambda tx: tx.journal.search({}, limit=100))
        new = [one for one in found if one.seq > self._seen]
        self._seen = max([self._seen, *(one.seq for one in found)])
        return [one for one in reversed(new) if one.control_id != control]


def _send(peer: Peer, pieces: tuple[bytes, ...], ends: bool) -> None:
    try:
        for piece in pieces:
            peer.send(piece)
        if ends:
            peer.socket.shutdown(1)
    except OSError:
        # The door has closed, which is an answer too.
        return


@contextmanager
def running(database: Database, folder: Path) -> Iterator[Target]:
    """Serve a hub over *database* until the block ends."""
    settings = Settings(data_dir=folder, frame_deadline_s=PATIENCE_S, max_message_bytes=MAX_BYTES)
    hub = V2Hub(database, settings=settings)
    # These tests want the real workflows.
    hub.services.__dict__.pop("tasks", None)
    database.write(lambda tx: tx.members.replace(_members(), _endpoints(), ()))
    hub.services.directory.refresh()
    bound, stop = listening(), threading.Event()
    thread = threading.Thread(target=DOOR.serve, args=(hub.services, {"plain": bound.fileno()}, stop, 0))
    with ExitStack() as stack:
        hurried = stack.enter_context(door(hub.messages, HURRIED))
        thread.start()
        try:
            yield Target(hub, bound.getsockname(), hurried.address)
        finally:
            stop.set()
            thread.join(PATIENCE_S)
            bound.close()
        assert not thread.is_alive()


def peak_bytes() -> int:
    """Return the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
