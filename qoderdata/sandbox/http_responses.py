"""Build responses: pages of lists, error envelopes, and the faults that a test asks for.

The gateway's faults have no request id and no envelope, except that it answers 429 with JSON in edition D. The
service's faults have both. The server acts out the faults of the connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The error type of each status of the service.
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    500: "api_error",
    501: "feature_not_available",
    529: "overloaded_error",
}


@dataclass
class Answer:
    """A response."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    is_error: bool = False
    """Whether the body is the error envelope."""
    from_gateway: bool = False
    """Whether the service never saw the request, so that there is no request id."""

    def with_request_id(self, request_id: str) -> Answer:
        """Return the error with its request id in the body."""
        return replace(self, body=orjson.dumps(orjson.loads(self.body) | {"request_id": request_id}))


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
        error = {"type": _RATE_LIMIT if self.status == 429 else ERROR_TYPES[self.status], "message": self.message}  # noqa: PLR2004
        if self.param is not None:
            error["param"] = self.param
        return Answer(self.status, orjson.dumps({"type": "error", "error": error}), is_error=True)


@dataclass
class Page:
    """One page of a list."""

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


#: Faults that answer in place of the service.
_GATEWAY = {
    "408": (408, ""),
    "429": (429, ""),
    "429-retry-after": (429, "Too Many Requests"),
    "502-html": (502, "Bad Gateway"),
    "503-empty": (503, ""),
    "503-html": (503, "Service Temporarily Unavailable"),
    "504": (504, "Gateway Time-out"),
    "html-200": (200, "Sign in"),
    "redirect": (302, ""),
}
_SERVICE = {str(status): status for status in ERROR_TYPES} | {"429-json": 429}
_RATE_LIMIT = "rate_limit_error"
#: Faults that change a page of a list.
_PAGES = ("repeat-cursor", "no-cursor", "overlap")
#: Faults of the connection.
_WIRE = ("reset", "hang", "cut-body", "cut-json", "torn-json")
NAMES = (*_GATEWAY, *_SERVICE, *_PAGES, *_WIRE)


@dataclass(frozen=True)
class Fault:
    """One fault, for one request."""

    name: str
    retry_after: str | None = None
    location: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def answer(self, *, json_rate_limit: bool = False) -> Answer | None:
        """Return what is answered instead, where the fault is of that kind."""
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        if self.name in _SERVICE or (json_rate_limit and self.name.startswith("429")):
            status = _SERVICE.get(self.name, 429)
            message = "Invalid API key or token." if status == 401 else f"Sandbox was told to answer {status}."  # noqa: PLR2004
            answer = RefusedError(status, message).answer()
            answer.headers |= headers
            return answer
        if self.name not in _GATEWAY:
            return None
        status, title = _GATEWAY[self.name]

        body = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>" if title else ""
        if title:
            headers["Content-Type"] = "text/html"
        if self.location is not None:
            headers["Location"] = self.location
        return Answer(status, body.encode(), headers, from_gateway=True)

    @property
    def needs_cursor(self) -> bool:
        """Whether it makes sense only for a page that is not the first."""
        return self.name in ("repeat-cursor", "overlap")

    def spoil(self, page: Page, params: Mapping[str, str]) -> Page:
        """Return the page as the fault makes it."""
        if self.name == "repeat-cursor":
            return replace(page, last_id=params.get("page") or params.get("after_id"), has_more=True)
        if self.name == "no-cursor":
            return replace(page, last_id=None, has_more=True)
        return page


@dataclass
class Faults:
    """Which coming request meets which fault."""

    _at: dict[int, Fault] = field(default_factory=dict)
    _next: int = 0
    _lock: Lock = field(default_factory=Lock)

    def add(self, fault: Fault, at: int | None) -> None:
        """Let the ``at``-th request from now meet a fault; by default the next one that meets none yet."""
        with self._lock:
            self._at[self._free() if at is None else self._next + at] = fault

    def meet(self, *, has_cursor: bool) -> Fault | None:
        """Count a request, and return the fault that it meets."""
        with self._lock:
            number = self._next
            self._next += 1
            fault = self._at.pop(number, None)
            if fault is not None and fault.needs_cursor and not has_cursor:
                # The first page has no cursor to repeat: a later request meets the fault.
                self._at[self._free()] = fault
                return None
            return fault

    def _free(self) -> int:
        """Return the number of the next request that meets no fault yet."""
        number = self._next
        while number in self._at:
            number += 1
        return number
