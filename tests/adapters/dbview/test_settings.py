"""A file of views is held against what a reader needs before anything is read."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from adapters.dbview.settings import View, load
from hub.errors import HubError

GOOD = """[[view]]
name = "kn-ris"
institution = "KN"
url = "sqlite:///ris.db"
query = "select * from v where n >= :after order by n;"
key = "n"
start = 0
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "views.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_view_has_its_defaults_and_no_file_has_none(tmp_path: Path) -> None:
    (view,) = load(write(tmp_path, GOOD))
    assert (view.name, view.overlap, view.limit) == ("kn-ris", 0, 200)
    assert load(None) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('key = "n"', ""),
        ('key = "n"', 'key = "n"\npassword = "secret-x"'),
        ('"kn-ris"', '"kn ris"'),
        ("select *", "delete"),
        ("order by n;", "order by n; drop table v;"),
        (":after", "0"),
        ("start = 0", "start = true"),
        ("start = 0", "start = 1.5"),
        ("start = 0", 'start = "a"\noverlap = 5'),
        ("start = 0", "start = 0\npoll_s = 0"),
        ('"sqlite:///ris.db"', "5"),
        ("[[view]]", "[view]"),
        ("[[view]]", "x = 1\n[[view]]"),
        ("[[view]]", "[[view]]]"),
        (GOOD, GOOD + GOOD),
    ],
)
def test_what_cannot_be_used_is_refused_without_a_password(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(HubError) as raised:
        load(write(tmp_path, GOOD.replace(old, new)))
    assert "secret-x" not in str(raised.value)


def test_the_overlap_is_counted_in_the_keys_own_unit() -> None:
    def view(start: int | str | datetime, overlap: float) -> View:
        return View(name="v", institution="KN", url="", query="", key="k", start=start, overlap=overlap)

    assert view(0, 5).before(100) == 95
    assert view(datetime(2025, 1, 1), 60).before(datetime(2025, 1, 1, 0, 5)) == datetime(2025, 1, 1, 0, 4)
    assert view("", 0).before("a") == "a"
