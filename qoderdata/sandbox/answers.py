"""What the service answers, and how it refuses: status, headers and body, before anything goes over the wire.

Knows the shapes of the documentation and nothing of accounts and sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The type that goes with a status.
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    500: "api_error",
    501: "feature_not_available",
}


@dataclass
class Answer:
    """A response."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


class RefusedError(Exception):
    """The request is answered with the error envelope.

    Parameters
    ----------
    status
        One of `ERROR_TYPES`.
    message
        For people.
    param
        The query parameter that is to blame.
    """

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param

    def answer(self) -> Answer:
        """Return the documented envelope."""
        error = {"type": ERROR_TYPES[self.status], "message": self.message}
        if self.param is not None:
            error["param"] = self.param
        return Answer(self.status, orjson.dumps({"type": "error", "error": error}))


@dataclass
class Page:
    """One page of a list, newest first."""

    bodies: Sequence[bytes]
    first_id: str | None
    last_id: str | None
    has_more: bool

    def answer(self, *, next_page: bool) -> Answer:
        """Return the documented envelope, with or without ``next_page``."""
        last = orjson.dumps(self.last_id)
        parts = [
            b'{"data":[', b",".join(self.bodies), b'],"first_id":', orjson.dumps(self.first_id),
            b',"has_more":', orjson.dumps(self.has_more), b',"last_id":', last,
        ]  # fmt: skip
        if next_page:
            parts += [b',"next_page":', last if self.has_more else b"null"]
        return Answer(200, b"".join([*parts, b"}"]))
