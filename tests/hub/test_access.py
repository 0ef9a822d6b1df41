"""Whose data an asker reaches, by institution and role."""

from __future__ import annotations

import pytest

from hub.access import scope_of
from hub.actor import ROLES, Actor


@pytest.mark.parametrize("role", ["operator", "researcher"])
def test_roles_without_patients_see_none(role: str) -> None:
    assert role in ROLES
    assert scope_of(Actor(institution="KN", roles=frozenset({role}))).directory_only
    assert scope_of(Actor(institution="KN", roles=frozenset({role, "admin"}))).directory_only


@pytest.mark.parametrize("role", ["operator", "researcher"])
def test_a_physician_who_has_such_a_role_too_keeps_sight_of_patients(role: str) -> None:
    assert not scope_of(Actor(institution="KN", roles=frozenset({role, "doctor"}))).directory_only


def test_a_patient_sees_one_compartment_whatever_else_is_said() -> None:
    assert scope_of(Actor(institution="KN", roles=frozenset({"patient", "operator"}), patient="p1")).patient == "p1"
