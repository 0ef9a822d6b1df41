"""Resources that DICOM keeps: FHIR shows them, and they change where they come from (DESIGN rule 7).

A workitem is a Task and a performed procedure step a Procedure, each with its data set in an extension of the hub's own.
What writes one by FHIR would go past its state table, or put a data set where no modality ever sent one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_mappings.dicom import performed_step, workitem
from hub.errors import Category, HubError

#: What carries the extension, and where it is changed.
_KEPT: Mapping[str, tuple[str, str]] = {
    workitem.EXTENSION: ("a DICOM workitem", "Use UPS-RS (/dicom-web/workitems) or UPS by DIMSE."),
    performed_step.EXTENSION: ("a performed procedure step", "Its modality changes it by N-SET."),
}
_MARKS = tuple((url.encode(), url) for url in _KEPT)


def refuse(resource: Mapping[str, Any] | None, existing: bytes | None, *, where: str) -> None:
    """Raise HubError(conflict) when *resource*, as it is to be, or *existing*, as it is stored, is kept by DICOM."""
    url = next((url for mark, url in _MARKS if existing is not None and mark in existing), None)
    if url is None and resource is not None:
        said = {str(one.get("url", "")) for one in resource.get("extension") or () if isinstance(one, dict)}
        url = next(iter(said & _KEPT.keys()), None)
    if url is not None:
        what, remedy = _KEPT[url]
        raise HubError(
            Category.CONFLICT,
            f"由 DICOM 维护的资源不能经 FHIR 修改 / This is {what}, which is not changed by FHIR.",
            where=where,
            remedy=remedy,
            issue_code="business-rule",
        )
