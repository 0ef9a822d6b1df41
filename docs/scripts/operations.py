"""Write the tables of docs/operations.md that the code knows: commands, settings and the routes of ``/ops``.

Run ``python docs/scripts/operations.py`` (``make docs``) after one of them changes; a test compares.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from adapters.ops.api import build
from hub import config, endpoint_settings
from hub.__main__ import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operations.md"


def command_rows(command: Any, path: str = "hub") -> Iterator[tuple[str, str]]:
    """Yield (command line, first line of its help) of every command that is shown."""
    for name, child in sorted(getattr(command, "commands", {}).items()):
        if child.hidden:
            continue
        line = f"{path} {name}"
        if getattr(child, "commands", None):
            yield from command_rows(child, line)
            continue
        arguments = [
            f"[{parameter.name.upper()}]" if not parameter.required else parameter.name.upper()
            for parameter in child.params
            if parameter.param_type_name == "argument"
        ]
        yield " ".join([line, *arguments]), (child.help or "").strip().partition("\n")[0]


def comments() -> dict[str, str]:
    """Return the ``#:`` comment above (or shared by the block of) each field of the settings."""
    source = Path(config.__file__).read_text("utf-8")
    lines = source.splitlines()
    settings = next(
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    found: dict[str, str] = {}
    for node in settings.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above: list[str] = []
        line = node.lineno - 2
        while lines[line].strip().startswith("#:"):
            above.insert(0, lines[line].strip()[2:].strip())
            line -= 1
        found[node.target.id] = " ".join(above).replace("``", "`")
    return found


def shown(default: Any) -> str:
    """Return a default as it would stand in the environment."""
    if hasattr(default, "get_secret_value"):
        default = default.get_secret_value()
    if default is None or default == "":
        return ""
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return f"`{text}`"


def route_rows() -> Iterator[str]:
    """Yield a row for every operation under ``/ops``, from its OpenAPI description."""
    described = build().openapi()
    for path, operations in described["paths"].items():
        for method, one in operations.items():
            what = [one["summary"]]
            query = [parameter["name"] for parameter in one.get("parameters", ()) if parameter["in"] == "query"]
            if query:
                what.append(f"参数 / parameters: {_names(query)}")
            if "requestBody" in one:
                schema = one["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                what.append(
                    f"JSON 内容 / JSON body: {_names(described['components']['schemas'][schema]['properties'])}"
                )
            yield f"| {method.upper()} | `{path}` | {'<br>'.join(what)} | {one['x-who']} |"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def tables() -> dict[str, str]:
    """Return the generated text of each marked section."""
    commands = ["| command | what it does |", "|---|---|"]
    commands += [f"| `{line}` | {text} |" for line, text in command_rows(typer.main.get_command(app))]
    meaning = comments()
    settings = ["| `hub.toml` | environment | default | meaning |", "|---|---|---|---|"]
    settings += [
        f"| `{name}` | `HUB_{name.upper()}` | {shown(field.default)} | {meaning[name]} |"
        for name, field in config.Settings.model_fields.items()
    ]
    routes = ["| method | path | what | who may |", "|---|---|---|---|", *route_rows()]
    endpoints = ["| `endpoint-setting` | of | value | meaning |", "|---|---|---|---|"]
    endpoints += [
        f"| `{one.name}` | {_names(one.kinds)} | {one.words} | {one.meaning} |" for one in endpoint_settings.SETTINGS
    ]
    made = {"commands": commands, "settings": settings, "routes": routes, "endpoints": endpoints}
    return {name: "\n".join(lines) for name, lines in made.items()}


def fill(page: str) -> str:
    """Return *page* with every generated section written anew.

    Raises:
        ValueError: *page* lacks the markers of a section.
    """
    for name, text in tables().items():
        section = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = section.subn(lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}", page)
        if count != 1:
            raise ValueError(f"{PAGE.name} has {count} sections `generated: {name}`; it must have one.")
    return page


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"{PAGE}\n")
