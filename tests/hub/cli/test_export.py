"""``hub exports``: asked for, done by the worker, shown, and its table of UIDs for who has the key."""

from __future__ import annotations

import json

from hub.boot import assemble
from hub.config import load
from hub.export import Exports, key_file
from tests.hub.cli.conftest import Hub
from tests.support.images import ROOT, STUDY, ct, receive


def test_an_export_is_asked_for_made_and_shown(consortium: Hub) -> None:
    services = assemble(load(), node="test")
    try:
        receive(services, ct(1))
        receive(services, ct(2, BurnedInAnnotation="YES"))
        asked = consortium("exports", "start", "KN", "--project", "lung", "--query", "PatientID=10086")
        assert asked.exit_code == 0, asked.output
        job = asked.stdout.strip()
        exports = Exports(services)
        while exports.turn():
            pass
        key = key_file(services.settings.data_dir, "KN", "lung")
    finally:
        services.close()
    shown = json.loads(consortium("exports", "show", "KN", job, "--json").stdout)
    assert (shown["status"], shown["done"], shown["left_out"]) == ("completed", 1, 1)
    text = consortium("exports", "show", "KN", job).stdout
    assert "burned-in-annotation" in text
    assert f"exports/{job}" in text
    assert job in consortium("exports", "list", "KN").stdout
    table = consortium("exports", "mapping", "KN", job, "--key-file", str(key)).stdout
    assert f"study\t{STUDY}\t2.25." in table
    assert consortium("exports", "cancel", "KN", job).exit_code != 0


def test_a_request_without_sense_is_refused(consortium: Hub) -> None:
    for arguments in (
        ["start", "KN", "--project", "lung", "--query", "PatientID"],
        ["start", "KN", "--project", "lung", "--study", f"{ROOT}.77"],
        ["mapping", "KN", "x", "--key-file", "nowhere"],
    ):
        assert consortium("exports", *arguments).exit_code != 0
