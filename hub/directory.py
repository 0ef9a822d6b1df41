"""Who is a member, how each is recognised and reached, and what a token stands for.

The directory is small and changes rarely, so each process keeps it in memory and asks the database at most once a
second whether its version has moved.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from fhir_mappings.code_maps import NO_MAPS, CodeMaps
from fhir_mappings.hl7v2.context import Dialect, MappingContext
from fhir_mappings.hl7v2.dialects import DIALECTS
from fhir_mappings.hl7v2.zfields import table as z_table
from hub import concept_maps
from hub.actor import HUB, ROLES, Actor
from hub.clock import Clock
from hub.errors import Category, HubError
from hub.file_doors import is_file_door
from hub.members import distil
from hub.ports import AuditLine, Database, Member, MemberEndpoint, MemberPractitioner, NewVersion, Tx

#: Owner of the directory's resources: the operator's institution keeps them, all members read them.
DIRECTORY_OWNER = "YY"
#: How long a process may work with a directory that has just changed.
STALE_S = 1.0
#: How long a process may honour a token that has just been revoked.
TOKEN_STALE_S = 1.0
_TOKENS_KEPT = 4096
#: 19 MiB, two passes, one lane: the OWASP minimum for Argon2id, so that a storm of logins does not eat the memory.
PASSWORDS = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
#: Hash of a secret that nobody has.
NOBODY = PASSWORDS.hash(secrets.token_urlsafe(32))


@dataclass(frozen=True, slots=True)
class _Snapshot:
    version: int = -1
    members: Mapping[str, Member] = field(default_factory=dict)
    endpoints: Sequence[MemberEndpoint] = ()
    people: Mapping[tuple[str, str], MemberPractitioner] = field(default_factory=dict)
    maps: Mapping[str, CodeMaps] = field(default_factory=dict)


def _inside(address: str, networks: Sequence[str]) -> bool:
    if not networks:
        return True
    try:
        ip = ipaddress.ip_address(address.rpartition(":")[0].strip("[]") if address.count(":") == 1 else address)
    except ValueError:
        return False
    # A listener for both families reports IPv4 peers inside IPv6 (RFC 4291 section 2.5.5.2).
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return any(ip in ipaddress.ip_network(network, strict=False) for network in networks)


class Directory:
    """The members as this process knows them; safe to use from several threads."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshot = _Snapshot()
        self._checked = 0.0
        self._tokens: dict[str, tuple[float, Actor | None]] = {}

    def _now(self) -> _Snapshot:
        if time.monotonic() - self._checked < STALE_S:
            return self._snapshot
        with self._lock:
            if time.monotonic() - self._checked >= STALE_S:
                self._snapshot = self._database.read(lambda tx: _load(tx, self._snapshot))
                self._checked = time.monotonic()
        return self._snapshot

    def refresh(self) -> None:
        """Read the directory anew at the next use."""
        self._checked = 0.0

    # --- members ---------------------------------------------------------------------------------------------

    def members(self) -> Sequence[Member]:
        """Return all members, by code."""
        return list(self._now().members.values())

    def member(self, code: str) -> Member | None:
        """Return the active member *code*."""
        found = self._now().members.get(code)
        return found if found is not None and found.active else None

    def all_endpoints(self) -> Sequence[MemberEndpoint]:
        """Return the active endpoints of all members."""
        return [one for one in self._now().endpoints if one.active]

    def endpoint(self, id: str) -> MemberEndpoint | None:
        """Return the endpoint called *id*, active or not."""
        return next((one for one in self._now().endpoints if one.id == id), None)

    def endpoints(self, member: str, kind: str) -> Sequence[MemberEndpoint]:
        """Return the endpoints of *member* of that *kind*, active or not, by id."""
        return [one for one in self._now().endpoints if one.member == member and one.kind == kind]

    def reach(self, member: str, *kinds: str) -> MemberEndpoint | None:
        """Return the first active endpoint of *member* with an address, in the order of *kinds*."""
        for kind in kinds:
            for one in self._now().endpoints:
                if one.member == member and one.kind == kind and one.active and one.address:
                    return one
        return None

    def dicom_member(self, ae_title: str, peer_ip: str) -> MemberEndpoint | None:
        """Return the endpoint whose AE title calls from *peer_ip*, or ``None`` for a stranger."""
        for one in self._now().endpoints:
            if one.kind != "dicom" or not one.active or one.ae_title != ae_title:
                continue
            if _inside(peer_ip, one.cidr) and self.member(one.member):
                return one
        return None

    def mllp_member(self, application: str, facility: str, peer_ip: str) -> MemberEndpoint | None:
        """Return the endpoint that writes MSH-3 *application* and MSH-4 *facility* from *peer_ip*, or ``None``.

        An endpoint that is only sent to has neither name, and nobody is recognised by it. A member's folder (an address
        ``file:...`` or ``sftp:...``) is the only way for that endpoint, and stands in place of the network:
        ``folder/{id}``. What the hub itself has read from a view (``view/{name}``) came over no network of the member's.
        """
        from_view = peer_ip.startswith("view/")
        from_folder = peer_ip.startswith("folder/")
        for one in self._now().endpoints:
            if is_file_door(one.address) != from_folder or (from_folder and peer_ip != f"folder/{one.id}"):
                continue
            if not (one.sending_facility or one.sending_application):
                continue
            if one.kind != "mllp" or not one.active or one.sending_facility != facility:
                continue
            if one.sending_application and one.sending_application != application:
                continue
            if (from_folder or from_view or _inside(peer_ip, one.cidr)) and self.member(one.member):
                return one
        return None

    def facility_member(self, facility: str) -> str | None:
        """Return the member that calls itself *facility* in v2 (MSH-4), or has that code, or that name."""
        snapshot = self._now()
        if facility in snapshot.members:
            return facility
        for one in snapshot.endpoints:
            if one.kind == "mllp" and one.sending_facility == facility:
                return one.member
        for member in snapshot.members.values():
            if facility and member.name == facility:
                return member.code
        return None

    # --- people ----------------------------------------------------------------------------------------------

    def practitioner(self, member: str, code: str) -> MemberPractitioner | None:
        """Return the active person with business code *code* at *member*."""
        found = self._now().people.get((member, code))
        return found if found is not None and found.active else None

    def practitioners(self, member: str | None = None) -> Sequence[MemberPractitioner]:
        """Return people, of one member or of all."""
        return [one for one in self._now().people.values() if member is None or one.member == member]

    def resolve(self, reference: str) -> tuple[str, str | None] | None:
        """Return (member code, ``Practitioner/x`` or ``None``) for an Organization, PractitionerRole or Practitioner."""
        kind, _, id_ = reference.partition("/")
        snapshot = self._now()
        if kind == "Organization":
            return next(((one.code, None) for one in snapshot.members.values() if one.organization_id == id_), None)
        for person in snapshot.people.values():
            if (kind == "PractitionerRole" and person.role_id == id_) or (
                kind == "Practitioner" and person.practitioner_id == id_
            ):
                return person.member, f"Practitioner/{person.practitioner_id}"
        return None

    # --- v2 --------------------------------------------------------------------------------------------------

    def dialect(self, endpoint: MemberEndpoint | None) -> Dialect:
        """Return how the partner at *endpoint* writes v2: its dialect with its own differences laid over it."""
        snapshot = self._now()
        return dialect_of(endpoint, snapshot.endpoints, snapshot.members)

    def context(self, endpoint: MemberEndpoint) -> MappingContext:
        """Return the translation context for a message that just came from *endpoint*."""
        return MappingContext(
            institution=endpoint.member,
            dialect=self.dialect(endpoint),
            received_at=self._clock(),
            maps=self.code_maps(endpoint.member),
        )

    def code_maps(self, member: str) -> CodeMaps:
        """Return what *member*'s own codes are in standard ones."""
        return self._now().maps.get(member, NO_MAPS)

    # --- tokens ----------------------------------------------------------------------------------------------

    def issue_token(self, actor: Actor, *, ttl_s: int) -> str:
        """Return a new opaque bearer token (RFC 6750) for *actor*; only its hash is kept.

        Raises:
            HubError: incorrect for an unknown institution, person or role.
        """
        if self.member(actor.institution) is None:
            raise HubError(
                Category.INCORRECT,
                f"There is no active member {actor.institution}.",
                where="institution",
                remedy="Run `hub members list` to see the codes.",
            )
        unknown = sorted(actor.roles - ROLES)
        if unknown:
            raise HubError(
                Category.INCORRECT,
                f"Unknown role {', '.join(unknown)}.",
                where="role",
                remedy=f"Use {', '.join(sorted(ROLES))}.",
            )
        if actor.practitioner is not None:
            person = self.practitioner(actor.institution, actor.practitioner)
            if person is None:
                raise HubError(
                    Category.INCORRECT,
                    f"{actor.institution} has no active practitioner {actor.practitioner}.",
                    where="practitioner",
                    remedy="Import the PractitionerRole first.",
                )
            if actor.roles == frozenset({"system"}):
                actor = replace(actor, roles=frozenset(person.roles))
        token = secrets.token_urlsafe(32)
        now = self._clock()

        def work(tx: Tx) -> None:
            tx.credentials.add_token(
                token_hash=token_hash(token), actor=actor, expires_at=now + timedelta(seconds=ttl_s), now=now
            )
            tx.audit.write(
                AuditLine(
                    type="login",
                    action="E",
                    subtype="token-issued",
                    actor=actor,
                    recorded_at=now,
                    detail=f"ttl {ttl_s} s",
                )
            )

        self._database.write(work)
        return token

    def actor_for(self, token: str) -> Actor | None:
        """Return who *token* speaks for, or ``None`` when it is unknown, expired or revoked."""
        digest = token_hash(token)
        known = self._tokens.get(digest)
        moment = time.monotonic()
        if known is not None and moment - known[0] < TOKEN_STALE_S:
            return known[1]
        actor = self._database.read(lambda tx: tx.credentials.token(digest, now=self._clock()))
        if actor is not None and self.member(actor.institution) is None:
            actor = None
        if len(self._tokens) >= _TOKENS_KEPT:
            self._tokens.clear()
        self._tokens[digest] = (moment, actor)
        return actor

    def add_client(self, member: str, roles: frozenset[str] = frozenset({"system"})) -> tuple[str, str]:
        """Register a client of *member* and return its id and secret; the secret is shown this once.

        Raises:
            HubError: incorrect for an unknown member.
        """
        if self.member(member) is None:
            raise HubError(Category.INCORRECT, f"There is no active member {member}.", where="member")
        client_id, secret = f"{member}-{secrets.token_hex(6)}", secrets.token_urlsafe(32)
        hashed, now = PASSWORDS.hash(secret), self._clock()

        def work(tx: Tx) -> None:
            tx.credentials.add_client(
                client_id=client_id, secret_hash=hashed, institution=member, roles=sorted(roles), now=now
            )
            tx.audit.write(
                AuditLine(type="admin", action="C", subtype="client", actor=HUB, recorded_at=now, detail=client_id)
            )

        self._database.write(work)
        return client_id, secret

    def client_actor(self, client_id: str, secret: str) -> Actor | None:
        """Return who a client is, or ``None``; an unknown client costs as much time as a wrong secret."""
        found = self._database.read(lambda tx: tx.credentials.client(client_id))
        try:
            PASSWORDS.verify(found["secret_hash"] if found is not None else NOBODY, secret)
        except (VerifyMismatchError, InvalidHashError):
            return None
        if found is None or self.member(found["institution"]) is None:
            return None
        return Actor(institution=found["institution"], roles=frozenset(found["roles"]), client=client_id)

    def revoke(self, token: str) -> None:
        """End *token*; processes that have just used it honour it for at most a second more."""
        self._database.write(lambda tx: tx.credentials.revoke(token_hash(token), now=self._clock()))
        self._tokens.pop(token_hash(token), None)

    # --- import ----------------------------------------------------------------------------------------------

    def load(self, resources: Sequence[dict[str, Any]], *, actor: Actor = HUB) -> tuple[int, int, int]:
        """Import directory resources for *actor*; returns how many members, endpoints and people they hold.

        Importing the same again changes nothing.

        Raises:
            HubError: incorrect, naming resource and element.
        """
        # A rule may name an endpoint that an earlier import brought.
        known = self._database.read(lambda tx: tx.members.endpoints(kind="dicom"))
        members, endpoints, people = distil(resources, known=known)
        concept_maps.check_among(resources)

        def work(tx: Tx) -> None:
            tx.records.put_many(
                [NewVersion(resource=dict(one), owner=DIRECTORY_OWNER, visibility="consortium") for one in resources]
            )
            tx.members.replace(members, endpoints, people)
            tx.audit.write(
                AuditLine(
                    type="admin",
                    action="U",
                    subtype="members-import",
                    actor=actor,
                    recorded_at=self._clock(),
                    entities=tuple(f"{one['resourceType']}/{one['id']}" for one in resources[:200]),
                )
            )

        self._database.write(work)
        self.refresh()
        return len(members), len(endpoints), len(people)


