"""Make the parts of a report that are not folded: the picture, what to do first, what changed, costs, groups.

The picture of the last 30 days is shapes that the template writes as inline SVG. The reader's browser draws the
texts in its own fonts, and CSS classes give the colors, so dark mode is right. The newest days, and all texts of
the axes, are on the right, where a narrow screen begins.
"""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qoderdata.check import KINDS
from qoderdata.formatting import format_count, format_credits, format_interval, format_percent, truncate
from qoderdata.frames import fetched_at, with_outcomes
from qoderdata.outcomes import STATUSES
from qoderdata.report.data import MONTH, WEEK, first_row
from qoderdata.report.figures import nothing_decided, points_text
from qoderdata.report.layout import (
    MOST_AT_FIRST,
    Badge,
    Box,
    Label,
    Names,
    PageColumn,
    Picture,
    Section,
    Sentence,
    command,
    counters_note,
    deployment_column,
    join_facts,
    join_sentences,
    make_table,
    names_of,
    order_note,
    rate_columns,
    round_scale,
    rows_of,
    share_column,
    unknown_note,
)
from qoderdata.summaries import compare_periods, run_failure_rates, session_costs
from qoderdata.summaries.deployment_changes import describe_change
from qoderdata.summaries.time_windows import local_midnight
from qoderdata.translation import gettext as _
from qoderdata.translation import mark, ngettext

if TYPE_CHECKING:
    from qoderdata.report.data import ReportData

_MOST_CHARACTERS = 300
_MOST_GROUPS = 6
_MOST_FINDINGS = 50
_WIDTH, _HEIGHT, _RIGHT, _LEFT = 960, 248, 76, 4
_RATES, _RUNS = (38, 108), (136, 218)
_LABEL_EACH = 5
_GAP, _EDGE = 3, 30
_MONTHS = (
    mark("Jan"), mark("Feb"), mark("Mar"), mark("Apr"), mark("May"), mark("Jun"),
    mark("Jul"), mark("Aug"), mark("Sep"), mark("Oct"), mark("Nov"), mark("Dec"),
)  # fmt: skip


def make_sections(data: ReportData) -> list[Section]:
    """Return the sections that are not folded, in their order."""
    sections = [] if data.runs is None else [trend(data)]
    sections += [to_do(data), changed(data)]
    if data.sessions is not None:
        sections.append(costs(data, data.sessions))
    return [*sections, by_group(data)]


def trend(data: ReportData) -> Section:
    """Show the failure rate day by day."""
    title = _("The last 30 days")
    recent = data.runs_within(MONTH)
    if recent.empty:
        return Section("trend", title, nothing=_("There are no runs of the last 30 days."))
    total = first_row(run_failure_rates(recent, by=None))
    notes = [
        _(
            "The last 7 days are shaded. Skipped or cancelled: {skipped}; not ended: {unfinished}.",
            skipped=format_count(total.skipped),
            unfinished=format_count(total.unfinished),
        ),
        unknown_note(recent),
    ]
    if total.assumed:
        notes.append(ngettext(
            "{assumed} of {count} completed run is assumed to be so.",
            "{assumed} of {count} completed runs are assumed to be so.",
            total.completed, assumed=format_count(total.assumed),
        ))  # fmt: skip
    assert data.runs is not None  # noqa: S101 - for mypy
    if not data.reaches_back(data.runs["triggered_at"], MONTH):
        first = data.time_text(data.runs["triggered_at"].min())
        notes.append(_("The first of the runs given was triggered at {time}.", time=first))
    picture = _month_picture(data, recent, total)
    decided = total.completed + total.failed
    if not decided:
        about = join_sentences(_("No run is known to have completed or failed."), *notes)
        return Section("trend", title, about, picture=picture)
    about = ngettext(
        "{failed} of {count} decided run failed:", "{failed} of {count} decided runs failed:",
        decided, failed=format_count(total.failed),
    )  # fmt: skip
    interval = _("(95 % interval {interval}).", interval=format_interval(total.ci_low, total.ci_high))
    rate, rest = format_percent(total.failure_rate), join_sentences(interval, *notes)
    return Section("trend", title, about, rate, rest, picture=picture)


