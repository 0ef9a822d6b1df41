"""``hub check``, ``hub fsck`` and ``hub audit verify``: is the hub set up well, and is what it keeps still whole."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hub import workflows
from hub.cli.common import command_settings, say, services, tool
from hub.clock import utc_now
from hub.config import Settings
from hub.errors import Category, HubError
from hub.ports import Database, UploadingStore
from hub.presented_certificates import days_left

audit = typer.Typer(help="审计 / the audit trail", no_args_is_help=True)


def check() -> None:
    """检查设置、数据库、对象存储和工作流 / Check settings, stores, workflow tables and members."""
    found = command_settings()
    say(f"{'settings':<14}ok  data_dir={found.data_dir}")
    failed = _told("listen", lambda: _binds(found))
    failed |= _certificates(found)
    failed |= _told("workflows", lambda: f"{len(workflows.WORKFLOWS)} tables: {', '.join(workflows.WORKFLOWS)}")
    try:
        with services(found) as opened:
            failed |= _told("database", lambda: _healthy(opened.database.healthy, found.database().partition(":")[0]))
            guarantees = opened.objects.guarantees()
            failed |= _told(
                "objects",
                lambda: _healthy(
                    opened.objects.healthy, ", ".join(f"{name}={value}" for name, value in guarantees.items())
                ),
            )
            if isinstance(opened.objects, UploadingStore):
                failed |= _told("spool", partial(_waiting, opened.objects))
                failed |= _told("s3", partial(_healthy, opened.objects.reachable, "takes uploads"))
            failed |= _told("recompression", partial(_packed, opened.database))
            members = opened.directory.members()
            say(
                f"{'members':<14}{'ok' if members else 'none yet: hub members import sample_data/members'}  {len(members)}"
            )
    except HubError as error:
        say(f"{'stores':<14}failed  {error}")
        failed = True
    raise typer.Exit(int(failed))


def _told(name: str, work: Callable[[], str]) -> bool:
    try:
        say(f"{name:<14}ok  {work()}")
    except HubError as error:
        say(f"{name:<14}failed  {error}")
        return True
    return False


def _binds(found: Settings) -> str:
    ways = tool("adapters.ops.supervisor").binds(found)
    for addresses in ways.values():
        for bind in addresses.values():
            tool("adapters.ops.supervisor").parse_bind(bind)
    return ", ".join(f"{door} {' '.join(addresses.values())}" for door, addresses in ways.items())


def _certificates(found: Settings) -> bool:
    """Tell how long each file of certificates lasts; return whether one has ended or cannot be read."""
    tls, failed = tool("adapters._tls"), False
    for name, path in tls.files_of(found).items():
        failed |= _told(name, partial(_lasts, tls.end_of, path, found.certificate_alert_days))
    return failed


def _lasts(end_of: Callable[[Path], datetime], path: Path, soon_days: int) -> str:
    ends = end_of(path)
    left = days_left(ends, utc_now())
    if left < 0:
        raise HubError(
            Category.INCORRECT,
            f"证书已于 {ends.date()} 到期 / The certificate ended on {ends.date()}.",
            where=str(path),
            remedy="Put a new one in its place, then restart the hub.",
        )
    soon = "，请及时更换 / put a new one in its place" if left < soon_days else ""
    return f"剩余 {left} 天 / {left} days left, until {ends.date()}{soon}  {path}"


def _healthy(ask: Callable[[], None], text: str) -> str:
    ask()
    return text


def _packed(database: Database) -> str:
    found = database.read(lambda tx: tx.packings.totals())
    why = "".join(f"; {number} {reason}" for reason, number in sorted(found.refused.items()))
    return (
        f"{found.settled} objects packed, {found.saved_bytes} of {found.original_bytes} bytes saved;"
        f" {found.waiting} with the original beside; {sum(found.refused.values())} stay as they are{why}"
    )


def _waiting(store: UploadingStore) -> str:
    found = store.waiting()
    return f"{found.count} objects, {found.size} bytes wait for S3; the oldest for {found.oldest_s:.0f} s"


def fsck(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="修复损坏的副本，把满一天的无主对象移入隔离区 / mend damaged copies, move orphans of a day or more to the quarantine",
        ),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="不重算校验和 / presence and size only, no hashes")] = False,
) -> None:
    """核对记录与对象 / Compare rows and objects; exit status 1 when data is missing or damaged."""
    with services() as opened:
        report = tool("storage.fsck").fsck(
            opened.database, opened.objects, opened.settings.data_dir, repair=repair, deep=not quick
        )
    say(f"对象 / objects: {report.objects}  引用 / rows that name one: {report.rows}")
    for label, digests in (
        ("缺失 / missing", report.missing),
        ("损坏 / damaged", report.wrong),
        ("无主 / without a row", report.orphans),
        (f"由另一份副本修复 / {'mended' if repair else 'to mend'} from another copy", report.mended),
        ("已隔离 / moved to the quarantine", report.quarantined),
        ("缓存失效 / cached metadata " + ("dropped" if repair else "to drop"), report.forgotten),
    ):
        say(f"{label}: {len(digests)}")
        for digest in digests:
            say(f"    {digest}")
    raise typer.Exit(0 if report.sound else 1)


@audit.command("verify")
def verify() -> None:
    """校验审计链 / Verify every chain and its signed checkpoints; exit status 1 when one is broken."""
    with services() as opened:
        check_signature = tool("adapters.worker.housekeeping").audit_check(opened.settings.data_dir)
        broken = opened.database.read(lambda tx: list(tx.audit.verify(check_signature)))
    for sentence in broken:
        say(sentence)
    if broken:
        raise typer.Exit(1)
    say("审计链完整 / every chain holds")
