"""A workflow's ``Send`` as FHIR: a transaction of PUTs under the hub's ids, or a message.

https://hl7.org/fhir/R4/http.html#transaction and https://hl7.org/fhir/R4/messaging.html. It holds what belongs to the
work as far as the receiver may see it; a reference to anything else names it by an identifier, so that no server has to
follow it.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fhir_mappings.json import dumps, loads
from hub import workflows
from hub.access import UNRESTRICTED, Scope
from hub.clock import Clock, instant
from hub.config import Settings
from hub.delivery import asks_for
from hub.directory import Directory
from hub.dispatch.related import MAX_ATTACHMENT_BYTES, bytes_of, followed
from hub.dispatch.report import signed
from hub.ports import MemberEndpoint, ObjectStore, Stored, Tx
from hub.references import literal
from hub.workflows.task import plain

Json = dict[str, Any]

#: Steps from the Task to the last resource that goes with it: input -> report -> result -> specimen.
_STEPS = 4
#: References that a receiver needs the target of, although every member may read it at the hub.
_NEEDED = frozenset({"Endpoint"})
_MESSAGE_EVENTS = "http://terminology.hl7.org/CodeSystem/v2-0003"


class FhirBundles:
    """Builds the Bundles that workflow tables send."""

    def __init__(self, settings: Settings, directory: Directory, objects: ObjectStore, clock: Clock) -> None:
        self._settings = settings
        self._directory = directory
        self._objects = objects
        self._clock = clock

    def bundle(self, tx: Tx, effect: workflows.Send, task: Json, endpoint: MemberEndpoint, control_id: str) -> bytes:
        """Return the transaction, or the message, that tells the receiver of the new state."""
        resources = self._shared(tx, effect, task)
        base = f"{self._settings.public()}/fhir"
        entries: list[Json] = [
            {"fullUrl": f"{base}/{one['resourceType']}/{one['id']}", "resource": one} for one in resources
        ]
        if endpoint.kind == "fhir" and not asks_for(endpoint, "message"):
            for entry, one in zip(entries, resources, strict=True):
                entry["request"] = {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}
            return dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})
        focus = [f"{one['resourceType']}/{one['id']}" for one in resources]
        focus = [one for one in focus if one in {f"Task/{task['id']}", effect.reference}]
        header = self._header(tx, effect, task, endpoint, control_id, focus)
        entries.insert(0, {"fullUrl": f"{base}/MessageHeader/{control_id}", "resource": header})
        return dumps(
            {
                "resourceType": "Bundle",
                "id": control_id,
                "type": "message",
                "timestamp": instant(self._clock()),
                "entry": entries,
            }
        )

    def _header(
        self,
        tx: Tx,
        effect: workflows.Send,
        task: Json,
        endpoint: MemberEndpoint,
        control_id: str,
        focus: Sequence[str],
    ) -> Json:
        """Return the MessageHeader; its id is what the answer must name (https://hl7.org/fhir/R4/messageheader.html)."""
        header: Json = {
            "resourceType": "MessageHeader",
            "id": control_id,
            # The event of the v2 message that says the same (HL7 table 0003).
            "eventCoding": {"system": _MESSAGE_EVENTS, "code": effect.message.rpartition("_")[2].upper()},
            "destination": [{"name": endpoint.id, "endpoint": endpoint.address}],
            "source": {"name": self._settings.sending_application, "endpoint": f"{self._settings.public()}/fhir"},
            "focus": [{"reference": one} for one in focus],
        }
        receiver = self._directory.member(effect.institution)
        if receiver is not None:
            header["destination"][0]["receiver"] = self._pointer(
                tx, f"Organization/{receiver.organization_id}", UNRESTRICTED
            )
        others = [code for code in workflows.parties_of(task).values() if code != effect.institution]
        sender = self._directory.member(others[0]) if others else None
        if sender is not None:
            # The other party of the work speaks and answers for what is said; the hub passes it on.
            who = self._pointer(tx, f"Organization/{sender.organization_id}", UNRESTRICTED)
            header |= {"sender": who, "responsible": who}
        return header

    def _shared(self, tx: Tx, effect: workflows.Send, task: Json) -> list[Json]:
        """Return the Task and what belongs to it, as far as the receiver may see it, ready for another server."""
        scope = Scope(institution=effect.institution)
        found: dict[str, Stored] = {}
        bodies: dict[str, Json] = {f"Task/{task['id']}": task}
        wanted = {effect.reference} - {""} | set(followed(task))
        for _ in range(_STEPS):
            pairs = [(kind, id_) for kind, _, id_ in (one.partition("/") for one in sorted(wanted - bodies.keys()))]
            wanted = set()
            for stored in tx.records.get_many(pairs, scope).values():
                if stored.deleted or (stored.visibility == "consortium" and stored.type not in _NEEDED):
                    continue
                reference = f"{stored.type}/{stored.id}"
                found[reference], bodies[reference] = stored, loads(stored.body)
                wanted |= set(followed(bodies[reference]))
            if not wanted:
                break
        if effect.reference in bodies and effect.reference.startswith("DiagnosticReport/"):
            bodies[effect.reference] = signed(task, bodies[effect.reference])
        made = []
        for reference, body in bodies.items():
            stored_or_none = found.get(reference)
            owner = stored_or_none.owner if stored_or_none is not None else ""
            made.append(self._for_elsewhere(tx, body, scope, owner=owner, beside=bodies.keys()))
        return made

    def _for_elsewhere(self, tx: Tx, body: Json, scope: Scope, *, owner: str, beside: Collection[str]) -> Json:
        """Return a copy of *body* whose references and attachments do not depend on the hub's own store."""
        copy: Json = loads(dumps(body))
        meta = {name: value for name, value in copy.pop("meta", {}).items() if name in {"profile", "security", "tag"}}
        if meta:
            copy["meta"] = meta
        for found in list(literal(copy)):
            target = plain(found.text)
            if target is not None and target not in beside:
                given = dict(found.holder)
                found.holder.clear()
                found.holder.update(self._pointer(tx, target, scope, given))
        self._inline(tx, copy, scope, owner)
        return copy

    def _pointer(self, tx: Tx, reference: str, scope: Scope, given: Mapping[str, Any] | None = None) -> Json:
        """Return a logical reference (https://hl7.org/fhir/R4/references.html#logical) to *reference*.

        What *scope* may see is named by its business identifier, else by its address at the hub; the rest by its type alone.
        """
        kind, _, id_ = reference.partition("/")
        made: Json = {name: value for name, value in (given or {}).items() if name in {"identifier", "display"}}
        made["type"] = kind
        stored = tx.records.get(kind, id_, scope)
        if stored is None or stored.deleted:
            made.setdefault("display", "未共享 (not shared)")
            return made
        body = loads(stored.body)
        identifiers = body.get("identifier", ())
        identifiers = identifiers if isinstance(identifiers, list) else [identifiers]
        whole = [one for one in identifiers if one.get("system") and one.get("value")]
        if whole:
            made.setdefault("identifier", {"system": whole[0]["system"], "value": whole[0]["value"]})
        # An address is an identifier too (https://hl7.org/fhir/R4/identifier-registry.html), which no server has to follow.
        made.setdefault(
            "identifier", {"system": "urn:ietf:rfc:3986", "value": f"{self._settings.public()}/fhir/{reference}"}
        )
        if isinstance(body.get("name"), str):
            made.setdefault("display", body["name"])
        return made

    def _inline(self, tx: Tx, resource: Json, scope: Scope, owner: str) -> None:
        """Put the bytes of Binary resources into the attachments that name them, while there is room."""
        room = MAX_ATTACHMENT_BYTES
        stack: list[Any] = [resource]
        while stack:
            value = stack.pop()
            if isinstance(value, list):
                stack.extend(value)
                continue
            if not isinstance(value, dict):
                continue
            stack.extend(value.values())
            target = plain(str(value.get("url", "")))
            if target is None or not target.startswith("Binary/"):
                continue
            id_ = target.partition("/")[2]
            stored = tx.records.get("Binary", id_, UNRESTRICTED)
            # An attachment goes with the document of the same institution; another's must be open by itself.
            open_ = stored is not None and (stored.owner == owner or tx.records.get("Binary", id_, scope) is not None)
            data = bytes_of(tx, self._objects, {"url": target}) if open_ else None
            value["url"] = f"{self._settings.public()}/fhir/{target}"
            if data is not None and len(data) <= room:
                room -= len(data)
                del value["url"]
                value["data"] = base64.b64encode(data).decode()
        if resource["resourceType"] == "Binary" and "data" not in resource:
            data = bytes_of(tx, self._objects, {"url": f"Binary/{resource['id']}"})
            resource.pop("_data", None)
            if data is not None and len(data) <= room:
                resource["data"] = base64.b64encode(data).decode()
