"""Who asks: an institution, and where there is one the person who acts for it."""

from __future__ import annotations

from dataclasses import dataclass

#: Roles that a token can carry. ``system`` is an institution's own software (HIS, PACS, LIS).
#: ``researcher`` may ask for de-identified copies of its institution's images and sees nothing else.
#: ``desk``, ``writer``, ``reviewer``, ``physician``, ``nurse`` and ``lab`` are functions that workflow tables name.
ROLES = frozenset(
    {
        "system",
        "doctor",
        "physician",
        "nurse",
        "desk",
        "writer",
        "reviewer",
        "lab",
        "admin",
        "operator",
        "auditor",
        "researcher",
        "patient",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """One authenticated asker.

    Attributes:
        institution: code of the member institution, for example ``KN``.
        practitioner: business code of the person at that institution, for example ``0231``, or ``None`` for software.
        roles: what the asker may do; a subset of :data:`ROLES`.
        client: the credential used (OAuth client id, AE title, MSH-3/MSH-4), for the audit line.
        address: network address of the peer, for the audit line.
        patient: logical id of the one Patient a patient may see, else ``None``.
        share: id of the link that a patient came in by and sees the studies of, else ``None``.
    """

    institution: str
    practitioner: str | None = None
    roles: frozenset[str] = frozenset({"system"})
    client: str = ""
    address: str = ""
    patient: str | None = None
    share: str | None = None


#: The hub itself, when a timer or a translation acts.
HUB = Actor(institution="YY", roles=frozenset({"system", "operator"}), client="YIXIE")
