"""A server that speaks SFTP badly, or against us, is an error at once: no name of its leads anywhere, no count costs anything."""

from __future__ import annotations

import errno
import stat
import struct

import pytest

from adapters.folder.sftp_protocol import MAX_PACKET, ProtocolError, RefusedError, Sftp

FILE, LINK, FOLDER = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755
NOTHING_MORE = (101, struct.pack(">I", 1) + struct.pack(">II", 0, 0))
DONE = (101, struct.pack(">I", 0) + struct.pack(">II", 0, 0))
HANDLE = (104 - 2, struct.pack(">I", 1) + b"h")


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def entry(name: bytes, mode: int = FILE, size: int = 3) -> bytes:
    return text(name) + text(b"-rw") + struct.pack(">IQIII", 0x1 | 0x4 | 0x8, size, mode, 7, 9)


def listed(*entries: bytes, count: int | None = None) -> tuple[int, bytes]:
    return 104, struct.pack(">I", len(entries) if count is None else count) + b"".join(entries)


def status(code: int) -> tuple[int, bytes]:
    return 101, struct.pack(">I", code) + text(b"Zhang Wei") + text(b"")


class Server:
    """Answers the requests of one session in turn, each with its number, and keeps what was asked."""

    def __init__(self, *answers: tuple[int, bytes], offers: bytes = b"") -> None:
        self._answers = list(answers)
        self._out = struct.pack(">IBI", 5 + len(offers), 2, 3) + offers
        self.asked: list[tuple[int, bytes]] = []

    def sendall(self, data: bytes) -> None:
        kind, body = data[4], data[5:]
        if kind == 1:
            return
        self.asked.append((kind, body[4:]))
        if self._answers:
            answer, rest = self._answers.pop(0)
            self._out += struct.pack(">IB", 5 + len(rest), answer) + body[:4] + rest

    def recv(self, most: int) -> bytes:
        # A byte less than asked for, as a line may give.
        piece, self._out = self._out[: max(1, most - 1)], self._out[max(1, most - 1) :]
        return piece


def test_only_single_names_come_out_of_a_listing() -> None:
    wild = [b".", b"..", b"", b"../../etc/passwd", b"a/b", b"/etc/passwd", b"a\0b"]
    sftp = Sftp(Server(HANDLE, listed(*map(entry, [*wild, b"\xd6\xa3.hl7"])), NOTHING_MORE, DONE))
    assert [name for name, _ in sftp.listing(b"/in", 100)] == [b"\xd6\xa3.hl7"]


def test_kinds_of_files_are_told_apart_and_what_is_unsaid_stays_so() -> None:
    bare = text(b"d") + text(b"") + struct.pack(">I", 0)
    server = Server(HANDLE, listed(entry(b"a"), entry(b"b", LINK), entry(b"c", FOLDER), bare), NOTHING_MORE, DONE)
    found = dict(Sftp(server).listing(b"/in", 100))
    assert [found[name].is_regular for name in (b"a", b"b", b"c", b"d")] == [True, False, False, False]
    assert [found[name].is_folder for name in (b"a", b"b", b"c", b"d")] == [False, False, True, False]
    assert (found[b"a"].size, found[b"a"].changed, found[b"d"].size, found[b"d"].mode) == (3, 9, None, None)


def test_a_listing_without_end_is_left_in_the_middle() -> None:
    page = listed(*(entry(b"%d" % number) for number in range(100)))
    server = Server(HANDLE, *[page] * 50)
    server._answers[6:] = [DONE]
    assert len(Sftp(server).listing(b"/in", 450)) == 450


@pytest.mark.parametrize(
    "answer",
    [
        listed(entry(b"a"), count=0xFFFFFFFF),
        listed(text(b"a") + text(b"") + struct.pack(">II", 0x80000000, 0xFFFFFFFF)),
        (104, struct.pack(">II", 1, 0xFFFFFFF0) + b"a"),
        (104, b""),
        HANDLE,
        DONE,
    ],
)  # fmt: skip
def test_a_listing_that_says_more_than_it_brings_is_an_error(answer: tuple[int, bytes]) -> None:
    with pytest.raises(ProtocolError):
        Sftp(Server(HANDLE, answer)).listing(b"/in", 100)


