"""FHIR searches whose statement is built once: plain tokens and references, one value each.

Such searches (a patient by number, results by patient) are most of the traffic, and building a statement costs more than
running it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from hub.access import Scope
from hub.search import ast
from storage.sql import merges
from storage.sql.access import visible
from storage.sql.filters import holds, kept, listed
from storage.sql.prepared import Prepared
from storage.sql.schema import record

#: Filter of a prepared search: parameter, kind of filter, and which parts of its one value are given.
Shape = tuple[str, str, bool, bool, tuple[str, ...]]


def shape_of(query: ast.Query, scope: Scope) -> tuple[Shape, ...] | None:
    """Return the shape of a search whose statement can be built once: plain tokens and references, one value each.

    One filter must be an identifier or a reference, which few records share.
    """
    special = scope.everything or scope.directory_only or scope.patient is not None
    if special or query.sort or query.cursor is not None or query.offset or query.total != "none" or not query.count:
        return None
    shapes: list[Shape] = []
    for one in query.filters:
        match one:
            case ast.Token(param=param, modifier="", values=(value,)):
                shapes.append((param, "token", value.code is not None, value.system is not None, ()))
            case ast.Reference(
                param=param, target_types=types, values=(ast.ReferenceValue(url=None, identifier=None) as value,)
            ):
                shapes.append((param, "reference", True, value.target_type is not None, types))
            case _:
                return None
    if query.summary == "count" or not any(map(_is_exact, shapes)):
        return None
    return tuple(shapes)


def _is_exact(shape: Shape) -> bool:
    param, kind, first, _, _ = shape
    return kind == "reference" or (param == "identifier" and first)


@lru_cache(maxsize=1024)
def prepared(resource_type: str, shapes: tuple[Shape, ...], limit: int) -> tuple[Prepared, tuple[str, ...]]:
    """Return the statement of all searches of one shape, and the names of those binds that may be a Patient's id.

    Its values are bind parameters. Each row tells as ``merged`` whether such a Patient survived a merge: asked on the
    way, that costs a fraction of a statement of its own.
    """
    filters: list[ast.PlainFilter] = []
    patients: list[str] = []
    for number, (param, kind, first, second, types) in enumerate(shapes):
        # A bind parameter stands where the value would; the AST's types know only the value.
        one: Any = sa.bindparam(f"a{number}") if first else None
        two: Any = sa.bindparam(f"b{number}") if second else None
        if kind == "token":
            filters.append(ast.Token(param=param, values=(ast.TokenValue(code=one, system=two),)))
        else:
            value = ast.ReferenceValue(target_id=one, target_type=two)
            reference = ast.Reference(param=param, target_types=types, values=(value,))
            filters.append(reference)
            if merges.may_name_patients(resource_type, reference):
                patients.append(f"a{number}")

    def seen(table: Any) -> sa.ColumnElement[bool]:
        return visible(table, Scope(institution=""), sa.bindparam("now"), institution=sa.bindparam("institution"))

    exact = next(number for number, shape in enumerate(shapes) if _is_exact(shape))
    listing = listed(resource_type, filters[exact])
    assert listing is not None
    # What is listed is of the type; saying so again would invite SQLite to walk the type and not the list.
    merged = [merges.flag(sa.bindparam(name) for name in patients).label("merged")] if patients else []
    statement = (
        sa.select(record, record.c.rid.label("k0"), *merged)
        .where(record.c.rid.in_(listing), record.c.deleted == sa.false(), seen(record))
        .where(*(holds(record, resource_type, one, seen) for n, one in enumerate(filters) if n != exact))
        .order_by(record.c.rid.desc())
        .limit(limit)
    )
    return Prepared(statement), tuple(patients)


def binds(query: ast.Query, scope: Scope, now_us: int) -> dict[str, Any]:
    """Return the values of *query* for the statement of its shape."""
    values: dict[str, Any] = {"now": now_us, "institution": scope.institution}
    for number, one in enumerate(query.filters):
        match one:
            case ast.Token(values=(token,)):
                given = (token.code, token.system)
            case ast.Reference(values=(reference,)):
                given = (reference.target_id, reference.target_type)
        for name, value in zip("ab", given, strict=True):
            if value is not None:
                values[f"{name}{number}"] = kept(value)
    return values
