"""Which runs are asked for: as the service takes it, and as this side makes sure of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow.compute as pc

from qoderdata.times import Instant, Span, instant, moment

_STATUSES = ("pending", "running", "completed", "failed", "skipped")
_TRIGGERS = ("manual", "schedule", "retry")
#: `created_at` never lies before `triggered_at`, but clocks differ: the service is asked for a little more.
_CLOCKS_DIFFER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Query:
    """What `load_runs` is asked for.

    Parameters
    ----------
    deployment_id, status, trigger_type
        What a run must have; ``None``: anything.
    has_error
        Whether a run must have an error, or must have none; ``None``: either.
    since, until
        ``since <= triggered_at < until``, in UTC; ``None``: no bound.
    window
        `since` as it was written, so that the same age asked for later is the same question.
    """

    deployment_id: str | None
    status: str | None
    trigger_type: str | None
    has_error: bool | None
    since: datetime | None
    until: datetime | None
    window: str | None

    @property
    def filters(self) -> dict[str, str]:
        """The filters as the service takes them; empty where all runs of the time are asked for."""
        asked = {
            "deployment_id": self.deployment_id,
            "status": self.status,
            "trigger_type": self.trigger_type,
            "has_error": None if self.has_error is None else str(self.has_error).lower(),
        }
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def narrowed_to(self) -> datetime | None:
        """The time before which no run needs to come; ``None``: all are wanted."""
        return None if self.since is None else self.since - _CLOCKS_DIFFER

    @property
    def narrow(self) -> dict[str, str]:
        """A filter that newer editions of the service know and older ones ignore: it only saves requests."""
        moment = self.narrowed_to
        return {} if moment is None else {"created_at[gte]": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}

    def where(self) -> pc.Expression | None:
        """Write the filters as a condition, without the bounds; ``None`` where there are none."""
        wanted = None
        for name in ("deployment_id", "status", "trigger_type"):
            value = getattr(self, name)
            if value is not None:
                part = pc.field(name) == value
                wanted = part if wanted is None else wanted & part
        if self.has_error is not None:
            failed = pc.field("error_type").is_valid() | pc.field("error_message").is_valid()
            part = failed if self.has_error else ~failed
            wanted = part if wanted is None else wanted & part
        return wanted


def query(
    *,
    deployment_id: str | None,
    status: str | None,
    trigger_type: str | None,
    has_error: bool | None,
    since: Instant | Span | None,
    until: Instant | Span | None,
    now: datetime,
) -> Query:
    """Read what a caller asks for.

    Parameters
    ----------
    deployment_id, status, trigger_type, has_error, since, until
        As `load_runs` takes them.
    now
        What ages are counted back from.

    Returns
    -------
    Query
        The question.

    Raises
    ------
    ValueError
        A parameter cannot be understood.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> asked = query(
    ...     deployment_id=None, status="failed", trigger_type=None, has_error=None, since="7D", until=None,
    ...     now=datetime(2026, 6, 15, tzinfo=UTC),
    ... )
    >>> asked.since.isoformat(), asked.filters
    ('2026-06-08T00:00:00+00:00', {'status': 'failed'})
    """
    start = None if since is None else moment(since, now=now, name="since").to_pydatetime()
    end = None if until is None else moment(until, now=now, name="until").to_pydatetime()
    if start is not None and end is not None and start >= end:
        raise ValueError(f"since={since!r} is not before until={until!r}: no run can be in between")
    if deployment_id is not None and not deployment_id.strip():
        raise ValueError("deployment_id is empty; ids look like dep_0197…, and None asks for all deployments")
    return Query(
        deployment_id=deployment_id,
        status=_known("status", status, _STATUSES),
        trigger_type=_known("trigger_type", trigger_type, _TRIGGERS),
        has_error=has_error,
        since=start,
        until=end,
        window=None if since is None else _written(since),
    )


def _written(since: Instant | Span) -> str:
    """Write a time in UTC, so that the same instant is the same question; and an age as it is."""
    try:
        return instant(since, name="since").isoformat()  # type: ignore[arg-type] # an age: ValueError
    except ValueError:
        return str(since)


def _known(name: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    if value is not None and value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; allowed are {', '.join(map(repr, allowed))}, None")
    return value
