"""A batch gives up its messages byte for byte, and a broken or hostile one gives up none."""

from __future__ import annotations

import pytest

from fhir_mappings.errors import MalformedError
from fhir_mappings.hl7v2 import batch

ONE = b"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|2025||ADT^A01|1|P|2.4\rPID|1||10086\r"
TWO = "MSH|^~\\&|HIS|KNYY|YIXIE|HUB|2025||ADT^A01|2|P|2.4\rPID|1||10087||珅億\r".encode("gb18030")
BHS, FHS = b"BHS|^~\\&|HIS|KNYY|YIXIE|HUB|2025||||B1\r", b"FHS|^~\\&|HIS|KNYY|YIXIE|HUB|2025||||F1\r"


def cut(*parts: bytes) -> list[list[bytes]]:
    return [one.messages for one in batch.split(b"".join(parts)).batches]


@pytest.mark.parametrize("lead", [b"", b"\r\n", b"\xef\xbb\xbf"])
def test_a_batch_is_told_from_a_message_by_its_first_segment(lead: bytes) -> None:
    assert batch.is_batch(lead + BHS)
    assert batch.is_batch(lead + FHS)
    assert not batch.is_batch(lead + ONE + BHS)
    assert not batch.is_batch(b"")


def test_the_messages_come_out_byte_for_byte() -> None:
    assert cut(BHS, ONE, TWO, b"BTS|2\r") == [[ONE, TWO]]
    assert cut(FHS, BHS, ONE, b"BTS|1\r", BHS, TWO, b"BTS|1\r", b"FTS|2\r") == [[ONE], [TWO]]
    assert cut(FHS, ONE, TWO, b"FTS|1") == [[ONE, TWO]]
    assert cut(b"\r\n", BHS, b"BTS") == [[]]
    assert cut(BHS, ONE, b"BTS||no number\r") == [[ONE]]


def test_line_feeds_end_segments_too() -> None:
    given = [part.replace(b"\r", b"\n") for part in (BHS, ONE, TWO, b"BTS|2\r")]
    assert cut(*given) == [[given[1], given[2]]]
    given = [part.replace(b"\r", b"\r\n") for part in (BHS, ONE, TWO, b"BTS|2\r")]
    assert cut(*given) == [[given[1], given[2]]]


def test_headers_are_kept_and_found_again() -> None:
    made = batch.split(FHS + BHS + ONE + b"BTS|1\rFTS|1\r")
    assert (made.header, made.batches[0].header) == (FHS.rstrip(), BHS.rstrip())
    assert batch.first_header(b"\r" + BHS + ONE) == BHS.rstrip()


@pytest.mark.parametrize(
    ("parts", "where", "code"),
    [
        ((BHS, ONE, b"BTS|2\r"), "BTS-1", 102),
        ((BHS, ONE, b"BTS|x\r"), "BTS-1", 102),
        ((BHS, ONE, b"BTS|" + b"9" * 5000 + b"\r"), "BTS-1", 102),
        ((FHS, BHS, ONE, b"BTS|1\r", b"FTS|2\r"), "FTS-1", 102),
        ((BHS, ONE), "BTS", 100),
        ((FHS, BHS, ONE, b"BTS|1\r"), "FTS", 100),
        ((FHS, BHS, ONE, b"FTS|1\r"), "BTS", 100),
        ((BHS, BHS, ONE, b"BTS|1\r", b"BTS|1\r"), "BHS", 100),
        ((BHS, FHS, ONE, b"BTS|1\r"), "FHS", 100),
        ((FHS, FHS, ONE, b"FTS|1\r"), "FHS", 100),
        ((FHS, ONE, BHS, TWO, b"BTS|1\r", b"FTS|2\r"), "BHS", 100),
        ((FHS, ONE, b"FTS|1\r", TWO), "MSH", 100),
        ((FHS, ONE, b"BTS|1\r", b"FTS|1\r"), "BTS", 100),
        ((BHS, b"NTE|1||x\r", ONE, b"BTS|1\r"), "BHS", 100),
        ((BHS, ONE, b"BTS|1\r", b"PID|1\r"), "BTS", 100),
        ((BHS, ONE, b"BTS|1\r", b"FTS|1\r"), "FTS", 100),
    ],
)
def test_what_does_not_match_gives_up_nothing(parts: tuple[bytes, ...], where: str, code: int) -> None:
    with pytest.raises(MalformedError) as caught:
        cut(*parts)
    assert (caught.value.where, caught.value.code) == (where, code)


@pytest.mark.parametrize(
    "parts",
    [
        (BHS, ONE * 100_000, b"BTS|100000\r"),
        (FHS, (BHS + b"BTS|0\r") * 100_000, b"FTS|100000\r"),
        (FHS, BHS * 100_000),
        (BHS, b"MSH" + b"\rMSH" * 1_000_000),
    ],
)
def test_a_hostile_batch_is_refused_by_its_count_or_its_nesting(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(MalformedError):
        cut(*parts)


def test_as_many_messages_as_the_cap_allows_are_taken() -> None:
    most = batch.MAX_MESSAGES
    assert len(cut(BHS, ONE * most, b"BTS|%d\r" % most)[0]) == most
    with pytest.raises(MalformedError):
        cut(BHS, ONE * (most + 1), b"BTS|%d\r" % (most + 1))
