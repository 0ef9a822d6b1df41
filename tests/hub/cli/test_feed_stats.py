"""``hub feed stats`` prints the statistics of what a member has sent."""

from __future__ import annotations

import json

from hub.cli.common import services
from tests.hub.cli.conftest import SAMPLES, Hub

ADMIT = (SAMPLES / "ADT_A01" / "kn_a01_admit.hl7").read_bytes()


def test_what_a_member_has_sent_is_told_without_its_values(consortium: Hub) -> None:
    with services() as opened:
        opened.messages.receive(ADMIT, "127.0.0.1:1")
    shown = consortium("feed", "stats", "KN")
    assert shown.exit_code == 0, shown.output
    assert "PID-5" in shown.stdout
    name = ADMIT.decode("gb18030").split("PID|")[1].split("|")[4].partition("^")[0]
    assert name not in shown.output
    found = json.loads(consortium("feed", "stats", "KN/mllp", "--json", "--last", "5").stdout)
    assert (found["messages"], found["events"]) == (1, {"ADT^A01": 1})
