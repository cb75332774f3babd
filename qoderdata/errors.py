"""Everything that can go wrong, as exceptions and warnings.

Where the official SDK has a name for a failure, it is the same name here. Facts are attributes, so that
callers branch without reading the text: ``status_code``, ``type``, ``param``, ``request_id``,
``retry_after``. Every message says what happened, how far it got and what to do now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class QoderdataError(Exception):
    """Base of all exceptions that this package raises on its own account."""


class CredentialError(QoderdataError):
    """No token, or one that cannot be sent; raised before any request."""


class CacheError(QoderdataError):
    """``offline=True`` and no cached answer, or a stored file that cannot be used."""


class MissingColumnError(QoderdataError, KeyError):
    """A frame lacks a column that was asked for; the message lists those there are."""

    __str__ = QoderdataError.__str__


class APIError(QoderdataError):
    """A request did not lead to a usable answer.

    Attributes
    ----------
    request_id : str or None
        The service's ``x-request-id``; quote it to its support.
    """

    request_id: str | None = None


class APIConnectionError(APIError):
    """The service could not be reached, or the connection broke, on every try."""


class APITimeoutError(APIConnectionError):
    """No answer in time, on every try."""


class APIResponseValidationError(APIError):
    """An answer that is not what the contract says; not retried, since it would come again."""


class PaginationError(APIError):
    """The list cannot be walked to its end: a cursor repeats, or there is "more" without a cursor."""


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
        Seconds that the service asks to wait, from ``Retry-After``.
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
    """The data was loaded whole, but some of it is not what it should be."""


class CacheWarning(UserWarning):
    """The cache could not be read or written; the answer is whole all the same."""


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
    """Give the exception class for an HTTP status.

    Parameters
    ----------
    status_code
        The HTTP status of an answer that is not a success; redirects too.

    Returns
    -------
    type
        The most specific subclass of `APIStatusError`.

    Examples
    --------
    >>> status_error_class(429).__name__, status_error_class(503).__name__, status_error_class(302).__name__
    ('RateLimitError', 'InternalServerError', 'APIStatusError')
    """
    if status_code >= _SERVER_ERRORS:
        return InternalServerError
    return _BY_STATUS.get(status_code, APIStatusError)


def require_columns(present: Iterable[object], wanted: Iterable[str], *, what: str) -> None:
    """Raise unless every wanted column is there.

    Parameters
    ----------
    present
        The frame's column names.
    wanted
        The names that the caller needs.
    what
        The caller's words for the frame, such as ``"deployments"``, for the message.

    Raises
    ------
    MissingColumnError
        Names what is missing, and lists what there is.
    """
    have = [str(name) for name in present]
    missing = [name for name in wanted if name not in have]
    if missing:
        raise MissingColumnError(
            f"the {what} frame has no column {', '.join(map(repr, missing))}; it has: {', '.join(have) or 'none'}"
        )
