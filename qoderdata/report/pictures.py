"""Draw the picture of the last 30 days: rates and runs by day, as shapes that the template writes as inline SVG.

The reader's browser draws the texts in its own fonts, and CSS classes give the colors, so dark mode is right. The
newest days, and all texts of the axes, are on the right, where a narrow screen begins.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd

from qoderdata.formatting import format_percent
from qoderdata.report.data import MONTH, WEEK
from qoderdata.report.layout import Box, Label, Path, Picture, join_sentences, round_scale, rows_of
from qoderdata.summaries import run_failure_rates
from qoderdata.summaries.time_windows import local_midnight
from qoderdata.translation import gettext as _
from qoderdata.translation import mark, ngettext

if TYPE_CHECKING:
    from qoderdata.report.data import ReportData

_WIDTH, _HEIGHT, _RIGHT, _LEFT = 960, 248, 60, 4
_RATES, _RUNS = (38, 108), (136, 218)
_DAY = timedelta(days=1)
_LABEL_EACH = 5
_GAP, _EDGE = 3, 30
_MONTHS = (
    mark("Jan"), mark("Feb"), mark("Mar"), mark("Apr"), mark("May"), mark("Jun"),
    mark("Jul"), mark("Aug"), mark("Sep"), mark("Oct"), mark("Nov"), mark("Dec"),
)  # fmt: skip


def month_picture(data: ReportData, runs: pd.DataFrame, total: Any) -> Picture:  # noqa: ANN401 - a named tuple
    """Draw the failure rate and the runs of each of the last 30 days; `runs` are those of these days."""
    first, last = local_midnight(data.start - MONTH, data.tz), local_midnight(data.start, data.tz, days=1)
    days = run_failure_rates(runs, by=None, freq="1D", tz=data.tz).reset_index()
    count = round((last - first) / pd.Timedelta(_DAY))

    def x(time: Any) -> float:  # noqa: ANN401 - a time
        return _LEFT + float((_WIDTH - _RIGHT - _LEFT) * ((time - first) / (last - first)))

    right, wide = x(last), (_WIDTH - _RIGHT - _LEFT) / count
    scale = round_scale(days["failure_rate"])
    most = max(int(days["runs"].max()), 1)
    week = x(data.start - WEEK)
    boxes = [Box(week, 2, right - week, _RUNS[1] - 2, "recent")]
    rates, dots, spans = [], [], []
    was_known = False
    for day in rows_of(days):
        left = x(day.window.tz_convert(data.tz))
        middle, parts = left + wide / 2, (day.failed, day.runs - day.failed)
        base = float(_RUNS[1])
        for part, look in zip(parts, ("failed", "other"), strict=True):
            height = (_RUNS[1] - _RUNS[0]) * part / most
            if part:
                boxes.append(Box(left + _GAP / 2, base - height, wide - _GAP, height, look))
            base -= height
        if pd.notna(day.failure_rate):
            rate, low, high = (_y(share, scale) for share in (day.failure_rate, day.ci_low, day.ci_high))
            rates.append(f"{'L' if was_known else 'M'}{middle:.1f} {rate:.1f}")
            dots.append(f"M{middle:.1f} {rate:.1f}h0")
            spans.append(f"M{middle:.1f} {low:.1f}V{high:.1f}")
        was_known = pd.notna(day.failure_rate)
    axes = [f"M{_LEFT} {y}H{right:.1f}" for y in (*_RATES, *_RUNS)]
    paths = {"axis": axes, "span": spans, "rate": rates, "dot": dots}
    interval, highest = _("with its 95 % interval"), format_percent(scale).replace(".0", "")
    if days["ci_high"].max() > scale:
        interval = _("{what}, {change}", what=interval, change=_("drawn up to {percent}", percent=highest))
    labels = [
        Label(right, 14, _("Failure rate by day"), "end"),
        Label(right, 30, interval, "end"),
        Label(right, _RUNS[0] - 8, _("Runs by day: failed ones below"), "end"),
        Label(right + 6, _RATES[0] + 4, highest, "start"),
        Label(right + 6, _RATES[1] + 4, "0", "start"),
        Label(right + 6, _RUNS[0] + 4, f"{most:,}", "start"),
        Label(right + 6, _RUNS[1] + 4, "0", "start"),
    ]
    for number in range(0, count, _LABEL_EACH):
        day = local_midnight(data.start, data.tz, days=-number)
        text = _("{day} {month}", day=day.day, month=_(_MONTHS[day.month - 1]))
        middle = x(day) + wide / 2
        is_first = middle < _EDGE
        labels.append(Label(_LEFT if is_first else middle, _HEIGHT - 12, text, "start" if is_first else "middle"))
    return Picture(
        _("Failure rate and runs of the last 30 days"),
        _description(data, days, total),
        _WIDTH,
        _HEIGHT,
        boxes,
        [Path("".join(parts), look) for look, parts in paths.items() if parts],
        labels,
    )


def _description(data: ReportData, days: pd.DataFrame, total: Any) -> str:  # noqa: ANN401 - a named tuple
    words = ngettext(
        "Over all {count} decided run {rate} failed.", "Over all {count} decided runs {rate} failed.",
        total.completed + total.failed,
        rate=format_percent(total.failure_rate),
    )  # fmt: skip
    known = days.dropna(subset=["failure_rate"]).sort_values(["failure_rate", "window"], ascending=[False, True])
    for row in rows_of(known.head(1)):
        worst = _(
            "The worst day is {day} with {rate}; the newest one, {newest}, has {newest_rate}.",
            day=f"{row.window.tz_convert(data.tz):%Y-%m-%d}",
            rate=format_percent(row.failure_rate),
            newest=f"{days['window'].iloc[-1].tz_convert(data.tz):%Y-%m-%d}",
            newest_rate=format_percent(days["failure_rate"].iloc[-1]),
        )
        words = join_sentences(words, worst)
    return words


def _y(share: float, scale: float) -> float:
    low, high = _RATES
    return high - (high - low) * min(share / scale, 1.0)
