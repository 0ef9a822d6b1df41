"""``make bench``: the hub beside its peers, on the same machine and in the same run (docs/performance.md)."""