def _month_picture(data: ReportData, runs: pd.DataFrame, total: Any) -> Picture:  # noqa: ANN401 - a named tuple
    """Draw the failure rate and the runs of each of the last 30 days; `runs` are those of these days."""
    first, last = local_midnight(data.start - MONTH, data.tz), local_midnight(data.start, data.tz, days=1)
    days = run_failure_rates(runs, by=None, freq="1D", tz=data.tz).reset_index()
    count = round((last - first) / pd.Timedelta("1D"))
    scale = round_scale(days["failure_rate"])

    def x(time: Any) -> float:  # noqa: ANN401 - a time
        return _LEFT + float((_WIDTH - _RIGHT - _LEFT) * ((time - first) / (last - first)))

    def y(share: float) -> float:
        top, bottom = _RATES
        return bottom - (bottom - top) * min(share / scale, 1.0)

    right, wide = x(last), (_WIDTH - _RIGHT - _LEFT) / count
    most = max(int(days["runs"].max()), 1)
    week = x(data.start - WEEK)
    boxes = [Box(week, 2, right - week, _RUNS[1] - 2, "recent")]
    rates, dots, spans = [], [], []
    was_known = False
    for day in rows_of(days):
        left = x(day.window.tz_convert(data.tz))
        middle, base = left + wide / 2, float(_RUNS[1])
        for part, look in ((day.failed, "failed"), (day.runs - day.failed, "other")):
            height = (_RUNS[1] - _RUNS[0]) * part / most
            if part:
                boxes.append(Box(left + _GAP / 2, base - height, wide - _GAP, height, look))
            base -= height
        if pd.notna(day.failure_rate):
            rate, low, high = map(y, (day.failure_rate, day.ci_low, day.ci_high))
            rates.append(f"{'L' if was_known else 'M'}{middle:.1f} {rate:.1f}")
            dots.append(f"M{middle:.1f} {rate:.1f}h0")
            spans.append(f"M{middle:.1f} {low:.1f}V{high:.1f}")
        was_known = pd.notna(day.failure_rate)
    axes = [f"M{_LEFT} {end}H{right:.1f}" for end in (*_RATES, *_RUNS)]
    paths = {"axis": axes, "span": spans, "rate": rates, "dot": dots}
    interval, highest = _("with its 95 % interval"), format_percent(scale).replace(".0", "")
    if days["ci_high"].max() > scale:
        interval = join_facts(interval, _("drawn up to {percent}", percent=highest))
    labels = [
        Label(right, 13, _("Failure rate by day"), "end"),
        Label(right, 31, interval, "end"),
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
        labels.append(Label(_LEFT if is_first else middle, _HEIGHT - 10, text, "start" if is_first else "middle"))
    return Picture(
        _("Failure rate and runs of the last 30 days"),
        _picture_words(data, days, total),
        _WIDTH,
        _HEIGHT,
        boxes,
        {look: "".join(parts) for look, parts in paths.items() if parts},
        labels,
    )


def _picture_words(data: ReportData, days: pd.DataFrame, total: Any) -> str:  # noqa: ANN401 - a named tuple
    words = ngettext(
        "Over all {count} decided run {rate} failed.", "Over all {count} decided runs {rate} failed.",
        total.completed + total.failed,
        rate=format_percent(total.failure_rate),
    )  # fmt: skip
    known = days.dropna(subset=["failure_rate"])
    row = first_row(known.nlargest(1, "failure_rate"))
    if row is None or not row.failure_rate:
        return words
    worst = _(
        "The worst day is {day} with {rate}; the newest one with decided runs, {newest}, has {newest_rate}.",
        day=f"{row.window.tz_convert(data.tz):%Y-%m-%d}",
        rate=format_percent(row.failure_rate),
        newest=f"{known['window'].iloc[-1].tz_convert(data.tz):%Y-%m-%d}",
        newest_rate=format_percent(known["failure_rate"].iloc[-1]),
    )
    return join_sentences(words, worst)


def to_do(data: ReportData) -> Section:
    """Show what `check` finds: the worst five, and the others folded."""
    found = data.findings
    title = _("What to do first")
    if found.empty:
        return Section("to-do", title, nothing=_("Nothing is wrong."))
    first = [_finding(data, row, KINDS[row.kind][1]) for row in rows_of(found.head(MOST_AT_FIRST))]
    folded = None
    if len(found) > len(first):
        columns = [
            PageColumn(_("Finding"), "sentence", lambda row: _finding(data, row, None), "wide"),
            PageColumn(_("Deployment"), "id", lambda row: row.deployment_id),
            PageColumn(_("Since"), "time", lambda row: row.since),
        ]
        caption = _("All findings, the worst first")
        shows_more = command("check", len(found))
        table = make_table(found, columns, caption, shows_more=shows_more, most=_MOST_FINDINGS)
        folded = Section("findings", _("all {count} findings", count=f"{len(found):,}"), table=table)
    return Section("to-do", title, count=len(found), sentences=first, is_ordered=True, folded=folded)


def _finding(data: ReportData, row: Any, hint: str | None) -> Sentence:  # noqa: ANN401 - a named tuple
    """Return a finding as a sentence; the name with which its detail begins is marked as a name."""
    name = "" if pd.isna(row.deployment_id) else data.name(row.deployment_id)
    rest = row.detail.removeprefix(name)
    names = Names([] if rest == row.detail else [name], None)
    colon = _(": ").strip()
    is_listed = rest.startswith(colon)
    text = truncate(rest.removeprefix(colon).strip(), _MOST_CHARACTERS)
    return Sentence(names, text, hint and _(hint), row.severity == "error", is_listed)


def changed(data: ReportData) -> Section:
    """Show what changed in the deployments since the snapshot of a week ago; equal changes are one line."""
    title = _("What changed")
    if data.before is None:
        nothing = _(
            "There is no history yet: each load of all deployments stores a snapshot to compare with later."
        )
        return Section("changed", title, nothing=nothing)
    at = fetched_at(data.before)
    since = _("Since the snapshot of {time}.", time=data.time_text(at))
    if at is not None and at > data.start - WEEK:
        since = join_sentences(since, _("There is no earlier one: what changed before is not known."))
    if data.changes.empty:
        return Section("changed", title, nothing=join_sentences(since, _("Nothing changed.")))
    groups: dict[str, list[str]] = {}
    for row in rows_of(data.changes):
        groups.setdefault(describe_change(row), []).append(row.deployment_id)
    lines = [Sentence(names_of(data, ids), text, is_listed=True) for text, ids in groups.items()]
    first, others = lines[:MOST_AT_FIRST], lines[MOST_AT_FIRST:]
    folded = None
    if others:
        about, left = "", len(others) - _MOST_FINDINGS
        if left > 0:
            about = ngettext(
                "{count} more line is not shown; {call} shows more.",
                "{count} more lines are not shown; {call} shows more.",
                left, call=command("changes", len(data.changes)),
            )  # fmt: skip
        text = ngettext("and {count} more line", "and {count} more lines", len(others))
        folded = Section("changes", text, about, sentences=others[:_MOST_FINDINGS])
    return Section("changed", title, since, count=len(data.changes), sentences=first, folded=folded)


def costs(data: ReportData, sessions: pd.DataFrame) -> Section:
    """Show what sessions cost, and what the next 30 days will cost; by deployment, the most expensive first."""
    title = _("Costs and forecast")
    if sessions.empty:
        return Section("costs", title, nothing=_("There are no sessions."))
    total = first_row(session_costs(sessions, by=None))
    if total.unknown == total.sessions:
        nothing = ngettext(
            "What {count} session used is not known: the service gives no usage of it.",
            "What {count} sessions used is not known: the service gives no usage of any.",
            total.sessions,
        )
        return Section("costs", title, nothing=nothing)
    found = session_costs(sessions).join(data.forecast[["triggers", "expected", "low", "high"]]).reset_index()
    name = PageColumn(_("Deployment"), "name", lambda row: data.deployment(row.deployment_id).name)
    used = PageColumn(_("Credits"), "strong", lambda row: format_credits(row.credits), "number")
    ahead = PageColumn(
        _("Next 30 days"), "text", lambda row: format_credits(row.expected), "number", _("expected")
    )
    all_columns = [
        deployment_column(data),
        used,
        share_column(found),
        PageColumn(_("Sessions"), "text", lambda row: f"{row.sessions:,}", "number"),
        ahead,
        PageColumn(_("95 % interval"), "text", _credits_interval, "number", _("they do not add up")),
    ]
    caption = _("Credits by deployment, the most expensive first")
    folded = None
    if len(found) > MOST_AT_FIRST:
        first = sessions["created_at"].min()
        days = 0 if pd.isna(first) else math.ceil((data.start - first) / pd.Timedelta("1D"))
        shows_more = command(f"costs --since {days}D" if days > 0 else "costs", len(found))
        table = make_table(found, all_columns, caption, shows_more=shows_more)
        count = found["deployment_id"].notna().sum()
        text = ngettext("all {count} deployment", "all {count} deployments", count)
        folded = Section("all-costs", text, table=table)
    return Section(
        "costs",
        title,
        ngettext("{count} session used", "{count} sessions used", total.sessions - total.unknown),
        _("{credits} credits.", credits=format_credits(total.credits)),
        _about_costs(data, sessions, total),
        table=make_table(found.head(MOST_AT_FIRST), [name, used, ahead], caption),
        folded=folded,
    )


def _about_costs(data: ReportData, sessions: pd.DataFrame, total: Any) -> str:  # noqa: ANN401 - a named tuple
    """Return when the sessions were, what is not known, what failed runs used, and what the next triggers will."""
    sentences = []
    first, last = sessions["created_at"].min(), sessions["created_at"].max()
    if pd.notna(first):
        period = _("They are from {first} to {last}.", first=data.time_text(first), last=data.time_text(last))
        sentences.append(period)
    if total.unknown:
        sentences.append(_("The usage of {count} more is not known.", count=format_count(total.unknown)))
    sentences.append(_credits_of_failed_runs(data, sessions))
    without = data.forecast.attrs["triggers_without_credits"]
    priced = int(data.forecast["triggers"].sum()) - without
    if priced or not without:
        sentences.append(ngettext(
            "{count} trigger of the next 30 days is expected to use {credits}.",
            "{count} triggers of the next 30 days are expected to use {credits}.",
            priced,
            credits=format_credits(data.forecast["expected"].sum(min_count=1) if priced else 0.0),
        ))  # fmt: skip
    if without:
        sentences.append(ngettext(
            "{count} more is of deployments without a session of known cost.",
            "{count} more are of deployments without a session of known cost.", without,
        ))  # fmt: skip
    return join_sentences(*sentences)


def _credits_of_failed_runs(data: ReportData, sessions: pd.DataFrame) -> str:
    """Return what failed runs used since the first run; an empty text if it is not known, or 0."""
    if data.runs is None or "session_id" not in data.runs:
        return ""
    since = data.runs["triggered_at"].min()
    recent = with_outcomes(sessions[sessions["created_at"] >= since], data.runs)
    by_outcome = session_costs(recent, by="outcome")["credits"]
    failed, total = by_outcome[by_outcome.index.isin(STATUSES["failed"])].sum(), by_outcome.sum()
    if not failed > 0:
        return ""
    return _(
        "Since {time}, runs known to have failed used {credits} of {total} credits ({share}).",
        time=data.time_text(since), credits=format_credits(failed), total=format_credits(total),
        share=format_percent(failed / total),
    )  # fmt: skip


def _credits_interval(row: Any) -> str | None:  # noqa: ANN401 - a row as a named tuple
    return None if pd.isna(row.low) else f"{format_credits(row.low)}–{format_credits(row.high)}"


def by_group(data: ReportData) -> Section:
    """Show the failure rates of the last week by team, agent or another group, those that fail most first."""
    words = {"team": _("team"), "agent": _("agent"), "environment": _("environment")}
    word = words.get(data.group_word, data.group_word)
    title = _("Failure rates by {group}", group=word)
    found = data.rates_by("group", WEEK)
    count = len(found)
    if data.runs is None:
        about = counters_note(data)
    else:
        compared = compare_periods(data.runs, "group", recent=WEEK, until=data.start)[["change", "verdict"]]
        is_known = data.do_runs_reach_back and data.has_similar_outcomes
        found = found.join(compared if is_known else compared.assign(change=np.nan))
        count = len(compared)
        about = _(
            "Over the decided runs of the last 7 days, as in the headline; changes are against the week before."
        )
    found = found[found["decided"] > 0].reset_index().sort_values(["ci_low", "group"], ascending=[False, True])
    if found.empty:
        nothing = _("Without runs this is not known.") if data.runs is None else nothing_decided(data)
        return Section("groups", title, nothing=nothing)
    name = PageColumn(word, "name", lambda row: row.group or _("(none)"))
    rate, interval, runs = rate_columns(found)
    changes = [] if data.runs is None else [PageColumn(_("Change"), "badge", _group_change, "number")]
    caption = _("Failure rates by group, those that surely fail most first")
    folded = None
    if len(found) > _MOST_GROUPS:
        if data.runs is None:
            shows_more = command(f"failures --by {shlex.quote(data.group_word)}", count)
        elif data.group_word in data.given:  # the command has the columns of runs, and keys of metadata
            shows_more = f"compare_periods(runs, by={data.group_word!r})"
        else:
            shows_more = command(f"compare --by {shlex.quote(data.group_word)}", count)
        table = make_table(found, [name, rate, interval, runs, *changes], caption, shows_more=shows_more)
        folded = Section("all-groups", _("all {count}", count=f"{len(found):,}"), table=table)
    table = make_table(found.head(_MOST_GROUPS), [name, rate, runs, *changes], caption)
    return Section("groups", title, join_sentences(about, order_note()), table=table, folded=folded)


def _group_change(row: Any) -> Badge | None:  # noqa: ANN401 - a row as a named tuple
    if pd.isna(row.change):
        return None
    return Badge(points_text(row.change), row.verdict == "worse")
