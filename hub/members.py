"""The consortium's members, distilled from FHIR into what the doors need.

Organization (https://hl7.org/fhir/R4/organization.html) carries the member code as identifier of
``{base}/NamingSystem/member``; Endpoint says how a member is reached and recognised, its own settings standing in
``endpoint-setting`` extensions; PractitionerRole binds a person to a member under that member's business code. Where a
member's studies are sent stands in ``routing-rule`` extensions of its Organization.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fhir_mappings.identifiers import CANONICAL_BASE
from hub.access import DIRECTORY_TYPES
from hub.actor import HUB, ROLES
from hub.endpoint_setting import is_zone
from hub.endpoint_settings import checked
from hub.errors import Category, HubError
from hub.file_doors import REMOTE, sftp_problem
from hub.intake_policy import SETTING as INTAKE
from hub.intake_policy import wrong_part as wrong_intake
from hub.ports import Member, MemberEndpoint, MemberPractitioner
from hub.recompression import SETTING as RECOMPRESSION
from hub.recompression import wrong_part
from hub.retention_policy import MESSAGES as MESSAGE_RETENTION
from hub.retention_policy import SETTING as RETENTION
from hub.retention_policy import are_years, is_policy
from hub.routing import Rule

MEMBER_SYSTEM = f"{CANONICAL_BASE}/NamingSystem/member"
ENDPOINT_SYSTEM = f"{CANONICAL_BASE}/NamingSystem/endpoint"
SETTING_URL = f"{CANONICAL_BASE}/StructureDefinition/endpoint-setting"
MEMBER_SETTING_URL = f"{CANONICAL_BASE}/StructureDefinition/member-setting"
ROUTING_RULE_URL = f"{CANONICAL_BASE}/StructureDefinition/routing-rule"
ROLE_SYSTEM = f"{CANONICAL_BASE}/CodeSystem/role"

#: Endpoint.connectionType to the hub's own kinds. ``dicom`` and ``webhook`` are ours: the standard's list has neither.
_KINDS = {
    "dicom": "dicom",
    "hl7v2-mllp": "mllp",
    "hl7-fhir-rest": "fhir",
    "hl7-fhir-msg": "fhir-message",
    "dicom-wado-rs": "dicom-web",
    "dicom-stow-rs": "dicom-web",
    "webhook": "webhook",
}

Resource = Mapping[str, Any]


#: Parts of a routing rule that may be given several times.
_REPEATED = frozenset({"modality", "window"})


def _code(resource: Resource, system: str) -> str:
    for identifier in resource.get("identifier", ()):
        if identifier.get("system") == system:
            return str(identifier.get("value", ""))
    return ""


def settings_of(resource: Resource, url: str) -> dict[str, Any]:
    """Return the settings that stand in the extensions *url* of *resource*, by name."""
    found: dict[str, Any] = {}
    for extension in resource.get("extension", ()):
        if extension.get("url") != url:
            continue
        parts = {part["url"]: part for part in extension.get("extension", ())}
        name = str(parts.get("name", {}).get("valueString", ""))
        value = parts.get("value", {})
        if name:
            found[name] = next((value[key] for key in value if key.startswith("value")), "")
    return found


def _routes(reference: str, resource: Resource) -> list[dict[str, Any]]:
    """Return the routing rules of an Organization, each as its parts by name.

    Raises:
        HubError: incorrect, naming the rule and the part that is no use.
    """
    found: list[dict[str, Any]] = []
    for extension in resource.get("extension", ()):
        if extension.get("url") != ROUTING_RULE_URL:
            continue
        rule: dict[str, Any] = {}
        for part in extension.get("extension", ()):
            name, value = str(part.get("url", "")), next((part[key] for key in part if key.startswith("value")), "")
            if name in _REPEATED:
                rule.setdefault(name, []).append(str(value))
            else:
                rule[name] = str(value)
        where = f"{reference}.routing-rule({rule.get('name', len(found) + 1)})"
        try:
            Rule.of(rule)
        except ValueError as error:
            raise _wrong(
                f"The part {error} of the routing rule is missing or cannot be used.",
                where,
                "Give name, to, and as wanted modality, description, source, station, window like mon-fri 19:00-07:00.",
            ) from error
        if rule["name"] in {other["name"] for other in found}:
            raise _wrong("The member has another routing rule of that name.", where, "Give each rule its own name.")
        found.append(rule)
    return found


def _lead_somewhere(
    members: Iterable[Member], points: Iterable[MemberEndpoint], organizations: Mapping[str, str]
) -> None:
    """Refuse a routing rule whose destination is neither a DICOM endpoint nor a member that has one."""
    destinations = {name for one in points if one.kind == "dicom" for name in (one.id, one.member)}
    for member in members:
        for rule in member.settings.get("routes", ()):
            if rule["to"] not in destinations:
                raise _wrong(
                    f"The routing rule sends to {rule['to']}, which is no DICOM endpoint and no member that has one.",
                    f"{organizations[member.code]}.routing-rule({rule['name']})",
                    "Import the destination's Endpoint first or in the same file; `hub members list` shows the names.",
                )


def _wrong(message: str, where: str, remedy: str) -> HubError:
    return HubError(Category.INCORRECT, message, where=where, remedy=remedy)


def _reference(resource: Resource, element: str) -> str:
    return str(resource.get(element, {}).get("reference", ""))


def distil(
    resources: Iterable[Resource],
    *,
    known: Iterable[MemberEndpoint] = (),
) -> tuple[list[Member], list[MemberEndpoint], list[MemberPractitioner]]:
    """Return the members, endpoints and people that *resources* describe.

    Args:
        known: DICOM endpoints of earlier imports, to which routing rules may send.

    Raises:
        HubError: incorrect, naming the resource and element, for what the doors could not work with.
    """
    by_reference = {f"{one['resourceType']}/{one.get('id', '')}": one for one in resources}
    for reference, one in by_reference.items():
        if one["resourceType"] not in DIRECTORY_TYPES:
            raise _wrong(
                f"{one['resourceType']} is not a directory resource.",
                reference,
                f"Import only {', '.join(sorted(DIRECTORY_TYPES))}.",
            )
        if not one.get("id"):
            raise _wrong("A directory resource needs an id.", one["resourceType"], "Give it one that stays.")
    members: list[Member] = []
    codes: dict[str, str] = {}
    for reference, one in by_reference.items():
        if one["resourceType"] == "Organization" and (code := _code(one, MEMBER_SYSTEM)):
            codes[reference] = code
            settings = settings_of(one, MEMBER_SETTING_URL)
            if "time-zone" in settings and not is_zone(str(settings["time-zone"])):
                raise _wrong(
                    "The setting time-zone is no zone.", f"{reference}.time-zone", "Give one like Asia/Shanghai."
                )
            if RETENTION in settings and not is_policy(str(settings[RETENTION])):
                raise _wrong(
                    "The setting retention is no policy, or keeps for less than 15 years.",
                    f"{reference}.retention",
                    "Give years after the patient's last study, by modality if wanted, like 30 or years=30 US=15.",
                )
            if MESSAGE_RETENTION in settings and not are_years(str(settings[MESSAGE_RETENTION])):
                raise _wrong(
                    "The setting message-retention is no number of years.",
                    f"{reference}.{MESSAGE_RETENTION}",
                    "Give whole years from 1 to 200, or leave it out to keep messages for ever.",
                )
            if (part := wrong_part(str(settings.get(RECOMPRESSION, "")))) is not None:
                raise _wrong(
                    f"The setting recompression cannot be read at {part}.",
                    f"{reference}.recompression",
                    "Write it like transfer-syntax=jpeg-ls modalities=CT,MR after-days=30, with jpeg-ls or jpeg-2000;"
                    " there is no encoder of HTJ2K here.",
                )
            if (part := wrong_intake(str(settings.get(INTAKE, "")))) is not None:
                raise _wrong(
                    f"The setting intake cannot be read at {part}.",
                    f"{reference}.intake",
                    "Write it like weight=2 messages-per-minute=600 bytes-per-minute=20000000 connections=8"
                    " bytes-per-day=2000000000 over=slow; over is slow or refuse, and every part may be left out.",
                )
            routes = _routes(reference, one)
            kinds = [coding.get("code", "") for concept in one.get("type", ()) for coding in concept.get("coding", ())]
            members.append(
                Member(
                    code=code,
                    organization_id=one["id"],
                    name=str(one.get("name", code)),
                    kind=kinds[0] if kinds else "",
                    active=bool(one.get("active", True)),
                    entitlements=tuple(str(settings.get("entitlements", "")).split()),
                    settings={key: value for key, value in settings.items() if key != "entitlements"}
                    | ({"routes": routes} if routes else {}),
                )
            )
    endpoints = [
        _endpoint(reference, one, codes) for reference, one in by_reference.items() if one["resourceType"] == "Endpoint"
    ]
    _tell_apart(
        [reference for reference, one in by_reference.items() if one["resourceType"] == "Endpoint"],
        endpoints,
        present=frozenset(member.code for member in members if member.active),
    )
    _lead_somewhere(members, [*endpoints, *known], {code: reference for reference, code in codes.items()})
    people = [
        person
        for reference, one in by_reference.items()
        if one["resourceType"] == "PractitionerRole" and (person := _person(reference, one, codes, by_reference))
    ]
    return members, endpoints, people


def _member_of(reference: str, resource: Resource, element: str, codes: Mapping[str, str]) -> str:
    target = _reference(resource, element)
    if target not in codes:
        raise _wrong(
            f"{element} does not name a member in the same import.",
            f"{reference}.{element}",
            f"Import the Organization with its identifier of {MEMBER_SYSTEM} together with it.",
        )
    return codes[target]


def _endpoint(reference: str, one: Resource, codes: Mapping[str, str]) -> MemberEndpoint:
    member = _member_of(reference, one, "managingOrganization", codes)
    connection = one.get("connectionType", {}).get("code", "")
    kind = _KINDS.get(connection)
    if kind is None:
        raise _wrong(
            f"connectionType {connection!r} is not one the hub speaks.",
            f"{reference}.connectionType",
            f"Use one of {', '.join(sorted(_KINDS))}.",
        )
    if kind == "webhook" and member != HUB.institution:
        raise _wrong(
            "Only the operator is told of alerts by webhook.",
            f"{reference}.managingOrganization",
            f"Make it an Endpoint of {HUB.institution}.",
        )
    try:
        settings = dict(checked(kind, settings_of(one, SETTING_URL)))
    except ValueError as error:
        name, words = error.args
        raise _wrong(f"The setting {name} is none that a door could use.", f"{reference}.{name}", words) from error
    address = str(one.get("address", ""))
    # An endpoint that only sends to the hub has a placeholder address, because FHIR requires the element.
    reach = "" if address.startswith("urn:none") else address
    # The senders take host:port for an open line, so only the schemes of TLS may not be lost.
    secure = next((scheme for scheme in ("mllps://", "dicoms://") if reach.startswith(scheme)), "")
    for scheme in ("mllp://", "dicom://", secure):
        reach = reach.removeprefix(scheme)
    if kind == "mllp" and reach.startswith(REMOTE) and (problem := sftp_problem(reach, settings)):
        raise _wrong("The SFTP endpoint cannot be used.", f"{reference}.address", problem)
    # The user of an SFTP address is no AE title.
    title, at, host = ("", "", reach) if reach.startswith(REMOTE) else reach.partition("@")
    ae_title = str(settings.pop("ae-title", title if at else ""))
    if kind == "dicom" and (not 1 <= len(ae_title) <= 16 or "://" in ae_title):
        raise _wrong(
            "A DICOM endpoint needs an AE title of 1 to 16 characters (PS3.5 6.2).",
            f"{reference}.address",
            "Write dicom://AE_TITLE@host:port (dicoms:// for TLS), or the setting ae-title.",
        )
    return MemberEndpoint(
        id=_code(one, ENDPOINT_SYSTEM) or f"{member}/{kind}",
        member=member,
        kind=kind,
        address=secure + (host if at else reach),
        ae_title=ae_title,
        sending_application=str(settings.pop("sending-application", "")),
        sending_facility=str(settings.pop("sending-facility", "")),
        cidr=tuple(str(settings.pop("cidr", "")).split()),
        active=one.get("status", "active") == "active",
        settings=settings,
    )


def _tell_apart(references: Sequence[str], endpoints: Sequence[MemberEndpoint], *, present: frozenset[str]) -> None:
    """Refuse endpoints of one id, and members that are present and call by one name from networks that overlap."""
    before: dict[str, MemberEndpoint] = {}
    for reference, one in zip(references, endpoints, strict=True):
        if one.id in before:
            raise _wrong(
                f"Another endpoint is called {one.id} too, and one of them would be lost.",
                reference,
                f"Give each its own identifier of {ENDPOINT_SYSTEM}.",
            )
        rivals = (other for other in before.values() if {one.member, other.member} <= present)
        rival = next((other for other in rivals if _answer_to_one_name(one, other)), None)
        if rival is not None:
            raise _wrong(
                f"What it sends could not be told from what {rival.member} sends.",
                reference,
                "Give them different AE titles or MSH-3 and MSH-4, or networks (cidr) that do not overlap.",
            )
        before[one.id] = one


def _answer_to_one_name(one: MemberEndpoint, other: MemberEndpoint) -> bool:
    if one.member == other.member or one.kind != other.kind or not (one.active and other.active):
        return False
    if one.kind == "mllp":
        applications = {one.sending_application, other.sending_application} - {""}
        signs = one.sending_facility or applications
        # An endpoint without MSH-3 answers to every application of its facility.
        if not signs or one.sending_facility != other.sending_facility or len(applications) > 1:
            return False
    elif one.kind != "dicom" or one.ae_title != other.ae_title:
        return False
    networks = [[ipaddress.ip_network(text, strict=False) for text in point.cidr] for point in (one, other)]
    return not all(networks) or any(
        first.version == second.version and first.overlaps(second) for first in networks[0] for second in networks[1]
    )


def _person(
    reference: str, one: Resource, codes: Mapping[str, str], by_reference: Mapping[str, Resource]
) -> MemberPractitioner | None:
    member = _member_of(reference, one, "organization", codes)
    code = _code(one, f"{CANONICAL_BASE}/NamingSystem/{member}/practitioner")
    practitioner = by_reference.get(_reference(one, "practitioner"))
    if practitioner is None or not code:
        raise _wrong(
            "A PractitionerRole needs its Practitioner in the same import and the member's own code of the person.",
            reference,
            f"Add the identifier of {CANONICAL_BASE}/NamingSystem/{member}/practitioner.",
        )
    roles = tuple(
        coding["code"]
        for concept in one.get("code", ())
        for coding in concept.get("coding", ())
        if coding.get("system") == ROLE_SYSTEM
    )
    unknown = sorted(set(roles) - ROLES)
    if unknown:
        raise _wrong(f"Unknown role {', '.join(unknown)}.", f"{reference}.code", f"Use {', '.join(sorted(ROLES))}.")
    names = practitioner.get("name", ())
    return MemberPractitioner(
        member=member,
        code=code,
        practitioner_id=str(practitioner["id"]),
        role_id=str(one["id"]),
        name=str(names[0].get("text", "")) if names else "",
        roles=roles,
        active=bool(one.get("active", True)),
    )
