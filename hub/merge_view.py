"""What people are shown of merged patients: ids, and the sender's own numbers where the asker may see them."""

from __future__ import annotations

from typing import Any, Final

from fhir_mappings.json import loads
from hub import merge_items
from hub.access import UNRESTRICTED
from hub.clock import instant
from hub.merge_undo import Came
from hub.ports import Stored, Tx
from hub.rows import replaced_by

Json = dict[str, Any]
#: The two records of a merge: the one that was merged away, and the one that stands for both.
SIDES: Final = ("former", "survivor")


def item(tx: Tx, owner: str, task: Json, *, base: str, numbers: bool) -> Json:
    """Return one work item of :mod:`hub.merge_items`, its survivor as the merge stands now."""
    former = str(task["focus"]["reference"]).removeprefix("Patient/")
    stored = tx.records.get("Patient", former, UNRESTRICTED)
    survivor = replaced_by(loads(stored.body)) if stored is not None and not stored.deleted else None
    survivor = survivor or str(task["for"]["reference"]).removeprefix("Patient/")
    return {
        "task": f"Task/{task['id']}",
        "code": merge_items.code_of(task),
        "decision": merge_items.decision_of(task),
        "institution": owner,
        "since": task["authoredOn"],
        **sides(tx, former, survivor, base=base, numbers=numbers),
        "messages": merge_items.messages_of(task),
    }


def sides(tx: Tx, former: str, survivor: str, *, base: str, numbers: bool) -> Json:
    """Return the two records of a merge; with *numbers*, which are patient data, by what their sender calls them too."""
    found: Json = {"former": f"Patient/{former}", "survivor": f"Patient/{survivor}"}
    for side, id_ in zip(SIDES, (former, survivor), strict=True):
        stored = tx.records.get("Patient", id_, UNRESTRICTED) if numbers else None
        there = stored is not None and not stored.deleted
        found[f"{side}_numbers"] = _numbers(stored, base, old=side == "former") if stored is not None and there else []
    return found


def came(one: Came) -> Json:
    """Return one resource that came since the merge."""
    return {
        "reference": one.reference,
        "last_updated": instant(one.last_updated),
        "message": one.message or None,
        "said": one.said,
    }


def _numbers(stored: Stored, base: str, *, old: bool) -> list[str]:
    """Return the owner's own numbers of a record; a survivor's without the old ones, which are of others."""
    own = f"{base}/NamingSystem/{stored.owner}/"
    return [
        str(one.get("value", ""))
        for one in loads(stored.body).get("identifier", ())
        if str(one.get("system", "")).startswith(own) and (old or one.get("use") != "old")
    ]
