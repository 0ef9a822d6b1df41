"""FHIR reads: read, vread, history, search, ``$everything`` and the audit trail's own reads.

https://hl7.org/fhir/R4/http.html#read. Each read is written to the audit trail, durable, before its bytes are handed
back; when that fails, so does the read (DESIGN rule 12).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fhir_mappings.definitions.structures import resource_types
from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED, Scope, scope_of
from hub.actor import Actor
from hub.answer import Answer, bundle, entry, history_entry, subset
from hub.clock import instant, to_us
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.outcome import information
from hub.ports import AuditLine, Stored, Tx
from hub.read_parameters import (
    Pairs,
    controls,
    count_of,
    date_bounds,
    moment_of,
    position_of,
    query_text,
    shape,
    url_of,
)
from hub.search import Query, parse
from hub.translate import OBJECT_DIGEST

if TYPE_CHECKING:
    from hub.boot import Services

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII)
_OWNERS_KEPT = 50_000
#: Audit trail columns by the search parameter of AuditEvent that asks for them.
_AUDIT = {"patient": "patient", "type": "type", "subtype": "subtype", "action": "action", "outcome": "outcome"}


def not_found(type: str, id: str) -> HubError:
    """Return the error of what is absent or out of reach; the two look the same."""
    return HubError(
        Category.NOT_FOUND, "There is no such resource.", where=f"{type}/{id}" if _ID.fullmatch(id) else type
    )


def known_type(type: str) -> str:
    """Return *type* when R4 has it.

    Raises:
        HubError: unsupported with status 404.
    """
    if type not in resource_types():
        raise HubError(
            Category.UNSUPPORTED,
            "This is not a resource type of FHIR R4.",
            where="URL",
            status=404,
            issue_code="not-supported",
        )
    return type


class Reader:
    """The reading half of the FHIR interactions; safe for many threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.base = f"{services.settings.public()}/fhir"
        self.bases = (self.base, services.settings.base_url)
        #: Patient id -> institution that owns it; an owner never changes.
        self._owners: dict[str, str] = {}

    # --- one resource ----------------------------------------------------------------------------------------

    def read(self, envelope: Envelope, type: str, id: str, *, pairs: Pairs = (), raw: bool = False) -> Answer:
        """Return the current version; 410 when it was deleted.

        Args:
            raw: for a Binary, its bytes instead of the resource.
        """
        known_type(type)
        summary, wanted = shape(type, pairs)
        if type == "AuditEvent":
            return self._audit_event(envelope, id)
        scope = scope_of(envelope.actor)
        one = self._services.database.read(lambda tx: tx.records.get(type, id, scope))
        if one is None:
            self._audit(envelope, "R", "read", outcome="4", entities=(f"{type}/{id}",) if _ID.fullmatch(id) else ())
            raise not_found(type, id)
        self._audit(envelope, "R", "read", resources=(one,), entities=(f"{type}/{id}",))
        if one.deleted:
            raise _gone(one)
        if type == "Binary":
            return self._binary(one, raw=raw)
        return Answer(status=200, body=subset(one.body, summary=summary, wanted=wanted), stored=one)

    def vread(self, envelope: Envelope, type: str, id: str, version: str) -> Answer:
        """Return one version; 410 for the version that marks the deletion."""
        known_type(type)
        scope = scope_of(envelope.actor)
        number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0
        one = self._services.database.read(lambda tx: tx.records.version(type, id, number, scope)) if number else None
        entities = (f"{type}/{id}",) if _ID.fullmatch(id) else ()
        if one is None:
            self._audit(envelope, "R", "vread", outcome="4", entities=entities)
            raise not_found(type, id)
        self._audit(envelope, "R", "vread", resources=(one,), entities=entities)
        if one.deleted:
            raise _gone(one)
        return Answer(status=200, body=one.body, stored=one)

    def _binary(self, one: Stored, *, raw: bool) -> Answer:
        resource: dict[str, Any] = loads(one.body)
        digest = _digest_of(resource)
        if digest:
            data = self._services.objects.read(digest)
            if not raw:
                resource.pop("_data", None)
                resource["data"] = base64.b64encode(data).decode()
        elif raw:
            data = base64.b64decode(resource.get("data", ""))
        if raw:
            return Answer(status=200, body=data, stored=one, media_type=str(resource.get("contentType", "")))
        return Answer(status=200, body=dumps(resource) if digest else one.body, stored=one)

    # --- many ------------------------------------------------------------------------------------------------

    def search(self, envelope: Envelope, type: str, pairs: Pairs, *, lenient: bool = False) -> Answer:
        """Return one page as a searchset Bundle with self and next links."""
        known_type(type)
        if type == "AuditEvent":
            return self._audit_search(envelope, pairs, lenient=lenient)
        query = parse(type, pairs, lenient=lenient, base_urls=self.bases, now=self._services.clock())
        if query.summary == "true":
            raise HubError(
                Category.UNSUPPORTED,
                "_summary=true is not supported.",
                where="_summary",
                remedy="Use _summary=text, data or count, or _elements.",
                status=400,
            )
        scope = scope_of(envelope.actor)
        page = self._services.database.read(lambda tx: tx.records.search(query, scope))
        self._audit(
            envelope,
            "E",
            "search",
            resources=(*page.matches, *page.included),
            entities=tuple(f"{one.type}/{one.id}" for one in (*page.matches, *page.included)),
            query=query_text(type, query.pairs),
            count=len(page.matches),
        )
        links = [("self", query.to_self_link(self.base))]
        if page.next_cursor is not None:
            links.append(("next", query.to_self_link(self.base, cursor=page.next_cursor)))
        return Answer(
            status=200,
            body=bundle(
                "searchset",
                self._entries(query, page.matches, page.included),
                links=links,
                total=page.total,
                now=instant(self._services.clock()),
            ),
        )

    def _entries(self, query: Query, matches: Sequence[Stored], included: Sequence[Stored]) -> Iterable[bytes]:
        plain = query.summary in {None, "false"} and not query.elements
        for one in matches:
            body = one.body if plain else subset(one.body, summary=query.summary, wanted=query.elements)
            yield entry(self.base, body, f"{one.type}/{one.id}", "match")
        for one in included:
            yield entry(self.base, one.body, f"{one.type}/{one.id}", "include")
        if query.ignored:
            told = information(f"Ignored parameters: {', '.join(query.ignored)}.")
            yield b'{"resource":%s,"search":{"mode":"outcome"}}' % dumps(told)

    def history(self, envelope: Envelope, type: str | None, id: str | None, pairs: Pairs) -> Answer:
        """Return versions, newest first, as a history Bundle with self and next links."""
        if type is not None:
            known_type(type)
        given = controls(pairs, {"_count", "_since", "_before"})
        count = count_of(given)
        since = moment_of(given["_since"], "_since") if "_since" in given else None
        before = position_of(given["_before"]) if "_before" in given else None
        scope = scope_of(envelope.actor)

        def work(tx: Tx) -> Sequence[Stored]:
            return tx.records.history(type, id, scope, count=count + 1, since=since, before=before)

        rows = self._services.database.read(work)
        path = "/".join(part for part in (type, id) if part)
        if id is not None and not rows and before is None and since is None:
            self._audit(envelope, "R", "history", outcome="4", query=path if _ID.fullmatch(id) else str(type))
            raise not_found(str(type), id)
        page = rows[:count]
        self._audit(
            envelope,
            "R",
            "history",
            resources=page,
            entities=tuple(dict.fromkeys(f"{one.type}/{one.id}" for one in page)),
            query=f"{path}/_history",
            count=len(page),
        )
        url = f"{self.base}/{path}/_history" if path else f"{self.base}/_history"
        kept = [(name, value) for name, value in given.items() if name != "_before"]
        links = [("self", url_of(url, list(given.items())))]
        if len(rows) > count:
            last = page[-1]
            position = f"{to_us(last.last_updated)}.{last.type}/{last.id}/{last.version}"
            links.append(("next", url_of(url, [*kept, ("_before", position)])))
        body = bundle(
            "history",
            (history_entry(self.base, one) for one in page),
            links=links,
            now=instant(self._services.clock()),
        )
        return Answer(status=200, body=body)

    def everything(self, envelope: Envelope, id: str, pairs: Pairs, *, lenient: bool = False) -> Answer:
        """Return the Patient's compartment inside the asker's reach, page by page (``Patient/$everything``).

        Records that were merged into the Patient, and what was stored of them, are part of it.
        """
        given = controls(pairs, {"_count", "_type", "_cursor"}, lenient=lenient)
        count = count_of(given)
        types = [known_type(one) for one in given["_type"].split(",")] if given.get("_type") else None
        scope = scope_of(envelope.actor)

        def work(tx: Tx) -> Any:
            patient = tx.records.get("Patient", id, scope)
            if patient is None or patient.deleted:
                return patient
            return tx.records.compartment(id, scope, types=types, count=count, after=given.get("_cursor"))

        page = self._services.database.read(work)
        if page is None or isinstance(page, Stored):
            self._audit(
                envelope, "R", "everything", outcome="4", entities=(f"Patient/{id}",) if _ID.fullmatch(id) else ()
            )
            raise not_found("Patient", id) if page is None else _gone(page)
        self._audit(
            envelope,
            "R",
            "everything",
            resources=page.matches,
            entities=tuple(f"{one.type}/{one.id}" for one in page.matches),
            query=f"Patient/{id}/$everything",
            count=len(page.matches),
        )
        url = f"{self.base}/Patient/{id}/$everything"
        links = [("self", url_of(url, list(given.items())))]
        if page.next_cursor is not None:
            rest = [(name, value) for name, value in given.items() if name != "_cursor"]
            links.append(("next", url_of(url, [*rest, ("_cursor", page.next_cursor)])))
        entries = (entry(self.base, one.body, f"{one.type}/{one.id}", "match") for one in page.matches)
        return Answer(status=200, body=bundle("searchset", entries, links=links, now=instant(self._services.clock())))

    # --- the audit trail's own reads -------------------------------------------------------------------------

    def _audit_reach(self, actor: Actor) -> str | None:
        if actor.patient is not None:
            raise HubError(Category.FORBIDDEN, "Patients do not read the audit trail here.", where="AuditEvent")
        # Only the operator's own auditor sees the whole consortium; everybody else what concerns their institution.
        return None if "auditor" in actor.roles and actor.institution == "YY" else actor.institution

    def _audit_event(self, envelope: Envelope, id: str) -> Answer:
        reach = self._audit_reach(envelope.actor)
        found = self._services.database.read(lambda tx: tx.audit.get(id, institution=reach))
        self._audit(
            envelope,
            "R",
            "read",
            outcome="0" if found else "4",
            entities=(f"AuditEvent/{id}",) if _ID.fullmatch(id) else (),
        )
        if found is None:
            raise not_found("AuditEvent", id)
        return Answer(status=200, body=dumps(found))

    def _audit_search(self, envelope: Envelope, pairs: Pairs, *, lenient: bool) -> Answer:
        reach = self._audit_reach(envelope.actor)
        criteria: dict[str, str] = {}
        given = controls(
            [(name, value) for name, value in pairs if name != "date"], {*_AUDIT, "_count", "_before"}, lenient=lenient
        )
        for name, value in given.items():
            if name in _AUDIT:
                criteria[_AUDIT[name]] = value.rpartition("|")[2].removeprefix("Patient/")
        for value in (value for name, value in pairs if name == "date"):
            criteria |= date_bounds(value)
        count = count_of(given)
        at, _, seen = given.get("_before", "").partition(",")
        if at and not (at.isdigit() and len(at) < 18):
            raise HubError(Category.INCORRECT, "The page link is not one of this hub.", where="_before")
        shown = frozenset(seen.split(",")) if seen else frozenset()

        def work(tx: Tx) -> list[Any]:
            limit = count + 1 + len(shown)
            rows = tx.audit.search(criteria, institution=reach, limit=limit, before=int(at) if at else None)
            return [row for row in rows if row["id"] not in shown]

        rows = self._services.database.read(work)
        page = rows[:count]
        query = "&".join(f"{name}={value}" for name, value in sorted(criteria.items()))
        self._audit(envelope, "E", "search", query=f"AuditEvent?{query}", count=len(page))
        url = f"{self.base}/AuditEvent"
        kept = [pair for pair in pairs if pair[0] in {*_AUDIT, "date", "_count"}]
        links = [("self", url_of(url, [*kept, ("_before", given["_before"])] if at else kept))]
        if len(rows) > count:
            # Events of one millisecond may stand on both sides of the cut: those already shown are named in the link.
            moment = page[-1]["recorded"]
            same = [row["id"] for row in page if row["recorded"] == moment]
            after = to_us(datetime.fromisoformat(moment)) + 1000
            links.append(("next", url_of(url, [*kept, ("_before", ",".join([str(after), *same]))])))
        entries = (entry(self.base, dumps(one), f"AuditEvent/{one['id']}", "match") for one in page)
        return Answer(status=200, body=bundle("searchset", entries, links=links, now=instant(self._services.clock())))

    # --- audit -----------------------------------------------------------------------------------------------

    def patients(self, tx: Tx, resources: Iterable[Stored]) -> tuple[tuple[str, str], ...]:
        """Return (home institution, Patient id) of everyone whose data is in *resources*."""
        found: dict[str, str | None] = {}
        for one in resources:
            if one.patient_id:
                known = one.owner if one.type == "Patient" else self._owners.get(one.patient_id)
                if found.get(one.patient_id) is None:
                    found[one.patient_id] = known
        unknown = [("Patient", id_) for id_, owner in found.items() if owner is None]
        if unknown:
            for (_, id_), patient in tx.records.get_many(unknown, UNRESTRICTED).items():
                found[id_] = patient.owner
        if len(self._owners) > _OWNERS_KEPT:
            self._owners.clear()
        self._owners.update({id_: owner for id_, owner in found.items() if owner is not None})
        fallback = {one.patient_id: one.owner for one in resources if one.patient_id} if None in found.values() else {}
        return tuple((owner or fallback[id_], id_) for id_, owner in found.items())

    def _audit(
        self,
        envelope: Envelope,
        action: str,
        subtype: str,
        *,
        resources: Sequence[Stored] = (),
        entities: tuple[str, ...] = (),
        query: str = "",
        count: int | None = None,
        outcome: str = "0",
    ) -> None:
        """Write the audit line and wait until it is durable.

        Raises:
            HubError: when it cannot be written; then nothing that was read may leave.
        """
        now = self._services.clock()

        def work(tx: Tx) -> None:
            tx.audit.write(
                AuditLine(
                    type="rest",
                    action=action,
                    subtype=subtype,
                    actor=envelope.actor,
                    recorded_at=now,
                    outcome=outcome,
                    patients=self.patients(tx, resources),
                    entities=entities,
                    query=query,
                    count=count,
                    correlation_id=envelope.correlation_id,
                )
            )

        self._services.database.write(work)

    def scope(self, envelope: Envelope) -> Scope:
        """Return the asker's reach."""
        return scope_of(envelope.actor)


def _gone(one: Stored) -> HubError:
    return HubError(
        Category.NOT_FOUND,
        "The resource was deleted.",
        where=f"{one.type}/{one.id}",
        remedy="Its history is still there.",
        status=410,
        issue_code="deleted",
    )


def _digest_of(binary: dict[str, Any]) -> str:
    for extension in binary.get("_data", {}).get("extension", ()):
        if str(extension.get("url", "")).endswith(f"/StructureDefinition/{OBJECT_DIGEST}"):
            return str(extension.get("valueString", ""))
    return ""
