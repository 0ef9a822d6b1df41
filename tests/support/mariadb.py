"""A real MariaDB server for tests: the system's, on a socket in a temporary folder, without a port and with nobody's data."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

#: What mariadb-install-db reads; the script itself wants programs of another package.
_SYSTEM = Path("/usr/share/mysql")
_TABLES = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
_BEGIN = "create database mysql;\nuse mysql;\nset @auth_root_socket=NULL;\nset @skip_auth_anonymous=1;\n"
_START_S = 60.0


class MariaServer:
    """A server that can be killed and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "socket"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir()
        tables = _BEGIN + "".join((_SYSTEM / name).read_text("utf-8") for name in _TABLES)
        subprocess.run(
            [*self._command(), "--bootstrap"], input=tables.encode(), check=True, capture_output=True, timeout=_START_S
        )
        self.start()

    def _command(self) -> list[str]:
        found = shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        assert found is not None
        # The server refuses to run as root unless it is told to.
        return [
            found, "--no-defaults", f"--user={getpass.getuser()}", f"--datadir={self._folder / 'data'}", "--skip-networking",
            f"--socket={self._socket}", f"--pid-file={self._folder / 'pid'}", "--innodb-buffer-pool-size=16M",
            "--innodb-log-file-size=4M",
        ]  # fmt: skip

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database ``ris`` as an administrator."""
        return f"mariadb+pymysql://root@localhost/ris?unix_socket={self._socket}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_S
        while True:
            try:
                # Not by the driver, which leaves its socket to the collector when it is refused.
                with socket.socket(socket.AF_UNIX) as tried:
                    tried.connect(str(self._socket))
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "log").read_text("utf-8", "replace")[-2000:]) from None
                time.sleep(0.02)
            else:
                break
        self.run("create database if not exists ris character set utf8mb4", database="")

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def run(self, statement: str, *, database: str = "ris", **values: Any) -> list[Any]:
        """Run one statement and return its rows."""
        engine = sa.create_engine(sa.make_url(self.url).set(database=database), poolclass=sa.NullPool)
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement), values)
            return list(result) if result.returns_rows else []


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaServer]:
    """A MariaDB server of this test worker; for tests with the mark ``tool("mariadbd")``."""
    # A socket's name has at most 107 bytes, and pytest's folders are deep.
    folder = Path(tempfile.mkdtemp(prefix="hub-maria-"))
    server = MariaServer(folder)
    yield server
    server.kill()
    shutil.rmtree(folder)
