"""``qoderdata compare``: who fails more often than before, and is the difference real?"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import click

import qoderdata as qd
from qoderdata import arguments
from qoderdata.cli import grouping, options
from qoderdata.cli.output import Output, TableColumn
from qoderdata.cli.runs import RATES_OF
from qoderdata.cli.service import Service, run_service_options
from qoderdata.formatting import MISSING, format_time


class Periods(NamedTuple):
    """A recent period, and the one before it, as the arguments of `compare_periods` and `compare_costs`."""

    recent: timedelta
    baseline: timedelta
    #: The end of the recent period.
    until: datetime

    @classmethod
    def parse(cls, recent: str, baseline: str | None, until: str | None) -> Periods:
        """Parse the options `--recent`, `--baseline` and `--until`."""
        now = datetime.now(UTC)
        return cls(
            arguments.parse_span(recent, name="recent"),
            arguments.parse_span(baseline or recent, name="baseline"),
            arguments.parse_bound(until or now, now=now, name="until"),
        )

    @property
    def bounds(self) -> dict[str, datetime]:
        """Both periods together, as arguments of a loader."""
        return {"since": self.until - self.recent - self.baseline, "until": self.until}

    def note(self, tz: str) -> str:
        """Return a note that says when each period begins and ends."""
        first, last = self.bounds.values()
        begin, middle, end = (format_time(time, tz) for time in (first, last - self.recent, last))
        return f"recent: from {middle} to {end}; before: from {begin}"


periods_options = options.gather(
    "periods",
    Periods.parse,
    options.span_option("--recent", "The recent period (default 7D).", default="7D"),
    options.span_option("--baseline", "The length of the period before it (default: the same)."),
    click.option("--until", metavar="TIME|AGE", help="The end of the recent period (default: now)."),
    group="Options",
)


@options.command("compare", example="qoderdata compare --recent 7D --by team")
@grouping.by_option("runs", "Group by (default deployment)")
@periods_options
@options.gather("which", dict, *options.deployment_options("runs of "), group="Which runs")
@run_service_options
@options.output_form()
def compare(
    by: tuple[str, ...], *, periods: Periods, which: dict[str, Any], service: Service, result: Output
) -> None:
    """Compare failure rates with those of the period before.

    A change is worse or better if its interval does not contain 0, else unclear. A row is new if no run completed
    or failed in the period before, and gone if none did in the recent one. Median durations are compared too;
    those of an agent or a team also change if its slow deployments run more often.
    """
    groups = grouping.Groups(by or ["deployment"], "runs", service)
    runs = groups.add_names(service.runs({**periods.bounds, **which}))
    found = qd.compare_periods(runs, by=groups.keys, **periods._asdict())
    columns = [*groups.columns(found), *_COLUMNS]
    notes = [periods.note(result.tz), *options.filter_notes(which), RATES_OF]
    result.print_frame(found, columns, empty="; ".join(["there are no runs", *notes[:-1]]), notes=notes)


def _points(*differences: float) -> str:
    """Write a difference of rates, or the bounds of its interval, in percentage points."""
    if math.isnan(differences[0]):
        return MISSING
    return " to ".join(f"{100 * difference:+.1f}" for difference in differences)


_COLUMNS = [
    TableColumn("failed", lambda row: f"{row.recent_failed:,}/{row.recent_decided:,}", "number", optional=3),
    TableColumn("rate", "recent_rate", "percent"),
    TableColumn(
        "failed before", lambda row: f"{row.baseline_failed:,}/{row.baseline_decided:,}", "number", optional=4
    ),
    TableColumn("rate before", "baseline_rate", "percent", optional=1),
    TableColumn("change in points", lambda row: _points(row.change), "number"),
    TableColumn("95 % interval", lambda row: _points(row.change_low, row.change_high), "number", optional=1),
    TableColumn("verdict", "verdict", "fixed", is_alert=lambda row: row.verdict == "worse"),
    TableColumn("median duration", "recent_p50_ms", "milliseconds", optional=5),
    TableColumn("median before", "baseline_p50_ms", "milliseconds", optional=6),
]
