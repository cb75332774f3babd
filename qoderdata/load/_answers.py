"""Where cached answers are, and which file keeps the answer to which question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qoderdata import cache

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qoderdata.client import Client

#: The folder of cached answers, below the cache folder.
QUERIES = "queries"


def answer_name(kind: str, client: Client, filters: Mapping[str, str | None]) -> str:
    """Give the name of the file that keeps an answer: whose it is, and what was asked."""
    whose = {"base_url": client.base_url, "workspace": client.workspace_id, "account": client.account}
    return cache.file_name(kind, {**whose, **filters})
