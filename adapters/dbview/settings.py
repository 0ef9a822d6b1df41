"""The views to read, from the TOML file that the setting ``views`` names; it holds passwords, so the operator guards it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hub.errors import Category, HubError

Key = int | str | datetime

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")
#: A guard against slips, not against the operator: the database's own rights are what keeps a reader from writing.
_READS = re.compile(r"(?is)\s*(select|with)\b[^;]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One view.

    Attributes:
        url: SQLAlchemy URL of the database.
        query: a SELECT with the parameter ``:after``, in ascending order of the key.
        key: column of the result that only grows: a number, a time, or a text that sorts.
        start: value of ``:after`` while nothing has been read; its type is the key's.
        overlap: how far behind the highest key each look begins again, in the key's unit or in seconds, because what was
            committed late may stand there. What was read before is known again.
        limit: rows taken in one look.
    """

    name: str
    institution: str
    url: str
    query: str
    key: str
    start: Key
    overlap: float = 0.0
    poll_s: float = 30.0
    timeout_s: float = 30.0
    limit: int = 200

    def before(self, mark: Key) -> Key:
        """Return where a look begins when *mark* is the highest key."""
        if isinstance(mark, datetime):
            return mark - timedelta(seconds=self.overlap)
        return mark if isinstance(mark, str) else mark - int(self.overlap)

    def key_of(self, value: Any) -> Key:
        """Return a key as it stands in a row.

        Raises:
            ValueError: it is of another type than ``start``.
        """
        if isinstance(self.start, datetime):
            found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
            if (found.tzinfo is None) != (self.start.tzinfo is None):
                raise ValueError("time zone")
            return found
        if isinstance(self.start, int):
            return int(value)
        if not isinstance(value, str):
            raise ValueError(type(value).__name__)  # noqa: TRY004 - one kind of trouble for whoever asks
        return value


def load(path: Path | None) -> list[View]:
    """Return the views of the file at *path*, none without one.

    Raises:
        HubError: incorrect, naming the view and what is wrong; never a password.
    """
    if path is None:
        return []
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _wrong(str(path), f"it cannot be read ({type(error).__name__})") from error
    rows = found.pop("view", [])
    if found or not isinstance(rows, list):
        raise _wrong(str(path), "it holds more than [[view]] tables")
    views = [_view(one, f"view {number}") for number, one in enumerate(rows, 1)]
    if len({one.name for one in views}) < len(views):
        raise _wrong(str(path), "two views have one name")
    return views


def _view(row: dict[str, Any], where: str) -> View:
    known = {one.name: one for one in fields(View)}
    where = f"{where} ({row['name']})" if isinstance(row.get("name"), str) and _NAME.fullmatch(row["name"]) else where
    unknown = sorted(set(row) - set(known))
    missing = sorted({"name", "institution", "url", "query", "key", "start"} - set(row))
    if unknown or missing:
        raise _wrong(where, f"unknown: {', '.join(unknown) or '-'}; missing: {', '.join(missing) or '-'}")
    if not all(isinstance(row[name], str) and row[name] for name in ("name", "institution", "url", "query", "key")):
        raise _wrong(where, "name, institution, url, query and key are texts")
    if _NAME.fullmatch(row["name"]) is None:
        raise _wrong(where, "name has letters, digits and ._- only")
    if _READS.fullmatch(row["query"].rstrip("; \r\n\t")) is None or ":after" not in row["query"]:
        raise _wrong(where, "query must be one SELECT with the parameter :after")
    start = row["start"]
    if isinstance(start, bool) or not isinstance(start, int | str | datetime):
        raise _wrong(where, "start is a whole number, a time or a text")
    for name, lowest in (("overlap", 0), ("poll_s", 1), ("timeout_s", 1), ("limit", 1)):
        value = row.get(name, lowest)
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= 1_000_000:
            raise _wrong(where, f"{name} is a number of at least {lowest}")
    if isinstance(start, str) and row.get("overlap"):
        raise _wrong(where, "a text key has no overlap")
    return View(**row)


def _wrong(where: str, why: str) -> HubError:
    return HubError(
        Category.INCORRECT,
        f"视图配置有误 / The file of views is wrong: {why}.",
        where=where,
        remedy="Mend it and start again; see docs/operations.md.",
    )
