"""How much starts at once: triggers counted by window of time."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from qoderdata import times
from qoderdata.errors import require_columns
from qoderdata.timelines import clock

if TYPE_CHECKING:
    from datetime import tzinfo

    from numpy.typing import NDArray

_MINUTE = 60_000_000
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_WEEK = 7 * _DAY
_FIRST_MONDAY = 4 * _DAY  # 1970-01-05


def trigger_load(triggers: pd.DataFrame, freq: str = "1h") -> pd.DataFrame:
    """Count what starts in each window of time.

    Parameters
    ----------
    triggers
        What `next_triggers` gives.
    freq
        A count and ``min``, ``h``, ``D`` or ``W``, such as ``"15min"``, ``"1h"``, ``"1D"``. Days and weeks (from
        Monday) are those of the wall clock in the zone of ``trigger_at``, so they have 23 or 25 hours where
        clocks change, and several are counted from 1970; hours and minutes are absolute, counted from each local
        midnight, and must fill a day evenly. An evening that occurs twice is of one day.

    Returns
    -------
    pandas.DataFrame
        One row a window, from that of the first trigger to that of the last, empty ones too. No triggers: no
        rows, same columns and dtypes.

        =============== ================================ ==================================================
        ``window``      that of ``trigger_at``           when it begins
        ``triggers``    int64                            how many fall into it
        ``deployments`` int64                            of how many deployments
        ``at_minute_0`` int64                            how many in the first minute of an hour of the
                                                         wall clock, where schedules tend to meet
        =============== ================================ ==================================================

    Raises
    ------
    ValueError
        `freq` makes no sense, or ``trigger_at`` has no zone.
    MissingColumnError
        A column is not there; the message lists those that are.

    Examples
    --------
    >>> triggers = pd.DataFrame({
    ...     "trigger_at": pd.to_datetime(["2026-06-15T09:00Z", "2026-06-15T09:30Z", "2026-06-15T11:00Z"]),
    ...     "deployment_id": ["dep_1", "dep_2", "dep_1"],
    ... })
    >>> trigger_load(triggers)
                         window  triggers  deployments  at_minute_0
    0 2026-06-15 09:00:00+00:00         2            2            1
    1 2026-06-15 10:00:00+00:00         0            0            0
    2 2026-06-15 11:00:00+00:00         1            1            1
    """
    require_columns(triggers.columns, ["trigger_at", "deployment_id"], what="triggers")
    known = triggers["trigger_at"].notna()
    at = pd.DatetimeIndex(triggers["trigger_at"][known]).as_unit("us")
    if at.tz is None:
        raise ValueError("trigger_at has no time zone; give what next_triggers gives")
    wall = _microseconds(at.tz_localize(None))
    step = times.window(freq) // clock.MICROSECOND
    begins, window = (
        _days(wall, step, at.tz) if step >= _DAY else _parts_of_days(_microseconds(at), wall, step, at.tz)
    )
    deployment, ids = pd.factorize(triggers["deployment_id"][known])
    pairs = pd.unique(window * max(len(ids), 1) + deployment)
    count = len(begins)
    return pd.DataFrame({
        "window": clock.stamps(begins).tz_localize("UTC").tz_convert(at.tz),
        "triggers": np.bincount(window, minlength=count),
        "deployments": np.bincount(pairs // max(len(ids), 1), minlength=count),
        "at_minute_0": np.bincount(window[wall % _HOUR < _MINUTE], minlength=count),
    })  # fmt: skip


def _days(wall: NDArray[np.int64], step: int, zone: tzinfo) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find windows of whole days by the wall clock: when each begins, and each trigger's number."""
    if not wall.size:
        return wall, wall
    origin = _FIRST_MONDAY if step % _WEEK == 0 else 0
    label = wall - (wall - origin) % step
    labels = np.arange(label.min(), label.max() + 1, step)
    begins = _first_instants(labels, zone)
    # A day that a zone left out begins when the next one does, and is none.
    exists = np.append(begins[1:] != begins[:-1], [True])
    return begins[exists], np.searchsorted(labels[exists], label)


def _parts_of_days(
    at: NDArray[np.int64], wall: NDArray[np.int64], step: int, zone: tzinfo
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find windows counted from each local midnight: when each begins, and each trigger's number."""
    if not at.size:
        return at, at
    days = np.arange(wall.min() // _DAY, wall.max() // _DAY + 2) * _DAY
    midnights = _first_instants(days, zone).tolist()
    begins = np.concatenate([np.arange(begin, end, step) for begin, end in pairwise(midnights)])
    window = np.searchsorted(begins, at, side="right") - 1
    first, last = window.min(), window.max()
    return begins[first : last + 1], window - first


def _first_instants(wall: NDArray[np.int64], zone: tzinfo) -> NDArray[np.int64]:
    """Find when the clock of a zone first reads a time; where it skips it, when it was changed."""
    read = (datetime(1970, 1, 1, tzinfo=zone) + at * clock.MICROSECOND for at in wall.tolist())
    return np.array([clock.since_1970(at) for at in read], dtype=np.int64)


def _microseconds(at: pd.DatetimeIndex) -> NDArray[np.int64]:
    return at.to_numpy("datetime64[us]").astype(np.int64)
