"""Batch and transaction (https://hl7.org/fhir/R4/http.html#transaction).

A transaction is one commit: temporary ids (``urn:uuid``) and conditional references are resolved, two entries about the
same resource are refused by their indexes, and any fault leaves nothing behind. Its GET entries are answered after the
commit. Entries of a batch stand alone, one commit each.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote

from fhir_mappings.definitions.check import check
from fhir_mappings.json import dumps
from hub.answer import Answer, location
from hub.clock import instant
from hub.envelope import Envelope
from hub.errors import Category, HubError
from hub.interaction import Change
from hub.outcome import as_hub_error, findings_error, outcome, status_of
from hub.read_parameters import Pairs
from hub.reading import known_type
from hub.writable import refuse_role

if TYPE_CHECKING:
    from hub.resources import ResourceService

#: Entries of one Bundle (reference: other servers allow 500).
MAX_ENTRIES = 500
#: The order in which FHIR has the entries of a transaction carried out.
_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2}
_ETAG = re.compile(r'(?:W/)?"(\d{1,9})"')


@dataclass(frozen=True, slots=True, kw_only=True)
class _Get:
    """A GET entry: what it asks for."""

    path: tuple[str, ...]
    pairs: Pairs


_METHODS: dict[str, Literal["POST", "PUT", "DELETE"]] = {
    "POST": "POST",
    "PUT": "PUT",
    "PATCH": "PUT",
    "DELETE": "DELETE",
}


class Bundles:
    """Carries out Bundles with the interactions of *resources*."""

    def __init__(self, resources: ResourceService) -> None:
        self._resources = resources

    def process(self, envelope: Envelope, raw: bytes, *, representation: bool) -> Answer:
        """Return the response Bundle.

        Raises:
            HubError: 400 or 422 for what is no batch or transaction; for a transaction whatever one entry meets.
        """
        value = self._resources.writer.decode(raw)
        kind = value.get("type") if isinstance(value, dict) and value.get("resourceType") == "Bundle" else None
        if not isinstance(kind, str) or kind not in {"batch", "transaction"}:
            raise HubError(
                Category.INCORRECT,
                "Expected a Bundle of type batch or transaction.",
                where="Bundle.type",
                remedy="POST other Bundles to /fhir/Bundle to store them.",
                issue_code="structure",
            )
        entries = value.get("entry", [])
        if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
            raise HubError(
                Category.INCORRECT,
                f"A Bundle may have {MAX_ENTRIES} entries at most.",
                where="Bundle.entry",
                remedy="Send it in parts.",
                status=413,
                issue_code="too-costly",
            )
        # The entries' resources are checked one by one, so that a finding names its entry.
        shell = {**value, "entry": [_without_resource(one) for one in entries]} if entries else value
        findings = check(shell, resource_type="Bundle", conditional_references=True)
        if findings:
            raise findings_error(findings)
        if kind == "transaction":
            return self._transaction(envelope, entries, raw, representation=representation)
        return self._batch(envelope, entries, raw, representation=representation)

    def _transaction(self, envelope: Envelope, entries: Sequence[Any], raw: bytes, *, representation: bool) -> Answer:
        planned: list[Change | _Get] = []
        for index, one in enumerate(entries):
            label = f"Bundle.entry[{index}]"
            try:
                planned.append(self._plan(envelope, one, label, in_transaction=True))
            except HubError as error:
                raise _placed(error, label) from error
        changes = sorted((one for one in planned if isinstance(one, Change)), key=lambda one: _ORDER[one.method])
        resources = self._resources
        if changes:
            resources.refused_is_audited(
                envelope,
                "transaction",
                "Bundle",
                lambda: resources.commit(envelope, changes, raw, "transaction Bundle"),
            )
        answers = [
            self._changed(one, representation=representation) if isinstance(one, Change) else self._got(envelope, one)
            for one in planned
        ]
        return _response("transaction-response", answers)

    def _batch(self, envelope: Envelope, entries: Sequence[Any], raw: bytes, *, representation: bool) -> Answer:
        resources = self._resources
        digest = resources.keep(raw)
        resources.write(lambda tx: resources.journal(tx, envelope, raw, "batch Bundle", (), digest))
        answers = []
        for index, one in enumerate(entries):
            label = f"Bundle.entry[{index}]"
            try:
                planned = self._plan(envelope, one, label, in_transaction=False)
                if isinstance(planned, _Get):
                    answers.append(self._got(envelope, planned))
                    continue
                commit = partial(resources.commit, envelope, (planned,), None, f"batch {planned.type}")
                resources.refused_is_audited(envelope, "batch", planned.type, commit)
                answers.append(self._changed(planned, representation=representation))
            except Exception as error:  # noqa: BLE001 - one entry's trouble is its own answer, never the others'
                answers.append(_failed(error, envelope.correlation_id))
        return _response("batch-response", answers)

    # --- one entry -------------------------------------------------------------------------------------------

    def _plan(self, envelope: Envelope, one: Any, label: str, *, in_transaction: bool) -> Change | _Get:
        request = one.get("request") if isinstance(one, dict) else None
        if not isinstance(request, dict):
            raise HubError(Category.INCORRECT, "An entry needs a request.", where=f"{label}.request")
        method, url = request.get("method"), str(request.get("url", ""))
        path, pairs = self._target(url, f"{label}.request.url")
        if method in {"GET", "HEAD"}:
            return _Get(path=path, pairs=pairs)
        type_ = known_type(path[0]) if path else ""
        id_ = path[1] if len(path) > 1 else None
        whole = (method == "POST" and len(path) == 1) or (
            method in {"PUT", "PATCH", "DELETE"} and (len(path) == 2 or (len(path) == 1 and bool(pairs)))
        )
        if not whole:
            raise HubError(
                Category.UNSUPPORTED,
                "A Bundle cannot ask for this.",
                where=f"{label}.request",
                remedy="Use GET, POST Type, and PUT, PATCH or DELETE of Type/id or Type?condition.",
                status=422,
            )
        writer = self._resources.writer
        refuse_role(envelope.actor, type_)
        condition: Pairs | None = pairs if id_ is None and method != "POST" else None
        if method == "POST" and request.get("ifNoneExist"):
            condition = parse_pairs(str(request["ifNoneExist"]).partition("?")[2] or str(request["ifNoneExist"]))
        change = Change(
            method=_METHODS[str(method)],
            type=type_,
            given_id=id_,
            condition=None if condition is None else tuple(condition),
            if_match=version_of(request.get("ifMatch"), request.get("ifNoneMatch")),
            full_url=str(one.get("fullUrl", "")) if in_transaction else "",
            label=label,
        )
        if method == "PATCH":
            change.patch = self._patch(one.get("resource"), label)
        elif method != "DELETE":
            change.source = writer.resource(one.get("resource"), type_, label=label, in_bundle=in_transaction)
            if id_ is not None and change.source.get("id", id_) != id_:
                raise HubError(
                    Category.INCORRECT,
                    "The id of the resource is not the one in the URL.",
                    where=f"{label}.resource.id",
                )
        return change

    def _target(self, url: str, where: str) -> tuple[tuple[str, ...], Pairs]:
        for base in self._resources.reader.bases:
            if url.startswith(f"{base}/"):
                url = url[len(base) + 1 :]
        path, _, query = url.partition("?")
        parts = tuple(unquote(part) for part in path.strip("/").split("/") if part)
        if len(path) > 512 or len(parts) > 4 or not parts:
            raise HubError(Category.INCORRECT, "Expected a URL below the server's base.", where=where)
        return parts, parse_pairs(query)

    def _patch(self, resource: Any, label: str) -> Any:
        if (
            not isinstance(resource, dict)
            or resource.get("resourceType") != "Binary"
            or str(resource.get("contentType", "")).partition(";")[0] != "application/json-patch+json"
        ):
            raise HubError(
                Category.UNSUPPORTED,
                "A PATCH entry needs a Binary of application/json-patch+json.",
                where=f"{label}.resource",
                status=422,
            )
        try:
            text = base64.b64decode(str(resource.get("data", "")), validate=True)
        except (binascii.Error, ValueError) as error:
            raise HubError(Category.INCORRECT, "The data is not base64.", where=f"{label}.resource.data") from error
        return self._resources.writer.decode(text)

    @staticmethod
    def _changed(change: Change, *, representation: bool) -> bytes:
        stored = change.result
        if change.method == "DELETE" or stored is None:
            return b'{"response":{"status":"204"}}'
        response = {
            "status": "201" if change.created else "200",
            "location": location(stored),
            "etag": f'W/"{stored.version}"',
            "lastModified": instant(stored.last_updated),
        }
        if representation:
            return b'{"resource":%s,"response":%s}' % (stored.body, dumps(response))
        return b'{"response":%s}' % dumps(response)

    def _got(self, envelope: Envelope, asked: _Get) -> bytes:
        resources = self._resources
        try:
            match asked.path:
                case (type_,):
                    answer = resources.search(envelope, type_, asked.pairs)
                case (type_, id_):
                    answer = resources.read(envelope, type_, id_, pairs=asked.pairs)
                case (type_, id_, "_history"):
                    answer = resources.history(envelope, type_, id_, asked.pairs)
                case (type_, id_, "_history", version):
                    answer = resources.vread(envelope, type_, id_, version)
                case _:
                    raise HubError(Category.UNSUPPORTED, "A Bundle cannot ask for this.", where="request.url")
        except HubError as error:
            return _failed(error, envelope.correlation_id)
        response = {"status": "200"}
        if answer.stored is not None:
            response |= {
                "etag": f'W/"{answer.stored.version}"',
                "lastModified": instant(answer.stored.last_updated),
            }
        return b'{"resource":%s,"response":%s}' % (answer.body, dumps(response))


def version_of(if_match: object, if_none_match: object = None) -> int | None:
    """Return the version that If-Match names, 0 for ``If-None-Match: *``, ``None`` for neither.

    Raises:
        HubError: incorrect for anything else.
    """
    if if_none_match == "*" and if_match is None:
        return 0
    if if_match is None:
        return None
    match = _ETAG.fullmatch(str(if_match).strip())
    if match is None:
        raise HubError(
            Category.INCORRECT,
            'Expected an ETag such as W/"3".',
            where="If-Match",
            remedy="Send the ETag as it was read.",
        )
    return int(match[1])


def parse_pairs(query: str) -> Pairs:
    """Return the names and values of a query string.

    Raises:
        HubError: incorrect for one that is not UTF-8 or has too many parameters.
    """
    try:
        return tuple(parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=200))
    except (UnicodeDecodeError, ValueError) as error:
        raise HubError(Category.INCORRECT, "The query is not one in UTF-8.", where="query") from error


def _without_resource(one: Any) -> Any:
    return {key: value for key, value in one.items() if key != "resource"} if isinstance(one, dict) else one


def _placed(error: HubError, label: str) -> HubError:
    if error.where.startswith(label) or error.issues:
        return error
    where = f"{label}: {error.where}" if error.where else label
    return HubError(
        error.category,
        error.message,
        where=where,
        remedy=error.remedy,
        status=error.status,
        issue_code=error.issue_code,
    )


def _failed(error: BaseException, reference: str) -> bytes:
    known = as_hub_error(error)
    return dumps({"response": {"status": str(status_of(known)), "outcome": outcome(known, reference)}})


def _response(kind: str, answers: Sequence[bytes]) -> Answer:
    head = dumps({"resourceType": "Bundle", "type": kind})
    body = head[:-1] + b',"entry":[%s]}' % b",".join(answers) if answers else head
    return Answer(status=200, body=body)
