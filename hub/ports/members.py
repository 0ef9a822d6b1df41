"""The directory of institutions, how they are reached and who works there, and their credentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from hub.actor import Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberEndpoint:
    """How a member is reached or recognised, distilled from a FHIR Endpoint.

    Attributes:
        id: ``CODE/kind`` or ``CODE/kind/name``; names the destination of deliveries.
        kind: ``dicom``, ``mllp``, ``fhir``, ``dicom-web``.
        ae_title: for ``dicom``.
        address: ``host:port`` or URL for sending; empty when the member only sends.
        sending_application, sending_facility: MSH-3 and MSH-4 the member writes (empty application = any).
        cidr: networks the member may connect from; empty = any.
        settings: dialect, charset-in, charset-out, version, ack, services and so on; of ``mllp`` also processing-ids,
            the values of MSH-11 that the feed takes with spaces between (``P T``; absent = ``P``, as an empty MSH-11).
    """

    id: str
    member: str
    kind: str
    address: str = ""
    ae_title: str = ""
    sending_application: str = ""
    sending_facility: str = ""
    cidr: tuple[str, ...] = ()
    active: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    code: str
    organization_id: str
    name: str
    active: bool = True
    kind: str = ""
    entitlements: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPractitioner:
    """A person at a member: business code, logical ids, display name and hub roles."""

    member: str
    code: str
    practitioner_id: str
    role_id: str
    name: str
    roles: tuple[str, ...]
    active: bool = True


class Members(Protocol):
    def replace(
        self,
        members: Sequence[Member],
        endpoints: Sequence[MemberEndpoint],
        practitioners: Sequence[MemberPractitioner],
    ) -> None:
        """Insert or update the given rows; rows not given stay."""
        ...

    def all(self) -> Sequence[Member]: ...
    def get(self, code: str) -> Member | None: ...
    def endpoints(self, *, member: str | None = None, kind: str | None = None) -> Sequence[MemberEndpoint]: ...
    def practitioner(self, member: str, code: str) -> MemberPractitioner | None: ...
    def practitioners(self, member: str | None = None) -> Sequence[MemberPractitioner]: ...
    def version(self) -> int:
        """Return a number that grows with each change, so that doors can cache the directory."""
        ...


class Credentials(Protocol):
    def add_client(
        self, *, client_id: str, secret_hash: str, institution: str, roles: Sequence[str], now: datetime
    ) -> None: ...
    def client(self, client_id: str) -> Mapping[str, Any] | None: ...
    def add_token(self, *, token_hash: str, actor: Actor, expires_at: datetime, now: datetime) -> None: ...
    def token(self, token_hash: str, *, now: datetime) -> Actor | None: ...
    def revoke(self, token_hash: str, *, now: datetime) -> None: ...
