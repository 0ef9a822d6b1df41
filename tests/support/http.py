"""A client of the HTTP application inside the test's own process; each request runs the whole stack but the socket."""

from __future__ import annotations

from typing import Any

import httpx
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from hub.actor import Actor
from hub.boot import Services


class Client(TestClient):
    """A test client that knows the few things tests do again and again."""

    def create(self, resource: dict[str, Any]) -> dict[str, Any]:
        """POST *resource* and return what was stored."""
        answer = self.post(f"/fhir/{resource['resourceType']}", json=resource)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def search(self, url: str) -> list[dict[str, Any]]:
        """Return the matches of a search."""
        answer: httpx.Response = self.get(url)
        assert answer.status_code == 200, answer.text
        return [entry["resource"] for entry in answer.json().get("entry", []) if entry["search"]["mode"] == "match"]


def client_of(app: ASGIApp, services: Services, actor: Actor | None) -> Client:
    """Return a client of *app* with a token for *actor*, or with none."""
    headers = {}
    if actor is not None:
        headers["Authorization"] = f"Bearer {services.directory.issue_token(actor, ttl_s=600)}"
    return Client(app, headers=headers)
