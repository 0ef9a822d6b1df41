"""``hub feed test``: a member's samples against what the hub would do with them, before the feed is connected."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from fhir_mappings.errors import MappingError
from fhir_mappings.json import dumps
from hub.cli.common import note, say, services
from hub.errors import Category, HubError

#: Files of a folder that are samples.
_ENDINGS = frozenset({".hl7", ".er7", ".txt", ".msg", ".dat", ".json", ".xml"})
_MARKS = {"fatal": "✗", "error": "✗", "warning": "!", "information": "·"}
_USES = {
    "mapped": "已映射 / mapped",
    "required": "必填 / required",
    "read": "已读取，此处无影响 / read, without effect here",
    "door": "用于接收与应答 / for taking and answering",
    "unused": "未使用 / not used",
    "segment": "段未使用 / no use of its segment",
}


def check_samples(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="成员或端点 / member or endpoint: KN, KN/mllp")],
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="文件、目录，- 为标准输入 / file, folder, - is stdin")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="一个 JSON 对象 / one JSON object")] = False,
) -> None:
    """检查成员的样例消息，不保存 / Check a member's samples: what is mapped, what is not and why; stores nothing; status 1 when any is refused."""
    from hub.feed_check import FeedCheck, samples, summed

    checked: list[dict[str, Any]] = []
    with services() as opened:
        check = FeedCheck(opened.settings, opened.directory, member)
        for name, content in _files(source):
            try:
                parts = list(samples(name, content))
            except MappingError as error:
                checked.append(_broken(name, error))
                continue
            checked += [check.check(one) for one in parts]
    if not checked:
        raise HubError(
            Category.INCORRECT,
            "没有样例 / There are no samples.",
            where=str(source),
            remedy=f"Give a file, or a folder with files of {', '.join(sorted(_ENDINGS))}.",
        )
    told = {"member": member, **summed(checked), "samples": checked}
    if as_json:
        say(dumps(told).decode())
    else:
        _print(told)
    raise typer.Exit(0 if told["taken"] == told["messages"] else 1)


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    if str(source) == "-":
        yield "-", sys.stdin.buffer.read()
        return
    paths = [source]
    if source.is_dir():
        paths = [one for one in sorted(source.rglob("*")) if one.is_file() and one.suffix.lower() in _ENDINGS]
    for path in paths:
        try:
            yield str(path.relative_to(source)) if source.is_dir() else path.name, path.read_bytes()
        except OSError as error:
            raise HubError(
                Category.INCORRECT,
                f"The file cannot be read: {error.strerror}.",
                where=str(path),
                remedy="Give files of HL7 v2 messages or FHIR resources.",
            ) from error


def _broken(name: str, error: MappingError) -> dict[str, Any]:
    finding = {
        "severity": "error",
        "kind": "batch",
        "where": error.where,
        "message": error.message,
        "remedy": error.remedy,
    }
    blank = dict.fromkeys(("event", "version", "charset", "declared"), "")
    return {"file": name, "number": 0, **blank, "taken": False, "findings": [finding], "fields": []}


def _print(told: dict[str, Any]) -> None:
    for one in told["samples"]:
        verdict = "接收 / taken" if one["taken"] else "拒绝 / refused"
        say(f"{one['file']}#{one['number']}  {one['event']} v{one['version']} {one['charset']}  {verdict}")
        for finding in one["findings"]:
            say(f"  {_MARKS[finding['severity']]} {finding['kind']}  {finding['where']}: {finding['message']}")
            if finding["remedy"]:
                say(f"      → {finding['remedy']}")
    say()
    say("字段 / fields")
    for row in told["fields"]:
        what = ", ".join(f"{_USES[use]} {count}" for use, count in sorted(row["uses"].items()))
        say(f"  {row['event']:<8} {row['field']:<8} {what}  {', '.join(row['elements'])}")
    say()
    say("发现 / findings")
    for one in told["findings"]:
        say(f"  {_MARKS[one['severity']]} {one['count']:>5}  {one['where']}: {one['message']}")
    note(f"共 {told['messages']} 条，接收 {told['taken']} 条 / {told['taken']} of {told['messages']} would be taken")
