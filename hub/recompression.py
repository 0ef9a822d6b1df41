"""The policy by which a member's images are kept compressed without loss, and what it costs nobody: not one byte.

``transfer-syntax=jpeg-ls modalities=CT,MR after-days=30`` as the setting of a member; without it nothing is packed. The
transfer syntax is that of the frames in the store (PS3.5 sections 8.2.3 and 8.2.4). Every door goes on giving the object as
it was sent; see :mod:`hub.ports.packing`.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from hub.errors import Category, HubError

if TYPE_CHECKING:
    from hub.boot import Services
    from hub.ports import Tx

#: Name of the setting of a member's Organization.
SETTING = "recompression"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
#: Transfer syntaxes of objects that can be packed: Implicit and Explicit VR Little Endian.
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
SYNTAXES: Mapping[str, str] = {
    "jpeg-ls": JPEG_LS,
    "jpeg-2000": JPEG_2000,
    JPEG_LS: JPEG_LS,
    JPEG_2000: JPEG_2000,
}
#: Name of the lease under which objects are packed; ``hub backup`` takes it too, so that no original goes between its
#: copy of the database and its copy of the objects.
LEASE = "recompression"
DEFAULT_DAYS, MOST_DAYS = 30, 36_500

#: Why an object stays as it is.
REASONS: Mapping[str, str] = {
    "no-pixels": "无像素数据 / it has no pixel data",
    "unreadable": "无法读取 / it cannot be read as a DICOM file",
    "transfer-syntax": "传输语法不适用 / its transfer syntax is not Implicit or Explicit VR Little Endian",
    "pixels-unsupported": "像素格式不适用 / its pixels are not of 8 or 16 bits in one or three samples, or too many or large",
    "pixels-short": "像素数据不全 / its pixel data is shorter than its frames",
    "too-small": "图像过小 / JPEG 2000 is made of 32 rows and columns or more",
    "codec": "编码失败 / the codec failed or took too long; it is tried again after a week",
    "no-gain": "节省不足 / the packed form would save less than 5%",
    "not-the-same": "校验不一致 / the packed form did not give back the same bytes",
}
#: Reasons that may lie in the moment.
RETRIED = ("codec",)
#: How long a pause lasts at most, and how often the lease is asked for.
_PAUSE_S, _ASK_S = 24 * 3600.0, 0.25
_CODE = re.compile(r"[A-Z][A-Z0-9]{1,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which images of a member are packed, and how.

    Attributes:
        syntax: UID of the transfer syntax of the packed frames.
        modalities: of the series (0008,0060); empty for any.
        after_days: how long an image stays as it is, counted from its arrival.
    """

    syntax: str
    modalities: tuple[str, ...] = ()
    after_days: int = DEFAULT_DAYS

    @classmethod
    def of(cls, text: str) -> Self | None:
        """Return the policy that *text* says, ``None`` for an empty one; raises ValueError with what is no use."""
        if not text.strip():
            return None
        said: dict[str, str] = {}
        for part in text.split():
            name, _, value = part.partition("=")
            if not value or name in said or name not in {"transfer-syntax", "modalities", "after-days"}:
                raise ValueError(part)
            said[name] = value
        if said.get("transfer-syntax", "") not in SYNTAXES:
            raise ValueError(f"transfer-syntax={said.get('transfer-syntax', '')}")
        modalities = tuple(said["modalities"].split(",")) if "modalities" in said else ()
        if any(_CODE.fullmatch(one) is None for one in modalities):
            raise ValueError(f"modalities={said['modalities']}")
        days = said.get("after-days", str(DEFAULT_DAYS))
        if not (days.isascii() and days.isdigit() and int(days) <= MOST_DAYS):
            raise ValueError(f"after-days={days}")
        return cls(syntax=SYNTAXES[said["transfer-syntax"]], modalities=modalities, after_days=int(days))


@contextlib.contextmanager
def paused(services: Services, *, wait_s: float = 900.0, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Let no original give way to its packed form in the meantime, on any node, for a day at most.

    Raises:
        HubError: busy when a node is still at work on one object after *wait_s*.
    """
    until = time.monotonic() + wait_s
    while (epoch := services.database.write(lambda tx: _lease(tx, services))) is None:
        if time.monotonic() > until:
            raise HubError(
                Category.BUSY,
                "另一进程正在压缩影像 / Images are being recompressed, or another backup is running.",
                where="recompression",
                remedy="Try again when it has ended; a backup that was killed holds its place for a day.",
            )
        sleep(_ASK_S)
    try:
        yield
    finally:
        services.database.write(lambda tx: tx.timers.release(LEASE, epoch))


def _lease(tx: Tx, services: Services) -> int | None:
    return tx.timers.lease(LEASE, services.node, now=services.clock(), lease_s=_PAUSE_S)


def wrong_part(text: str) -> str | None:
    """Return the part of *text* that keeps it from being a policy, or ``None`` when it is one."""
    try:
        Policy.of(text)
    except ValueError as error:
        return str(error)
    return None
