"""The MLLP door with the real intake behind it: socket to database and back."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from adapters.mllp import DOOR
from adapters.mllp.client import MllpClient
from adapters.mllp.frames import encode_frame
from fhir_mappings.hl7v2.tokenizer import parse
from hub.actor import HUB
from hub.config import Settings
from hub.ports import Database, MemberEndpoint
from tests.support.mllp import PATIENCE_S, Peer, listening
from tests.support.v2 import MEMBERS, V2Hub, adt, oru


@contextmanager
def served(hub: V2Hub) -> Iterator[tuple[str, int]]:
    """Serve *hub* on a free port, as the hub itself does."""
    bound, stop = listening(), threading.Event()
    thread = threading.Thread(target=DOOR.serve, args=(hub.services, {"plain": bound.fileno()}, stop, 0))
    thread.start()
    try:
        yield bound.getsockname()
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        bound.close()
    assert not thread.is_alive()


def test_messages_sent_by_several_peers_are_all_there_after_their_acknowledgements(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, settings=Settings(frame_deadline_s=PATIENCE_S))
    bound = listening()
    stop = threading.Event()
    thread = threading.Thread(target=DOOR.serve, args=(hub.services, {"plain": bound.fileno()}, stop, 0))
    thread.start()
    host, port = bound.getsockname()
    codes: list[str] = []

    def send(peer: int) -> None:
        client = MllpClient(host, port, timeout_s=PATIENCE_S)
        for number in range(5):
            text = adt("A01", f"{peer}-{number}", number=f"{peer}{number}", visit=f"V{peer}{number}", name="欧阳明月")
            answer = parse(client.exchange(text.encode("gb18030")).decode("gb18030"))
            codes.append(f"{answer.get('MSA-1')} {answer.get('MSA-2') == f'{peer}-{number}'}")
        client.close()

    try:
        peers = [threading.Thread(target=send, args=(peer,)) for peer in range(1, 5)]
        for one in peers:
            one.start()
        for one in peers:
            one.join(PATIENCE_S)
        with Peer((host, port)) as peer:
            peer.send(encode_frame(b"hello"))
            refusal = peer.answer()
            assert refusal is not None
            assert b"MSA|AR" in refusal
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        bound.close()
    assert not thread.is_alive()
    assert codes == ["AA True"] * 20
    assert len(hub.all("Patient")) == 20
    assert len(hub.journal(state="done")) == 20


def exchange(peer: Peer, text: str) -> str:
    """Send *text* and return MSA-1 of the answer."""
    peer.send(encode_frame(text.encode("gb18030")))
    answer = peer.answer()
    assert answer is not None
    return parse(answer.decode("gb18030")).get("MSA-1")


def test_a_member_that_signs_as_another_is_refused_noted_and_stays_connected(sqlite_database: Database) -> None:
    """The name in MSH-4 is anybody's to write; the network it comes from is not."""
    hub = V2Hub(sqlite_database, settings=Settings(frame_deadline_s=PATIENCE_S))
    own = MemberEndpoint(id="KN/mllp", member="KN", kind="mllp", sending_facility="KNYY", cidr=("127.0.0.1/32",))
    other = MemberEndpoint(id="QH/mllp", member="QH", kind="mllp", sending_facility="QHYY", cidr=("192.0.2.0/24",))
    hub.database.write(lambda tx: tx.members.replace(MEMBERS, (own, other), ()))
    hub.services.directory.refresh()
    with structlog.testing.capture_logs() as logs, served(hub) as address, Peer(address) as peer:
        assert exchange(peer, adt("A01", "1", facility="QHYY")) == "AR"
        assert exchange(peer, adt("A01", "2", facility="")) == "AR"
        assert exchange(peer, adt("A01", "3")) == "AA"
    assert [(entry.institution, entry.state) for entry in hub.journal()] == [
        (HUB.institution, "refused"),
        (HUB.institution, "refused"),
        ("KN", "done"),
    ]
    assert [one["managingOrganization"]["identifier"]["value"] for one in hub.all("Patient")] == ["KN"]
    refused = [line for line in logs if line["event"] == "message_refused"]
    assert [(line["institution"], line["codes"]) for line in refused] == [(HUB.institution, [204])] * 2
    audited = hub.database.read(lambda tx: tx.audit.search({}, institution=None, limit=10, before=None))
    assert [one["outcome"] for one in audited] == ["0", "4", "4"]


def test_a_report_of_sixteen_mebibytes_becomes_an_object_and_one_byte_more_is_refused(
    sqlite_database: Database,
) -> None:
    hub = V2Hub(sqlite_database, settings=Settings(frame_deadline_s=PATIENCE_S))
    cap = hub.services.settings.max_message_bytes
    assert cap == 16 << 20
    template = oru("1", "F", "", at="20250611090000", obx="OBX|1|ED|PDF^报告||^AP^PDF^Base64^@||||||F")
    room = cap - len(template.replace("@", "").encode("gb18030"))
    pdf = (b"%PDF-1.4 synthetic " * (room // 4 * 3 // 19 + 1))[: room // 4 * 3]
    text = template.replace("@", base64.b64encode(pdf).decode())
    text += "\r" * (cap - len(text.encode("gb18030")))
    assert len(text.encode("gb18030")) == cap
    with served(hub) as address:
        with Peer(address) as peer:
            assert exchange(peer, text) == "AA"
        with Peer(address) as peer:
            assert exchange(peer, text.replace("|1|P|", "|2|P|") + "\r") == "AR"
    binary = hub.one("Binary")
    digest = next(one["valueString"] for one in binary["_data"]["extension"] if one["url"].endswith("/object-digest"))
    assert hub.objects.read(digest) == pdf
    assert [entry.state for entry in hub.journal(institution="KN")] == ["done", "refused"]


def test_a_batch_in_one_frame_is_answered_by_one_frame_and_the_peer_stays_connected(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database)
    header = "BHS|^~\\&|HIS|KNYY|YIXIE|HUB|20250611080000||||B1\r"
    with served(hub) as place, Peer(place) as peer:
        peer.send(encode_frame((header + adt("A01", "1") + adt("A08", "2") + "BTS|2\r").encode("gb18030")))
        answer = peer.answer()
        assert answer is not None
        segments = [line[:3] for line in answer.decode("gb18030").strip("\r").split("\r")]
        assert segments == ["BHS", "MSH", "MSA", "MSH", "MSA", "BTS"]
        assert exchange(peer, adt("A08", "3")) == "AA"
    assert [entry.control_id for entry in hub.journal(state="done")] == ["1", "2", "3"]
