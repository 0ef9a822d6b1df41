"""Hostile bytes and stores in trouble at the doors of a whole hub: the right answer, nothing kept, no process lost, memory flat."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.dimse.negotiation import Context
from tests.flows.his import send_frames
from tests.flows.hub_process import Asker, HubProcess, eventually
from tests.support.dicom import CT_IMAGE_STORAGE, DEFLATED, EXPLICIT, ct_tags, encode, make_ct, part10
from tests.support.dimse import Peer
from tests.support.dimse_peer import answer, associated, c_store, data_pdus, store_command

#: Rounds after the first one, and how much a process may have grown after them.
ROUNDS = 4
GROWTH_BYTES = 8 << 20
#: Bodies of several megabytes leave holes in the heap of the HTTP door; kept ones would be 7 MiB a round.
HTTP_GROWTH_BYTES = 16 << 20

ADMIT = (
    "MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ADT^A04|{control}|P|2.4\rEVN|A04|20250611083000\r"
    "PID|1||0000010086^^^^IDCard||郑伟||19760229|M\r"
)
FHIR = {"Content-Type": "application/fhir+json"}


def nested_sequences(levels: int) -> bytes:
    level = struct.pack("<HH", 0x0040, 0x0275) + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return level * levels


def deflate_bomb() -> bytes:
    deflater = zlib.compressobj(9, wbits=-15)
    out = [deflater.compress(encode(ct_tags()) + struct.pack("<HH", 0x7FE1, 0x0010) + b"OB\0\0" + b"\x00\x00\x00\x08")]
    out += [deflater.compress(bytes(1 << 20)) for _ in range(128)]
    return b"".join((*out, deflater.flush()))


def c_store_status(port: int, data: bytes, syntax: str = EXPLICIT) -> int:
    """Send *data* as the data set of a CT and return the status, -1 for an abort or a closed connection."""
    with contextlib.suppress(OSError), Peer(port) as peer:
        peer.associate(Context(CT_IMAGE_STORAGE, syntax))
        with contextlib.suppress(OSError):
            peer.send(store_command(sop_instance=str(ct_tags()[0x00080018][1])))
            for pdu in data_pdus(data):
                peer.send(pdu)
        return answer(peer)[0]
    return -1


def dicom(hub: HubProcess, kn: Asker) -> None:
    """DIMSE and STOW-RS."""
    port = hub.ports["dimse"]
    whole = encode(ct_tags())
    for cut in range(97, len(whole), 97):
        assert c_store_status(port, whole[:cut]) == 0xC000, cut
    bomb, nested = deflate_bomb(), nested_sequences(100_000)
    assert c_store_status(port, bomb, DEFLATED) == 0xC000
    # What is refused while it is read may end in an abort; it is never success.
    assert c_store_status(port, nested) in {0xC000, -1}
    with Peer(port) as peer:
        peer.send(struct.pack(">BxI", 1, 0xFFFFFFFF))
        kind, body = peer.read()
        assert (kind, body[2]) == (7, 2)
    with associated(port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
        peer.send(struct.pack(">BxI", 4, 0xFFFFFFFF))
        kind, body = peer.read()
        assert (kind, body[2]) == (7, 2)

    named = {"sop_class": CT_IMAGE_STORAGE, "sop_instance": str(ct_tags()[0x00080018][1])}
    file = make_ct()
    for part in (
        part10(bomb, transfer_syntax=DEFLATED, **named),
        part10(nested, transfer_syntax=EXPLICIT, **named),
        *(file[:cut] for cut in range(97, len(file), 97 * 8)),
    ):
        told = kn.request(
            "POST",
            "/dicom-web/studies",
            content=b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n--b--\r\n",
            headers={
                "Content-Type": 'multipart/related; type="application/dicom"; boundary=b',
                "Accept": "application/dicom+json",
            },
        )
        assert told.status_code in {400, 409}, told.text


def http(hub: HubProcess, kn: Asker) -> None:
    """FHIR and /hl7."""
    deep = b'{"resourceType":"Patient","extension":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    twice = b'{"resourceType":"Patient","gender":"male","gender":"female"}'
    entries = b'{"resourceType":"Bundle","type":"transaction","entry":[' + b",".join([b"{}"] * 100_000) + b"]}"
    for path, body, statuses in (
        ("/fhir/Patient", deep, {400}),
        ("/fhir/Patient", twice, {400}),
        ("/fhir", entries, {400, 413}),
        ("/fhir", deep, {400}),
    ):
        told = kn.request("POST", path, content=body, headers=FHIR)
        assert told.status_code in statuses, (path, told.status_code, told.text[:300])
        assert told.json()["resourceType"] == "OperationOutcome"


def mllp(hub: HubProcess, kn: Asker) -> None:
    port = hub.ports["mllp"]
    for number, message in enumerate(
        (
            ADMIT.format(control="H1").replace("KNYY", "NOBODY"),
            ADMIT.format(control="H2").replace("ADT^A04", "ADT^A99"),
            ADMIT.format(control="H3")[4:],
            ADMIT.format(control="H4").replace("MSH|^~\\&|", "MSHx||||"),
            "no message at all",
        )
    ):
        [told] = send_frames(port, message.encode("gb18030"))
        assert b"MSA|AR" in told, (number, told)
    # A frame without an end, larger than the cap: refused by its header or cut off, never taken.
    with socket.create_connection(("127.0.0.1", port), timeout=30) as one, contextlib.suppress(OSError):
        one.sendall(b"\x0b" + ADMIT.format(control="H5").encode("gb18030"))
        for _ in range(20):
            one.sendall(b"x" * (1 << 20))
        assert b"MSA|AA" not in one.recv(65536)


def processes(hub: HubProcess) -> dict[str, int]:
    [path] = (hub.data_dir / "run").glob("processes-*.json")
    return dict(json.loads(path.read_text())["children"])


def anonymous_bytes(pid: int) -> int:
    """Return the anonymous memory of *pid* (``RssAnon``, proc(5)): pages of files are no cost."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_hostile_input_at_each_door_leaves_the_hub_as_it_was(hub: HubProcess) -> None:
    kn = hub.asker("KN")
    doors = (dicom, http, mllp)
    # The first round loads what is loaded once.
    for door in doors:
        door(hub, kn)
    pids = processes(hub)
    before = {name: anonymous_bytes(pid) for name, pid in pids.items()}
    for _ in range(ROUNDS):
        for door in doors:
            door(hub, kn)

    assert processes(hub) == pids, "no process was lost"
    bounds = {name: HTTP_GROWTH_BYTES if name == "http-0" else GROWTH_BYTES for name in pids}
    # The last connections end after their answers were read, and their buffers with them; what is kept stays.
    eventually(
        lambda: all(anonymous_bytes(pid) - before[name] < bounds[name] for name, pid in pids.items()),
        what="memory is as it was",
    )
    # Nothing of it can be seen, and each door serves as before.
    assert kn.search("/fhir/Patient") == []
    assert kn.get("/dicom-web/studies", status=200, headers={"Accept": "application/dicom+json"}) == []
    [told] = send_frames(hub.ports["mllp"], ADMIT.format(control="GOOD").encode("gb18030"))
    assert b"MSA|AA|GOOD" in told
    with associated(hub.ports["dimse"], Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
        assert c_store(peer, ct_tags())[0] == 0
    assert len(kn.search("/fhir/Patient?identifier=0000010086")) == 1
    hub.run("fsck")


@contextlib.contextmanager
def locked(hub: HubProcess) -> Iterator[None]:
    """Hold the hub's database as another program would."""
    other = sqlite3.connect(hub.data_dir / "hub.db", isolation_level=None, timeout=30)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_a_locked_database_is_no_success_at_any_door_and_passes(hub: HubProcess) -> None:
    kn = hub.asker("KN")
    kn.get("/fhir/Patient")
    message = ADMIT.format(control="L1").encode("gb18030")

    with associated(hub.ports["dimse"], Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
        # Each process that writes waits for the lock in turn, so an answer may take several of those waits.
        peer.socket.settimeout(90)
        with locked(hub):
            refused = kn.request("POST", "/fhir/Patient", content=b'{"resourceType":"Patient"}', headers=FHIR)
            status, _ = c_store(peer, ct_tags())
            # A closed connection and no word: the sender keeps its message.
            with pytest.raises(ConnectionError):
                send_frames(hub.ports["mllp"], message, timeout_s=90)
        assert c_store(peer, ct_tags())[0] == 0

    assert refused.status_code == 503
    assert refused.json()["resourceType"] == "OperationOutcome"
    assert status == 0xA700
    [told] = send_frames(hub.ports["mllp"], message)
    assert b"MSA|AA|L1" in told
    assert len(kn.search("/fhir/Patient")) == 1
    kn.post("/fhir/Patient", {"resourceType": "Patient"})
    hub.run("fsck")
