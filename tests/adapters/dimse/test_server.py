"""The door over real sockets with DCMTK as the peer: what is taken, kept and answered."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import structlog
from pydicom.uid import UID
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.sop_class import _STORAGE_CLASSES

from adapters.dimse.negotiation import Context
from adapters.dimse.store import file_meta
from adapters.dimse.upper_layer import ASSOCIATE_RJ
from fhir_mappings.dicom.instance import InstanceHeader
from fhir_mappings.dicom.scanner import DEFLATED as DEFLATED_SYNTAXES
from hub.clock import utc_now
from hub.config import Settings
from hub.directory import Directory
from hub.errors import Category, HubError
from hub.ports import Database, Member, MemberEndpoint, Spool
from storage.objects.file import FileStore
from storage.objects.memory import MemoryStore
from tests.support.dicom import (
    BIG_ENDIAN,
    CT_IMAGE_STORAGE,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_LOSSLESS,
    Tags,
    ct_tags,
    encode,
    fragments,
    make_ct,
    make_series,
)
from tests.support.dimse import Door, FakeServices, Peer, running
from tests.support.dimse_peer import answer, associated, c_echo, c_store, data_pdus, store_command

NO_DELAY = {**os.environ, "TCP_NODELAY": "1"}
Tool = Callable[..., list[str]]


def run(command: list[str], *, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=60, env=env or NO_DELAY, check=False
    )


@pytest.mark.tool("echoscu")
def test_c_echo_is_answered(door: Door, dcmtk: Tool) -> None:
    done = run(dcmtk("echoscu", "-aet", "KN_PACS", "-aec", "YIXIE", "127.0.0.1", door.port))
    assert done.returncode == 0, done.stderr


@pytest.mark.tool("dcmsend")
@pytest.mark.parametrize("no_delay", [True, False])
def test_a_series_arrives_as_the_peer_encoded_it(door: Door, dcmtk: Tool, tmp_path: Path, no_delay: bool) -> None:
    make_series(tmp_path, 5, size=64)
    env = NO_DELAY if no_delay else {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"}
    done = run(dcmtk("dcmsend", "-aet", "KN_PACS", "-aec", "YIXIE", "127.0.0.1", door.port, "+sd", tmp_path), env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {header.InstanceNumber for _, _, header in door.imaging.received} == set("12345")
    for envelope, digest, header in door.imaging.received:
        number = int(header.InstanceNumber)
        expected = file_meta(CT_IMAGE_STORAGE, header.SOPInstanceUID, EXPLICIT) + encode(
            ct_tags(instance=number, size=64)
        )
        assert door.services.objects.read(digest) == expected
        assert (envelope.actor.institution, envelope.actor.client, envelope.door) == ("KN", "KN_PACS", "dimse")
    door.wait(lambda: bool(door.imaging.ended))
    envelope, studies = door.imaging.ended[0]
    assert studies == {door.imaging.received[0][2].StudyInstanceUID}
    assert {one.correlation_id for one, _, _ in door.imaging.received} == {envelope.correlation_id}


@pytest.mark.tool("storescu", "dcmconv", "dcmdump")
@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, BIG_ENDIAN, DEFLATED, JPEG_LOSSLESS])
def test_storescu_sends_other_transfer_syntaxes(door: Door, dcmtk: Tool, tmp_path: Path, transfer_syntax: str) -> None:
    more = {0x7FE00010: ("OB", fragments(b"synthetic"))} if transfer_syntax == JPEG_LOSSLESS else {}
    make_ct(tmp_path / "one.dcm", transfer_syntax=transfer_syntax, more=more)
    option = {IMPLICIT: "-xi", BIG_ENDIAN: "-xb", DEFLATED: "-xd", JPEG_LOSSLESS: "-xs"}[transfer_syntax]
    done = run(
        dcmtk("storescu", option, "-aet", "KN_PACS", "-aec", "YIXIE", "127.0.0.1", door.port, tmp_path / "one.dcm")
    )
    assert done.returncode == 0, done.stderr
    ((_, digest, header),) = door.imaging.received
    assert header.PatientName == "郑伟"
    kept = tmp_path / "kept.dcm"
    kept.write_bytes(door.services.objects.read(digest))
    assert run(dcmtk("dcmdump", "-q", kept)).returncode == 0


def test_every_storage_class_and_transfer_syntax_is_negotiated(door: Door) -> None:
    classes = sorted(_STORAGE_CLASSES.values())
    contexts = [Context(uid, syntax) for uid in classes[:2] for syntax in ALL_TRANSFER_SYNTAXES]
    contexts += [Context(uid, EXPLICIT) for uid in classes]
    # Unknown: of a vendor, and of a future edition of the standard.
    contexts += [Context("1.3.6.1.4.1.99999.1.2", EXPLICIT), Context("1.2.840.10008.5.1.4.1.1.9999", EXPLICIT)]
    for start in range(0, len(contexts), 128):
        some = contexts[start : start + 128]
        with associated(door.port, *some) as peer:
            assert peer.accepted == {number * 2 + 1 for number in range(len(some))}


def an_object_in(transfer_syntax: str, sop_class: str, instance: int) -> tuple[Tags, bytes]:
    """Return tags and data set of an object as its transfer syntax asks for it (PS3.5 annex A)."""
    tags = ct_tags(sop_class=sop_class, instance=instance)
    if "JPIP" in UID(transfer_syntax).name:
        del tags[0x7FE00010]
        tags[0x00287FE0] = ("UR", "https://images.example/1")
    elif UID(transfer_syntax).is_encapsulated:
        tags[0x7FE00010] = ("OB", fragments(b"synthetic"))
    encoding = DEFLATED if transfer_syntax in DEFLATED_SYNTAXES else transfer_syntax
    return tags, encode(tags, encoding)


def test_every_storage_class_and_transfer_syntax_is_stored_as_it_came(door: Door) -> None:
    private, future = "1.3.6.1.4.1.99999.1.2", "1.2.840.10008.5.1.4.1.1.9999"
    wanted = [Context(uid, EXPLICIT) for uid in sorted(_STORAGE_CLASSES.values())]
    wanted += [Context(uid, ts) for uid in (CT_IMAGE_STORAGE, private, future) for ts in ALL_TRANSFER_SYNTAXES]
    sent: dict[str, tuple[Context, bytes]] = {}
    for start in range(0, len(wanted), 128):
        some = wanted[start : start + 128]
        with associated(door.port, *some) as peer:
            for number, context in enumerate(some):
                tags, data = an_object_in(context.transfer_syntax, context.abstract_syntax, start + number + 1)
                uid = str(tags[0x00080018][1])
                sent[uid] = context, data
                context_id = number * 2 + 1
                command = store_command(sop_class=context.abstract_syntax, sop_instance=uid, context_id=context_id)
                peer.send(command + b"".join(data_pdus(data, context_id=context_id)))
                assert answer(peer) == (0x0000, ""), context
    assert len(door.imaging.received) == len(sent) == len(wanted)
    for _, digest, header in door.imaging.received:
        context, data = sent[header.SOPInstanceUID]
        assert (header.SOPClassUID, header.TransferSyntaxUID) == (context.abstract_syntax, context.transfer_syntax)
        meta = file_meta(context.abstract_syntax, header.SOPInstanceUID, context.transfer_syntax)
        assert door.services.objects.read(digest) == meta + data


def test_services_the_door_does_not_have_are_refused_context_by_context(door: Door) -> None:
    # Basic Grayscale Print Management
    printing, unknown_syntax = "1.2.840.10008.5.1.1.9", "1.2.826.0.1.3680043.10.1999.99"
    with associated(
        door.port,
        Context(printing, IMPLICIT),
        Context(CT_IMAGE_STORAGE, unknown_syntax),
        Context(CT_IMAGE_STORAGE, IMPLICIT),
    ) as peer:
        assert peer.accepted == {5}


def test_an_unknown_storage_class_is_kept(door: Door) -> None:
    private = "1.3.6.1.4.1.99999.1.2"
    tags = ct_tags(sop_class=private)
    with associated(door.port, Context(private, EXPLICIT)) as peer:
        assert c_store(peer, tags, sop_class=private) == (0x0000, "")
    assert door.imaging.received[0][2].SOPClassUID == private


def test_the_character_set_agreed_with_the_sender_wins(settings: Callable[..., Settings]) -> None:
    services = FakeServices(settings())
    agreed = replace(services.directory.endpoints["KN_PACS"], settings={"charset-in": "BIG5"})
    services.directory.endpoints["KN_PACS"] = agreed
    # The bytes are GB18030 by all evidence, and only the agreement says that they are Big5.
    tags = ct_tags(patient_name="陳東".encode("big5"), more={0x00080080: ("LO", ""), 0x00081030: ("LO", "")})
    del tags[0x00400275]
    with running(services) as door, associated(door.port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
        assert c_store(peer, tags)[0] == 0
    header = door.imaging.received[0][2]
    assert header.PatientName == "陳東"
    assert header.charset_evidence.startswith("override")


def test_an_ae_title_counts_only_from_its_networks(
    settings: Callable[..., Settings], sqlite_database: Database
) -> None:
    member = Member(code="KN", organization_id="org-kn", name="康宁（测试）")
    here = MemberEndpoint(id="KN/here", member="KN", kind="dicom", ae_title="KN_PACS", cidr=("127.0.0.0/8",))
    away = MemberEndpoint(id="KN/away", member="KN", kind="dicom", ae_title="KN_CT2", cidr=("192.0.2.0/24",))
    sqlite_database.write(lambda tx: tx.members.replace([member], [here, away], ()))
    services = FakeServices(settings())
    services.__dict__["directory"] = Directory(sqlite_database, utc_now)
    with running(services) as door, structlog.testing.capture_logs() as logs:
        with associated(door.port):
            pass
        with Peer(door.port) as peer:
            kind, body = peer.associate(calling_ae="KN_CT2")
            assert (kind, body[1:4]) == (ASSOCIATE_RJ, bytes([1, 1, 3]))
    (refused,) = [line for line in logs if line["event"] == "association_refused"]
    assert (refused["calling_ae"], refused["reject"]) == ("KN_CT2", "1-1-3")


def test_the_same_object_sent_again_has_the_same_digest(door: Door) -> None:
    for _ in range(2):
        with associated(door.port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
            assert c_store(peer, ct_tags())[0] == 0x0000
    assert len({digest for _, digest, _ in door.imaging.received}) == 1


def test_echo_and_store_share_an_association(door: Door) -> None:
    with associated(door.port, Context("1.2.840.10008.1.1", IMPLICIT), Context(CT_IMAGE_STORAGE, IMPLICIT)) as peer:
        assert c_echo(peer) == 0
        assert c_store(peer, ct_tags(), context_id=3, transfer_syntax=IMPLICIT)[0] == 0
        assert c_echo(peer) == 0


@pytest.mark.parametrize(
    ("tags", "named", "expected"),
    [
        ({}, "1.2.3.4", 0xA900),
        ({0x00080016: ("UI", "1.2.840.10008.5.1.4.1.1.4")}, None, 0xA900),
        ({0x0020000D: ("UI", "")}, None, 0xC000),
        ({0x7FE00010: ("OW", b"\0" * 100)}, None, 0xC000),
        ({}, "../../etc/passwd", 0xC000),
    ],
)
def test_objects_that_contradict_are_refused_and_the_association_goes_on(
    door: Door, tags: dict[int, tuple[str, str | bytes]], named: str | None, expected: int
) -> None:
    with associated(door.port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
        status, comment = c_store(peer, ct_tags(more=tags), sop_instance=named)
        assert status == expected
        assert comment
        assert len(comment) <= 64
        assert c_store(peer, ct_tags(instance=2))[0] == 0
    assert [header.InstanceNumber for _, _, header in door.imaging.received] == ["2"]


def test_a_sop_class_other_than_the_contexts_is_refused(door: Door) -> None:
    with associated(door.port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
        assert c_store(peer, ct_tags(), sop_class="1.2.840.10008.5.1.4.1.1.4")[0] == 0x0122


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        (Category.UNAVAILABLE, 0xA700),
        (Category.BUSY, 0xA700),
        (Category.FORBIDDEN, 0x0124),
        (Category.INCORRECT, 0xC000),
        (Category.FAULT, 0x0110),
    ],
)
def test_trouble_of_the_core_is_never_success(door: Door, category: Category, expected: int) -> None:
    def trouble(header: InstanceHeader) -> None:
        raise HubError(category, "The store is out of order.", where="objects")

    door.imaging.trouble = trouble
    with associated(door.port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
        assert c_store(peer, ct_tags()) == (expected, "The store is out of order. objects")
        door.imaging.trouble = None
        assert c_store(peer, ct_tags())[0] == 0
    assert len(door.imaging.received) == 1


def test_an_unforeseen_fault_is_answered_without_its_text(door: Door) -> None:
    def trouble(header: InstanceHeader) -> None:
        raise ValueError(f"patient {header.PatientID}")

    door.imaging.trouble = trouble
    with associated(door.port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
        status, comment = c_store(peer, ct_tags())
    assert status == 0x0110
    assert "10086" not in comment


def test_a_failed_disk_ends_the_door(settings: Callable[..., Settings]) -> None:
    def trouble(header: InstanceHeader) -> None:
        raise HubError(Category.FAULT, "The disk failed.", fatal=True)

    with running(FakeServices(settings())) as door:
        door.imaging.trouble = trouble
        with associated(door.port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
            assert c_store(peer, ct_tags())[0] == 0xA700
            assert peer.read()[0] == 7
        door.thread.join(10)
        assert isinstance(door.fatal[0], HubError)


class FullStore(MemoryStore):
    """A volume without room: at the first byte, or after some."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def spool(self, *, max_bytes: int) -> Spool:
        if not self.after:
            raise HubError(Category.UNAVAILABLE, "The volume is full.")
        spool = super().spool(max_bytes=max_bytes)
        write, left = spool.write, self.after

        class Filling:
            size = property(lambda self: spool.size)
            digest = property(lambda self: spool.digest)
            open = staticmethod(spool.open)

            def __enter__(self) -> Self:
                spool.__enter__()
                return self

            def __exit__(self, *exc: object) -> None:
                spool.__exit__(*exc)

            def write(self, data: bytes | bytearray | memoryview) -> int:
                if spool.size + len(data) > left:
                    raise HubError(Category.UNAVAILABLE, "The volume is full.")
                return write(data)

        return Filling()


