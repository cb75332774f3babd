"""When the next request may start: the pace between requests, the waits between tries, and the clock.

Knows nothing of HTTP but the ``Retry-After`` header's two forms.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0
_LEAST_SHARE = 0.75
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_random = secrets.SystemRandom()


class Clock(Protocol):
    """What tells the time and waits."""

    def monotonic(self) -> float:
        """Give seconds since some fixed moment; never goes back."""
        ...

    def now(self) -> datetime:
        """Give the time of day, zone-aware."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Give seconds since some fixed moment; never goes back."""
        return time.monotonic()

    def now(self) -> datetime:
        """Give the time of day in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


#: The clock of every client; tests put a faster one here.
SYSTEM: Clock = SystemClock()


class Pace:
    """Keep a least time between the starts of requests, over all threads.

    Parameters
    ----------
    interval
        The least time between two starts, in seconds.
    clock
        What tells the time and waits.
    """

    def __init__(self, interval: float, clock: Clock) -> None:
        self._interval = interval
        self._clock = clock
        self._next = clock.monotonic()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for the caller's turn to start a request."""
        with self._lock:
            now = self._clock.monotonic()
            start = max(now, self._next)
            self._next = start + self._interval
        if start > now:
            self._clock.sleep(start - now)

    def hold(self, seconds: float) -> None:
        """Let no request start for a while, of any thread: the service is in trouble, or asked for it."""
        with self._lock:
            self._next = max(self._next, self._clock.monotonic() + seconds)


def backoff(tries: int) -> float:
    """Give the seconds to wait after a failed try: about 0.5, doubling, at most 8, with jitter.

    Parameters
    ----------
    tries
        How many tries have failed, at least 1.

    Returns
    -------
    float
        Seconds; between three quarters of the full wait and all of it, so that clients which failed together
        do not come back together.

    Examples
    --------
    >>> 0.375 <= backoff(1) <= 0.5, 6.0 <= backoff(20) <= 8.0
    (True, True)
    """
    full = _FIRST_WAIT
    for _ in range(tries - 1):
        full = min(2 * full, _LONGEST_WAIT)
    return full * _random.uniform(_LEAST_SHARE, 1.0)


def retry_after(text: str | None, *, now: datetime) -> float | None:
    """Read a ``Retry-After`` header in either form.

    Parameters
    ----------
    text
        Seconds, or an HTTP date (RFC 9110, section 10.2.3); ``None`` where there is no such header.
    now
        The time that a date is measured from.

    Returns
    -------
    float or None
        Seconds to wait. ``None`` where the header gives no usable hint: absent, rubbish, zero, or a past date.

    Examples
    --------
    >>> moment = datetime(2026, 6, 15, 12, tzinfo=UTC)
    >>> retry_after("30", now=moment), retry_after("Mon, 15 Jun 2026 12:01:00 GMT", now=moment)
    (30.0, 60.0)
    >>> retry_after("Mon, 15 Jun 2026 11:00:00 GMT", now=moment) is None
    True
    """
    text = (text or "").strip()
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        try:
            date = parsedate_to_datetime(text)
            # RFC 9110 dates are GMT, also where the text does not say so.
            seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds()
        except (ValueError, OverflowError):
            return None
    return seconds if seconds > 0 else None
