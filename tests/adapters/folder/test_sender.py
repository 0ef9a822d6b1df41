"""What is for a partner appears in its folder whole, once and in order; a folder that is away counts no attempt."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.folder import base_of
from adapters.folder.sender import FolderSender
from fhir_mappings.hl7v2 import batch
from hub.config import Settings
from hub.errors import HubError
from hub.ports import Delivery, MemberEndpoint
from tests.support.v2 import adt

NOW = datetime(2025, 6, 11, tzinfo=UTC)


def delivery(number: int, payload: bytes = b"MSH|") -> Delivery:
    return Delivery(
        id=number, state="queued", attempts=0, next_at=NOW, created_at=NOW,
        destination="KN/drop", lane="KN/drop|1", kind="mllp", payload=payload, owner="KN",
    )  # fmt: skip


def endpoint(address: str, **settings: str) -> MemberEndpoint:
    return MemberEndpoint(id="KN/drop", member="KN", kind="mllp", address=address, settings=settings)


def test_each_delivery_is_one_file_and_the_same_file_when_sent_again(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    sender, target = FolderSender(Settings()), endpoint(f"file://{tmp_path}", marker=".ok")
    for number, payload in ((9, b"nine"), (10, b"ten"), (9, b"nine")):
        result = sender.send(delivery(number, payload), target)
        assert (result.error, result.reached, result.permanent) == ("", True, False)
    found = sorted((tmp_path / "out").iterdir())
    assert [(one.name, one.read_bytes()) for one in found] == [
        ("000000000009.hl7", b"nine"),
        ("000000000009.hl7.ok", b""),
        ("000000000010.hl7", b"ten"),
        ("000000000010.hl7.ok", b""),
    ]


def test_a_share_that_is_not_mounted_is_tried_again_and_not_made(tmp_path: Path) -> None:
    result = FolderSender(Settings()).send(delivery(1), endpoint(f"file://{tmp_path}"))
    assert (bool(result.error), result.reached) == (True, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["file://server/share", "file:relative", "file:///a/../b", "ftp:///a"])
def test_an_address_that_is_no_folder_of_this_machine_is_refused(address: str) -> None:
    with pytest.raises(HubError, match="no folder"):
        base_of(endpoint(address))
    assert FolderSender(Settings()).send(delivery(1), endpoint(address)).permanent


def test_a_setting_puts_each_message_into_a_batch_or_file_with_right_counts(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    payload = adt("A01", "C1").encode("gb18030")
    sender = FolderSender(Settings())
    for number, how in ((1, "batch"), (2, "file")):
        assert sender.send(delivery(number, payload), endpoint(f"file://{tmp_path}", **{"batch-out": how})).error == ""
    for name, segments in (
        ("000000000001.hl7", [b"BHS", b"MSH", b"BTS"]),
        ("000000000002.hl7", [b"FHS", b"BHS", b"MSH", b"BTS", b"FTS"]),
    ):
        dropped = (tmp_path / "out" / name).read_bytes()
        found = [line[:3] for line in dropped.split(b"\r") if line[:3] in {b"FHS", b"BHS", b"MSH", b"BTS", b"FTS"}]
        assert found == segments
        (part,) = batch.split(dropped).batches
        assert part.messages == [payload]
        msh, header = payload.split(b"\r")[0].split(b"|"), part.header.split(b"|")
        assert (header[1:7], header[10]) == (msh[1:7], msh[9])


def test_what_is_no_message_is_never_put_into_a_batch(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    result = FolderSender(Settings()).send(
        delivery(1, b"PID|1"), endpoint(f"file://{tmp_path}", **{"batch-out": "file"})
    )
    assert (result.permanent, list((tmp_path / "out").iterdir())) == (True, [])
