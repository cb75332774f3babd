"""Compute what fires next, and how much starts at the same time."""

from __future__ import annotations

from datetime import UTC
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata.arguments import (
    Instant,
    Span,
    check_flag,
    pandas_zone,
    parse_instant,
    parse_span,
    parse_window,
    parse_zone,
)
from qoderdata.cron import offset_segments
from qoderdata.frame_checks import TEXT, require_frame, warn_of_repeats
from qoderdata.frames import NAMES
from qoderdata.time_math import (
    DAY_MICROS,
    HOUR_MICROS,
    MINUTE_MICROS,
    SECOND_MICROS,
    list_windows,
    no_windows_error,
    to_micros,
)
from qoderdata.timelines.distinct_schedules import (
    DistinctSchedules,
    UpcomingTriggers,
    distinct_upcoming_triggers,
    timestamps,
    trigger_micros,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from numpy.typing import NDArray

#: The columns of text, each with the one of the deployments frame that it is.
_TEXTS = {
    "deployment_id": "id",
    **{name: name for name in ("name", "agent_id", "environment_id", "schedule_expression", "schedule_timezone")},
}
_FIRES = ("status", "archived_at", "schedule_upcoming_runs_at")
_SOURCES = pd.CategoricalDtype(pd.Index(["api", "cron"], dtype=TEXT))
_NEVER = np.iinfo(np.int64).max


def next_triggers(
    df: pd.DataFrame,
    horizon: Span = "7D",
    *,
    start: Instant | None = None,
    tz: str = "UTC",
    include_paused: bool = False,
) -> pd.DataFrame:
    """Return every trigger in ``[start, start + horizon)``.

    Archived and manual-only deployments never fire, paused ones only with ``include_paused``. The service's own
    list (``schedule_upcoming_runs_at``) is taken from its first to its last time; cron gives the triggers before
    and after. A wall-clock time that a clock change skips does not fire, one that occurs twice fires twice.

    Parameters
    ----------
    df
        A deployments frame.
    horizon
        How far to look: a length of time with a unit, such as ``"24h"``, ``"7D"`` or a `datetime.timedelta`.
    start
        From when, zone-aware; ``None`` is now.
    tz
        The IANA zone of ``trigger_at``.
    include_paused
        Whether paused deployments are projected as if they were active.

    Returns
    -------
    pandas.DataFrame
        One row per trigger, in order of ``trigger_at`` and ``deployment_id``, 25 to 40 bytes each. Nothing
        fires: no rows, same columns and dtypes.

        ============================================== ================== ==================================
        ``trigger_at``                                 datetime64[us, tz] when, in ``tz``
        ``deployment_id``, ``name``, ``agent_id``      category of str    as in ``df``
        ``environment_id``                             category of str    as in ``df``
        ``schedule_expression``, ``schedule_timezone`` category of str    as in ``df``
        ``agent_name``, ``environment_name``           category of str    after their ids, if ``df`` has
                                                                          them (see `with_names`)
        ``local_time``                                 datetime64[us]     wall clock in the schedule's zone
        ``source``                                     category of str    ``"api"`` or ``"cron"``
        ============================================== ================== ==================================

    Raises
    ------
    ValueError
        A parameter is not valid; the message says what is allowed.
    FrameTypeError
        Not a pandas frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        A cron text or zone cannot be read: that deployment gives no rows. Or cron and the service's list
        disagree in the time that the list covers: the schedule may have been changed since it was made. Names
        the first ids. Or an id is in `df` more than once: each row has triggers.

    Examples
    --------
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{
    ...     "id": "dep_1", "name": "report", "status": "active",
    ...     "schedule": {"expression": "0 9 * * 1-5", "timezone": "Asia/Shanghai",
    ...                  "upcoming_runs_at": ["2026-06-15T01:00:00Z", "2026-06-16T01:00:00Z"]},
    ... }])
    >>> triggers = qd.next_triggers(df, "3D", start="2026-06-15T00:00Z")
    >>> triggers[["trigger_at", "deployment_id", "local_time", "source"]]
                     trigger_at deployment_id          local_time source
    0 2026-06-15 01:00:00+00:00         dep_1 2026-06-15 09:00:00    api
    1 2026-06-16 01:00:00+00:00         dep_1 2026-06-16 09:00:00    api
    2 2026-06-17 01:00:00+00:00         dep_1 2026-06-17 09:00:00   cron
    """
    check_flag(include_paused, name="include_paused")
    optional = ["schedule_type", *NAMES.values()]
    df = require_frame(df, [*_TEXTS.values(), *_FIRES], what="deployments", optional=optional)
    warn_of_repeats(df, what="deployments")
    zone = pandas_zone(parse_zone(tz).key)
    rows, upcoming, upcoming_of, instants = _firing(df, horizon, start, include_paused=include_paused)

    # From here on only deployments that fire, in order of id: a deployment is its index in this order.
    some = np.array([at.size > 0 for at in instants], dtype=bool)[upcoming_of]
    rows, upcoming_of = rows[some], upcoming_of[some]
    order = df["id"].iloc[rows].array.argsort(kind="stable")
    rows, upcoming_of = rows[order], upcoming_of[order]
    moments, moment_of, deployment_of = _in_order(instants, upcoming_of)
    at = moments[moment_of]

    columns: dict[str, object] = {"trigger_at": timestamps(at).tz_localize("UTC").tz_convert(zone)}
    for name, source in _TEXTS.items():
        columns[name] = _category(df[source].iloc[rows], deployment_of)
        if source in NAMES and NAMES[source] in df:
            columns[NAMES[source]] = _category(df[NAMES[source]].iloc[rows], deployment_of)
    timezones = df["schedule_timezone"].iloc[rows]
    columns["local_time"] = timestamps(_local(at, moments, moment_of, timezones, deployment_of))
    columns["source"] = _source(at, upcoming, upcoming_of, deployment_of)
    return pd.DataFrame(columns, copy=False)


def trigger_counts(df: pd.DataFrame, horizon: Span, *, start: Instant | None = None) -> pd.Series[int]:
    """Return how many rows `next_triggers` has for each deployment, without making them.

    The counts are ``Int64``, in order of `df`, without those of deployments that do not fire.
    """
    wanted = ["id", "schedule_expression", "schedule_timezone", *_FIRES]
    df = require_frame(df, wanted, what="deployments", optional=["schedule_type"])
    rows, _, upcoming_of, instants = _firing(df, horizon, start, include_paused=False)
    counts = np.array([at.size for at in instants], dtype=np.int64)[upcoming_of]
    ids = pd.Index(df["id"].iloc[rows[counts > 0]], dtype=TEXT, name="deployment_id")
    return pd.Series(counts[counts > 0], index=ids, dtype="Int64")


def trigger_load(triggers: pd.DataFrame, freq: str = "1h") -> pd.DataFrame:
    """Count the triggers in each window of time.

    Parameters
    ----------
    triggers
        What `next_triggers` returns.
    freq
        A length of time with a unit, such as ``"15min"``, ``"1h"``, ``"1D"``, or ``"1M"`` for calendar months.
        Days, weeks (from Monday) and months are those of the wall clock in the zone of ``trigger_at``, so that a
        day has 23 or 25 hours when clocks change; several days or weeks are counted from 1970. Hours and minutes
        are absolute, counted from each local midnight, and must fill a day evenly. If an hour before midnight is
        repeated, both belong to the same day.

    Returns
    -------
    pandas.DataFrame
        One row per window, from that of the first trigger to that of the last, empty ones too. No triggers: no
        rows, same columns and dtypes.

        =============== ================================ ==================================================
        ``window``      that of ``trigger_at``           when it begins
        ``triggers``    int64                            how many fall into it
        ``deployments`` int64                            of how many deployments; a missing id is none
        ``at_minute_0`` int64                            how many in the first minute of an hour of the
                                                         wall clock, where schedules tend to meet
        =============== ================================ ==================================================

    Raises
    ------
    ValueError
        `freq` is not valid, or would make more than a million windows, or windows before year 1 or after 9999.
    FrameTypeError
        Not a pandas frame, or a column that has lost its dtype or zone; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> triggers = pd.DataFrame({
    ...     "trigger_at": pd.to_datetime(["2026-06-15T09:00Z", "2026-06-15T09:30Z", "2026-06-15T11:00Z"]),
    ...     "deployment_id": ["dep_1", "dep_2", "dep_1"],
    ... })
    >>> qd.trigger_load(triggers)
                         window  triggers  deployments  at_minute_0
    0 2026-06-15 09:00:00+00:00         2            2            1
    1 2026-06-15 10:00:00+00:00         0            0            0
    2 2026-06-15 11:00:00+00:00         1            1            1
    """
    triggers = require_frame(triggers, ["trigger_at", "deployment_id"], what="triggers")
    known = triggers["trigger_at"].notna()
    at = pd.DatetimeIndex(triggers["trigger_at"][known]).as_unit("us")
    step = parse_window(freq)
    # pandas 2 gives pytz's zones, whose offsets are wrong without pytz's own functions.
    zone = pandas_zone(at.tz.zone) if at.tz is not None and hasattr(at.tz, "zone") else at.tz or UTC
    try:
        wall = _micros(at.tz_localize(None))
    except OverflowError:  # pandas 2 has no wall clock there
        raise no_windows_error("trigger_at", str(zone)) from None
    clock, windows = wall if step is None or step >= DAY_MICROS else _micros(at), {}
    if clock.size:
        windows = list_windows(int(clock.min()), int(clock.max()), step, zone, column="trigger_at")
    window = np.searchsorted([*windows.values()], clock, side="right") - 1
    deployment, ids = pd.factorize(triggers["deployment_id"][known])
    pairs = pd.unique((window * len(ids) + deployment)[deployment >= 0])
    count = len(windows)
    return pd.DataFrame({
        "window": timestamps(np.array([*windows], dtype=np.int64)).tz_localize("UTC").tz_convert(at.tz),
        "triggers": np.bincount(window, minlength=count),
        "deployments": np.bincount(pairs // max(len(ids), 1), minlength=count),
        "at_minute_0": np.bincount(window[wall % HOUR_MICROS < MINUTE_MICROS], minlength=count),
    })  # fmt: skip


def _firing(
    df: pd.DataFrame, horizon: Span, start: Instant | None, *, include_paused: bool
) -> tuple[NDArray[np.int64], list[UpcomingTriggers], NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return the rows that may fire, their distinct schedules, each row's index among them, and all instants."""
    length = parse_span(horizon, name="horizon")
    begin = parse_instant(pd.Timestamp.now("UTC") if start is None else start, name="start").to_pydatetime()
    try:
        end = begin + length
    except OverflowError:
        raise ValueError(f"horizon={horizon!r} reaches beyond the year 9999") from None
    distinct = DistinctSchedules.parse(df)
    fires = (distinct.of_row >= 0) & df["archived_at"].isna().to_numpy()
    if not include_paused:
        fires &= df["status"].ne("paused").to_numpy()
    rows = distinct.parsed_rows(df, np.flatnonzero(fires))
    upcoming, upcoming_of = distinct_upcoming_triggers(df, distinct, rows)
    return rows, upcoming, upcoming_of, [*_instants(upcoming, begin, end)]


def _instants(upcoming: list[UpcomingTriggers], begin: datetime, end: datetime) -> Iterator[NDArray[np.int64]]:
    """Yield the triggers of each schedule and list in ``[begin, end)``, ascending, in microseconds since 1970."""
    bounds = to_micros(begin), to_micros(end)
    by_cron = cache(lambda schedule: trigger_micros(schedule, begin, end))  # several lists may have one schedule
    for triggers in upcoming:
        at, listed = by_cron(triggers.schedule), triggers.listed
        if listed.size:
            before = np.searchsorted(at, listed[0])
            after = np.searchsorted(at, listed[-1], side="right")
            low, high = np.searchsorted(listed, bounds)
            at = np.concatenate((at[:before], listed[low:high], at[after:]))
        yield at


def _in_order(
    instants: list[NDArray[np.int64]], upcoming_of: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Sort the triggers of all deployments.

    Return the distinct moments, and for each trigger the index of its moment and that of its deployment.
    """
    deployments = upcoming_of.size
    used = np.unique(upcoming_of).tolist()
    moments = np.unique(np.concatenate([np.empty(0, np.int64), *(instants[index] for index in used)]))
    members = np.split(np.argsort(upcoming_of, kind="stable"), np.cumsum(np.bincount(upcoming_of))[:-1])
    # Both indices in one integer, sorted in place, take a third of the memory of sorting by two.
    packed = np.empty(sum(instants[index].size * members[index].size for index in used), np.int64)
    filled = 0
    for index in used:
        which = np.searchsorted(moments, instants[index]) * deployments
        size = which.size * members[index].size
        packed[filled : filled + size].reshape(which.size, -1)[:] = which[:, None] + members[index]
        filled += size
    packed.sort()
    moment_of = packed // max(deployments, 1)
    packed -= moment_of * deployments
    return moments, moment_of, packed.astype(np.int32)


def _category(values: pd.Series[str], deployment_of: NDArray[np.int32]) -> pd.Categorical:
    """Return the text of each trigger's deployment; `values` has one text per deployment."""
    codes, categories = pd.factorize(values, sort=True)
    dtype = pd.CategoricalDtype(pd.Index(categories).astype(TEXT))
    narrow = codes.astype(np.min_scalar_type(-max(len(categories), 1)))
    return pd.Categorical.from_codes(narrow[deployment_of], dtype=dtype, validate=False)


def _local(
    at: NDArray[np.int64],
    moments: NDArray[np.int64],
    moment_of: NDArray[np.int64],
    timezones: pd.Series[str],
    deployment_of: NDArray[np.int32],
) -> NDArray[np.int64]:
    """Return the wall-clock time of each trigger in its own zone, by a table of offsets by zone and period."""
    if not at.size:
        return at
    zone_of, names = pd.factorize(timezones)
    first, last = int(moments[0]) // SECOND_MICROS, int(moments[-1]) // SECOND_MICROS + 1
    segments = [offset_segments(name, first, last) for name in names]
    changes = np.unique([segment.begin for of_zone in segments for segment in of_zone])
    offsets = np.array([
        [next(one.offset for one in reversed(of_zone) if one.begin <= change) for change in changes.tolist()]
        for of_zone in segments
    ])  # fmt: skip
    period_of = np.searchsorted(changes * SECOND_MICROS, moments, side="right") - 1
    index = (zone_of * changes.size)[deployment_of]
    index += period_of[moment_of]
    local = (offsets.ravel() * SECOND_MICROS)[index]
    local += at
    return local


def _source(
    at: NDArray[np.int64],
    upcoming: list[UpcomingTriggers],
    upcoming_of: NDArray[np.int64],
    deployment_of: NDArray[np.int32],
) -> pd.Categorical:
    """Return the source of each trigger: the service's list or cron."""
    first = np.array([triggers.listed.min(initial=_NEVER) for triggers in upcoming], dtype=np.int64)
    last = np.array([triggers.listed.max(initial=-_NEVER) for triggers in upcoming], dtype=np.int64)
    by_cron = at < first[upcoming_of][deployment_of]
    by_cron |= at > last[upcoming_of][deployment_of]
    return pd.Categorical.from_codes(by_cron.astype(np.int8), dtype=_SOURCES, validate=False)


def _micros(at: pd.DatetimeIndex) -> NDArray[np.int64]:
    return at.to_numpy("datetime64[us]").astype(np.int64)
