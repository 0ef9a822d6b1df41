"""What is measured of the event channels, in each process of the HTTP doors; no label names a person or an item."""

from __future__ import annotations

from prometheus_client import Gauge

#: What the channels are for; there is one kind.
WORKITEMS = "workitems"

open_channels = Gauge(
    "hub_event_channels_open", "WebSockets open now, by what they tell of.", ["kind"], multiprocess_mode="livesum"
)
