"""What the MLLP door counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

connections = Counter("hub_mllp_connections", "Connections by how they ended or why they were refused.", ["outcome"])
open_connections = Gauge("hub_mllp_open_connections", "Connections open now.", multiprocess_mode="livesum")
frames = Counter("hub_mllp_frames", "Frames by what became of them.", ["outcome"])
received_bytes = Counter("hub_mllp_received_bytes", "Bytes of whole messages received by MLLP.")
