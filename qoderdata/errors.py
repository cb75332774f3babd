"""Exceptions and warnings, and the facts that they carry.

Where the official SDK has a name for a failure, it is the same name here. Facts are attributes, so that
callers branch without parsing the text: ``status_code``, ``type``, ``param``, ``request_id``,
``retry_after``, and how far it got. Every message says what happened, what to do now, and ends with those facts.
"""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_PACKAGE = __name__.partition(".")[0]
#: The function that returns a kind of frame, by the name of the kind in messages.
FRAME_SOURCES = {
    "deployments": "load_deployments",
    "runs": "load_runs",
    "sessions": "load_sessions",
    "events": "load_events",
    "agents": "load_agents",
    "environments": "load_environments",
    "triggers": "next_triggers",
    "missed": "missed_triggers",
    "rates": "failure_rates or run_failure_rates",
    "costs": "session_costs",
    "frame": "load_runs, load_sessions, next_triggers, missed_triggers or a summary of them",
}

#: How frames of other libraries become pandas frames.
_TO_PANDAS = {
    "dask": "compute()",
    "duckdb": "df()",
    "polars": "to_pandas()",
    "pyarrow": "to_pandas()",
    "pyspark": "toPandas()",
}


class QoderdataError(Exception):
    """Base class of all qoderdata exceptions."""


class CredentialError(QoderdataError):
    """There is no access token, or it cannot be sent; raised before any request."""


class CacheError(QoderdataError):
    """Nothing is stored that answers the call, or what is stored cannot be opened, read or locked."""


class MissingColumnError(QoderdataError, KeyError):
    """A frame lacks a column that was asked for; the message lists those there are."""

    __str__ = QoderdataError.__str__


class FrameTypeError(QoderdataError, TypeError, ValueError):
    """An argument is not a frame, or a column has lost its dtype; the message says how to convert it.

    Attributes
    ----------
    column : str or None
        The column; ``None`` if the argument is no frame.
    """

    column: str | None = None


class APIError(QoderdataError):
    """A request did not lead to a usable answer.

    The text of the exception ends with these facts, as far as they are set, so that one line shows all of them.

    Attributes
    ----------
    request_id : str or None
        The service's ``x-request-id``; quote it to its support.
    attempts : int or None
        How many times the request was sent.
    seconds : float or None
        How long that took, waits included.
    pages, records : int or None
        How many pages and records of a list were read before.

    Examples
    --------
    >>> import qoderdata as qd
    >>> error = qd.errors.APIConnectionError("GET /deployments: the connection broke")
    >>> error.attempts, error.seconds, error.pages, error.records = 6, 14.25, 3, 3000
    >>> print(error)
    GET /deployments: the connection broke [6 attempts in 14.2 s; after 3 pages, 3000 records]
    """

    request_id: str | None = None
    attempts: int | None = None
    seconds: float | None = None
    pages: int | None = None
    records: int | None = None

    def __str__(self) -> str:
        facts = []
        if self.attempts is not None:
            tries = f"{self.attempts} attempt{'s' if self.attempts != 1 else ''}"
            facts.append(tries if self.seconds is None else f"{tries} in {self.seconds:.1f} s")
        if self.pages is not None:
            pages = f"after {self.pages} page{'s' if self.pages != 1 else ''}"
            facts.append(pages if self.records is None else f"{pages}, {self.records} records")
        if self.request_id is not None:
            facts.append(f"request id {self.request_id}")
        return f"{super().__str__()} [{'; '.join(facts)}]" if facts else super().__str__()


class APIConnectionError(APIError):
    """The service could not be reached, or the connection broke, on every attempt."""


class APITimeoutError(APIConnectionError):
    """No whole response in time, on every attempt."""


class APIResponseValidationError(APIError):
    """A response breaks the contract, is not JSON on every attempt, or is larger than ``max_response_bytes``."""


class PaginationError(APIError):
    """A list cannot be read to its end: a cursor repeats or is missing, or ``Client(max_pages=…)`` is reached."""


class APIStatusError(APIError):
    """The service answered with an HTTP status that is not a success.

    Attributes
    ----------
    status_code : int
        The HTTP status.
    type : str or None
        ``error.type`` of the service's error envelope.
    param : str or None
        ``error.param``: the request parameter that the service objects to.
    retry_after : float or None
        Seconds that the service asks to wait, from ``retry-after-ms``, else ``Retry-After``.
    """

    status_code: int = 0
    type: str | None = None
    param: str | None = None
    retry_after: float | None = None


