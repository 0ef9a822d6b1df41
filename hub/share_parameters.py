"""The Parameters of ``ImagingStudy/$share``, ``$shares`` and ``$revoke-share`` (https://hl7.org/fhir/R4/parameters.html).

``$share`` takes ``days`` (integer), ``history`` (boolean), ``purpose`` and ``note`` (text), each once at most, and
``$revoke-share`` takes ``share`` (id).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fhir_mappings.definitions.check import check
from hub import qr
from hub.clock import instant
from hub.errors import Category, HubError
from hub.outcome import findings_error
from hub.ports.sharing import Share
from hub.sharing import Made

Json = dict[str, Any]

_SHARE: Mapping[str, tuple[str, ...]] = {
    "days": ("valueInteger", "valuePositiveInt"),
    "history": ("valueBoolean",),
    "purpose": ("valueString", "valueCode"),
    "note": ("valueString", "valueMarkdown"),
}
_REVOKE: Mapping[str, tuple[str, ...]] = {"share": ("valueId", "valueString")}


def read_share(value: Any) -> dict[str, Any]:
    """Return what ``$share`` is asked for, by the names of :meth:`hub.sharing.SharingService.make`.

    Raises:
        HubError: incorrect, naming the parameter.
    """
    return _read(value, _SHARE)


def read_revoke(value: Any) -> str:
    """Return the id of the link that is to end; raises HubError(incorrect) without one."""
    found = _read(value, _REVOKE)
    if not found.get("share"):
        raise HubError(
            Category.INCORRECT,
            "The link is missing.",
            where="share",
            remedy="Send a parameter named share with valueId; $shares lists the ids.",
            status=422,
        )
    return str(found["share"])


def _read(value: Any, known: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    findings = check(value, resource_type="Parameters")
    if findings:
        raise findings_error(findings)
    found: dict[str, Any] = {}
    for one in value.get("parameter", ()):
        name = one["name"]
        kind = next((kind for kind in known.get(name, ()) if kind in one), None)
        if kind is None or name in found:
            raise HubError(
                Category.INCORRECT,
                "A parameter is unknown, of another type or given twice.",
                where=name[:64],
                remedy="Supported: " + ", ".join(f"{key} ({kinds[0]})" for key, kinds in known.items()) + ".",
                status=422,
            )
        found[name] = one[kind]
    return found


def made(new: Made) -> Json:
    """Return the answer to ``$share``: the only one that holds the address and the password."""
    return _parameters(
        [
            ("id", "valueId", new.share.id),
            ("url", "valueUrl", new.url),
            ("password", "valueString", new.password),
            ("expires", "valueInstant", instant(new.share.expires_at)),
            ("institution", "valueString", new.institution),
            *_studies(new.share),
            ("qr", "valueAttachment", _attachment("image/svg+xml", qr.svg(new.url))),
            ("qr", "valueAttachment", _attachment("image/png", qr.png(new.url))),
        ]
    )


def listed(found: Sequence[tuple[Share, Sequence[Mapping[str, Any]]]], now: datetime) -> Json:
    """Return the answer to ``$shares``: each link with who did what by it, newest first."""
    return {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "share", "part": [*_parts(share, now), *(_access(one) for one in accesses)]}
            for share, accesses in found
        ],
    }


def ended(share: Share, now: datetime) -> Json:
    """Return the answer to ``$revoke-share``."""
    return {"resourceType": "Parameters", "parameter": [{"name": "share", "part": _parts(share, now)}]}


def _parts(share: Share, now: datetime) -> list[Json]:
    values: list[tuple[str, str, Any]] = [
        ("id", "valueId", share.id),
        ("state", "valueCode", share.state_at(now)),
        ("created", "valueInstant", instant(share.created_at)),
        ("createdBy", "valueString", share.created_by),
        ("expires", "valueInstant", instant(share.expires_at)),
    ]
    if share.revoked_at is not None:
        values += [
            ("revoked", "valueInstant", instant(share.revoked_at)),
            ("revokedBy", "valueString", share.revoked_by),
        ]
    values += [(name, "valueString", text) for name, text in (("purpose", share.purpose), ("note", share.note)) if text]
    parts: list[Json] = _parameters([*values, *_studies(share)])["parameter"]
    return parts


def _access(event: Mapping[str, Any]) -> Json:
    agent = event["agent"][0]
    parts: list[Json] = [
        {"name": "recorded", "valueInstant": event["recorded"]},
        {"name": "what", "valueString": event["subtype"][0]["code"]},
        {"name": "outcome", "valueCode": event["outcome"]},
        {"name": "event", "valueReference": {"reference": f"AuditEvent/{event['id']}"}},
    ]
    if "network" in agent:
        parts.append({"name": "address", "valueString": agent["network"]["address"]})
    return {"name": "access", "part": parts}


def _studies(share: Share) -> list[tuple[str, str, Any]]:
    first = [share.StudyInstanceUID]
    others = [uid for uid in share.studies if uid != share.StudyInstanceUID]
    return [("study", "valueUri", f"urn:oid:{uid}") for uid in (*first, *others)]


def _attachment(content_type: str, data: bytes) -> Json:
    return {"contentType": content_type, "data": base64.b64encode(data).decode()}


def _parameters(values: Sequence[tuple[str, str, Any]]) -> Json:
    return {"resourceType": "Parameters", "parameter": [{"name": name, kind: value} for name, kind, value in values]}
