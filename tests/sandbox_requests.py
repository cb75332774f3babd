"""Requests to a sandbox with the standard library only, and its deployments that are live or active."""

from __future__ import annotations

import gzip
import http.client
import json
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qoderdata.sandbox import Sandbox

Record = dict[str, Any]


def live_deployments(sandbox: Sandbox) -> list[Record]:
    return [record for record in sandbox.deployments if record["archived_at"] is None]


def active_deployments(sandbox: Sandbox) -> list[Record]:
    return [record for record in live_deployments(sandbox) if record["status"] == "active"]


class Response:
    """One response, with its body as it was sent."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.body = response.status, response.read()
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    @cached_property
    def plain(self) -> bytes:
        """The body, decompressed."""
        return gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body

    @cached_property
    def json(self) -> Any:  # noqa: ANN401 any JSON value
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.plain)

    @property
    def ids(self) -> list[str]:
        return [record["id"] for record in self.json["data"]]


def connect(sandbox: Sandbox) -> http.client.HTTPConnection:
    """Return a connection to a sandbox; it connects at the first request."""
    parts = urlsplit(sandbox.base_url)
    return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)


def get(
    sandbox: Sandbox, path: str, params: Mapping[str, Any] | None = None, *, method: str = "GET", **headers: str
) -> Response:
    """Send a request with a valid token; ``_`` in the name of a header stands for ``-``."""
    sent = {"Authorization": f"Bearer {sandbox.pat}"}
    sent |= {name.replace("_", "-"): text for name, text in headers.items()}
    query = f"?{urlencode(params, doseq=True)}" if params else ""
    with closing(connect(sandbox)) as connection:
        connection.request(method, f"{urlsplit(sandbox.base_url).path}{path}{query}", headers=sent)
        return Response(connection.getresponse())


def walk(sandbox: Sandbox, path: str, params: Mapping[str, Any], *, cursor: str = "page") -> list[Record]:
    """Read every page of a list, with the last id of each as the cursor of the next."""
    records: list[Record] = []
    position: dict[str, str] = {}
    while True:
        page = get(sandbox, path, {**params, **position}).json
        assert page["next_page"] == (page["last_id"] if page["has_more"] else None)
        records += page["data"]
        if not page["has_more"]:
            return records
        position = {cursor: page["last_id"]}
