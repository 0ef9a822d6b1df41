"""What the DIMSE door counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

associations = Counter(
    "hub_dimse_associations", "Associations by how they ended or why they were refused.", ["outcome"]
)
open_associations = Gauge("hub_dimse_open_associations", "Associations open now.", multiprocess_mode="livesum")
instances = Counter("hub_dimse_instances", "C-STORE requests by the status answered, in hexadecimal.", ["status"])
received_bytes = Counter("hub_dimse_received_bytes", "Bytes of data sets received by C-STORE.")
