"""MLLP frames: any cut of the same bytes gives the same events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.mllp.frames import (
    MAX_GARBAGE_BYTES,
    BrokenFrame,
    Deframer,
    Event,
    Fault,
    Frame,
    Garbage,
    encode_frame,
)
from hub.errors import HubError

PAYLOADS = st.binary(max_size=200).map(lambda b: b.replace(b"\x0b", b"").replace(b"\x1c", b""))


def drain(deframer: Deframer) -> list[Event]:
    events = []
    while (event := deframer.next_event()) is not None:
        events.append(event)
    return events


def feed(*parts: bytes, max_bytes: int = 1 << 20, eof: bool = False) -> list[Event]:
    deframer = Deframer(max_bytes=max_bytes)
    events = []
    for part in parts:
        deframer.receive_data(part)
        events += drain(deframer)
    if eof:
        deframer.receive_data(b"")
        events += drain(deframer)
    return events


def test_a_frame_cut_at_every_byte_is_the_same_message() -> None:
    stream = encode_frame("MSH|^~\\&|HIS|KNYY\rPID|1||10086||億珅\r".encode("gb18030"))
    whole = feed(stream)
    assert whole == [Frame(payload=stream[1:-2])]
    for cut in range(len(stream) + 1):
        assert feed(stream[:cut], stream[cut:]) == whole
    assert feed(*(stream[i : i + 1] for i in range(len(stream)))) == whole


@settings(max_examples=60, deadline=None)
@given(st.lists(PAYLOADS, max_size=6), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_any_cut_of_any_stream_of_frames_gives_the_messages_in_order(payloads: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(encode_frame(p) for p in payloads)
    parts, at, turn = [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        parts.append(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert feed(*parts, eof=True) == [Frame(payload=p) for p in payloads]


HOSTILE = st.lists(
    st.sampled_from(
        [b"\x0b", b"\x1c", b"\r", b"\x1c\r", b"a", b"\n", b"MSH|", b"x" * 60, b"\x0bok\x1c\r", b"\0", b" ", b"BHS|", b"\x16",
         b"\x03", b"GET / HTTP/1.1\r\n", b"PUT ", b" HTTP/1.1", b"y" * 5000]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(HOSTILE, st.integers(1, 40))
def test_events_do_not_depend_on_how_hostile_bytes_are_cut(data: bytes, size: int) -> None:
    assert feed(*(data[i : i + size] for i in range(0, len(data), size)), max_bytes=100, eof=True) == feed(
        data, max_bytes=100, eof=True
    )


def test_two_messages_in_one_segment_are_two_frames() -> None:
    assert feed(encode_frame(b"A") + encode_frame(b"B")) == [Frame(payload=b"A"), Frame(payload=b"B")]


def test_garbage_between_frames_is_signalled_and_skipped() -> None:
    events = feed(encode_frame(b"A") + b"noise" + encode_frame(b"B"))
    assert events == [Frame(payload=b"A"), Garbage(size=5), Frame(payload=b"B")]


def test_line_ends_between_frames_mean_nothing() -> None:
    assert feed(encode_frame(b"A") + b"\r\n" + encode_frame(b"B")) == [Frame(payload=b"A"), Frame(payload=b"B")]


def test_a_peer_that_never_starts_a_frame_is_cut_off_with_its_head_kept() -> None:
    deframer = Deframer(max_bytes=1 << 20)
    deframer.receive_data(b"MSH|^~\\&|HIS|KNYY\r" + b"x" * MAX_GARBAGE_BYTES)
    event = deframer.next_event()
    assert isinstance(event, BrokenFrame)
    assert event.fault is Fault.NO_START
    assert event.head.startswith(b"MSH|")


UNFRAMED = b"MSH|^~\\&|HIS|KNYY\rPID|1"


@pytest.mark.parametrize(
    "data",
    [
        UNFRAMED + b"\x1c\r",
        b"\r\n" + UNFRAMED + b"\x1c\r",
        b"noise\x1c\r" + UNFRAMED + b"\x1c",
        UNFRAMED + encode_frame(b"A"),
    ],
)
def test_a_message_that_nobody_framed_is_no_noise(data: bytes) -> None:
    """A sender that forgets the start block would else wait for an answer that never comes."""
    for events in (feed(data), feed(*(data[i : i + 1] for i in range(len(data))))):
        assert events == [BrokenFrame(fault=Fault.NO_START, head=UNFRAMED)]


def test_a_message_that_nobody_framed_is_refused_when_its_sender_ends() -> None:
    assert feed(UNFRAMED, eof=True) == [BrokenFrame(fault=Fault.NO_START, head=UNFRAMED)]


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nHost: his\r\n\r\n",
        b"\r\nGET /a HTTP/1.0\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_a_frame_inside_another_protocol_is_not_taken(data: bytes) -> None:
    """What a web page can have a browser send ends before the frame that it may hold."""
    stream = data + encode_frame(b"MSH|^~\\&|HIS|KNYY")
    for events in (feed(stream), feed(*(stream[i : i + 1] for i in range(len(stream))))):
        assert events == [BrokenFrame(fault=Fault.OTHER_PROTOCOL, head=b"")]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\x0bMSH|one\x0bMSH|two\x1c\r", Fault.SECOND_START),
        (b"\x0bMSH|one\x1cX", Fault.BAD_END),
        (b"\x0bMSH|one\x1c\x0b", Fault.BAD_END),
        (b"\x0bMSH|" + b"x" * 100, Fault.OVERSIZE),
        (b"\x0bMSH|" + b"x" * 100 + b"\x1c\r", Fault.OVERSIZE),
    ],
)
def test_a_broken_frame_is_named_with_its_head_and_ends_the_deframer(data: bytes, fault: Fault) -> None:
    deframer = Deframer(max_bytes=50)
    deframer.receive_data(data)
    event = deframer.next_event()
    assert isinstance(event, BrokenFrame)
    assert event.fault is fault
    assert event.head.startswith(b"MSH|")
    deframer.receive_data(encode_frame(b"later"))
    assert drain(deframer) == []


def test_a_connection_closed_inside_a_frame_leaves_no_message() -> None:
    events = feed(b"\x0bMSH|half", eof=True)
    assert [type(e) for e in events] == [BrokenFrame]
    assert events[0] == BrokenFrame(fault=Fault.CUT, head=b"MSH|half")


def test_a_frame_of_exactly_the_cap_is_taken() -> None:
    assert feed(b"\x0b" + b"x" * 50 + b"\x1c\r", max_bytes=50) == [Frame(payload=b"x" * 50)]


def test_an_empty_frame_is_a_message_without_bytes() -> None:
    assert feed(b"\x0b\x1c\r") == [Frame(payload=b"")]


def test_work_is_linear_in_bytes_however_small_the_pieces() -> None:
    class Counting(bytearray):
        scanned = 0

        def find(self, sub: int, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
            stop = len(self) if end is None else end
            found = super().find(sub, start, stop)
            Counting.scanned += (found if found >= 0 else stop) - start
            return found

    deframer = Deframer(max_bytes=1 << 20)
    deframer._buffer = Counting()
    deframer.receive_data(b"\x0b")
    size = 20_000
    for _ in range(size // 20):
        deframer.receive_data(b"x" * 20)
        assert deframer.next_event() is None
    assert Counting.scanned <= 4 * size


def test_progress_of_an_open_frame_can_be_watched() -> None:
    deframer = Deframer(max_bytes=100)
    assert not deframer.in_frame
    deframer.receive_data(b"\x0babc")
    assert deframer.next_event() is None
    assert (deframer.in_frame, deframer.frame_bytes) == (True, 3)


@pytest.mark.parametrize("payload", [b"a\x0bb", b"a\x1cb"])
def test_a_message_with_a_block_byte_cannot_be_framed(payload: bytes) -> None:
    with pytest.raises(HubError):
        encode_frame(payload)


def test_a_message_of_20_mb_passes_where_the_cap_is_raised_and_is_refused_where_it_is_not() -> None:
    payload = b"MSH|^~\\&|LIS|KNYY\rOBX|1|ED|PDF||^^^Base64^" + b"A" * 20_000_000 + b"\r"
    stream = encode_frame(payload)
    pieces = [stream[at : at + 65_536] for at in range(0, len(stream), 65_536)]
    [taken] = feed(*pieces, max_bytes=32 << 20)
    assert taken == Frame(payload=payload)
    [refused] = feed(*pieces, max_bytes=16 << 20)
    assert isinstance(refused, BrokenFrame)
    assert refused.fault is Fault.OVERSIZE
