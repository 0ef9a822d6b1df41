"""The hub as an implementation, in associations and in the files that it writes (PS3.7 annex D.3.3.2, PS3.10 table 7.1-1)."""

from __future__ import annotations

import uuid
from typing import Final

#: A UID of a UUID needs no registered root (PS3.5 annex B.2). Fixed for good: it is part of every object that came by
#: C-STORE, and a change would make known objects look new.
IMPLEMENTATION_CLASS_UID: Final = f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, 'https://yixiehub.example/dimse').int}"
IMPLEMENTATION_VERSION_NAME: Final = "YIXIE_HUB"
