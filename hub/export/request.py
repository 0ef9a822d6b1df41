"""What is asked for, and who may ask (PS3.15 annex E)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fhir_mappings.dicom.deidentify import holding
from fhir_mappings.dicom.deidentify.table import Options
from fhir_mappings.errors import MappingError
from hub.actor import Actor
from hub.errors import Category, HubError

#: Roles that may ask; a grant never suffices, because it is for one purpose and this is another.
ROLES: Final = frozenset({"admin", "researcher"})
#: What a project may be called; the name is part of no path.
PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an export is to be.

    Attributes:
        project: its name; each project of an institution has a key of its own.
        studies: Study Instance UIDs.
        query: or values by study key, as QIDO-RS takes them.
        options: names of :class:`fhir_mappings.dicom.deidentify.table.Options`.
        take: reasons of :data:`holding.HELD` that do not hold an object back.
        hold_unknown: hold back every image of which nothing says that its pixels name nobody.
    """

    project: str
    studies: Sequence[str] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    take: Sequence[str] = ()
    hold_unknown: bool = False


def institution_of(actor: Actor) -> str:
    """Return whose images the actor may ask for.

    Raises:
        HubError: forbidden for a role that may not ask.
    """
    if actor.patient is not None or not actor.roles & ROLES:
        raise HubError(
            Category.FORBIDDEN,
            "Exports need the role admin or researcher of the institution whose images they are.",
            where="Authorization",
        )
    return actor.institution


def checked(request: Request) -> tuple[Options, frozenset[str]]:
    """Return the options of a request and the reasons that are not to hold an object back.

    Raises:
        HubError: incorrect for a request that makes no sense, whatever studies there are.
    """
    if not PROJECT.fullmatch(request.project):
        raise HubError(
            Category.INCORRECT,
            "The name of the project is missing or has other characters than letters, digits, dot, dash and underscore.",
            where="project",
        )
    if request.studies and request.query:
        raise HubError(Category.INCORRECT, "Give studies or a query, not both.", where="studies")
    unknown = sorted(set(request.take) - holding.HELD)
    if unknown:
        raise HubError(
            Category.INCORRECT,
            f"There is no reason {unknown[0][:32]}.",
            where="take",
            remedy=f"Use {', '.join(sorted(holding.HELD))}.",
        )
    try:
        return Options.of(request.options), frozenset(request.take)
    except MappingError as error:
        raise HubError(Category.INCORRECT, error.message, where=error.where, remedy=error.remedy) from error
