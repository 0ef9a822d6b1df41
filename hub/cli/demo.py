"""``hub demo``: everything in one command, on the embedded default: members, doors, sample feeds, what to try."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import structlog
import typer

from hub.actor import Actor
from hub.boot import DOORS
from hub.cli.common import note, say, services, settings
from hub.cli.feed import addresses, play, sample_folder
from hub.cli.members import resources_in
from hub.cli.serve import check_stores, supervise
from hub.config import Settings
from hub.errors import HubError

log = structlog.get_logger("hub.demo")

#: Settings that suit somebody who watches; each gives way to the environment and to the settings file.
DEMO = {"HUB_STUDY_QUIET_S": "3", "HUB_LOG_LEVEL": "warning"}
_TOKEN_TTL_S = 8 * 3600


def demo() -> None:
    """演示 / Run the hub with the sample consortium, play the sample feeds, and say what to try; Ctrl-C stops it."""
    for name, value in DEMO.items():
        os.environ.setdefault(name, value)
    found = settings()
    check_stores(found)
    with services(found) as opened:
        # A directory that is there may have been changed since; importing replaces it.
        if not opened.directory.members():
            opened.directory.load(resources_in([sample_folder() / "members"]))
    listening, stopped = threading.Event(), threading.Event()
    guide = threading.Thread(target=_play_and_tell, args=(found, listening, stopped), name="demo", daemon=True)
    guide.start()
    say("医协枢纽正在启动 / Yixie Hub is starting ...")
    try:
        status = supervise(found, list(DOORS), announced=listening)
    finally:
        stopped.set()
    say("已停止，数据保留在 / stopped; the data stays in " + str(found.data_dir.resolve()))
    raise typer.Exit(status)


def _play_and_tell(found: Settings, listening: threading.Event, stopped: threading.Event) -> None:
    listening.wait()
    try:
        with services(found) as opened:
            failed = play(opened, sample_folder())
            tokens = {
                code: opened.directory.issue_token(actor, ttl_s=_TOKEN_TTL_S)
                for code, actor in {
                    "KN": Actor(institution="KN", practitioner="0231"),
                    "YL": Actor(institution="YL", practitioner="C201"),
                    "YY": Actor(institution="YY", practitioner="OP01", roles=frozenset({"operator"})),
                }.items()
            }
    except HubError as error:
        if not stopped.is_set():
            note(f"错误 / error ({error.category.value}): {error}")
        return
    except Exception as error:  # the hub goes on serving without the feed
        if not stopped.is_set():
            log.exception("feed_failed")
            note(f"样例没有播完 / the feed did not finish: {type(error).__name__}")
        return
    _tell(found, tokens, failed)


def _tell(found: Settings, tokens: dict[str, str], failed: int) -> None:
    where = addresses(found)
    http = f"http://{where['http']}"
    dimse_host, _, dimse_port = where["dimse"].rpartition(":")
    mllp_host, _, mllp_port = where["mllp"].rpartition(":")
    sample = os.path.relpath(sample_folder(), Path.cwd())
    data_dir = os.environ.get("HUB_DATA_DIR")
    prefix = f"HUB_DATA_DIR={data_dir} " if data_dir else ""
    outcome = f"（{failed} 项失败 / {failed} items failed）" if failed else ""
    say(
        f"""
样例已播放 / the sample feeds have been played{outcome}

  首页 / front page      {http}/
  FHIR R4                {http}/fhir   (CapabilityStatement: {http}/fhir/metadata)
  DICOMweb               {http}/dicom-web
  DICOM C-STORE          YIXIE @ {where["dimse"]}
  HL7 v2 (MLLP)          {where["mllp"]}
  运行状况 / health      {http}/readyz   {http}/metrics

试一试 / try (in another terminal, in this folder):

  # 康宁医院的患者和影像检查；QH 的同号患者不在其中 / KN's patient and study; QH's patient of the same number is not there
  KN={tokens["KN"]}
  curl -s -H "Authorization: Bearer $KN" '{http}/fhir/Patient?name=%E9%83%91%E4%BC%9F'
  curl -s -H "Authorization: Bearer $KN" '{http}/fhir/ImagingStudy?_include=ImagingStudy:subject'

  # 中心医院调度员看到阅片申请并接收 / YL's desk sees the reading request, and receives it
  YL={tokens["YL"]}
  curl -s -H "Authorization: Bearer $YL" '{http}/fhir/Task?code=remote-reading'
  curl -s -H "Authorization: Bearer $YL" -H 'Content-Type: application/fhir+json' \\
    -d '{{"resourceType":"Parameters","parameter":[{{"name":"event","valueCode":"receive"}}]}}' '{http}/fhir/Task/<id>/$transition'

  # 再发一份影像 / send images again (DCMTK)
  .venv/bin/python {sample}/dicom/make.py /tmp/sample-dicom
  TCP_NODELAY=1 storescu -aet KN_PACS -aec YIXIE +sd {dimse_host} {dimse_port} /tmp/sample-dicom/kn-ct-chest

  # 发一条 HL7 消息 / send a message over MLLP
  {{ printf '\\013'; cat {sample}/hl7/ADT_A01/kn_a01_admit.hl7; printf '\\034\\015'; sleep 1; }} | nc {mllp_host} {mllp_port}
  .venv/bin/hub convert {sample}/hl7/ADT_A01/kn_a01_admit.hl7        # 不入库，只看转换结果 / what it becomes, storing nothing

  # 运维 / operation
  {prefix}.venv/bin/hub queue list
  {prefix}.venv/bin/hub messages list
  curl -s -H "Authorization: Bearer {tokens["YY"]}" '{http}/ops/queue'

Ctrl-C 停止；再次运行会保留数据 / Ctrl-C stops it; the next run keeps the data."""
    )
