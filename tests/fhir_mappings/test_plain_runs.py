"""Documents set aside while the character set is found: nothing is read otherwise than without that."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_mappings import plain_runs
from fhir_mappings.text import Decoded, decode

CODECS = ["gb18030", "utf-8", "big5hkscs", "euc_kr", "shift_jis", "cp1252"]
#: 陳 and 東 end in ``^`` and ``|`` in GBK, so a character stands at the very edge of a run.
TEXTS = ["陈建国|陳東", "右肺上叶见磨玻璃结节，边界清。", "陳", "東", "plain", "é", "한국", "漢字", ""]


def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_runs, "SMALLEST_MESSAGE_BYTES", 64)
    monkeypatch.setattr(plain_runs, "SMALLEST_RUN_BYTES", 16)


def _as_a_whole(raw: bytes, label: str, monkeypatch: pytest.MonkeyPatch) -> Decoded:
    with monkeypatch.context() as patch:
        patch.setattr(plain_runs, "SMALLEST_MESSAGE_BYTES", len(raw) + 1)
        return decode(raw, declared=label)


PIECES = st.one_of(
    st.sampled_from(TEXTS),
    st.integers(min_value=1, max_value=80).map(lambda size: "JVBERi0x" * (size // 8) + "A" * (size % 8)),
    st.sampled_from(["|", "^", "~", "\r", "|^|", "\\", "MSH|"]),
)


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(PIECES, min_size=3, max_size=24),
    codec=st.sampled_from(CODECS),
    label=st.sampled_from(["", *CODECS]),
)
def test_a_message_reads_the_same_with_and_without_its_runs_set_aside(
    pieces: list[str], codec: str, label: str
) -> None:
    raw = "".join(pieces).encode(codec, "ignore")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _small(monkeypatch)
        assert decode(raw, declared=label) == _as_a_whole(raw, label, monkeypatch)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(), label=st.sampled_from(["", "GBK", "UNICODE UTF-8", "UNICODE UTF-16"]))
def test_bytes_of_any_kind_read_the_same_too(seed: int, label: str) -> None:
    chance = random.Random(seed)
    raw = b"".join(
        chance.choice(
            [b"|", b"A" * 20, b"\x81", b"\xfe\x7c", chance.randbytes(3), b"\xe5\xbc\xa0", b"\x81\x30\x81\x30"]
        )
        for _ in range(40)
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        _small(monkeypatch)
        assert decode(raw, declared=label) == _as_a_whole(raw, label, monkeypatch)


def test_a_document_is_set_aside_and_comes_back_whole() -> None:
    document = b"JVBERi0xLjcK" * 100_000
    raw = "MSH|^~\\&|HIS|KNYY\rPID|||1||陳東\rOBX|1|ED|^^PDF^Base64^".encode("gbk") + document + b"||||||F\r"
    rest, runs = plain_runs.take_out(raw)
    assert len(rest) < 100
    assert len(runs) == 1
    found = decode(raw)
    assert found.codec == "gb18030"
    assert found.text.encode("gbk") == raw


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"MSH|" + b"A" * 2_000_000 + b"|\x1b$B", id="an escape of ISO 2022"),
        pytest.param(b"\xff\xfe" + b"|" + b"AB" * 1_000_000, id="marked as UTF-16"),
        pytest.param(b"MSH|\x1a0\x1a|" + b"A" * 2_000_000, id="the mark itself"),
        pytest.param(b"MSH|" + b"A" * 2_000_000 + b"\0", id="NUL"),
        pytest.param(b"A" * 2_000_000, id="no separator before it"),
        pytest.param(b"MSH|\x81" + b"A" * 2_000_000, id="a character in the middle"),
        pytest.param(b"MSH|" + b"A|" * 1_000_000, id="short fields only"),
    ],
)
def test_what_could_be_read_otherwise_is_left_alone(raw: bytes) -> None:
    assert plain_runs.take_out(raw) == (raw, [])
