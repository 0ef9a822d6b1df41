"""How much work each benchmark does: ``full`` is what the targets are stated for, ``small`` a quick look, ``tiny`` a test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The sizes of one run."""

    name: str
    rounds: int
    cstore_objects: int
    cstore_pixels: int
    messages: int
    stored_messages: int
    results: int
    fhir_resources: int
    fhir_operations: int
    fhir_clients: int
    qido_studies: int
    qido_instances: int
    qido_peer_studies: int
    qido_queries: int
    series_slices: int
    memory_bytes: int
    memory_instances: int
    stored_rows: int
    steady_messages: int


SCALES = {
    one.name: one
    for one in (
        Scale(
            name="full",
            rounds=5,
            cstore_objects=600,
            cstore_pixels=512,
            messages=2000,
            stored_messages=4000,
            results=800,
            fhir_resources=100_000,
            fhir_operations=4000,
            fhir_clients=8,
            qido_studies=10_000,
            qido_instances=1_000_000,
            qido_peer_studies=10_000,
            qido_queries=300,
            series_slices=600,
            memory_bytes=2 << 30,
            memory_instances=5000,
            stored_rows=1_000_000,
            steady_messages=200_000,
        ),
        Scale(
            name="small",
            rounds=3,
            cstore_objects=200,
            cstore_pixels=512,
            messages=400,
            stored_messages=800,
            results=160,
            fhir_resources=5000,
            fhir_operations=800,
            fhir_clients=8,
            qido_studies=1000,
            qido_instances=50_000,
            qido_peer_studies=1000,
            qido_queries=100,
            series_slices=200,
            memory_bytes=256 << 20,
            memory_instances=500,
            stored_rows=50_000,
            steady_messages=4_000,
        ),
        Scale(
            name="tiny",
            rounds=1,
            cstore_objects=4,
            cstore_pixels=16,
            messages=8,
            stored_messages=8,
            results=8,
            fhir_resources=40,
            fhir_operations=8,
            fhir_clients=2,
            qido_studies=5,
            qido_instances=50,
            qido_peer_studies=4,
            qido_queries=3,
            series_slices=4,
            memory_bytes=1 << 20,
            memory_instances=4,
            stored_rows=2_000,
            steady_messages=80,
        ),
    )
}
