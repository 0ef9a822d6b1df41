"""Setting a hub up from the command line: schema, members, credentials."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

from hub.boot import assemble
from hub.config import load
from hub.errors import Category, HubError
from tests.hub.cli.conftest import MEMBERS, Hub


def test_migrate_makes_the_schema_once_and_may_be_repeated(hub: Hub, data_dir: Path) -> None:
    first, second = hub("migrate"), hub("migrate")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "migrated" in first.stdout
    assert "already" in second.stdout
    assert (data_dir / "hub.db").exists()


def test_importing_the_same_members_twice_changes_nothing(hub: Hub) -> None:
    first = hub("members", "import", str(MEMBERS))
    listed = hub("members", "list", "--json").stdout
    second = hub("members", "import", str(MEMBERS / "consortium.json"))
    assert first.stdout == second.stdout
    assert hub("members", "list", "--json").stdout == listed
    rows = {row["code"]: row for row in map(json.loads, listed.splitlines())}
    assert set(rows) == {"YL", "KN", "QH", "QM", "YJ", "BH", "YY", "XH"}
    assert "KN/mllp" in {one["id"] for one in rows["KN"]["endpoints"]}


def test_members_list_names_people_and_endpoints(consortium: Hub) -> None:
    text = consortium("members", "list").stdout
    assert "KN/dicom" in text
    assert "KN_PACS" in text
    assert "0231" in text


def test_a_file_that_is_no_fhir_is_refused_by_name(hub: Hub, tmp_path: Path) -> None:
    wrong = tmp_path / "members.json"
    wrong.write_text("{]")
    result = hub("members", "import", str(wrong))
    assert isinstance(result.exception, HubError)
    assert result.exception.category is Category.INCORRECT
    assert result.exception.where == str(wrong)


def test_a_token_alone_is_printed_and_speaks_for_whom_it_was_asked(consortium: Hub) -> None:
    result = consortium("token", "--institution", "KN", "--practitioner", "0231", "--ttl", "60")
    assert result.exit_code == 0
    token = result.stdout.removesuffix("\n")
    assert token == token.strip()
    assert " " not in token
    services = assemble(load(), node="reader")
    try:
        actor = services.directory.actor_for(token)
    finally:
        services.close()
    assert actor is not None
    assert (actor.institution, actor.practitioner) == ("KN", "0231")
    assert "physician" in actor.roles


def test_a_token_for_software_carries_the_role_asked_for(consortium: Hub) -> None:
    token = consortium("token", "--institution", "YY", "--role", "operator").stdout.strip()
    services = assemble(load(), node="reader")
    try:
        actor = services.directory.actor_for(token)
    finally:
        services.close()
    assert actor is not None
    assert actor.roles == {"operator"}


def test_no_token_for_a_stranger(consortium: Hub) -> None:
    for arguments in (("--institution", "ZZ"), ("--institution", "KN", "--role", "emperor")):
        result = consortium("token", *arguments)
        assert isinstance(result.exception, HubError)
        assert result.stdout == ""


def test_a_client_can_log_in_with_the_secret_that_is_shown_once(consortium: Hub) -> None:
    result = consortium("members", "client", "QH")
    shown = dict(line.split("=", 1) for line in result.stdout.splitlines())
    services = assemble(load(), node="reader")
    try:
        actor = services.directory.client_actor(shown["client_id"], shown["client_secret"])
        assert services.directory.client_actor(shown["client_id"], "wrong") is None
    finally:
        services.close()
    assert actor is not None
    assert actor.institution == "QH"


def test_settings_are_looked_at_compared_and_taken_back_by_version(consortium: Hub, tmp_path: Path) -> None:
    text = (MEMBERS / "consortium.json").read_text("utf-8")
    assert '"his-cn"' in text
    changed = tmp_path / "changed.json"
    changed.write_text(text.replace('"his-cn"', '"standard"'), "utf-8")
    assert consortium("members", "import", str(changed)).exit_code == 0
    rows = [json.loads(line) for line in consortium("members", "history", "KN/mllp", "--json").stdout.splitlines()]
    assert [one["version"] for one in rows] == [2, 1]
    assert rows[0]["by"].endswith(getpass.getuser())
    assert consortium("members", "diff", "KN/mllp").stdout == "~ setting.dialect: his-cn -> standard\n"
    assert consortium("members", "rollback", "KN/mllp", "1").exit_code == 0
    assert consortium("members", "diff", "KN/mllp", "1", "3").stdout == ""
    assert "setting.dialect" in consortium("members", "history", "KN/mllp").stdout
