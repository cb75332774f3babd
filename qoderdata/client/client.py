"""The client: one GET at a time, with pace and retries, and the objects that have an address of their own."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import msgspec

from qoderdata import errors, settings
from qoderdata._version import __version__
from qoderdata.client import failures, pace
from qoderdata.client.answers import Broken
from qoderdata.client.failures import Failure
from qoderdata.client.token import MaskedText, Token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_log = logging.getLogger(__name__)
_SUCCESSES = range(200, 300)
_LONGEST_ASKED_WAIT = 60.0
_DOTS = frozenset({".", ".."})


class Client:
    """One account at one service.

    A client asks for no more than it is told: no request is sent before a method is called. Threads may share one.

    Parameters
    ----------
    pat
        The access token; ``None`` takes ``QODER_PAT``. It is sent in one header to `base_url`'s host, and shown
        nowhere.
    base_url
        The service; ``None`` takes ``QODER_MANAGED_BASE_URL``, else the international one. Redirects are not
        followed. Proxies and certificate authorities come from the environment, as in requests (``HTTPS_PROXY``,
        ``NO_PROXY``, ``REQUESTS_CA_BUNDLE``); ``~/.netrc`` is not read.
    workspace_id
        The workspace to ask for; ``None`` leaves it to the service.
    timeout
        Seconds to wait for a connection, and for the next bytes of an answer; one number for both. A whole answer
        may take five times the latter.
    max_retries
        How many times a request is sent again after a failure that may pass: a broken connection, a time-out, an
        answer that is cut short or not JSON, HTTP 408, 429, 500, 502, 503 and 504. The first wait is about 0.5 s,
        doubling, at most 8 s; ``Retry-After`` is obeyed up to 60 s, a longer one is raised at once.
    min_interval
        The least time between the starts of two requests, in seconds, retries included. The service asks for 0.1 s
        in a bulk traversal.

    Attributes
    ----------
    base_url : str
        The service, without a slash at its end.
    workspace_id : str or None
        The workspace.
    account : str
        A digest that tells accounts apart; the token cannot be told from it.
    page_limit : int or None
        The largest page that the service is known to grant; ``None`` as long as nothing was listed.

    Raises
    ------
    CredentialError
        There is no token, or one that no header can carry.
    ValueError
        The base URL is not one, or is plain ``http`` to another machine; or a number is out of its range.

    Examples
    --------
    >>> Client("pt-secret", "http://127.0.0.1:8000/api/v1/cloud")
    Client(base_url='http://127.0.0.1:8000/api/v1/cloud', workspace_id=None, account='966ff12e4426a448')
    """

    # Values for a client that is still being made: an error may show it.
    base_url: str = ""
    workspace_id: str | None = None
    account: str = ""
    page_limit: int | None = None

    def __init__(
        self,
        pat: str | None = None,
        base_url: str | None = None,
        workspace_id: str | None = None,
        *,
        timeout: float | tuple[float, float] = (10, 60),
        max_retries: int = 5,
        min_interval: float = 0.1,
    ) -> None:
        # First of all, so that a traceback from here that shows local variables does not show this one.
        pat = MaskedText(pat) if pat is not None else None
        from qoderdata.client.transport import Transport  # noqa: PLC0415 - imports requests; see Token

        self.base_url = settings.resolve_base_url(base_url)
        self.workspace_id = settings.resolve_workspace_id(workspace_id)
        self._token = Token(settings.resolve_pat(pat), base_url=self.base_url)
        self.account = self._token.account
        self._max_retries = _check_max_retries(max_retries)
        self._clock = pace.SYSTEM
        self._pace = pace.Pace(_check_seconds("min_interval", min_interval, zero=True), self._clock)
        headers = {"User-Agent": f"qoderdata/{__version__}", "Accept": "application/json"}
        if self.workspace_id is not None:
            headers["qoder-workspace-id"] = self.workspace_id
        self._transport = Transport(
            self.base_url, self._token, headers=headers, timeout=_check_timeout(timeout), clock=self._clock
        )

    def __repr__(self) -> str:
        return f"Client(base_url={self.base_url!r}, workspace_id={self.workspace_id!r}, account={self.account!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the client can be used again."""
        self._transport.close()

    def get(self, path: str, params: Mapping[str, str], read: Callable[[bytes], T]) -> T:
        """Send one GET request, as often as it takes.

        Parameters
        ----------
        path
            The path below the base URL, quoted, with the slash before it.
        params
            The query.
        read
            Turns the body of a success into the result, in the calling thread. Its ``ValueError`` means that the
            body is not whole, and the request is sent again; any other exception is raised on, an
            `errors.APIResponseValidationError` with the request id added.

        Returns
        -------
        T
            What `read` gave.

        Raises
        ------
        APIConnectionError
            No connection, or it broke, on every try; `errors.APITimeoutError` where time ran out.
        APIStatusError
            The service refused; the class tells the status. On every try, where the refusal may pass.
        APIResponseValidationError
            The answer is not JSON, on every try, or not what the contract says.
        """
        started = self._clock.monotonic()
        attempts = 0
        while True:
            self._pace.wait()
            outcome = self._attempt(path, params, read)
            if not isinstance(outcome, Failure):
                return outcome
            attempts += 1
            wait = self._next_wait(outcome, attempts)
            if wait is None:
                outcome.error.attempts = attempts
                outcome.error.seconds = self._clock.monotonic() - started
                raise outcome.error
            _log.info("%s Trying again in %.1f s (%d of %d).", outcome.error, wait, attempts, self._max_retries)
            self._pace.hold(wait)

    def get_deployment(self, id: str) -> dict[str, Any]:  # noqa: A002 - the service's word for it
        """Get one deployment as the service gives it.

        Parameters
        ----------
        id
            The deployment's id (``dep_…``).

        Returns
        -------
        dict
            The JSON object, numbers exact, times as text.

        Raises
        ------
        NotFoundError
            There is no such deployment; and the other exceptions of `get`.
        ValueError
            `id` cannot be an id.
        """
        return self.get(f"/deployments/{_quote(id)}", {}, _read_object)

    def get_run(self, id: str) -> dict[str, Any]:  # noqa: A002 - the service's word for it
        """Get one run as the service gives it.

        Parameters
        ----------
        id
            The run's id.

        Returns
        -------
        dict
            The JSON object, numbers exact, times as text.

        Raises
        ------
        NotFoundError
            There is no such run; and the other exceptions of `get`.
        ValueError
            `id` cannot be an id.
        """
        return self.get(f"/deployment_runs/{_quote(id)}", {}, _read_object)

    def _attempt(self, path: str, params: Mapping[str, str], read: Callable[[bytes], T]) -> T | Failure:
        request = f"GET {path}"
        answer = self._transport.get(path, params)
        if isinstance(answer, Broken):
            return failures.from_break(request, answer, token=self._token)
        if answer.status not in _SUCCESSES:
            return failures.from_status(request, answer, token=self._token, now=self._clock.now())
        try:
            return read(answer.body)
        except errors.APIResponseValidationError as error:
            error.request_id = failures.request_id(answer, token=self._token)
            return Failure(error, passing=False)
        except ValueError:
            return failures.from_unreadable(request, answer, token=self._token)

    def _next_wait(self, failure: Failure, attempts: int) -> float | None:
        """Give the seconds until the next attempt, or ``None`` where the failure is to be raised."""
        asked = failure.retry_after
        if not failure.passing or attempts > self._max_retries or (asked or 0) > _LONGEST_ASKED_WAIT:
            return None
        return pace.backoff(attempts) if asked is None else asked


