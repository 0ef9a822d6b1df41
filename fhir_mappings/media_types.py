"""Media types as senders label their bytes (RFC 9110 section 8.3.1, names of RFC 6838 section 4.2).

The label of received bytes is later a header of HTTP. So what is no media type, for example because it holds a line break or
Chinese, is not handed on.
"""

from __future__ import annotations

import re

#: What bytes of an unknown kind are called (RFC 2046 section 4.5.1).
OCTETS = "application/octet-stream"
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf'{_NAME}/{_NAME}(?: *; *{_NAME}=(?:{_NAME}|"[ !#-\[\]-~]*"))*')
#: The two names of RFC 6838 section 4.2 have 127 characters each; the parameters in use need no more beside them.
_MAX_CHARS = 255


def media_type(label: str) -> str:
    """Return *label* where it is a media type, else the type of bytes of an unknown kind."""
    return label if len(label) <= _MAX_CHARS and _MEDIA_TYPE.fullmatch(label) else OCTETS
