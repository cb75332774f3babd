"""Turn deployments and runs into the tables that an interactive chart draws.

Text from the service is in small tables that the chart looks up; a run itself is six whole numbers, so that fifty
thousand of them are a text of about two megabytes. Times are those of the wall clock in the caller's zone,
written as if they were UTC, since Vega knows no zones but UTC and the browser's own.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from qoderdata.errors import UnknownOutcomesWarning
from qoderdata.formatting import (
    counted,
    format_duration,
    format_interval,
    format_percent,
    format_time,
    is_or_are,
    one_line,
    truncate,
)
from qoderdata.frame_checks import TEXT, require_frame
from qoderdata.frames import with_names
from qoderdata.plots.labels import keys_and_names, label_texts
from qoderdata.plots.time_axes import check_times, describe_zone
from qoderdata.plots.timeline_plots import drawn_outcomes
from qoderdata.summaries import run_failure_rates
from qoderdata.time_math import window_origin

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    import numpy as np
    from numpy.typing import NDArray

    _Row = dict[Any, Any]

#: The outcomes that are drawn, from back to front; a run refers to them by number.
OUTCOMES = ("completed", "assumed", "skipped", "cancelled", "unknown", "running", "waiting", "failed")
#: The most marks that a browser draws at once without delay.
MOST_ROWS = 50_000
_WINDOWS = ("1h", "3h", "6h", "12h", "1D", "7D", "28D")
DAY_MS = 86_400_000
_NAME_COLUMNS, _FULL_NAME, _MESSAGE = 28, 120, 200


@dataclass(frozen=True, slots=True)
class ChartTables:
    """What a chart draws."""

    #: One row each, worst first; ``d`` counts them.
    deployments: list[_Row]
    #: One row each, worst first; ``a`` counts them.
    agents: list[_Row]
    #: One row per text; ``e`` counts them.
    errors: list[_Row]
    #: Deployment ``d``, agent ``a``, outcome ``o`` and error ``e`` by number, milliseconds ``t`` of the wall
    #: clock, milliseconds ``ms`` that it took, and how many runs ``n`` a row stands for.
    runs: list[_Row]
    #: The window of time that a row sums up; ``None``: a row is a run.
    window: pd.Timedelta | None
    #: The earliest time, in milliseconds of the wall clock.
    first: int
    last: int
    #: Those that there are, in the order of `OUTCOMES`.
    outcomes: list[str]
    #: Sentences about what is shown and what is not.
    notes: list[str]
    #: The zone of the times, for a label.
    zone: str


def make_tables(df: pd.DataFrame, runs: pd.DataFrame, zone: ZoneInfo) -> ChartTables:
    """Make the tables of a chart; without rows if there are no runs.

    Raise `FrameTypeError`, `MissingColumnError`, and `ValueError` if times span more than 100 years.
    """
    df = require_frame(df, ["id", "name"], what="deployments", optional=["agent_id", "agent_name"])
    wanted = ["deployment_id", "status", "triggered_at", "duration_ms"]
    optional = ["status_from", "agent_id", "agent_name", "error_type", "error_message"]
    runs = require_frame(runs, wanted, what="runs", optional=optional)
    check_times(runs["triggered_at"])
    runs = _with_agents(with_names(runs, df), df)

    with warnings.catch_warnings(action="ignore", category=UnknownOutcomesWarning):  # the page says it
        by_deployment, by_agent = (run_failure_rates(runs, by=key) for key in ("deployment_id", "agent_id"))
    times = pd.DatetimeIndex(runs["triggered_at"]).tz_convert(zone)
    wall = pd.Series(times.tz_localize(None), index=runs.index)
    texts, error = _errors(runs)
    rows = pd.DataFrame({
        "t": wall.dt.as_unit("ms").astype("int64").astype("Int64").where(wall.notna()),
        "d": by_deployment.index.get_indexer(pd.Index(runs["deployment_id"])),
        "a": by_agent.index.get_indexer(pd.Index(runs["agent_id"])),
        "o": drawn_outcomes(runs).map(OUTCOMES.index).astype("int64"),
        "ms": runs["duration_ms"].astype("Int64"),
        "e": error,
    })  # fmt: skip
    deployments, agents = _rate_rows(by_deployment, "d"), _rate_rows(by_agent, "a")
    pairs = rows[["d", "a"]].drop_duplicates()
    _add_others(deployments, "agents", agents, pairs.groupby("d")["a"].agg(list))
    _add_others(agents, "deployments", deployments, pairs.groupby("a")["d"].agg(list))

    timed = rows[rows["t"].notna()].astype({"t": "int64"})
    shown, window = _summed(timed) if len(timed) > MOST_ROWS else (timed.assign(n=1), None)
    shown = shown.sort_values(["o", "t"], kind="stable")
    used = sorted(set(shown["e"]) - {-1})
    first, last = (int(timed["t"].min()), int(timed["t"].max())) if len(timed) else (0, DAY_MS)
    return ChartTables(
        deployments=deployments,
        agents=agents,
        errors=[{"e": number, "error": truncate(one_line(texts[number]), _MESSAGE)} for number in used],
        runs=_records(shown[["d", "a", "t", "o", "ms", "e", "n"]]),
        window=window,
        first=first,
        last=last,
        outcomes=[OUTCOMES[number] for number in sorted(rows["o"].unique())],
        notes=_notes(df, runs, rows, window, zone),
        zone=describe_zone(pd.DatetimeIndex(times.dropna())),
    )


def _with_agents(runs: pd.DataFrame, df: pd.DataFrame) -> pd.DataFrame:
    """Fill missing agents of runs from their deployments, and the agents' names from whichever frame has them."""
    missing = pd.Series(pd.NA, index=runs.index, dtype=TEXT)
    agent = runs.get("agent_id", missing)
    if "agent_id" in df:
        of_deployment = df.drop_duplicates("id").set_index("id")["agent_id"]
        agent = agent.fillna(runs["deployment_id"].map(of_deployment).astype(TEXT))
    runs = runs.assign(agent_id=agent)
    named = [frame[["agent_id", "agent_name"]] for frame in (df, runs) if {"agent_id", "agent_name"} <= set(frame)]
    if named:
        names = pd.concat(named).dropna().drop_duplicates("agent_id").set_index("agent_id")["agent_name"]
        runs = runs.assign(agent_name=runs["agent_id"].map(names).astype(TEXT))
    return runs


