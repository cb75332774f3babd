"""The client: GET requests to one account, rate limited and retried, and single objects by their id."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

from qoderdata import errors, settings
from qoderdata._version import __version__
from qoderdata.arguments import check_count, check_id, check_number
from qoderdata.client import retries
from qoderdata.client.responses import ErrorMapper, Failure, TransportFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

#: Logs a line before each retry, at INFO, and nothing else.
_log = logging.getLogger("qoderdata.client")
_SUCCESSES = range(200, 300)
#: The longest time limit or interval; longer ones do not fit the clocks of all systems.
_MOST_SECONDS = 1_000_000


class Client:
    """One account at one service.

    Making a client sends nothing. Threads may share one.

    Parameters
    ----------
    pat
        The access token: a personal access token (``pt-…``) or a service-account token (a JWT); ``None`` takes
        ``QODER_ACCESS_TOKEN``, else ``QODER_PAT``. It is sent in one header to the host of `base_url`, and never
        shown.
    base_url
        The service; ``None`` takes ``QODER_MANAGED_BASE_URL``, else ``QODER_BASE_URL``, else the international
        one. Redirects are not followed. Proxies and certificate authorities come from the environment, as in
        requests (``HTTPS_PROXY``, ``NO_PROXY``, ``REQUESTS_CA_BUNDLE``); ``~/.netrc`` is not read.
    workspace_id
        The workspace to read; ``None`` leaves the choice to the service.
    account
        A name of your choice, under which data is stored, such as ``"production"``. ``None`` takes
        ``QODERDATA_ACCOUNT`` if the token is from the environment too, else a digest of the token. With the same
        name, a new token of the account finds what the earlier one stored. Two accounts, and two workspaces that
        are not given by `workspace_id`, need two names: under one name, their data is mixed.
    timeout
        Seconds to wait for a connection, and for the next bytes of a response; one number for both. A whole
        response may take five times the second number. If a host has several addresses, each of them may take
        the whole time for a connection. A DNS lookup is limited by the system alone.
    max_retries
        How many times a request is retried after a failure that may be temporary: a broken connection, a
        time-out, a response that is cut short or not JSON, HTTP 408, 429, 500, 502, 503, 504 and 529, and what
        ``x-should-retry`` says, except for 409. The first wait is about 0.5 s, doubling, at most 8 s.
        ``retry-after-ms`` and ``Retry-After`` are obeyed up to 60 s; a longer wait is raised at once.
    min_interval
        The least time between the starts of two requests, in seconds, retries included. The service asks for 0.1 s
        when whole lists are read.
    max_pages
        The most pages to read of one list. A list with more raises `errors.PaginationError`.
    max_response_bytes
        The largest response to read, in bytes after decompression. A larger one raises
        `errors.APIResponseValidationError` while it is read.

    Attributes
    ----------
    base_url : str
        The service, without a slash at its end.
    workspace_id : str or None
        The workspace.
    account : str
        The name under which data is stored. Without a name, it is a digest of the token, from which the token
        cannot be computed; a new token has another one, and so an empty cache.
    page_limit : int or None
        The page size that lists of deployments and runs last accepted; ``None`` until one was listed.
    max_pages : int
        The most pages to read of one list.

    Raises
    ------
    CredentialError
        There is no token, or it has characters that a header cannot carry.
    TypeError
        `pat` is not text.
    ValueError
        The base URL is not one, or is plain ``http`` to another machine; `account` is too long, or has a
        token in it; or a number is out of its range.

    Examples
    --------
    >>> import qoderdata as qd
    >>> qd.Client("pt-secret", "http://127.0.0.1:8000/api/v1/cloud")
    Client(base_url='http://127.0.0.1:8000/api/v1/cloud', workspace_id=None, account='966ff12e4426a448')
    """

    # For a client whose `__init__` has failed: an error message may show it.
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
        account: str | None = None,
        timeout: float | tuple[float, float] = (10, 60),
        max_retries: int = 5,
        min_interval: float = 0.1,
        max_pages: int = 1_000_000,
        max_response_bytes: int = 256 * 2**20,
    ) -> None:
        # This comes first, so that a traceback with local variables never shows the token.
        secret = None if pat is None else settings.Secret(pat)
        del pat
        from qoderdata.client.transport import Token, Transport  # noqa: PLC0415 - half of this package's import time

        self.base_url = settings.resolve_base_url(base_url)
        self.workspace_id = settings.resolve_workspace_id(workspace_id)
        token = settings.resolve_token(secret)
        self._token = Token(token, base_url=self.base_url)
        name = settings.resolve_account(account, token=token, environment=secret is None)
        self.account = name or self._token.account
        self.max_pages = check_count(max_pages, name="max_pages")
        self._max_retries = check_count(max_retries, name="max_retries", least=0)
        self._clock = retries.SYSTEM
        self._rate_limiter = retries.RateLimiter(
            _check_seconds("min_interval", min_interval, zero=True), self._clock
        )
        self._errors = ErrorMapper(self.base_url, self._token.mask, self._clock.now)
        headers = {"User-Agent": f"qoderdata/{__version__}", "Accept": "application/json"}
        if self.workspace_id is not None:
            headers["qoder-workspace-id"] = self.workspace_id
        self._transport = Transport(
            self.base_url,
            self._token,
            headers=headers,
            timeout=_check_timeout(timeout),
            max_response_bytes=check_count(max_response_bytes, name="max_response_bytes"),
            clock=self._clock,
        )

    def __repr__(self) -> str:
        return f"Client(base_url={self.base_url!r}, workspace_id={self.workspace_id!r}, account={self.account!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def identity(self) -> settings.Account:
        """What distinguishes accounts on disk: ``base_url``, ``workspace_id`` and ``account``."""
        return {"base_url": self.base_url, "workspace_id": self.workspace_id, "account": self.account}

    def close(self) -> None:
        """Close the connections; the client can be used again."""
        self._transport.close()

    def get(self, path: str, params: Mapping[str, str | Sequence[str]], read: Callable[[bytes], T]) -> T:
        """Send one GET request, with retries.

        Parameters
        ----------
        path
            The path below the base URL, quoted, with the slash before it.
        params
            The query; a list gives one parameter for each of its items.
        read
            Converts the body of a success to the result, in the calling thread. If it raises ``ValueError``, the
            body is not complete, and the request is retried. Any other exception is raised as it is; an
            `errors.APIResponseValidationError` gets the request id, and the access token in it is masked.

        Returns
        -------
        T
            The result of `read`.

        Raises
        ------
        APIConnectionError
            Every attempt had no connection, or one that broke; `errors.APITimeoutError` after a time-out.
        APIStatusError
            The service refused the request; the class says with which status.
        APIResponseValidationError
            The response is not JSON on every attempt, breaks the contract, or is too large.
        """
        started = self._clock.monotonic()
        attempts = 0
        while True:
            self._rate_limiter.wait()
            outcome = self._attempt(path, params, read)
            if not isinstance(outcome, Failure):
                return outcome
            attempts += 1
            wait = None
            if outcome.retryable and attempts <= self._max_retries:
                wait = retries.retry_wait(attempts, outcome.requested_wait)
            if wait is None:
                outcome.error.attempts = attempts
                outcome.error.seconds = self._clock.monotonic() - started
                raise outcome.error
            _log.info("%s Trying again in %.1f s (%d of %d).", outcome.error, wait, attempts, self._max_retries)
            self._rate_limiter.pause(wait)

    def get_deployment(self, id: str) -> dict[str, Any]:  # noqa: A002 - the service's word for it
        """Return one deployment as the service gives it.

        Parameters
        ----------
        id
            The deployment's id (``dep_…``).

        Returns
        -------
        dict
            The JSON object, with times as text. Integers are `int`; every other number is a `decimal.Decimal` with
            the digits that the service sent, so that ``1.50`` stays ``Decimal('1.50')``. A number that `int` or
            `decimal.Decimal` cannot hold is text.

        Raises
        ------
        NotFoundError
            There is no such deployment; and the other exceptions of `get`.
        ValueError
            `id` cannot be an id.
        """
        return self._get_object("/deployments", id, name="deployment_id")

    def get_run(self, id: str) -> dict[str, Any]:  # noqa: A002 - the service's word for it
        """Return one run as the service gives it.

        Parameters
        ----------
        id
            The run's id.

        Returns
        -------
        dict
            The JSON object, with numbers as in `get_deployment` and times as text.

        Raises
        ------
        NotFoundError
            There is no such run; and the other exceptions of `get`.
        ValueError
            `id` cannot be an id.
        """
        return self._get_object("/deployment_runs", id, name="run_id")

    def get_session(self, id: str) -> dict[str, Any]:  # noqa: A002 - the service's word for it
        """Return one session as the service gives it.

        Parameters
        ----------
        id
            The session's id.

        Returns
        -------
        dict
            The JSON object, with numbers as in `get_deployment` and times as text.

        Raises
        ------
        NotFoundError
            There is no such session, or it was deleted; and the other exceptions of `get`.
        ValueError
            `id` cannot be an id.
        """
        return self._get_object("/sessions", id, name="session_id")

    def mask(self, text: str) -> str:
        """Return a text from the service with the access token masked.

        Parameters
        ----------
        text
            Text to quote in a message.

        Returns
        -------
        str
            The text with ``***`` in place of the token.
        """
        return self._token.mask(text)

    def _get_object(self, collection: str, id_: str, *, name: str) -> dict[str, Any]:
        path = f"{collection}/{quote(check_id(id_, name=name), safe='')}"
        return self.get(path, {}, _read_object)

    def _attempt(
        self, path: str, params: Mapping[str, str | Sequence[str]], read: Callable[[bytes], T]
    ) -> T | Failure:
        response = self._transport.get(path, params)
        if isinstance(response, TransportFailure):
            return self._errors.from_transport(path, response)
        if response.status not in _SUCCESSES:
            return self._errors.from_status(path, response)
        try:
            return read(response.body)
        except errors.APIResponseValidationError as error:
            return self._errors.from_contract(path, response, error)
        except ValueError:
            return self._errors.from_unreadable(path, response)


def given_client(client: Client | None) -> Client:
    """Return the given client, or one made from the environment; raise `TypeError` for any other object."""
    if client is None:
        return Client()
    if isinstance(client, type) or not hasattr(client, "identity"):
        kind = "class" if isinstance(client, type) else type(client).__name__
        raise TypeError(f"client is a {kind}; give Client(pat=…), or the first of the two that connect() returns")
    return client


def _read_object(body: bytes) -> dict[str, Any]:
    from qoderdata.decode import jsontext  # noqa: PLC0415 - not needed to make a client

    record = jsontext.parse(body, plain=True)
    if not isinstance(record, dict):
        raise errors.APIResponseValidationError("the service answered with JSON that is not an object")
    return record


def _check_seconds(name: str, value: float, *, zero: bool) -> float:
    must = f"be a number of seconds {'of at least' if zero else 'above'} 0, and at most {_MOST_SECONDS:,}"
    check_number(value, lambda it: 0 <= it <= _MOST_SECONDS and (zero or it > 0), name=name, must=must)
    return float(value)


def _check_timeout(value: float | tuple[float, float]) -> tuple[float, float]:
    try:
        connect, read = value if isinstance(value, tuple | list) else (value, value)
    except ValueError:
        raise ValueError(f"timeout={value!r} must be a number of seconds, or a pair (connect, read)") from None
    return _check_seconds("timeout", connect, zero=False), _check_seconds("timeout", read, zero=False)
