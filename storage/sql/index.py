"""Index rows of resources, written in bulk: one statement per table whatever the number of resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_mappings.definitions.extract import extract
from storage.sql.schema import idx_date, idx_quantity, idx_reference, idx_string, idx_token, idx_uri

_TABLES = (idx_token, idx_string, idx_reference, idx_date, idx_quantity, idx_uri)

#: Longest text kept in an index row; a longer one is found by its beginning. PostgreSQL's index rows end near 2,700 bytes.
MAX_TEXT = 200


def suffixes(text: str) -> list[str]:
    """Return the tails of *text* that start at a Han character, so that an infix search is a prefix search.

    >>> suffixes("欧阳明月")
    ['阳明月', '明月', '月']
    """
    return [
        text[start:]
        for start in range(1, min(len(text), 32))
        if "㐀" <= text[start] <= "鿿" or text[start] >= "\U00020000"
    ]


def remove(connection: Connection, rids: Sequence[int]) -> None:
    """Take the rows of *rids* out of every index table."""
    for table in _TABLES:
        for start in range(0, len(rids), 500):
            connection.execute(sa.delete(table).where(table.c.rid.in_(rids[start : start + 500])))


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
                code=token.code[:MAX_TEXT],
                system=token.system[:MAX_TEXT],
                rid=rid,
                text=token.text[:MAX_TEXT],
            )
        for text in found.strings:
            name = f"{kind}.{text.param}"
            add(
                idx_string,
                param=name,
                value=text.value[:MAX_TEXT],
                kind=text.kind,
                rid=rid,
                exact=text.exact[:MAX_TEXT],
            )
            if text.kind == "text":
                for tail in suffixes(text.value[:MAX_TEXT]):
                    add(idx_string, param=name, value=tail, kind="tail", rid=rid, exact="")
        for ref in found.references:
            add(
                idx_reference,
                param=f"{kind}.{ref.param}",
                target_id=ref.target_id[:MAX_TEXT],
                target_type=ref.target_type,
                rid=rid,
                url=ref.url[:MAX_TEXT],
                identifier_value=ref.identifier_value[:MAX_TEXT],
                identifier_system=ref.identifier_system[:MAX_TEXT],
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
                system=quantity.system[:MAX_TEXT],
                code=quantity.code[:MAX_TEXT],
                unit=quantity.unit[:MAX_TEXT],
            )
        for uri in found.uris:
            add(idx_uri, param=f"{kind}.{uri.param}", value=uri.value[:1000], rid=rid)
    for table in _TABLES:
        if rows[table.name]:
            connection.execute(sa.insert(table), list(rows[table.name].values()))