def _rate_rows(rates: pd.DataFrame, number: str) -> list[_Row]:
    """Return a summary's rows as the chart needs them, with figures in words for the tooltips."""
    keys, names = keys_and_names(rates)
    full = [_full_text(name or key) for key, name in zip(keys, names, strict=True)]
    rate, low, high = (rates[figure].to_numpy() for figure in ("failure_rate", "ci_low", "ci_high"))
    counts = ("runs", "completed", "assumed", "failed", "skipped", "unfinished", "unknown")
    rows = pd.DataFrame({
        number: range(len(rates)),
        "id": [_full_text(key) for key in keys],
        "label": label_texts(keys, names, columns=_NAME_COLUMNS),
        "full": full,
        "rate": rate,
        "low": low,
        "high": high,
        "share": map(format_percent, rate),
        "interval": map(format_interval, low, high),
        **{count: rates[count].to_numpy() for count in counts},
    })  # fmt: skip
    return _records(rows)


def _add_others(rows: list[_Row], name: str, others: list[_Row], numbers: pd.Series[Any]) -> None:
    """Add to each row the numbers of the `others` that it shares runs with, and the text that a search matches."""
    for row, mine in zip(rows, numbers, strict=True):
        row[name] = mine
        row["find"] = " ".join([row["full"], *(others[number]["full"] for number in mine)]).lower()


