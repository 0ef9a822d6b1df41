"""What the DIMSE door counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

associations = Counter(
    "hub_dimse_associations", "Associations by how they ended or why they were refused.", ["outcome"]
)
open_associations = Gauge("hub_dimse_open_associations", "Associations open now.", multiprocess_mode="livesum")
instances = Counter("hub_dimse_instances", "C-STORE requests by the status answered, in hexadecimal.", ["status"])
received_bytes = Counter("hub_dimse_received_bytes", "Bytes of data sets received by C-STORE.")
queries = Counter("hub_dimse_queries", "C-FIND requests by service and last status.", ["service", "status"])
query_matches = Counter("hub_dimse_query_matches", "Matches sent by C-FIND.", ["service"])
retrievals = Counter("hub_dimse_retrievals", "C-MOVE and C-GET requests by the last status.", ["service", "status"])
sub_operations = Counter(
    "hub_dimse_sub_operations", "C-STORE sub-operations of C-MOVE and C-GET by the receiver's status.", ["status"]
)
requests = Counter(
    "hub_dimse_requests",
    "DIMSE-N requests that the hub sent, by service and the status answered.",
    ["service", "status"],
)
workitems = Counter(
    "hub_dimse_workitems",
    "DIMSE-N requests about workitems by command field and the status answered, in hexadecimal.",
    ["command", "status"],
)
