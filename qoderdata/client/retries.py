"""Decide when a request starts: the rate limit, which responses are retried, and how long a retry waits.

`transport` says of a failure without a response whether a retry may help; `client` counts the attempts.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The full waits in seconds after one failed attempt, after two, and so on; the last one is for all that follow.
_BACKOFFS = (0.5, 1.0, 2.0, 4.0, 8.0)
_LONGEST_REQUESTED_WAIT = 60.0
#: With jitter a wait is at least this share of the full wait.
_LEAST_SHARE = 0.75
_RETRYABLE_STATUSES = frozenset({408, 429, 500, 502, 503, 504, 529})
_CONFLICT = 409
#: Enough digits for a float as programs write it, such as 1499.9999999999998.
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,30})?")
_random = secrets.SystemRandom()


class SystemClock:
    """The clock of the machine."""

    def monotonic(self) -> float:
        """Return the seconds since a fixed moment."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""
        time.sleep(seconds)


#: The clock of every client; tests replace it with a faster one.
SYSTEM = SystemClock()


class RateLimiter:
    """Keep a minimum time, in seconds, between the starts of the requests of all threads."""

    def __init__(self, interval: float, clock: SystemClock) -> None:
        self._interval = interval
        self._clock = clock
        self._next = clock.monotonic()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait until the calling thread may start a request."""
        with self._lock:
            now = self._clock.monotonic()
            start = max(now, self._next)
            self._next = start + self._interval
        if start > now:
            self._clock.sleep(start - now)

    def pause(self, seconds: float) -> None:
        """Delay the requests that have not called `wait` yet."""
        with self._lock:
            self._next = max(self._next, self._clock.monotonic() + seconds)


def should_retry(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether a request is sent again after a response that is not a success.

    ``x-should-retry`` decides before the status, except for 409, as in the official SDK.

    Examples
    --------
    >>> should_retry(529, {}), should_retry(501, {}), should_retry(503, {"x-should-retry": "false"})
    (True, False, False)
    """
    if status == _CONFLICT:
        return False
    directive = headers.get("x-should-retry", "").strip().lower()
    if directive in {"true", "false"}:
        return directive == "true"
    return status in _RETRYABLE_STATUSES


def retry_wait(attempts: int, requested: float | None) -> float | None:
    """Return the seconds to wait after a number of failed attempts; `requested`: what the service asks for.

    ``None`` if that is more than 60: the request is not retried. If the service asks for nothing, the wait is
    about 0.5, doubling, at most 8. Its jitter is for clients that failed at the same time: they do not send their
    next requests at the same time.

    Examples
    --------
    >>> retry_wait(1, 7.0), retry_wait(1, 61.0)
    (7.0, None)
    >>> 0.375 <= retry_wait(1, None) <= 0.5, 6.0 <= retry_wait(20, None) <= 8.0
    (True, True)
    """
    if requested is not None:
        return requested if requested <= _LONGEST_REQUESTED_WAIT else None
    full = _BACKOFFS[min(attempts, len(_BACKOFFS)) - 1]
    return full * _random.uniform(_LEAST_SHARE, 1.0)


def requested_wait(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Return the seconds to wait that the service requests in ``retry-after-ms``, else in ``Retry-After``.

    ``Retry-After`` has seconds or an HTTP date (RFC 9110, section 10.2.3). A date is compared with the response's
    own ``Date``, so that the clock of this machine does not matter, or with `now` if there is none. ``None`` if
    there is no usable value: it is absent, unreadable, zero, or in the past.

    Examples
    --------
    >>> moment = datetime(2026, 6, 15, 12, tzinfo=UTC)
    >>> requested_wait({"retry-after-ms": "1500", "Retry-After": "30"}, now=moment)
    1.5
    >>> requested_wait({"Retry-After": "Mon, 15 Jun 2026 12:01:00 GMT"}, now=moment)
    60.0
    """
    milliseconds, text = headers.get("retry-after-ms", "").strip(), headers.get("Retry-After", "").strip()
    if _NUMBER.fullmatch(milliseconds) and float(milliseconds) > 0:
        seconds = float(milliseconds) / 1000
    elif _NUMBER.fullmatch(text):
        seconds = float(text)
    else:
        until = _parse_date(text)
        if until is None:
            return None
        seconds = (until - (_parse_date(headers.get("Date", "")) or now)).total_seconds()
    return seconds if seconds > 0 else None


def _parse_date(text: str) -> datetime | None:
    """Parse an HTTP date, which is in GMT even if the text does not say so."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
