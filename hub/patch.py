"""JSON Patch of a resource (RFC 6902, https://hl7.org/fhir/R4/http.html#patch)."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import jsonpatch

from fhir_mappings.json import dumps
from hub.errors import Category, HubError

#: Operations of one patch.
MAX_OPERATIONS = 500
_KINDS = frozenset({"add", "remove", "replace", "move", "copy", "test"})


def apply_patch(resource: dict[str, Any], operations: Any, *, max_bytes: int) -> dict[str, Any]:
    """Return *resource* with *operations* applied.

    Raises:
        HubError: 400 for what is no patch, 422 for one that does not fit the resource, 413 when the result is too large.
    """
    if not isinstance(operations, list) or not operations:
        raise _wrong("A JSON Patch is an array of operations.", "body", 400)
    if len(operations) > MAX_OPERATIONS:
        raise _wrong(f"A patch may have {MAX_OPERATIONS} operations at most.", "body", 413)
    patched: Any = deepcopy(resource)
    for index, operation in enumerate(operations):
        where = f"patch[{index}]"
        kind = operation.get("op") if isinstance(operation, dict) else None
        if not isinstance(kind, str) or kind not in _KINDS:
            raise _wrong("Expected an operation with op add, remove, replace, move, copy or test.", where, 400)
        try:
            patched = jsonpatch.JsonPatch([operation]).apply(patched, in_place=True)
        except jsonpatch.JsonPatchTestFailed as error:
            raise _wrong("The test does not hold for the present version.", where, 422) from error
        except jsonpatch.InvalidJsonPatch as error:
            raise _wrong("The operation lacks a member it needs.", where, 400) from error
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError, ValueError) as error:
            raise _wrong("The path does not fit the resource.", where, 422) from error
        # Copies of copies double with each operation, so the size is looked at after each.
        if kind == "copy" and len(dumps(patched)) > max_bytes:
            raise _wrong("The patched resource would be too large.", where, 413)
    if not isinstance(patched, dict):
        raise _wrong("The patch leaves no resource.", "body", 422)
    return patched


def _wrong(message: str, where: str, status: int) -> HubError:
    return HubError(Category.INCORRECT, message, where=where, status=status, issue_code="invalid")
