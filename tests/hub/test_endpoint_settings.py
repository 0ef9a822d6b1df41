"""Settings of members' endpoints: one table that import, code and documentation agree on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapters.dimse.catalogue import RIGHTS
from hub.endpoint_settings import SERVICES, SETTINGS, checked

ROOT = Path(__file__).parents[2]
#: How code asks an endpoint for a setting.
_ASKED = re.compile(
    r"""(?:endpoint|one|other|self\._exchange\.endpoint)\.settings(?:\.get\(|\[)"([a-z0-9-]+)"|asks_for\(\w+, "([a-z-]+)"\)"""
)


def test_the_doors_table_of_services_is_ours() -> None:
    assert RIGHTS <= SERVICES


def test_every_setting_that_code_asks_for_is_in_the_table() -> None:
    asked = {
        found[1] or found[2]
        for folder in ("hub", "adapters")
        for path in (ROOT / folder).rglob("*.py")
        for found in _ASKED.finditer(path.read_text("utf-8"))
    }
    assert {"charset-in", "push", "ack"} <= asked
    assert asked <= {one.name for one in SETTINGS}


def test_switches_become_truth_values() -> None:
    assert dict(checked("mllp", {"retry-ae": "false", "ack": "stored"})) == {"retry-ae": False, "ack": "stored"}
    assert dict(checked("dicom", {"push": True})) == {"push": True}


@pytest.mark.parametrize(
    ("kind", "settings", "name"),
    [
        ("dicom", {"chraset-in": "GBK"}, "chraset-in"),
        ("dicom", {"dialect": "standard"}, "dialect"),
        ("dicom", {"services": "echo stroe"}, "services"),
        ("dicom", {"certificates": " "}, "certificates"),
        ("mllp", {"retry-ae": "perhaps"}, "retry-ae"),
        ("mllp", {"version-out": "3.0"}, "version-out"),
        ("dicom", {"ae-title": "A" * 17}, "ae-title"),
    ],
)
def test_a_setting_that_nobody_could_use_is_refused_by_its_name(kind: str, settings: dict[str, str], name: str) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        dict(checked(kind, settings))
    assert caught.value.args[1].startswith(("Use one of ", "Give "))
