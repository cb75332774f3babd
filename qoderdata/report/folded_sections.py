"""Make the folded parts of a report, for the engineer who looks into it; equal rows are shown as one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from qoderdata.cron import WEEKDAYS
from qoderdata.formatting import format_duration, format_milliseconds
from qoderdata.report.data import MONTH, WEEK, span_text
from qoderdata.report.layout import (
    MOST_ROWS,
    Badge,
    PageColumn,
    ScheduleText,
    Section,
    Sentence,
    Since,
    command,
    counted_note,
    counters_note,
    deployment_column,
    error_cell,
    join_facts,
    join_sentences,
    make_table,
    names_of,
    order_note,
    rate_columns,
    share_column,
    unknown_note,
)
from qoderdata.summaries import duration_regressions, error_groups
from qoderdata.timelines import describe_schedule, schedule_lints, trigger_load
from qoderdata.timelines.missed import GRACE
from qoderdata.translation import gettext as _
from qoderdata.translation import ngettext

if TYPE_CHECKING:
    from qoderdata.report.data import ReportData
    from qoderdata.report.layout import HeatRows

_HOURS, _SHADES = 24, 9


def make_folded_sections(data: ReportData) -> list[Section]:
    """Return all folded parts but the last, `about_data`, in their order."""
    parts = [failing(data), rates(data), paused(data)]
    if data.runs is not None:
        parts += [errors(data), missed(data), slower(data, data.runs)]
    return [*parts, next_triggers(data), load(data), lints(data)]


def failing(data: ReportData) -> Section:
    """Show who fails in a row now; with runs, since when and with what error."""
    title, runs = _("Failing now"), data.runs
    if runs is None and data.failing_by_counters is None:
        return Section("failing", title, nothing=_("Without runs this is not known."))
    columns = [
        deployment_column(data),
        PageColumn(_("In a row"), "streak", lambda row: row.streak, "number"),
        PageColumn(_("State"), "badge", _state),
    ]
    if runs is None:
        streaks = data.live.rename(columns={"id": "deployment_id", "stats_consecutive_failures": "streak"})
        found = streaks[streaks["streak"] > 0]
        columns.append(PageColumn(_("Last run"), "time", lambda row: row.stats_last_triggered_at))
        about = _("Failures since the last success, as the service counts them, longest first.")
        if "counted_since" in data.deployments.attrs:
            about = join_sentences(_("Failed runs in a row, longest first."), counted_note(data))
    else:
        states = data.live.set_index("id")[["status", "paused_reason_type"]]
        found = data.streaks.join(states, on="deployment_id")
        last_error = _("Last error")
        columns += [
            PageColumn(_("Since"), "since", lambda row: _since(data, row)),
            PageColumn(last_error, "error", lambda row: error_cell(row.error_type, row.error_message), "wide"),
        ]
        about = _(
            "Failed runs since the last one that completed or whose outcome is unknown, in the runs given; where "
            "a deployment has no such run, its counter of failures in a row, if that is more."
        )
        if found["doubt"].notna().any():
            about = join_sentences(
                about,
                _('"Or earlier": the run before them is assumed to have completed, or its outcome is unknown.'),
            )
    if found.empty:
        nothing = join_sentences(_("No deployment has failed in its last run."), unknown_note(runs))
        return Section("failing", title, nothing=nothing)
    about = join_sentences(about, _("Paused deployments are counted, archived ones are not."))
    found = found.sort_values(["streak", "deployment_id"], ascending=[False, True])
    caption = _("Current streaks of failures, longest first")
    # `check` leaves out paused deployments; these commands have them too.
    shows_more = command("failures" if runs is None else "runs --streaks --since all", len(data.live))
    table = make_table(found, columns, caption, shows_more=shows_more)
    return Section("failing", title, about, table=table, count=len(found))


def _since(data: ReportData, row: Any) -> Since | None:  # noqa: ANN401 - a named tuple
    """Return when a streak began; one that is longer than the runs reach back began before them."""
    assert data.all_runs is not None  # noqa: S101 - for mypy
    is_older = pd.isna(row.since)
    since = data.all_runs["triggered_at"].min() if is_older else row.since
    if pd.isna(since):
        return None
    ago = _("{length} ago", length=format_duration(data.start - since))
    return Since(since, ago, is_older=is_older, may_be_earlier=not pd.isna(row.doubt))


def _state(row: Any) -> Badge | None:  # noqa: ANN401 - a row as a named tuple
    if row.status == "paused" and row.paused_reason_type == "error":
        return Badge(_("paused by error"), is_bad=True)
    if pd.isna(row.status):
        return None
    return Badge({"active": _("active"), "paused": _("paused")}.get(row.status, row.status))


def rates(data: ReportData) -> Section:
    """Show who fails most; a high rate of few runs does not lead, since chance may have made it."""
    title = _("Failure rates by deployment")
    if data.runs is None and data.failing_by_counters is None:
        return Section("rates", title, nothing=_("Without runs this is not known."))
    if data.runs is None:
        about, unknown, name = counters_note(data), "", "failures"
    else:
        about = _("Over the decided runs of the last 30 days, of archived deployments too, as in the picture.")
        unknown, name = unknown_note(data.runs_within(MONTH)), "runs --since 30D --by deployment"
    known = data.rates_by("deployment_id", MONTH).reset_index()
    worst = known[(known["failed"] > 0) & known["failure_rate"].notna()].sort_values(
        ["ci_low", "failed", "deployment_id"], ascending=[False, False, True]
    )
    if worst.empty:
        nothing = join_sentences(_("No deployment has a failed run."), unknown)
        return Section("rates", title, nothing=nothing)
    columns = [deployment_column(data), *rate_columns(worst)]
    caption = _("Failure rates by deployment, worst first")
    table = make_table(worst, columns, caption, shows_more=command(name, len(known)))
    return Section("rates", title, join_sentences(about, order_note()), table=table, count=len(worst))


def paused(data: ReportData) -> Section:
    """Show what the service itself has stopped."""
    title = _("Paused by error")
    found = data.paused_by_error.sort_values(["stats_last_triggered_at", "id"], ascending=[False, True])
    found = found.assign(deployment_id=found["id"])
    if found.empty:
        return Section("paused", title, nothing=_("The service has paused no deployment because of an error."))
    columns = [
        deployment_column(data),
        PageColumn(_("Error"), "error", lambda row: error_cell(row.paused_reason_error_type, None)),
        PageColumn(_("Last run"), "time", lambda row: row.stats_last_triggered_at),
    ]
    caption = _("Deployments that the service has paused")
    table = make_table(found, columns, caption, shows_more=command("check", len(data.findings)))
    about = _("The service stopped these after errors. They will not fire again until someone resumes them.")
    return Section("paused", title, about, table=table, count=len(found))


def errors(data: ReportData) -> Section:
    """Show what went wrong, by type of error and by message without its variable parts."""
    title = _("Errors")
    recent = data.runs_within(MONTH)
    found = error_groups(recent).drop(columns="is_new").reset_index()
    if found.empty:
        nothing = join_sentences(_("No run of the last 30 days has failed."), unknown_note(recent))
        return Section("errors", title, nothing=nothing)
    assert data.runs is not None  # noqa: S101 - for mypy
    # An error may have been seen before these days.
    new = error_groups(data.runs).reset_index()[["error_type", "message", "is_new"]]
    found = found.merge(new, on=["error_type", "message"])
    columns = [
        PageColumn(_("Error"), "error", lambda row: error_cell(row.error_type, row.message)),
        PageColumn(_("Failed runs"), "text", lambda row: f"{row.count:,}", "number"),
        share_column(found),
        PageColumn(_("Deployments"), "text", lambda row: f"{row.deployments:,}", "number"),
        PageColumn(_("Last seen"), "time", lambda row: row.last_seen),
    ]
    if found["is_new"].head(MOST_ROWS).any():
        columns.append(
            PageColumn(_("New"), "badge", lambda row: Badge(_("new"), is_bad=True) if row.is_new else None)
        )
    caption = _("Failed runs by error, most frequent first")
    failed = int(found["count"].sum())
    about = ngettext(
        "Of {count} failed run of the last 30 days, as in the picture.",
        "Of {count} failed runs of the last 30 days, as in the picture.", failed,
    )  # fmt: skip
    about = join_sentences(about, _("Ids, numbers, addresses and quoted texts in messages are replaced."))
    table = make_table(found, columns, caption, shows_more=command("errors", len(found)))
    return Section("errors", title, about, table=table, count=len(found))


def missed(data: ReportData) -> Section:
    """Show what should have fired but did not, by deployment; what is in doubt is one line."""
    title = _("Missed triggers")
    if data.missed is None or data.missed_window is None:
        return Section("missed", title, nothing=_("The runs cover none of the last 7 days, so this is not known."))
    since, until = data.missed_window
    judged_until = max(since, until - pd.Timedelta(GRACE))
    period = _("from {since} to {until}", since=data.time_text(since), until=data.time_text(judged_until))
    if data.missed.empty:
        return Section("missed", title, nothing=_("Nothing was missed {period}.", period=period))
    certain, doubtful = data.missed[data.missed["certain"]], data.missed[~data.missed["certain"]]
    lines, table = [], None
    if len(doubtful):
        ids = doubtful["deployment_id"].value_counts().index
        text = ngettext(
            "{count} time is in doubt, as the deployments are paused or were changed in that time, and no "
            "snapshot shows more.",
            "{count} times are in doubt, as the deployments are paused or were changed in that time, and no "
            "snapshot shows more.", len(doubtful),
        )  # fmt: skip
        if data.frames["runs"].attrs.get("complete") is False:
            text = ngettext(
                "{count} time is in doubt, as the runs are not complete.",
                "{count} times are in doubt, as the runs are not complete.", len(doubtful),
            )  # fmt: skip
        lines.append(Sentence(names_of(data, ids), text, is_listed=True))
    if len(certain):
        times = certain.groupby("deployment_id")["scheduled_at"].agg(times="size", first="min", last="max")
        by_deployment = times.reset_index().sort_values(["times", "deployment_id"], ascending=[False, True])
        columns = [
            deployment_column(data),
            PageColumn(_("Missed"), "strong", lambda row: f"{row.times:,}", "number"),
            PageColumn(_("First"), "time", lambda row: row.first),
            PageColumn(_("Last"), "time", lambda row: row.last),
        ]
        caption = _("Missed triggers by deployment")
        name = "missed" if since == data.start - WEEK else f"missed --since {since.ceil('min'):%Y-%m-%dT%H:%MZ}"
        table = make_table(by_deployment, columns, caption, shows_more=command(name, len(data.missed)))
    about = _("Scheduled times {period} for which no run was triggered.", period=period)
    return Section("missed", title, about, sentences=lines, table=table, count=len(certain))


def slower(data: ReportData, runs: pd.DataFrame) -> Section:
    """Show what takes longer than it did."""
    found = duration_regressions(runs).reset_index()
    title = _("Slower than before")
    if found.empty:
        return Section("slower", title, nothing=_("No deployment takes longer than before."))
    columns = [
        deployment_column(data),
        PageColumn(_("Now"), "strong", lambda row: format_milliseconds(row.recent_p50_ms), "number"),
        PageColumn(_("Before"), "text", lambda row: format_milliseconds(row.baseline_p50_ms), "number"),
        PageColumn(_("Longer by"), "text", lambda row: format_milliseconds(row.change_ms), "number"),
        PageColumn(
            _("Runs now / before"), "text", lambda row: f"{row.recent_runs:,} / {row.baseline_runs:,}", "number"
        ),
    ]
    about = _("Median time of a success in the last 3 days of the runs, against the 14 days before.")
    table = make_table(found, columns, _("What got slower, most first"), shows_more="duration_regressions(runs)")
    return Section("slower", title, about, table=table, count=len(found))


def next_triggers(data: ReportData) -> Section:
    """Show what fires within the horizon: when each deployment fires first, and how often."""
    title = _("What fires in the next {span}", span=span_text(data.shown_horizon))
    triggers = data.triggers
    if triggers.empty:
        return Section("next", title, nothing=_("Nothing fires in this time."))
    times = triggers.groupby("deployment_id", observed=True)["trigger_at"].transform("size")
    firing = triggers.assign(times=times).drop_duplicates("deployment_id")
    columns = [
        deployment_column(data),
        PageColumn(_("First"), "time", lambda row: row.trigger_at),
        PageColumn(_("Times"), "text", lambda row: f"{row.times:,}", "number"),
        PageColumn(_("Schedule"), "schedule", _schedule, "wide"),
    ]
    about = ngettext(
        "{count} trigger of {deployments}, from {start} on. Paused and archived deployments do not fire.",
        "{count} triggers of {deployments}, from {start} on. Paused and archived deployments do not fire.",
        len(triggers),
        deployments=ngettext("{count} deployment", "{count} deployments", len(firing)),
        start=data.time_text(data.start),
    )
    minutes = math.ceil(data.shown_horizon / pd.Timedelta("1min"))
    span = f"{minutes}min" if minutes % 60 else f"{minutes // 60}h"
    shows_more = command(f"triggers --horizon {span}", len(triggers))  # it has one row per trigger
    table = make_table(firing, columns, _("What fires next, soonest first"), shows_more=shows_more)
    return Section("next", title, about, table=table, count=len(triggers))


def _schedule(row: Any) -> ScheduleText:  # noqa: ANN401 - a row as a named tuple
    expression = str(row.schedule_expression)
    return ScheduleText(describe_schedule(expression, str(row.schedule_timezone)), expression)


def load(data: ReportData) -> Section:
    """Show how the triggers of the week spread over its hours; equal peak hours are one line."""
    week = data.week[data.week["trigger_at"] < data.start + WEEK]
    title = _("Load of the week")
    if week.empty:
        return Section("load", title, nothing=_("Nothing fires in the next seven days."))
    hours = trigger_load(week, freq="1h")
    about = ngettext(
        "{count} trigger of the next {span} by weekday and hour, in {tz}.",
        "{count} triggers of the next {span} by weekday and hour, in {tz}.",
        len(week), span=span_text(min(WEEK, data.longest_span)), tz=data.tz,
    )  # fmt: skip
    most = int(hours["triggers"].max())
    peaks = hours[hours["triggers"] == most]["window"]
    first = [data.time_text(time) for time in peaks.head(3)]
    more = len(peaks) - len(first)
    when = _(", ").join(first) + (" " + _("and {count} more", count=f"{more:,}") if more else "")
    triggers = ngettext("{count} trigger", "{count} triggers", most)
    if len(peaks) == 1:
        rest = _("The busiest hour begins at {when}: {triggers}.", when=when, triggers=triggers)
    else:
        rest = _(
            "{count} hours are the busiest, from {when}: {triggers} each.",
            count=len(peaks),
            when=when,
            triggers=triggers,
        )
    return Section(
        "load", title, join_sentences(about, rest), heat=_heat(week["trigger_at"].dt.tz_convert(data.tz))
    )


def _heat(local: pd.Series[pd.Timestamp]) -> HeatRows:
    """Return the number of times in each hour of each weekday, with shades up to that of the most."""
    counts = local.groupby([local.dt.day_of_week, local.dt.hour]).size()
    most = max(int(counts.max()), 1)
    rows = []
    for weekday, name in enumerate(WEEKDAYS):
        cells = [int(counts.get((weekday, hour), 0)) for hour in range(_HOURS)]
        shades = [(0 if not count else 1 + (_SHADES - 1) * count // most, f"{count:,}") for count in cells]
        rows.append((_(name), shades))
    return rows


def lints(data: ReportData) -> Section:
    """Show what may surprise about schedules, the worst first; equal findings are one line."""
    found = schedule_lints(data.live, start=data.start)
    title = _("Schedules to look at")
    if found.empty:
        return Section("lints", title, nothing=_("No schedule has anything odd about it."))
    # Schedules that do not fire, then those that fire at unexpected times, then the others.
    words = {
        "unreadable": _("cannot be read"),
        "never_fires": _("never fires"),
        "dst_gap": _("skipped by a clock change"),
        "dst_repeat": _("repeated by a clock change"),
        "inverted_zone": _("inverted zone"),
        "both_day_fields": _("both day fields"),
        "skips_months": _("skips months"),
        "uneven_step": _("uneven step"),
    }
    found = found.assign(rank=found["lint"].map(list(words).index))
    by_finding = found.groupby(["rank", "lint", "detail"], sort=False)["deployment_id"]
    grouped = by_finding.agg(deployment_ids=list, times="size").reset_index()
    grouped = grouped.sort_values(["rank", "times", "detail"], ascending=[True, False, True])
    columns = [
        PageColumn(_("Finding"), "badge", lambda row: Badge(words[row.lint])),
        PageColumn(_("Deployments"), "text", lambda row: f"{row.times:,}", "number"),
        PageColumn(_("What it means"), "text", lambda row: row.detail, "wide"),
        PageColumn(_("Which"), "names", lambda row: names_of(data, row.deployment_ids), "wide"),
    ]
    about = _("Schedules that may not do what was meant, equal findings in one line.")
    table = make_table(grouped, columns, _("What may surprise about schedules"), shows_more="schedule_lints(df)")
    return Section("lints", title, about, table=table, count=len(found))


def about_data(data: ReportData, warnings: list[str]) -> Section:
    """Show where the data comes from, how old it is, whether it is complete, and what the numbers mean."""
    titles = {"deployments": _("Deployments"), "runs": _("Runs"), "sessions": _("Sessions")}
    sources = [(titles[name], _source(frame, data)) for name, frame in data.frames.items()]
    about = [
        _("Decided runs are those that completed or failed; a failure rate is failed by decided runs."),
        _("The last 7 and the last 30 days end at the time above; the week before ends where the last 7 begin."),
        _("Intervals are Wilson's, those of changes Newcombe's: about 95 of 100 contain the true number."),
        _("A dash means that there is no value; it does not mean zero."),
        _("Times are in {tz} unless another zone is shown.", tz=data.tz),
        _("Lifetime rates are failed by all runs.") if data.runs is None else "",
        counted_note(data) if "counted_since" in data.deployments.attrs else "",
    ]
    title = _("About the data")
    return Section("about", title, join_sentences(*about), sources=sources, warnings=warnings)


def _source(frame: pd.DataFrame, data: ReportData) -> str:
    attrs = frame.attrs
    complete: dict[object, str] = {True: _("complete"), False: _("not complete")}
    source = _("records") if attrs.get("source") == "records" else attrs.get("source")
    facts = join_facts(
        ngettext("{count} row", "{count} rows", len(frame)),
        complete.get(attrs.get("complete"), _("not known whether complete")),
        data.age_of(frame) or _("not known when fetched"),
        _("from {source}", source=source) if source else "",
        _("kept in the cache since") if attrs.get("from_cache") else "",
    )
    return _("{text}.", text=facts)
