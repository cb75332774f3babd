"""Write a report: its headline, its sections and what is said about the data, as one HTML file."""

from __future__ import annotations

import base64
import hashlib
import warnings
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import Markup

from qoderdata import files, parsing
from qoderdata.errors import DataQualityWarning, warn
from qoderdata.formatting import MISSING, format_duration, format_interval, format_percent, one_line
from qoderdata.report.data import WEEK, ReportData, fetched_at, span_text
from qoderdata.report.layout import Section, Tile, format_count, rows_of
from qoderdata.report.sections import make_sections
from qoderdata.summaries import failure_rates

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jinja2 import Environment

_OLD = pd.Timedelta("1D")
_COMPLETE: dict[object, str] = {True: "complete", False: "not complete"}


def write_report(
    deployments: pd.DataFrame,
    path: str | Path,
    *,
    runs: pd.DataFrame | None = None,
    sessions: pd.DataFrame | None = None,
    start: parsing.Instant | None = None,
    horizon: parsing.Span = "24h",
    tz: str = "UTC",
    labels: Mapping[str, str] | None = None,
) -> None:
    """Write one self-contained HTML page about a fleet: what is failing, and what will fire.

    The page needs nothing but itself: figures are inside, and there is no script. It can be read on a phone,
    on paper and in dark mode. Texts of the service are shown as texts, whatever is in them; ``extra``, and so
    the values of ``environment_variables``, is not shown at all.

    Parameters
    ----------
    deployments
        A deployments frame; give the archived ones too, so that they can be counted. Where it has no counters, as
        in the newest edition, they are counted in `runs`, as `qoderdata.fill_counters` does. Agents are shown by
        name where `qoderdata.with_names` has added ``agent_name``.
    path
        The HTML file, ``.html`` or ``.htm``. One that is there stays until the new one is whole.
    runs
        The runs of these deployments, for trend, errors, missed triggers and what got slower. Give all of some
        stretch of time, such as ``load_runs(since="30D")``: what was left out counts as missed. ``None`` leaves
        these sections out.
    sessions
        Their sessions, for what they cost and what the next 30 days will cost, as `qoderdata.cost_forecast` says.
        ``None`` leaves this section out.
    start
        The moment that the report is about, with its zone; ``None`` is now. The same frames and the same
        `start` give the same file, byte for byte, with the same version of matplotlib.
    horizon
        How far ahead to show what fires: anything `pandas.Timedelta` takes. Where more than two million triggers
        would have to be listed, the page looks less far ahead, and says so.
    tz
        The IANA zone that times are shown in.
    labels
        Names to show by id of deployment or agent, instead of the deployments' own.

    Raises
    ------
    FrameTypeError
        An argument is no frame, or a column has lost its dtype.
    MissingColumnError
        A frame is not one of deployments, of runs, or of sessions.
    ValueError
        `start`, `horizon` or `tz` is not one, or the file's name ends in another format.
    OSError
        The folder is not there or cannot be written.

    Warns
    -----
    DataQualityWarning
        Some of the data cannot be used, such as a cron text; the page says so too.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from qoderdata.frames import flatten_deployments
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(flatten_deployments([]), f"{folder}/report.html", start="2026-06-15T00:00Z")
    ...     print(Path(f"{folder}/report.html").read_text().splitlines()[0])
    <!DOCTYPE html>
    """
    files.check_ending(path, (".html", ".htm"), what="a report is an HTML page")
    data = ReportData.read(
        deployments,
        runs,
        sessions,
        start=pd.Timestamp.now("UTC").floor("s") if start is None else parsing.parse_instant(start, name="start"),
        horizon=parsing.parse_span(horizon, name="horizon"),
        tz=parsing.parse_zone(tz).key,
        labels=labels,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        html = _render(data, caught)
    for warning in caught:
        warn(str(warning.message), warning.category)
    files.replace(path, lambda sink: sink.write(html.encode()))


def _render(data: ReportData, caught: list[warnings.WarningMessage]) -> str:
    css = _resource("report.css")
    sections = make_sections(data)
    values = {
        "title": f"Scheduled agents, {data.start.tz_convert(data.tz):%Y-%m-%d}",
        "css": Markup(css),  # noqa: S704 - our own file
        "css_digest": base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        "start": data.time(data.start),
        "age": data_age(data.deployments, data),
        "cautions": cautions(data),
        "tiles": tiles(data),
    }
    found = [str(warning.message) for warning in caught if issubclass(warning.category, DataQualityWarning)]
    sections.append(about_data(data, list(dict.fromkeys(found))))
    return environment().from_string(_resource("report.html.j2")).render(values, sections=sections).lstrip() + "\n"


def tiles(data: ReportData) -> list[Tile]:
    """Return the headline numbers."""
    live = data.live
    paused = live["status"].eq("paused").fillna(value=False)
    by_error = int((live["paused_reason_type"] == "error").sum())
    in_a_row = live["stats_consecutive_failures"].fillna(0)
    failing = int((in_a_row > 0).sum())
    archived = len(data.deployments) - len(live)
    states = f"{int((~paused).sum()):,} active, {int(paused.sum()):,} paused, {archived:,} archived"
    longest = f"longest streak {int(in_a_row.max()):,}" if failing else "nobody"
    firing = data.triggers["deployment_id"].nunique()
    made = [
        Tile("Deployments", f"{len(data.deployments):,}", states),
        *_counter_tiles(failure_rates(data.deployments, by=None)),
        Tile("Failing now", f"{failing:,}", longest, failing > 0),
        Tile(
            "Paused by error", f"{by_error:,}", f"{int(paused.sum()) - by_error:,} more are paused", by_error > 0
        ),
        Tile(
            f"Next {span_text(data.shown_horizon)}",
            f"{len(data.triggers):,}",
            f"triggers of {firing:,} deployments",
        ),
    ]
    if data.missed is not None:
        certain = int(data.missed["certain"].sum())
        doubtful = len(data.missed) - certain
        note = f"{doubtful:,} more are in doubt" if doubtful else "none in doubt"
        made.append(Tile("Missed", f"{certain:,}", note, certain > 0))
    return made


def _counter_tiles(total: pd.DataFrame) -> list[Tile]:
    """Return the lifetime counters of all; an empty account has none."""
    if total.empty:
        return [Tile("Runs", "0", ""), Tile("Failure rate", MISSING, "no runs"), Tile("Never run", "0", "")]
    (row,) = rows_of(total)
    return [
        Tile("Runs", format_count(row.total_runs), f"{format_count(row.total_failures)} failed"),
        Tile(
            "Failure rate",
            format_percent(row.failure_rate),
            f"95 % interval {format_interval(row.ci_low, row.ci_high)}",
        ),
        Tile("Never run", format_count(row.never_run), f"of {row.deployments:,} deployments"),
    ]


def data_age(frame: pd.DataFrame, data: ReportData) -> str | None:
    """Say when a frame was fetched; ``None`` where that is not known."""
    at = fetched_at(frame)
    if at is None:
        return None
    if at > data.start:
        return f"fetched on {data.time_text(at)}"
    return f"fetched {format_duration(data.start - at)} before"


def cautions(data: ReportData) -> list[str]:
    """Say what makes the numbers less than they seem."""
    found = []
    for name, frame in data.frames.items():
        at = fetched_at(frame)
        if frame.attrs.get("complete") is False:
            found.append(f"The {name} are not complete: a pull was cut short. Numbers here are too small.")
        if at is not None and data.start - at > _OLD:
            found.append(f"The {name} are {format_duration(data.start - at)} old.")
    if data.longest_span < max(data.horizon, WEEK):
        shown = span_text(data.longest_span)
        found.append(
            f"The schedules fire up to {data.triggers_a_day:,} times a day, too often to list. This page looks "
            f"{shown} ahead and, for missed triggers, as far back."
        )
    if data.assumed:
        found.append(
            f"{data.assumed:,} runs count as completed because their session came to rest. Failures inside "
            'sessions may be among them; load_runs(outcomes="events") tells which.'
        )
    return found


def about_data(data: ReportData, warnings: list[str]) -> Section:
    """Show where the data comes from, how old it is, whether it is complete, and what the numbers mean."""
    sources = [(name.capitalize(), _source(frame, data)) for name, frame in data.frames.items()]
    counters = "the service's own counters"
    if data.is_counted:
        counters += f", or counted in the runs given ({_counted_since(data)}) where the service has none"
    return Section(
        "about",
        "About the data",
        f"Lifetime numbers are {counters}, of archived deployments too where they are given. There a rate is "
        "failed by all runs; where it is made from runs, failed by completed and failed ones. Intervals are "
        "Wilson's: of 100 such intervals about 95 hold the true rate. A dash stands where there is no value, "
        f"which is not zero. Times are in {data.tz} unless another zone stands beside them.",
        sources=sources,
        warnings=warnings,
    )


def _counted_since(data: ReportData) -> str:
    since = data.deployments.attrs.get("counted_since")
    return f"since {data.time_text(pd.Timestamp(since))}" if since else "of any age"


def _source(frame: pd.DataFrame, data: ReportData) -> str:
    attrs = frame.attrs
    complete = _COMPLETE.get(attrs.get("complete"), "not known whether complete")
    parts = [f"{len(frame):,} rows", complete, data_age(frame, data) or "not known when fetched"]
    if attrs.get("source"):
        parts.append(f"from {attrs['source']}")
    if attrs.get("from_cache"):
        parts.append("kept in the cache since")
    return ", ".join(parts) + "."


def _resource(name: str) -> str:
    return resources.files(__package__ or "").joinpath(name).read_text(encoding="utf-8")


@cache
def environment() -> Environment:
    """Return the template environment: each value is cleaned, then escaped; a name without a value is an error."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only for a report

    return Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_clean, trim_blocks=True, lstrip_blocks=True
    )


def _clean(value: object) -> object:
    """Make a text one line without control characters and direction marks; missing values become a dash."""
    from jinja2 import Undefined  # noqa: PLC0415 - as above

    if isinstance(value, Markup | Undefined):
        return value
    return one_line(None if value is None else str(value))