@pytest.mark.parametrize("after", [0, 100, 5_000, 40_000])
def test_a_full_volume_is_out_of_resources_and_the_association_goes_on(
    settings: Callable[..., Settings], after: int
) -> None:
    with (
        running(FakeServices(settings(), objects=FullStore(after))) as door,
        associated(door.port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer,
    ):
        assert c_store(peer, ct_tags(size=200)) == (0xA700, "The volume is full.")
        assert c_store(peer, ct_tags(size=200)) == (0xA700, "The volume is full.")
    assert door.imaging.received == []


def test_an_object_beyond_the_cap_is_aborted_and_leaves_nothing(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    store = FileStore(tmp_path / "objects")
    with running(FakeServices(settings(max_object_bytes=20_000), objects=store)) as door:
        with associated(door.port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
            assert c_store(peer, ct_tags(size=200))[0] == -1
        door.quiet()
    assert list(store.digests()) == []
    assert [path for path in (tmp_path / "objects" / "tmp").rglob("*") if path.is_file() and path.stat().st_size] == []


def test_four_associations_at_once_keep_their_objects_apart(door: Door, tmp_path: Path, dcmtk: Tool) -> None:
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        make_series(folder, 6, study=number + 1, size=64)
    commands = [
        dcmtk("dcmsend", "-aet", "KN_PACS", "-aec", "YIXIE", "127.0.0.1", door.port, "+sd", tmp_path / str(number))
        for number in range(4)
    ]
    running_now = [subprocess.Popen(command, env=NO_DELAY) for command in commands]
    assert [process.wait(60) for process in running_now] == [0, 0, 0, 0]
    door.wait(lambda: len(door.imaging.ended) == 4)
    assert all(len(studies) == 1 for _, studies in door.imaging.ended)
    assert len({header.SOPInstanceUID for _, _, header in door.imaging.received}) == 24


def test_two_processes_share_one_port_and_one_goes_on_without_the_other(settings: Callable[..., Settings]) -> None:
    """Each process has a server of its own on the listener that all inherit; here each has a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as doors:
        pair = [doors.enter_context(running(FakeServices(settings()), listener=listener)) for _ in range(2)]
        numbers = iter(range(1, 1000))
        with contextlib.ExitStack() as peers:
            # Whoever has less to do is faster; who gets a peer is chance, but one process does not get them all.
            while not all(door.imaging.received for door in pair):
                assert (number := next(numbers)) <= 16
                peer = peers.enter_context(associated(pair[0].port, Context(CT_IMAGE_STORAGE, EXPLICIT)))
                assert c_store(peer, ct_tags(instance=number))[0] == 0
        before = len(pair[1].imaging.received)
        pair[0].close()
        for number in itertools.islice(numbers, 3):
            with associated(pair[1].port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
                assert c_store(peer, ct_tags(instance=number))[0] == 0
        assert len(pair[1].imaging.received) == before + 3


def test_deflated_is_chosen_only_when_nothing_else_is_offered(door: Door) -> None:
    from adapters.dimse import negotiation
    from adapters.dimse.catalogue import RIGHTS

    assert negotiation._judge(CT_IMAGE_STORAGE, [DEFLATED, EXPLICIT], None, RIGHTS) == (EXPLICIT, 0)
    assert negotiation._judge(CT_IMAGE_STORAGE, [DEFLATED], None, RIGHTS) == (DEFLATED, 0)


def test_an_ae_is_scp_of_storage_only_where_it_may_get() -> None:
    from adapters.dimse import negotiation
    from adapters.dimse.catalogue import RIGHTS

    assert negotiation._judge(CT_IMAGE_STORAGE, [EXPLICIT], (False, True), RIGHTS) == (EXPLICIT, 0)
    without = RIGHTS - {"get"}
    assert negotiation._judge(CT_IMAGE_STORAGE, [EXPLICIT], (False, True), without)[1] == negotiation.USER_REJECTION


def test_an_association_that_has_ended_is_freed_without_the_collector(settings: Callable[..., Settings]) -> None:
    import gc
    import weakref

    from adapters.dimse import server as server_module
    from adapters.dimse.association import Association

    seen: list[weakref.ref[Association]] = []

    class Watched(Association):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            seen.append(weakref.ref(self))

    original = server_module.Association
    server_module.Association = Watched  # type: ignore[misc]
    gc.collect()
    gc.disable()
    try:
        with running(FakeServices(settings())) as door:
            with associated(door.port, Context(CT_IMAGE_STORAGE, EXPLICIT)) as peer:
                assert c_store(peer, ct_tags(size=300))[0] == 0
            door.quiet()
            door.wait(lambda: seen[0]() is None)
    finally:
        gc.enable()
        server_module.Association = original  # type: ignore[misc]
