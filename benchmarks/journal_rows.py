"""A journal of very many v2 messages, made by the database itself in a few statements.

For measuring searches: what stands in it is spread as in a hub that serves some members for years. Nothing of it was
received, so no record belongs to any of it but the id in ``patient_id``.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Engine

#: When the first message came, and how far apart they are.
START = datetime(2023, 1, 1, tzinfo=UTC)
STEP_US = 60_000_000
PATIENTS = 50_000
#: What message *n* holds in each column, as SQL that both databases read alike.
_COLUMNS = {
    "correlation_id": "'w' || n",
    "door": "CASE n % 10 WHEN 0 THEN 'hl7-http' ELSE 'mllp' END",
    "institution": "CASE n % 4 WHEN 0 THEN 'YL' WHEN 1 THEN 'QH' ELSE 'KN' END",
    "peer": "'10.0.0.1:4000'",
    "sending_application": "CASE n % 4 WHEN 3 THEN 'LIS' ELSE 'HIS' END",
    "sending_facility": "CASE n % 4 WHEN 0 THEN 'YLYY' WHEN 1 THEN 'QHYY' ELSE 'KNYY' END",
    "control_id": "'C' || n",
    "message_type": "CASE n % 3 WHEN 0 THEN 'ORU^R01' WHEN 1 THEN 'ADT^A08' ELSE 'ORM^O01' END",
    "version": "'2.4'",
    "charset": "'utf-8'",
    "digest": "'d' || n",
    "size": "600",
    "state": "CASE n % 5000 WHEN 0 THEN 'failed' ELSE 'done' END",
    "outcome": "CASE n % 5000 WHEN 0 THEN 'internal error' ELSE '' END",
    "flags": "CASE n % 2000 WHEN 0 THEN 'charset-doubtful' ELSE '' END",
    "patient_id": f"'p' || (n % {PATIENTS})",
    "placer": "'O' || n",
    "filler": "'F' || n",
    "accession": "'A' || n",
    "visit": f"'V' || (n % {PATIENTS * 4})",
}


def fill(engine: Engine, rows: int, *, after: int = 0, chunk: int = 100_000) -> None:
    """Put *rows* messages into the journal of *engine*, numbered from *after* + 1; a million takes half a minute."""
    on_sqlite = engine.dialect.name == "sqlite"
    names = ", ".join([*_COLUMNS, "body", "received_at", "finished_at"])
    text = f"'MSH|^~\\&|HIS|KNYY|||20250611083000||ADT^A08|C' || n || '|P|2.4' || char(13) || 'PID|1||' || (n % {PATIENTS}) || '||张三' || n || char(13) || 'NTE|1||'"
    filler = "'" + "双肺纹理清晰 " * 20 + "'"
    body = f"CAST({text} || {filler} AS BLOB)"
    if not on_sqlite:
        text = text.replace("char(13)", "chr(13)").replace("\\", "\\\\")
        body = f"convert_to({text} || {filler}, 'UTF8')"
    moment = f"{int(START.timestamp() * 1_000_000)} + CAST(n AS BIGINT) * {STEP_US}"
    values = ", ".join([*_COLUMNS.values(), body, moment, moment])
    end = after + rows
    for first in range(after + 1, end + 1, chunk):
        last = min(end, first + chunk - 1)
        if on_sqlite:
            series = f"WITH RECURSIVE g(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM g WHERE n < {last}) "
            statement = f"INSERT INTO journal ({names}) {series} SELECT {values} FROM g"
        else:
            statement = f"INSERT INTO journal ({names}) SELECT {values} FROM generate_series({first}, {last}) g(n)"
        with engine.begin() as connection:
            connection.execute(sa.text(statement.replace(":", "\\:")))
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE journal")