def dialect_of(
    endpoint: MemberEndpoint | None, endpoints: Sequence[MemberEndpoint], members: Collection[str]
) -> Dialect:
    """Return how the partner at *endpoint* writes v2, in a consortium of *endpoints* and *members* (codes).

    Raises:
        HubError: incorrect when the endpoint names a dialect that is none.
    """
    settings = dict(endpoint.settings) if endpoint is not None else {}
    found = DIALECTS.get(str(settings.get("dialect", "standard")))
    if found is None:
        raise HubError(
            Category.INCORRECT,
            f"There is no dialect {settings.get('dialect')!r}.",
            where=f"endpoint {endpoint.id if endpoint else ''}",
            remedy=f"Use one of {', '.join(sorted(DIALECTS))}.",
        )
    names = ("charset_in", "charset_out", "msh_18_out", "version_out", "time_zone", "dates")
    changes = {name: settings[key] for name in names if (key := name.replace("_", "-")) in settings}
    if "z-fields" in settings:
        changes["z_fields"] = z_table(settings["z-fields"])
    # A number's authority is written as the member's code or as the name it gives itself in MSH-4.
    changes["authorities"] = {
        **{one.sending_facility: one.member for one in endpoints if one.sending_facility},
        **{code: code for code in members},
    }
    return found.varied(changes)


def token_hash(token: str) -> str:
    """Return what is stored of a token: its SHA-256; 256 random bits need no slower hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def _load(tx: Tx, before: _Snapshot) -> _Snapshot:
    version = tx.members.version()
    if version == before.version:
        return before
    return _Snapshot(
        version=version,
        members={one.code: one for one in tx.members.all()},
        endpoints=tuple(tx.members.endpoints()),
        people={(one.member, one.code): one for one in tx.members.practitioners()},
        maps=concept_maps.load(tx),
    )