def _full_text(text: str) -> str:
    return truncate(one_line(text[: 4 * _FULL_NAME]), _FULL_NAME)


def _errors(runs: pd.DataFrame) -> tuple[list[str], NDArray[np.intp]]:
    """Return the different errors, the most frequent first, and the number of each run's; -1 is none."""
    nothing = pd.Series("", index=runs.index, dtype=TEXT)
    # The first characters suffice: a tooltip shows no more, and a message may be as long as a book.
    kind, message = (
        runs.get(name, nothing).fillna("").str[: 4 * _MESSAGE] for name in ("error_type", "error_message")
    )
    text = (kind + ": " + message).str.strip(": ")
    counts = text[text.ne("")].value_counts()
    return counts.index.tolist(), counts.index.get_indexer(pd.Index(text))


def _summed(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.Timedelta]:
    """Sum runs of one deployment, agent and outcome in the shortest windows that leave few enough rows."""
    keys = ["t", "d", "a", "o"]
    for window in map(pd.Timedelta, _WINDOWS):
        step = window // pd.Timedelta("1ms")
        timed = rows.assign(t=rows["t"] - (rows["t"] - first_window(step)) % step)
        groups = timed.groupby(keys, as_index=False)
        if groups.ngroups <= MOST_ROWS:
            break
    summed = groups.agg(ms=("ms", "median"), n=("o", "size"))
    errors = timed[timed["e"] >= 0].groupby([*keys, "e"], as_index=False).size()
    errors = errors.sort_values(["size", "e"], ascending=[False, True]).drop_duplicates(keys)
    summed = summed.merge(errors[[*keys, "e"]], on=keys, how="left")
    return summed.assign(ms=summed["ms"].round().astype("Int64"), e=summed["e"].fillna(-1).astype("int64")), window


def first_window(step: int) -> int:
    """Return when the first window of a length began, in milliseconds since 1970, as `window_origin` counts it."""
    return window_origin(1000 * step) // 1000


def to_json(value: object) -> str:
    """Return compact JSON with characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _records(rows: pd.DataFrame) -> list[_Row]:
    """Return rows as the chart reads them; a missing value is null."""
    return rows.astype("object").where(rows.notna(), None).to_dict("records")


def _notes(
    df: pd.DataFrame, runs: pd.DataFrame, rows: pd.DataFrame, window: pd.Timedelta | None, zone: ZoneInfo
) -> list[str]:
    """Return sentences: what is shown, what each mark stands for, and what is not known."""
    if runs.empty:
        return ["There are no runs to show."]
    first, last = runs["triggered_at"].min(), runs["triggered_at"].max()
    span = f" from {format_time(first, zone.key)} to {format_time(last, zone.key)}" if pd.notna(first) else ""
    notes = [f"{counted(len(runs), 'run')} of {counted(runs['deployment_id'].nunique(), 'deployment')}{span}."]
    if window is not None:
        notes.append(
            f"These are more than {MOST_ROWS:,} runs: each mark stands for the runs of one deployment, "
            f"agent and outcome within {format_duration(window)}."
        )
    without = int((~df["id"].isin(runs["deployment_id"].unique())).sum())
    untimed = int(rows["t"].isna().sum())
    assumed, unknown = (int(rows["o"].eq(OUTCOMES.index(what)).sum()) for what in ("assumed", "unknown"))
    parts = [
        f"{counted(without, 'deployment')} without a run {is_or_are(without)} not shown" if without else "",
        f"{counted(untimed, 'run')} without a time {is_or_are(untimed)} in the rates only" if untimed else "",
        f"{counted(assumed, 'run')} {is_or_are(assumed)} assumed to have completed" if assumed else "",
        f"the outcome of {counted(unknown, 'run')} is unknown" if unknown else "",
    ]  # fmt: skip
    if text := "; ".join(filter(None, parts)):
        notes.append(f"{text[0].upper()}{text[1:]}.")
    return notes