def test_a_packet_larger_than_any_is_not_read() -> None:
    server = Server(HANDLE)
    sftp = Sftp(server)
    server._answers = []
    server._out = struct.pack(">IB", MAX_PACKET + 1, 102) + b"x" * 100
    with pytest.raises(ProtocolError, match="length"):
        sftp.about(b"/in")


def test_an_answer_to_another_request_is_an_error() -> None:
    server = Server()
    sftp = Sftp(server)
    server._out = struct.pack(">IBI", 13, 101, 77) + struct.pack(">II", 0, 0)
    with pytest.raises(ProtocolError, match="another request"):
        sftp.remove(b"/in/a")


def test_a_file_without_end_is_read_as_far_as_asked() -> None:
    piece = (103, text(b"x" * 10))
    attributes = (105, struct.pack(">IQI", 0x1 | 0x4, 10**12, FILE))
    server = Server(HANDLE, piece, piece, attributes, DONE)
    data, about = Sftp(server).read(b"/in/a", 20)
    assert (len(data), about.size) == (20, 10**12)


@pytest.mark.parametrize("piece", [b"", b"x" * 21])
def test_data_of_another_length_than_asked_for_is_an_error(piece: bytes) -> None:
    with pytest.raises(ProtocolError, match="length"):
        Sftp(Server(HANDLE, (103, text(piece)))).read(b"/in/a", 20)


@pytest.mark.parametrize(
    ("code", "number"), [(2, errno.ENOENT), (3, errno.EACCES), (4, errno.EIO), (8, errno.EOPNOTSUPP), (99, errno.EIO)]
)
def test_a_refusal_is_told_by_kind_and_never_in_the_servers_words(code: int, number: int) -> None:
    with pytest.raises(RefusedError) as refused:
        Sftp(Server(status(code))).remove(b"/in/a")
    assert refused.value.errno == number
    assert "Zhang" not in str(refused.value)


def test_a_server_that_renames_over_files_is_asked_for_it_and_synced() -> None:
    offers = text(b"posix-rename@openssh.com") + text(b"1") + text(b"fsync@openssh.com") + text(b"1")
    server = Server(HANDLE, DONE, DONE, DONE, DONE, offers=offers)
    sftp = Sftp(server)
    sftp.write(b"/out/.a.tmp", b"MSH")
    sftp.rename(b"/out/.a.tmp", b"/out/a")
    assert [kind for kind, _ in server.asked] == [3, 6, 200, 4, 200]
    assert b"fsync@openssh.com" in server.asked[2][1]
    assert server.asked[4][1] == text(b"posix-rename@openssh.com") + text(b"/out/.a.tmp") + text(b"/out/a")


def test_a_server_that_renames_over_nothing_gets_the_older_try_out_of_the_way() -> None:
    there = (105, struct.pack(">I", 0))
    server = Server(status(4), there, there, DONE, DONE)
    Sftp(server).rename(b"/a", b"/b")
    assert [(kind, body) for kind, body in server.asked if kind in {13, 18}] == [
        (18, text(b"/a") + text(b"/b")),
        (13, text(b"/b")),
        (18, text(b"/a") + text(b"/b")),
    ]
    for gone in ((status(2),), (there, status(2))):
        server = Server(status(4), *gone)
        with pytest.raises(RefusedError):
            Sftp(server).rename(b"/a", b"/b")
        assert 13 not in {kind for kind, _ in server.asked}


def test_a_folder_that_is_there_is_as_good_as_made_and_a_file_of_its_name_is_not() -> None:
    Sftp(Server(status(4), (105, struct.pack(">II", 0x4, FOLDER)))).make_folder(b"/done")
    with pytest.raises(RefusedError):
        Sftp(Server(status(4), (105, struct.pack(">II", 0x4, FILE)))).make_folder(b"/done")


@pytest.mark.parametrize("offers", [text(b"x"), b"\xff\xff\xff\xff"])
def test_a_greeting_that_ends_too_soon_is_an_error(offers: bytes) -> None:
    with pytest.raises(ProtocolError):
        Sftp(Server(offers=offers))
