"""The sections put together, and written to a file."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pandas as pd

from qoderdata import files, times
from qoderdata.errors import DataQualityWarning, require_columns, warn
from qoderdata.report import failing, history, schedule, summary
from qoderdata.report.material import Material
from qoderdata.report.page import page
from qoderdata.schema import DEPLOYMENTS, RUNS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_report(
    deployments: pd.DataFrame,
    path: str | Path,
    *,
    runs: pd.DataFrame | None = None,
    start: times.Instant | None = None,
    horizon: times.Span = "24h",
    tz: str = "UTC",
    labels: Mapping[str, str] | None = None,
) -> None:
    """Write one self-contained HTML page about a fleet: what is failing, and what will fire.

    The page needs nothing but itself: pictures are inside, and there is no script. It can be read on a phone,
    on paper and in dark mode. Texts of the service are shown as texts, whatever is in them; ``extra``, and so
    the values of ``environment_variables``, is not shown at all.

    Parameters
    ----------
    deployments
        A deployments frame; give the archived ones too, so that they can be counted.
    path
        The HTML file. One that is there stays until the new one is whole.
    runs
        The runs of these deployments, for trend, errors, missed triggers and what got slower. Give all of some
        stretch of time, such as ``load_runs(since="30D")``: what was left out counts as missed. ``None`` leaves
        these sections out.
    start
        The moment that the report is about, with its zone; ``None`` is now. The same frames and the same
        `start` give the same file, byte for byte, with the same versions of matplotlib and its fonts.
    horizon
        How far ahead to show what fires: anything `pandas.Timedelta` takes.
    tz
        The IANA zone that times are shown in.
    labels
        Names to show by id of deployment or agent, instead of the deployments' own.

    Raises
    ------
    MissingColumnError
        A frame is not one of deployments, or of runs.
    ValueError
        `start`, `horizon` or `tz` is not one.
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
    >>> from qoderdata.frame import flatten_deployments
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(flatten_deployments([]), f"{folder}/report.html", start="2026-06-15T00:00Z")
    ...     print(Path(f"{folder}/report.html").read_text().splitlines()[0])
    <!DOCTYPE html>
    """
    require_columns(deployments.columns, DEPLOYMENTS.names[:-1], what="deployments")
    if runs is not None:
        require_columns(runs.columns, RUNS.names[:-1], what="runs")
    material = Material(
        deployments=deployments,
        runs=runs,
        start=pd.Timestamp.now("UTC").floor("s") if start is None else times.instant(start, name="start"),
        horizon=times.span(horizon, name="horizon"),
        tz=times.zone(tz).key,
        labels=labels or {},
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        html = _html(material, caught)
    for warning in caught:
        warn(str(warning.message), warning.category)
    files.replace(path, lambda sink: sink.write(html.encode()))


def _html(material: Material, caught: list[warnings.WarningMessage]) -> str:
    sections = [
        failing.worst_offenders(material),
        failing.streaks(material),
        failing.paused_by_error(material),
        schedule.next_triggers(material),
        schedule.load(material),
        schedule.lints(material),
    ]
    if material.runs is not None:
        sections[3:3] = [
            history.trend(material, material.runs),
            history.errors(material, material.runs),
            history.missed(material),
            history.slower(material, material.runs),
        ]
    head = summary.headline(material)
    found = [str(warning.message) for warning in caught if issubclass(warning.category, DataQualityWarning)]
    sections.append(summary.about(material, list(dict.fromkeys(found))))
    return page(
        title=f"Scheduled agents, {material.start.tz_convert(material.tz):%Y-%m-%d}",
        head=head,
        sections=sections,
        foot="Made with qoderdata.",
    )
