"""What a translation must know that the message does not say: whose message it is, and how that sender writes HL7 v2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote
from zoneinfo import ZoneInfo

from fhir_mappings.code_maps import NO_MAPS, CodeMaps
from fhir_mappings.identifiers import CANONICAL_BASE, naming_system, resource_id

NameForm = Literal["family-given", "whole-or-pinyin"]
LocationForm = Literal["standard", "ward-department"]
SpecimenForm = Literal["standard", "code-name"]
DateForm = Literal["compact", "separated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one sender writes HL7 v2; a table, so that a new hospital is data and not code.

    Attributes:
        cx_types: CX.5 as written -> kind of number (``patient-id``, ``inpatient-no``, ``resident-id``, ...).
        default_cx_kind: the kind of a CX without a type.
        name_form: ``whole-or-pinyin`` reads XPN.1 alone as the whole name and ``PINYIN^汉字`` as two spellings of it.
        location_form: ``ward-department`` reads PL.4 and PL.5 as code and name of the department.
        specimen_form: ``code-name`` reads OBR-15.2, where the standard has the additive, as the name of the code before it.
        dates: ``separated`` also reads dates and times with dashes, slashes and colons (``1948-02-12 08:30``).
        time_zone: the zone of times written without an offset.
        charset_in: character set that wins over the evidence of the bytes; ``None`` lets the bytes decide.
        charset_out: character set of what is sent to this partner.
        msh_18_out: MSH-18 of what is sent; empty where the partner leaves it empty itself.
        version_out: MSH-12 of what is sent.
        authorities: HD.1 as written -> code of the institution that gives out the number.
        code_systems: CWE.3 as written, in capitals -> code system URI.
        z_fields: field of a Z-segment -> element of FHIR, see :mod:`fhir_mappings.hl7v2.zfields`.
    """

    name: str
    cx_types: Mapping[str, str] = field(default_factory=dict)
    default_cx_kind: str = "patient-id"
    name_form: NameForm = "family-given"
    location_form: LocationForm = "standard"
    specimen_form: SpecimenForm = "standard"
    dates: DateForm = "compact"
    time_zone: str = "Asia/Shanghai"
    charset_in: str | None = None
    charset_out: str = "utf-8"
    msh_18_out: str = "UNICODE UTF-8"
    version_out: str = "2.4"
    authorities: Mapping[str, str] = field(default_factory=dict)
    code_systems: Mapping[str, str] = field(default_factory=dict)
    z_fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def zone(self) -> ZoneInfo:
        """The sender's time zone."""
        return ZoneInfo(self.time_zone)

    def varied(self, changes: Mapping[str, Any]) -> Dialect:
        """Return this dialect with *changes*, as configuration gives them; tables are extended, not replaced.

        Raises:
            ValueError: a key is no attribute of a dialect.
            TypeError: a value is of another type than the attribute.
        """
        known = {item.name: getattr(self, item.name) for item in fields(self)}
        made: dict[str, Any] = {}
        for key, value in changes.items():
            if key not in known:
                raise ValueError(f"A dialect has no {key!r}; it has {', '.join(sorted(known))}.")
            if isinstance(known[key], Mapping):
                if not isinstance(value, Mapping):
                    raise TypeError(f"{key!r} of a dialect is a table.")
                made[key] = {**known[key], **value}
            elif isinstance(value, str) or (key == "charset_in" and value is None):
                made[key] = value
            else:
                raise TypeError(f"{key!r} of a dialect is a string.")
        return replace(self, **made)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingContext:
    """Whose message is translated, and when it came.

    Attributes:
        institution: code of the institution that owns what the message makes, for example ``KN``.
        received_at: with an offset.
        maps: what the sender's own codes are in standard ones.
    """

    institution: str
    dialect: Dialect
    received_at: datetime
    base: str = CANONICAL_BASE
    maps: CodeMaps = NO_MAPS

    def id(self, resource_type: str, authority: str, value: str) -> str:
        """Return the FHIR id for the business key *value* that *authority* of this institution gives out."""
        return resource_id(self.institution, authority, resource_type, value)

    def system(self, kind: str, namespace: str = "") -> str:
        """Return the identifier system of numbers of *kind*.

        A *namespace* (HD.1) is trusted only where the dialect says which institution it is; any other one stays
        inside the sender's own, because two hospitals call their systems by the same name.
        """
        owner = self.owner(namespace)
        if owner is not None:
            return naming_system(owner, kind, base=self.base)
        return naming_system(self.institution, f"{quote(namespace.strip(), safe='')}/{kind}", base=self.base)

    def owner(self, namespace: str) -> str | None:
        """Return the institution that *namespace* stands for, the sender itself for none, or ``None`` if unknown."""
        name = namespace.strip()
        if name in {"", self.institution}:
            return self.institution
        return self.dialect.authorities.get(name)

    def code_system(self, name: str) -> str:
        """Return the URI of the code system that CWE.3 calls *name*; unknown and local ones are the sender's own."""
        known = self.dialect.code_systems.get(name.strip().upper())
        if known is not None:
            return known
        label = name.strip()
        if label.startswith(("http://", "https://", "urn:")):
            return label
        if len(label) == 7 and label.upper().startswith("HL7") and label[3:].isdigit():
            return f"http://terminology.hl7.org/CodeSystem/v2-{label[3:]}"
        slug = "local" if label.upper() in {"", "L", "LOCAL", "99LOC"} else quote(label, safe="")
        return f"{self.base}/CodeSystem/{self.institution}/{slug}"
