"""The MLLP door with the real intake behind it: socket to database and back."""

from __future__ import annotations

import threading

from adapters.mllp import DOOR
from adapters.mllp.client import MllpClient
from adapters.mllp.frames import encode_frame
from fhir_mappings.hl7v2.tokenizer import parse
from hub.config import Settings
from hub.ports import Database
from tests.support.mllp import PATIENCE_S, Peer, listening
from tests.support.v2 import V2Hub, adt


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