class BadRequestError(APIStatusError):
    """400: the service refuses a parameter."""


class AuthenticationError(APIStatusError):
    """401: the token is missing, malformed, expired or revoked."""


class PermissionDeniedError(APIStatusError):
    """403: the token may not read this."""


class NotFoundError(APIStatusError):
    """404: there is no such object, or no such path at this base URL."""


class ConflictError(APIStatusError):
    """409: the request conflicts with the object's state."""


class RateLimitError(APIStatusError):
    """429: too many requests, also after all retries."""


class InternalServerError(APIStatusError):
    """5xx: the service or the gateway in front of it failed, also after all retries."""


class DataQualityWarning(UserWarning):
    """Some data is not as expected, or is missing from the result; the message says which."""


class UnknownOutcomesWarning(DataQualityWarning):
    """The outcomes of many runs are unknown or assumed, so that failures among them are not counted."""


class CacheWarning(UserWarning):
    """The cache could not be read or written, was repaired, is locked, or belongs to another user."""


class NotStoredWarning(CacheWarning):
    """What was read could not be written to the cache; a later call reads it again."""


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitError,
}

_SERVER_ERRORS = 500


def status_error_class(status_code: int) -> type[APIStatusError]:
    """Return the most specific exception class for an HTTP status that is not a success; redirects too.

    Examples
    --------
    >>> status_error_class(429).__name__, status_error_class(503).__name__, status_error_class(302).__name__
    ('RateLimitError', 'InternalServerError', 'APIStatusError')
    """
    if status_code >= _SERVER_ERRORS:
        return InternalServerError
    return _BY_STATUS.get(status_code, APIStatusError)


def frame_hint(what: str, start: str = ";") -> str:
    """Return the end of a message: which function returns such a frame; an empty text for an unknown kind.

    Examples
    --------
    >>> frame_hint("runs")
    '; pass the frame that load_runs returns'
    """
    return f"{start} pass the frame that {FRAME_SOURCES[what]} returns" if what in FRAME_SOURCES else ""


def not_a_frame(value: object, *, what: str, kinds: str) -> FrameTypeError:
    """Return the error for an argument that is no frame, which names the kinds that are accepted.

    Examples
    --------
    >>> print(not_a_frame([], what="runs", kinds="a pandas frame"))
    runs must be a pandas frame, not list; pass the frame that load_runs returns
    """
    library = type(value).__module__.partition(".")[0]  # a frame of Polars is a DataFrame too
    name = type(value).__name__ if library == "builtins" else f"{library}.{type(value).__name__}"
    convert = "collect().to_pandas()" if name == "polars.LazyFrame" else _TO_PANDAS.get(library)
    advice = frame_hint(what) if convert is None else f"; convert it first: {what}.{convert}"
    return FrameTypeError(f"{what} must be {kinds}, not {name}{advice}")


def require_columns(
    present: Iterable[object],
    wanted: Iterable[str],
    *,
    what: str,
    advice: str | None = None,
    levels: Collection[object] = (),
) -> None:
    """Raise `MissingColumnError` unless every wanted column is there; `what` is the kind of frame.

    `advice` says what to do; ``None``: the message names the function that returns such a frame, if there is
    one. `levels` are the names of the index levels; if one of them is missing, the advice is `reset_index`.
    """
    have = [str(name) for name in present]
    missing = [name for name in wanted if name not in have]
    if missing:
        if indexed := [name for name in missing if name in levels]:
            advice = f"its index has {', '.join(map(repr, indexed))}: pass {what}.reset_index()"
        raise MissingColumnError(
            f"the {what} frame has no column {', '.join(map(repr, missing))}; it has: {', '.join(have) or 'none'}"
            f"{frame_hint(what) if advice is None else f'; {advice}'}"
        )


def warn(message: str, category: type[Warning]) -> None:
    """Warn, and point at the line outside of this package that led here.

    Python shows a warning once per line that it points at. If it pointed into this package, only the first caller
    would see it.
    """
    frame = inspect.currentframe()
    level = 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)
