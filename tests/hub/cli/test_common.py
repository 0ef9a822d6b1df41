"""What commands print cannot steer the terminal that shows it."""

from __future__ import annotations

import json

import pytest

from hub.cli.common import note, printable, say

HOSTILE = "A\x1b]0;owned\x07\x1b[2J\x9b31m\u202eB\r\x00C"


def test_controls_are_written_out_and_words_stay(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"郑伟\t{HOSTILE}\nnext")
    note(HOSTILE)

    told = capsys.readouterr()
    assert told.out.startswith("郑伟\tA\\u001b]0;owned\\u0007")
    assert told.out.endswith("\nnext\n")
    for text in (told.out, told.err):
        assert not any((ord(one) < 0x20 and one not in "\t\n") or 0x7F <= ord(one) < 0xA0 for one in text)
        assert "\u202e" not in text


def test_a_line_of_json_says_the_same() -> None:
    line = json.dumps({"name": HOSTILE, "text": "张三\u007f"}, ensure_ascii=False)

    assert json.loads(printable(line)) == json.loads(line)


def test_what_the_hub_draws_itself_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    say("\x1b[97;40m█\x1b[0m", drawn=True)

    assert capsys.readouterr().out == "\x1b[97;40m█\x1b[0m\n"
