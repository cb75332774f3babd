"""One request to the service: auth to one host, pace, retries, the error envelope. Pages are `paging`'s."""

from __future__ import annotations

from qoderdata.client.client import Client

__all__ = ["Client"]
