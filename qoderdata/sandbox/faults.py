"""What can go wrong between a client and the service, on request: which request meets which fault, and how.

The gateway's faults have no request id and no envelope, as gateways are; the service's have both. How bytes
are torn on the wire is the server's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

from qoderdata.sandbox.answers import ERROR_TYPES, Answer, Page, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
_SERVICE = {str(status): status for status in ERROR_TYPES}
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

    def answer(self) -> Answer | None:
        """Return what is answered instead, where the fault is of that kind."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        if self.name in _SERVICE:
            status = _SERVICE[self.name]
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
        return Answer(status, body.encode(), headers)

    @property
    def from_gateway(self) -> bool:
        """Whether the service never saw the request, so that there is no request id."""
        return self.name in _GATEWAY

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
