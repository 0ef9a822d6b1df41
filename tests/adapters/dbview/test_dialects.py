"""The statements of a reader in the words of databases whose servers do not run here: compiled, not run."""

from __future__ import annotations

from datetime import datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql, oracle
from sqlalchemy.engine import Dialect

from adapters.dbview.reader import _READ_ONLY
from adapters.dbview.settings import _READS

#: As the operators' page shows it: names in the fields' spelling, a page by key, a pattern with a percent sign and a time.
QUERY = (
    'select id, \'KNYY\' as "orgCode", pat_no as "patientId" from v_exam'
    " where id >= :after and state like '%完成' and at > '2025-01-01 08:30:00' order by id"
)
#: As their drivers want parameters (PEP 249), and percent signs beside them.
DIALECTS = {
    "pymssql": (mssql.pymssql.dialect(paramstyle="pyformat"), "%(after)s", "%"),
    "pyodbc": (mssql.pyodbc.dialect(paramstyle="qmark"), "?", "%"),
    "oracledb": (oracle.oracledb.dialect(), ":after", "%"),
    "pymysql": (mysql.pymysql.dialect(), "%s", "%%"),
}


@pytest.mark.parametrize(("dialect", "parameter", "percent"), DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("after", [0, "A1", datetime(2025, 1, 1, 8, 30)])
def test_the_key_is_a_parameter_and_the_rest_stays_as_the_operator_wrote_it(
    dialect: Dialect, parameter: str, percent: str, after: object
) -> None:
    assert _READS.fullmatch(QUERY)
    made = sa.text(QUERY).bindparams(after=after).compile(dialect=dialect)
    assert str(made) == QUERY.replace("%", percent).replace(":after", parameter)
    assert made.params == {"after": after}


def test_every_database_is_told_to_read_only_and_how_long_in_one_statement_each() -> None:
    assert _READ_ONLY.keys() == {"postgresql", "sqlite", "mysql", "mariadb", "mssql", "oracle"}
    for statements in _READ_ONLY.values():
        for one in statements:
            told = one.format(ms=1500, s=1.5, rows=7)
            assert told.startswith(("SET ", "PRAGMA "))
            assert not {";", "%", ":", "{"} & set(told)
