"""A message beyond the usual cap, where the setting lets it in: received whole, answered, applied, a few copies in memory."""

from __future__ import annotations

import base64
import threading
import tracemalloc

from adapters.mllp import DOOR
from adapters.mllp.frames import encode_frame
from fhir_mappings.hl7v2.tokenizer import parse
from hub.config import Settings
from hub.ports import Database
from tests.support.mllp import PATIENCE_S, Peer, listening
from tests.support.v2 import V2Hub, oru

SIZE = 20_000_000
#: Most copies of a message that stand in memory at one time: bytes, frame, text, fields, document.
COPIES = 12


def test_a_message_of_twenty_megabytes_is_applied_with_few_copies_in_memory(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database, settings=Settings(frame_deadline_s=PATIENCE_S, max_message_bytes=32 << 20))
    template = oru("1", "F", "", at="20250611090000", obx="OBX|1|ED|PDF^报告||^AP^PDF^Base64^@||||||F")
    room = SIZE - len(template.encode("gb18030"))
    pdf = (b"%PDF-1.4 synthetic " * (room // 4 * 3 // 19 + 1))[: room // 4 * 3]
    framed = encode_frame(template.replace("@", base64.b64encode(pdf).decode()).encode("gb18030").ljust(SIZE, b"\r"))
    bound, stop = listening(), threading.Event()
    thread = threading.Thread(target=DOOR.serve, args=(hub.services, {"plain": bound.fileno()}, stop, 0))
    thread.start()
    tracemalloc.start()
    try:
        with Peer(bound.getsockname()) as peer:
            peer.send(framed)
            answer = peer.answer()
        highest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        stop.set()
        thread.join(PATIENCE_S)
        bound.close()
    assert not thread.is_alive()
    assert answer is not None
    assert parse(answer.decode("gb18030")).get("MSA-1") == "AA"
    assert [entry.state for entry in hub.journal()] == ["done"]
    binary = hub.one("Binary")
    digest = next(one["valueString"] for one in binary["_data"]["extension"] if one["url"].endswith("/object-digest"))
    assert hub.objects.read(digest) == pdf
    assert highest < COPIES * SIZE
