"""What an answer that is no success means: which exception, in which words, and whether to try again.

What the service says is hostile text: cleaned, cut, with the token masked, and a page of HTML never quoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from qoderdata import errors, words
from qoderdata.client import pace

if TYPE_CHECKING:
    from datetime import datetime

    from qoderdata.client.answers import Answer, Broken
    from qoderdata.client.token import Token

_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS = range(300, 400)
_QUOTED_LENGTH = 300
_ADVICE = {
    400: "Check the arguments",
    401: "Make a new token in Qoder Cloud, set QODER_PAT to it and make a new Client",
    403: "Ask for access, or check workspace_id and whose token it is",
    404: "Check the id, and the base URL (QODER_MANAGED_BASE_URL): it ends in /api/v1/cloud",
    409: "Look at the object's state and try again",
    429: "Wait and try again, or give Client a larger min_interval",
    501: "The service does not offer this here; do without it",
}
_ADVICE_SERVER = "The trouble is on the service's side: try again later"
_ADVICE_OTHER = "Check the base URL (QODER_MANAGED_BASE_URL) and what stands between this machine and the service"


@dataclass(frozen=True)
class Failure:
    """An exception to raise, unless it is worth another try."""

    error: errors.APIError
    passing: bool
    retry_after: float | None = None


def from_break(request: str, broken: Broken, *, token: Token) -> Failure:
    """Make the failure of a request that got no whole answer.

    Parameters
    ----------
    request
        Method and path, for the message.
    broken
        What happened.
    token
        Masked wherever a text has it.
    """
    kind = errors.APITimeoutError if broken.timed_out else errors.APIConnectionError
    what = _clean(broken.what, token=token)
    return Failure(kind(f"{request}: {what}. {broken.advice}."), passing=broken.passing)


def from_status(request: str, answer: Answer, *, token: Token, now: datetime) -> Failure:
    """Make the failure of a request that was answered with another status than success.

    Parameters
    ----------
    request
        Method and path, for the message.
    answer
        The answer.
    token
        Masked wherever a text has it.
    now
        The time that a ``Retry-After`` date is measured from.
    """
    kind, message, param = _read_envelope(answer.body)
    status = answer.status
    exception = errors.status_error_class(status)
    if status in _REDIRECTS:
        where = _clean(_host(token.mask(answer.headers.get("Location", ""))), token=token)
        said = f"a redirect to {where}, not followed: the token goes to one host alone"
        advice = "If the service has moved there, set QODER_MANAGED_BASE_URL"
    else:
        said = _clean(message, token=token) if message else _describe(answer) or _quote(answer.body, token=token)
        advice = _ADVICE.get(
            status, _ADVICE_SERVER if issubclass(exception, errors.InternalServerError) else _ADVICE_OTHER
        )
    named = f"{status} {_clean(kind, token=token)}" if kind else str(status)
    wait = pace.retry_after(answer.headers.get("Retry-After"), now=now)
    asked = f"The service asks to wait {wait:.0f} s. " if wait is not None else ""
    error = exception(f"{request}: the service answered {named}: {said.rstrip('.')}. {asked}{advice}.")
    error.status_code = status
    error.type = _clean(kind, token=token) if kind else None
    error.param = _clean(param, token=token) if param else None
    error.retry_after = wait
    error.request_id = request_id(answer, token=token)
    return Failure(error, passing=status in _PASSING, retry_after=wait)


def from_unreadable(request: str, answer: Answer, *, token: Token) -> Failure:
    """Make the failure of a request that was answered with success and something that is not whole JSON.

    Parameters
    ----------
    request
        Method and path, for the message.
    answer
        The answer.
    token
        Masked wherever a text has it.
    """
    error = errors.APIResponseValidationError(
        f"{request}: the service answered {answer.status}, but not with whole JSON: "
        # The text itself stays out: records may hold their owner's secrets.
        f"{_describe(answer) or f'{len(answer.body)} bytes of something else'}. {_ADVICE_OTHER}."
    )
    error.request_id = request_id(answer, token=token)
    return Failure(error, passing=True)


def request_id(answer: Answer, *, token: Token) -> str | None:
    """Give the service's id of the request, cleaned, or ``None``."""
    return _clean(answer.headers.get("x-request-id", ""), token=token) or None


def _read_envelope(body: bytes) -> tuple[str | None, str | None, str | None]:
    """Give type, message and param of the error envelope; ``None`` for each that is not there."""
    try:
        envelope = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None, None, None
    error = envelope.get("error") if isinstance(envelope, dict) else None
    if not isinstance(error, dict):
        return None, None, None
    kind, message, param = (
        value if isinstance(value := error.get(key), str) else None for key in ("type", "message", "param")
    )
    return kind, message, param


def _describe(answer: Answer) -> str | None:
    """Say what a body is that tells nothing, or ``None`` for one that may."""
    if not answer.body.strip():
        return "an empty body"
    if answer.body.lstrip().startswith(b"<") or "html" in answer.headers.get("Content-Type", "").lower():
        return "an HTML page, most likely from a gateway or proxy in between"
    return None


def _quote(body: bytes, *, token: Token) -> str:
    return repr(_clean(body.decode(errors="replace"), token=token))


def _clean(text: str, *, token: Token) -> str:
    """Make a text from elsewhere fit for one line of a message."""
    # Masked before it is cut: a cut through the token would leave a half that no mask finds.
    line = words.one_line(token.mask(text)[: 4 * _QUOTED_LENGTH])
    return line if len(line) <= _QUOTED_LENGTH else line[: _QUOTED_LENGTH - 1] + "…"


def _host(location: str) -> str:
    """Give the host that a redirect points to: the rest of its URL may hold secrets."""
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return host or "another path of the same host"
