"""What every process of the hub loads before it knows what it will do stays small."""

from __future__ import annotations

import subprocess
import sys

#: Libraries that some commands and doors need and most do not.
_HEAVY = (
    "pydicom", "pynetdicom", "numpy", "gdcm", "PIL", "reportlab", "sqlalchemy", "fastapi", "hl7apy", "minio", "paramiko",
)  # fmt: skip


def test_the_command_line_loads_no_heavy_library() -> None:
    code = f"import hub.__main__, sys; print([name for name in {_HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
