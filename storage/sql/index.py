"""Index rows of resources, written in bulk: one statement per table whatever the number of resources."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_mappings.definitions.extract import extract, references
from fhir_mappings.definitions.index_rows import ReferenceRow
from storage.sql.prepared import execute_many
from storage.sql.schema import idx_date, idx_quantity, idx_reference, idx_string, idx_token, idx_uri

_TABLES = (idx_token, idx_string, idx_reference, idx_date, idx_quantity, idx_uri)

#: Longest text kept in an index row. PostgreSQL's index rows end near 2,700 bytes, and a row has up to four texts.
MAX_TEXT = 150
#: Longest URI kept in an index row.
MAX_URI = 500
#: ``param`` of the rows that lead from a dead Patient to its survivor: ``Patient.link`` of the type ``replaced-by`` alone.
#: The search parameter ``link`` does not tell the two ends of a merge apart.
MERGED_INTO = "Patient.link:replaced-by"
#: Parameters whose Han infixes are indexed; the infixes of longer texts (addresses, titles) are scanned for.
TAILED = frozenset({"name", "family", "given"})


def start(text: str) -> str:
    """Return what is kept of *text* for searches by its beginning."""
    return text[:MAX_TEXT]


def whole(text: str) -> str:
    """Return what is kept of *text* for searches by equality: a long one by its beginning and its hash."""
    if len(text) <= MAX_TEXT:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text[: MAX_TEXT - len(digest)] + digest


def starts_with_han(text: str) -> bool:
    """Return whether *text* is found inside a name by the tails that :func:`suffixes` keeps."""
    return "\u3400" <= text[:1] <= "\u9fff" or text[:1] >= "\U00020000"


def suffixes(text: str) -> list[str]:
    """Return the tails of *text* that start at a Han character, so that an infix search is a prefix search.

    >>> suffixes("欧阳明月")
    ['阳明月', '明月', '月']
    """
    return [text[at:] for at in range(1, len(text)) if starts_with_han(text[at])]


def remove(connection: Connection, rids: Sequence[int]) -> None:
    """Take the rows of *rids* out of every index table."""
    for table in _TABLES:
        for at in range(0, len(rids), 500):
            connection.execute(sa.delete(table).where(table.c.rid.in_(rids[at : at + 500])))


def replace(connection: Connection, resources: Sequence[tuple[int, dict[str, Any]]], *, stale: Sequence[int]) -> None:
    """Write the index rows of *resources* given as (rid, resource); rows of *stale* rids go first."""
    if stale:
        remove(connection, stale)
    rows: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {table.name: {} for table in _TABLES}

    def add(table: sa.Table, **values: Any) -> None:
        # Keyed by all columns, because a resource may say the same thing twice and the primary key is the whole row.
        rows[table.name][tuple(values.values())] = values

    for rid, resource in resources:
        kind = resource["resourceType"]
        found = extract(resource)
        for token in found.tokens:
            add(
                idx_token,
                param=f"{kind}.{token.param}",
                code=whole(token.code),
                system=whole(token.system),
                rid=rid,
                text=start(token.text),
            )
        for text in found.strings:
            name = f"{kind}.{text.param}"
            add(
                idx_string,
                param=name,
                value=start(text.value),
                kind=text.kind,
                rid=rid,
                exact=whole(text.exact),
            )
            if text.kind == "text" and text.param in TAILED:
                for tail in suffixes(start(text.value)):
                    add(idx_string, param=name, value=tail, kind="tail", rid=rid, exact="")
        survivors = _survivors(resource) if kind == "Patient" else ()
        for ref in (*found.references, *survivors):
            add(
                idx_reference,
                param=f"{kind}.{ref.param}",
                target_id=whole(ref.target_id),
                target_type=ref.target_type,
                rid=rid,
                url=whole(ref.url),
                identifier_value=whole(ref.identifier_value),
                identifier_system=whole(ref.identifier_system),
            )
        for date in found.dates:
            add(idx_date, param=f"{kind}.{date.param}", low=date.low_us, high=date.high_us, rid=rid)
        for number in found.numbers:
            add(
                idx_quantity,
                param=f"{kind}.{number.param}",
                low=number.low,
                high=number.high,
                rid=rid,
                system="",
                code="",
                unit="",
            )
        for quantity in found.quantities:
            add(
                idx_quantity,
                param=f"{kind}.{quantity.param}",
                low=quantity.low,
                high=quantity.high,
                rid=rid,
                system=whole(quantity.system),
                code=whole(quantity.code),
                unit=whole(quantity.unit),
            )
        for uri in found.uris:
            add(idx_uri, param=f"{kind}.{uri.param}", value=uri.value[:MAX_URI], rid=rid)
    for table in _TABLES:
        if rows[table.name]:
            _write(connection, table, rows[table.name])


def survivors(patient: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids of the records of this hub that *patient* says replace it."""
    return frozenset(row.target_id for row in _survivors(patient))


def _survivors(patient: Mapping[str, Any]) -> list[ReferenceRow]:
    """Return the rows of the links by which *patient* says that another record of this hub replaces it."""
    links = [one for one in patient.get("link", ()) if one.get("type") == "replaced-by"]
    if not links:
        return []
    rows = references({"resourceType": "Patient", "link": links}, "link")
    param = MERGED_INTO.partition(".")[2]
    return [row._replace(param=param) for row in rows if row.target_type == "Patient" and row.target_id]


def _write(connection: Connection, table: sa.Table, rows: dict[tuple[Any, ...], dict[str, Any]]) -> None:
    """Insert *rows*, whose keys are their values in the order of their names."""
    if connection.dialect.name != "sqlite":
        connection.execute(sa.insert(table), list(rows.values()))
        return
    # Given to the driver as they are, they cost a third of their way through the Core.
    names = next(iter(rows.values()))
    execute_many(connection, _insert_sqlite(table.name, tuple(names)), list(rows))


@cache
def _insert_sqlite(table: str, names: tuple[str, ...]) -> str:
    columns = ", ".join(f'"{name}"' for name in names)
    # Both are names of the schema's own.
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