def _read_object(body: bytes) -> dict[str, Any]:
    # msgspec, not orjson: the latter makes a float of an integer beyond 64 bits.
    try:
        record = msgspec.json.decode(body)
    except RecursionError:
        record = None
    if not isinstance(record, dict):
        raise errors.APIResponseValidationError("the service answered with JSON that is not an object")
    return record


def _quote(id: str) -> str:  # noqa: A002 - the service's word for it
    """Quote an id so that it stays one segment of the path, whatever it is."""
    quoted = quote(id, safe="")
    if not quoted or quoted in _DOTS:
        raise ValueError(f"id={id!r} is not the id of anything; ids look like dep_0197…")
    return quoted


def _check_max_retries(value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"max_retries={value!r} is not a whole number of at least 0")
    return value


def _check_seconds(name: str, value: float, *, zero: bool) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name}={value!r} is not a number of seconds {'of at least' if zero else 'above'} 0")
    return float(value)


def _check_timeout(value: float | tuple[float, float]) -> tuple[float, float]:
    if not isinstance(value, tuple):
        value = (value, value)
    try:
        connect, read = value
    except ValueError:
        raise ValueError(f"timeout={value!r} is not a number of seconds, or a pair (connect, read)") from None
    return _check_seconds("timeout", connect, zero=False), _check_seconds("timeout", read, zero=False)
