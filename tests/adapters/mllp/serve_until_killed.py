"""A process with the MLLP door on an embedded hub, for a test that kills it: prints its port, serves until it dies."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from adapters.mllp import DOOR
from storage.objects import open_store
from tests.support.databases import opened
from tests.support.mllp import listening
from tests.support.v2 import V2Hub


def main(folder: Path) -> None:
    """Serve *folder*'s migrated database."""
    with opened(f"sqlite:///{folder / 'hub.db'}") as database:
        hub = V2Hub(database, objects=open_store(f"file://{folder / 'objects'}", data_dir=folder))
        bound = listening()
        print(bound.getsockname()[1], flush=True)
        DOOR.serve(hub.services, {"plain": bound.fileno()}, threading.Event(), 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
