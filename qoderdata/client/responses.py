"""Turn a response or a transport failure into an exception: its class, its text, and whether a retry can help.

Text from the service is untrusted: control characters are replaced, long text is cut, the access token is masked,
and an HTML page is never quoted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from qoderdata import errors, formatting
from qoderdata.client import retries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

_REDIRECTS = range(300, 400)
_QUOTED_LENGTH = 300
_BASE_URL = "the base URL (QODER_MANAGED_BASE_URL, else QODER_BASE_URL)"
_ADVICE = {
    400: "Check the arguments",
    401: "Make a new access token in Qoder Cloud, set QODER_ACCESS_TOKEN or QODER_PAT to it and make a new Client",
    403: "Ask for access, or check workspace_id and whose access token it is",
    404: f"Check {_BASE_URL}: it ends in /api/v1/cloud",
    409: "Look at the object's state and try again",
    413: "Ask for less at a time",
    422: "Check the arguments",
    429: "Wait and try again, or give Client a larger min_interval",
    501: "The service does not support this request",
    529: "The service is overloaded: try again later",
}
_NOT_FOUND = 404
_ADVICE_ID = f"Check the id, and {_BASE_URL}: it ends in /api/v1/cloud"
_ADVICE_SERVER = "The service has a problem: try again later"
_ADVICE_OTHER = f"Check {_BASE_URL}, and any proxy or gateway before the service"


@dataclass(frozen=True)
class Response:
    """An HTTP response of any status, completely read and decompressed."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class TransportFailure:
    """The reason why there is no complete response."""

    reason: str
    advice: str
    error_class: type[errors.APIError] = errors.APIConnectionError
    retryable: bool = True


@dataclass(frozen=True)
class Failure:
    """An exception to raise unless the request is retried."""

    error: errors.APIError
    retryable: bool
    requested_wait: float | None = None


class ErrorMapper:
    """Make exceptions for the requests of one client; `mask` replaces the access token in a text."""

    def __init__(self, base_url: str, mask: Callable[[str], str], now: Callable[[], datetime]) -> None:
        self._host = urlsplit(base_url).netloc
        self._mask = mask
        self._now = now

    def from_transport(self, path: str, failure: TransportFailure) -> Failure:
        """Return the failure of a request that got no complete response."""
        request = self._mask(f"GET {path} from {self._host}")
        text = f"{request}: {self.clean(failure.reason)}. {failure.advice}."
        return Failure(failure.error_class(text), failure.retryable)

    def from_status(self, path: str, response: Response) -> Failure:
        """Return the failure of a request whose response is not a success."""
        facts = {name: self.clean(text) for name, text in _parse_envelope(response.body).items()}
        status, kind = response.status, facts.get("type")
        error_class = errors.status_error_class(status)
        if status in _REDIRECTS:
            host = self.clean(_host(self._mask(response.headers.get("Location", ""))))
            said = f"a redirect to {host}, not followed: the access token goes to one host alone"
            advice = "If the service has moved there, set QODER_MANAGED_BASE_URL"
        else:
            quoted = repr(self.clean(response.body.decode(errors="replace")))
            said = facts.get("message") or _describe_empty(response) or quoted
            is_server_error = issubclass(error_class, errors.InternalServerError)
            advice = _ADVICE.get(status, _ADVICE_SERVER if is_server_error else _ADVICE_OTHER)
            if status == _NOT_FOUND and path.count("/") > 1:
                advice = _ADVICE_ID
        named = f"{status} {kind}" if kind else str(status)
        wait = retries.requested_wait(response.headers, now=self._now())
        asked = "" if wait is None else f"The service asks to wait {wait:.{0 if wait >= 1 else 1}f} s. "
        error = error_class(
            f"{self._request(path)}: the service answered {named}: {said.rstrip('.')}. {asked}{advice}."
        )
        error.status_code = status
        error.type = kind or None
        error.param = facts.get("param") or None
        error.retry_after = wait
        error.request_id = self._request_id(response, facts.get("request_id"))
        return Failure(error, retries.should_retry(status, response.headers), wait)

    def from_unreadable(self, path: str, response: Response) -> Failure:
        """Return the failure of a success whose body is not complete JSON; never quote the body."""
        body = _describe_empty(response) or f"{len(response.body)} bytes of something else"
        error = errors.APIResponseValidationError(
            f"{self._request(path)}: the service answered {response.status}, but not with complete JSON: {body}. "
            f"{_ADVICE_OTHER}."
        )
        error.request_id = self._request_id(response)
        return Failure(error, retryable=True)

    def from_contract(self, path: str, response: Response, error: errors.APIResponseValidationError) -> Failure:
        """Return the failure of a success whose JSON breaks the contract."""
        error.args = (f"{self._request(path)}: {self._mask(str(error))}",)
        error.request_id = self._request_id(response)
        # The frames of a traceback would hold the text of the response.
        error.__cause__ = error.__context__ = None
        return Failure(error.with_traceback(None), retryable=False)

    def clean(self, text: str) -> str:
        """Return untrusted text as one short line without the access token."""
        # Mask first: after the cut, a part of the token would not be found.
        line = formatting.one_line(self._mask(text)[: 4 * _QUOTED_LENGTH])
        return line if len(line) <= _QUOTED_LENGTH else line[: _QUOTED_LENGTH - 1] + "…"

    def _request(self, path: str) -> str:
        return self._mask(f"GET {path}")

    def _request_id(self, response: Response, in_body: str | None = None) -> str | None:
        return self.clean(response.headers.get("x-request-id") or in_body or "") or None


def _parse_envelope(body: bytes) -> dict[str, str]:
    """Return the fields of the error envelope whose values are text."""
    try:
        envelope = msgspec.json.decode(body)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return {}
    if not isinstance(envelope, dict):
        return {}
    error = envelope.get("error")
    facts = {name: error.get(name) for name in ("type", "message", "param")} if isinstance(error, dict) else {}
    facts["request_id"] = envelope.get("request_id")
    return {name: text for name, text in facts.items() if isinstance(text, str)}


def _describe_empty(response: Response) -> str | None:
    """Describe a body without information; return ``None`` for any other."""
    if not response.body.strip():
        return "an empty body"
    if response.body.lstrip().startswith(b"<") or "html" in response.headers.get("Content-Type", "").lower():
        return "an HTML page, most likely from a gateway or proxy in between"
    return None


def _host(location: str) -> str:
    """Return the host of a redirect; the rest of its URL may hold secrets."""
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return host or "another path of the same host"
