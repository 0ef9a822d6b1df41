"""Write docs/conformance/test-files.md: the DICOM library's test files, those that a running hub refuses and why.

Run ``python docs/scripts/test_files.py`` (``make docs``) after the scanner or a door changes its mind; a test compares.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import httpx

from tests.strangers.running import running_hub
from tests.support.corpus import members, page, store_all, stow_all

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conformance" / "test-files.md"


def main() -> None:
    """Run a hub, send it all files, write the page."""
    with tempfile.TemporaryDirectory(prefix="hub-test-files-") as folder:
        hub = running_hub(Path(folder), members())
        try:
            with httpx.Client(base_url=hub.dicom_web, timeout=60) as http:
                text = page(store_all(hub), stow_all(hub, http))
        finally:
            hub.stop()
    PAGE.write_text(text, "utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
