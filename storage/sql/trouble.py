"""The databases' trouble in the hub's words.

SQLite result codes: https://www.sqlite.org/rescode.html. PostgreSQL SQLSTATE:
https://www.postgresql.org/docs/current/errcodes-appendix.html. The text of a driver's message is never passed on: it
may quote the row.
"""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from hub.errors import Category, HubError

_SQLITE_BUSY, _SQLITE_LOCKED, _SQLITE_IOERR, _SQLITE_CORRUPT = 5, 6, 10, 11
_SQLITE_FULL, _SQLITE_TOOBIG, _SQLITE_NOTADB = 13, 18, 26
#: Reasons of SQLITE_ERROR and SQLITE_MISUSE: the statement itself is wrong.
_SQLITE_OURS = frozenset({1, 20, 21, 25})
#: I/O errors that say nothing about the disk: no memory, or no room for the shared memory of the WAL index.
_SQLITE_IOERR_PASSING = frozenset({3082, 4618, 4874, 5130, 5386})


def translated(error: BaseException) -> HubError:
    """Return *error* in the hub's words; ``fatal`` when the disk failed under a SQLite database."""
    if isinstance(error, HubError):
        return error
    found = _found(error)
    found.__cause__ = error
    return found


def repeatable(error: BaseException) -> bool:
    """Return whether the same function may succeed on what another node has committed meanwhile."""
    if isinstance(error, sa.exc.IntegrityError):
        return True
    return _sqlstate(error) in {"40001", "40P01"}


def locked(error: BaseException) -> bool:
    """Return whether *error* says that another process held a lock for as long as it may be waited for."""
    original = getattr(error, "orig", None)
    if isinstance(original, sqlite3.Error):
        return getattr(original, "sqlite_errorcode", 1) & 0xFF in {_SQLITE_BUSY, _SQLITE_LOCKED}
    return _sqlstate(error) == "55P03"


def late() -> HubError:
    """Return what a write is answered whose turn did not come in time."""
    return HubError(
        Category.UNAVAILABLE,
        "The database is locked by another process.",
        remedy="Send again in a moment; if it lasts, end the program that holds the database.",
    )


def connection_lost(error: BaseException) -> bool:
    """Return whether the connection went with *error*."""
    return isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated


def _sqlstate(error: BaseException) -> str:
    return str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")


def _found(error: BaseException) -> HubError:
    if isinstance(error, sa.exc.IntegrityError):
        return HubError(
            Category.CONFLICT, "Two writes met on the same key.", remedy="Read the present state and send again."
        )
    if isinstance(error, sa.exc.DataError):
        return _unfit()
    if isinstance(error, sa.exc.TimeoutError):
        return HubError(Category.BUSY, "Too many questions at once.", remedy="Send again in a moment.")
    original = getattr(error, "orig", None)
    if isinstance(original, sqlite3.Error):
        return _sqlite(original)
    if isinstance(error, sa.exc.DBAPIError):
        return _postgres(error)
    return HubError(Category.FAULT, f"Unexpected {type(error).__name__} in the database.")


def _sqlite(original: sqlite3.Error) -> HubError:
    extended = getattr(original, "sqlite_errorcode", 1)
    code = extended & 0xFF
    if code in {_SQLITE_BUSY, _SQLITE_LOCKED}:
        return late()
    if code == _SQLITE_FULL:
        return _full()
    if code in {_SQLITE_CORRUPT, _SQLITE_NOTADB} or (code == _SQLITE_IOERR and extended not in _SQLITE_IOERR_PASSING):
        return HubError(
            Category.FAULT,
            "The disk failed under the database.",
            remedy="Check the disk, then run `hub fsck`.",
            fatal=True,
        )
    if code == _SQLITE_TOOBIG:
        return _unfit()
    if code in _SQLITE_OURS:
        return HubError(Category.FAULT, f"The database refused a statement (code {extended}).")
    return _silent()


def _postgres(error: sa.exc.DBAPIError) -> HubError:
    state = _sqlstate(error)
    if state in {"40001", "40P01"}:
        return HubError(Category.BUSY, "Two transactions met; one must repeat.", remedy="Send again.")
    if state == "55P03":
        return late()
    if state == "57014":
        return HubError(Category.BUSY, "The answer took too long to find.", remedy="Ask for less, or more exactly.")
    if state == "53100":
        return _full()
    if state == "54000":
        return _unfit()
    if state[:2] in {"42", "25", "26", "34", "0A"}:
        return HubError(Category.FAULT, f"The database refused a statement (SQLSTATE {state}).")
    return _silent()


def _full() -> HubError:
    return HubError(Category.UNAVAILABLE, "The disk is full.", remedy="Free space; the hub goes on by itself.")


def _silent() -> HubError:
    return HubError(Category.UNAVAILABLE, "The database does not answer.", remedy="Check that it runs; send again.")


def _unfit() -> HubError:
    return HubError(
        Category.INCORRECT,
        "A value cannot be stored: it holds U+0000 or is too long.",
        remedy="Leave the character out, or shorten the value.",
    )
