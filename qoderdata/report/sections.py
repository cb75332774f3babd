"""Make the sections of a report: what each one says, as plain values that the template lays out."""

from __future__ import annotations

from typing import Any

import pandas as pd

from qoderdata.columns import TEXT
from qoderdata.cron import CronError, parse
from qoderdata.forecast import cost_forecast
from qoderdata.formatting import (
    MISSING,
    format_credits,
    format_duration,
    format_interval,
    format_milliseconds,
    format_percent,
)
from qoderdata.plots import plot_next_triggers, plot_run_failure_rates, plot_trigger_load
from qoderdata.report.data import WEEK, DeploymentName, ReportData, span_text
from qoderdata.report.figures import plot_figure, round_scale
from qoderdata.report.layout import (
    MOST_ROWS,
    Badge,
    BarText,
    Column,
    Schedule,
    Section,
    Since,
    error_cell,
    interval_cell,
    make_table,
    rows_of,
    scale_note,
    share_cell,
)
from qoderdata.summaries import (
    duration_regressions,
    error_breakdown,
    failure_streaks,
    run_failure_rates,
    session_costs,
)
from qoderdata.timelines import schedule_lints, trigger_load

_TREND_SPAN = pd.Timedelta("30D")
_FORECAST_SPAN = "30D"
_SHORT_SPAN = pd.Timedelta("3D")
_TREND_INCHES, _LOAD_INCHES = 4.2, 3.4
_ROW_INCHES, _MARGIN_INCHES, _FEWEST_ROWS = 0.25, 1.0, 3
_BUSIEST = _NAMED_IN_ALT = 5
#: What keeps a schedule from firing, then what makes it fire at other times than meant.
_WORST_LINTS = ("unreadable", "never_fires", "dst_gap", "dst_repeat", "inverted_zone", "both_day_fields")


def make_sections(data: ReportData) -> list[Section]:
    """Return all sections but the last, `about_data`, in their order."""
    sections = [worst_offenders(data), streaks(data), paused_by_error(data)]
    if data.runs is not None:
        sections += [trend(data, data.runs), errors(data, data.runs), missed(data), slower(data, data.runs)]
    if data.sessions is not None:
        sections.append(costs(data, data.sessions))
    return [*sections, next_triggers(data), load(data), lints(data)]


def worst_offenders(data: ReportData) -> Section:
    """Show who fails most; a high rate of few runs does not lead, since chance may have made it."""
    known = data.rates.reset_index()
    worst = known[known["failure_rate"] > 0].sort_values(
        ["ci_low", "total_failures", "id"], ascending=[False, False, True]
    )
    if worst.empty:
        return Section("offenders", "Worst offenders", nothing="No deployment has a failed run.")
    scale = round_scale(worst["ci_high"].head(MOST_ROWS).max())
    columns = [
        Column("Deployment", "deployment", lambda row: data.deployment(row.id)),
        Column("Failure rate", "strong", lambda row: format_percent(row.failure_rate), "number"),
        Column("95 % interval", "bar", lambda row: interval_cell(row, scale), note=scale_note(scale)),
        Column("Failed / runs", "text", lambda row: f"{row.total_failures:,} / {row.total_runs:,}", "number"),
        Column("In a row now", "streak", lambda row: row.consecutive_failures, "number"),
    ]
    counted = ", counted in the runs given where the service has no counters," if data.is_counted else ""
    return Section(
        "offenders",
        "Worst offenders",
        f"Lifetime failure rates{counted} of the deployments that are not archived, in the order of the lower end "
        "of the interval: whoever fails at least that often. So one failure in one run does not lead.",
        table=make_table(
            worst, columns, caption="Failure rates by deployment, worst first", rows="deployments that failed"
        ),
        count=f"{len(worst):,}",
    )


def streaks(data: ReportData) -> Section:
    """Show who fails in a row now; with runs, since when and with what error."""
    failing = _failing_now(data)
    if failing.empty:
        return Section("streaks", "Failing now", nothing="No deployment has failed in its last run.")
    columns = [
        Column("Deployment", "deployment", lambda row: data.deployment(row.id)),
        Column("In a row", "streak", lambda row: row.in_a_row, "number"),
        Column("State", "badge", _state),
    ]
    if data.runs is not None:
        columns += [
            Column("Since", "since", lambda row: _since(data, row)),
            Column("Last error", "error", lambda row: error_cell(row.error_type, row.error_message), "wide"),
        ]
    else:
        columns.append(Column("Last run", "time", lambda row: data.time(row.stats_last_triggered_at)))
    counted = " or, where it does not, counted in the runs given" if data.is_counted else ""
    return Section(
        "streaks",
        "Failing now",
        f"Failures since the last success, as the service counts them{counted}, longest first.",
        table=make_table(failing, columns, caption="Current streaks of failures", rows="failing deployments"),
        count=f"{len(failing):,}",
    )


def _failing_now(data: ReportData) -> pd.DataFrame:
    """Return the live deployments with a streak: as their counters say, else as the runs say."""
    failing = data.live.assign(in_a_row=data.live["stats_consecutive_failures"])
    if data.runs is not None:
        by_runs = failure_streaks(data.runs)[["current_streak", "current_streak_since"]]
        failed = data.runs[data.runs["status"].eq("failed").fillna(value=False)].sort_values(
            ["triggered_at", "id"]
        )
        last = failed.drop_duplicates("deployment_id", keep="last").set_index("deployment_id")
        failing = failing.join(by_runs, on="id").join(last[["error_type", "error_message"]], on="id")
        failing["in_a_row"] = failing["in_a_row"].fillna(failing["current_streak"])
    failing = failing[(failing["in_a_row"] > 0).fillna(value=False)]
    return failing.sort_values(["in_a_row", "id"], ascending=[False, True])


def _since(data: ReportData, row: Any) -> Since | None:  # noqa: ANN401 - a row as a named tuple
    since = row.current_streak_since
    if pd.isna(since):
        return None
    time = data.time(since)
    ago = f"{format_duration(data.start - since)} ago" if since <= data.start else None
    is_whole = pd.notna(row.current_streak) and row.current_streak == row.in_a_row
    return None if time is None else Since(time, not is_whole, ago)


def paused_by_error(data: ReportData) -> Section:
    """Show what the service itself has stopped."""
    paused = data.live[(data.live["paused_reason_type"] == "error").fillna(value=False)]
    paused = paused.sort_values(["stats_last_triggered_at", "id"], ascending=[False, True])
    if paused.empty:
        nothing = "The service has paused no deployment because of an error."
        return Section("paused", "Paused by error", nothing=nothing)
    columns = [
        Column("Deployment", "deployment", lambda row: data.deployment(row.id)),
        Column("Error", "error", lambda row: error_cell(row.paused_reason_error_type, None)),
        Column("Failed in a row", "streak", lambda row: row.stats_consecutive_failures, "number"),
        Column("Last run", "time", lambda row: data.time(row.stats_last_triggered_at)),
    ]
    return Section(
        "paused",
        "Paused by error",
        "The service stopped these after errors. They will not fire again until someone resumes them.",
        table=make_table(
            paused, columns, caption="Deployments that the service has paused", rows="paused deployments"
        ),
        count=f"{len(paused):,}",
    )


def trend(data: ReportData, runs: pd.DataFrame) -> Section:
    """Show how the failure rate went, day by day, or hour by hour where there are few days."""
    title = "The last 30 days"
    recent = runs[(runs["triggered_at"] >= data.start - _TREND_SPAN) & (runs["triggered_at"] < data.start)]
    if recent.empty:
        return Section("trend", title, nothing="There are no runs of the last 30 days.")
    is_short = recent["triggered_at"].max() - recent["triggered_at"].min() < _SHORT_SPAN
    rates = run_failure_rates(recent, by=None, freq="1h" if is_short else "1D", tz=data.tz)
    (total,) = rows_of(run_failure_rates(recent, by=None))
    each = "hour" if is_short else "day"
    known = rates.dropna(subset=["failure_rate"]).reset_index()
    worst = known.sort_values(["failure_rate", "window"], ascending=[False, True]).head(1)
    words = [
        f"the worst {each} is that of {data.time_text(row.window)} with {format_percent(row.failure_rate)} of "
        f"{row.completed + row.failed:,} decided runs"
        for row in rows_of(worst)
    ]
    alt = (
        f"Line of the failure rate by {each} with its interval, and bars of the number of runs, over "
        f"{len(rates)} {each}s; {words[0] if words else 'no run has ended'}. All together: "
        f"{format_percent(total.failure_rate)}."
    )
    return Section(
        "trend",
        title,
        f"{total.failed:,} of {total.completed + total.failed:,} decided runs failed:",
        format_percent(total.failure_rate),
        f"(95 % interval {format_interval(total.ci_low, total.ci_high)}). {total.skipped:,} were skipped and "
        f"{total.unfinished:,} have not ended; they decide nothing. {_unproved(total)}A success took "
        f"{format_milliseconds(total.duration_p50_ms)} in the median, 95 of 100 took at most "
        f"{format_milliseconds(total.duration_p95_ms)}.",
        figure=plot_figure(
            lambda ax: plot_run_failure_rates(rates, ax=ax), name="trend", alt=alt, height=_TREND_INCHES
        ),
    )


def _unproved(total: Any) -> str:  # noqa: ANN401 - a row as a named tuple
    """Say how many outcomes are assumed or unknown."""
    assumed, unknown = getattr(total, "assumed", 0), getattr(total, "unknown", 0)
    words = f"Of {unknown:,} the outcome is unknown. " if unknown else ""
    if assumed:
        words += f"{assumed:,} of the {total.completed:,} completed ones are assumed to be so. "
    return words


def errors(data: ReportData, runs: pd.DataFrame) -> Section:
    """Show what went wrong, by type of error."""
    # `count` is a method of every named tuple.
    found = error_breakdown(runs).reset_index().rename(columns={"count": "failed_runs"})
    if found.empty:
        return Section("errors", "Errors", nothing="No run has failed.")
    scale = round_scale(found["share"].max())
    columns = [
        Column("Error", "error", lambda row: error_cell(row.error_type, None)),
        Column("Failed runs", "text", lambda row: f"{row.failed_runs:,}", "number"),
        Column("Share", "bar", lambda row: share_cell(row.share, scale), note=scale_note(scale)),
        Column("First seen", "time", lambda row: data.time(row.first_seen), note="in these runs"),
        Column("Last seen", "time", lambda row: data.time(row.last_seen)),
    ]
    first, last = (data.time_text(time) for time in (runs["triggered_at"].min(), runs["triggered_at"].max()))
    return Section(
        "errors",
        "Errors",
        f"Of all {len(runs):,} runs given, from {first} to {last}.",
        table=make_table(
            found, columns, caption="Failed runs by type of error, most frequent first", rows="types of error"
        ),
        count=f"{len(found):,}",
    )


def missed(data: ReportData) -> Section:
    """Show what should have fired but did not, by deployment."""
    title = "Missed triggers"
    if data.missed is None or data.missed_window is None:
        return Section("missed", title, nothing="There are no runs to tell it from.")
    since, until = (data.time_text(time) for time in data.missed_window)
    if data.missed.empty:
        return Section("missed", title, nothing=f"Nothing was missed from {since} to {until}.")
    times = data.missed.assign(doubtful=~data.missed["certain"])
    by_deployment = times.groupby("deployment_id").agg(
        certain=("certain", "sum"),
        doubtful=("doubtful", "sum"),
        first=("scheduled_at", "min"),
        last=("scheduled_at", "max"),
    )
    by_deployment = by_deployment.reset_index().sort_values(
        ["certain", "doubtful", "deployment_id"], ascending=[False, False, True]
    )
    columns = [
        Column("Deployment", "deployment", lambda row: data.deployment(row.deployment_id)),
        Column("Missed", "strong", lambda row: f"{row.certain:,}", "number"),
        Column("In doubt", "text", lambda row: f"{row.doubtful:,}", "number"),
        Column("First", "time", lambda row: data.time(row.first)),
        Column("Last", "time", lambda row: data.time(row.last)),
    ]
    return Section(
        "missed",
        title,
        f"Scheduled times from {since} to {until} for which no run was triggered. In doubt where the deployment "
        "is paused now or was changed in that time: the service keeps no history of either.",
        table=make_table(by_deployment, columns, caption="Missed triggers by deployment", rows="deployments"),
        count=f"{times['certain'].sum():,}",
    )


def slower(data: ReportData, runs: pd.DataFrame) -> Section:
    """Show what takes longer than it did."""
    found = duration_regressions(runs).reset_index()
    title = "Slower than before"
    if found.empty:
        return Section("slower", title, nothing="No deployment takes longer than before.")
    columns = [
        Column("Deployment", "deployment", lambda row: data.deployment(row.deployment_id)),
        Column("Now", "strong", lambda row: format_milliseconds(row.recent_p50_ms), "number"),
        Column("Before", "text", lambda row: format_milliseconds(row.baseline_p50_ms), "number"),
        Column("Longer by", "text", lambda row: format_milliseconds(row.change_ms), "number"),
        Column("Runs now / before", "text", lambda row: f"{row.recent_runs:,} / {row.baseline_runs:,}", "number"),
    ]
    return Section(
        "slower",
        title,
        "Median time of a success in the last 3 days of the runs, against the 14 days before.",
        table=make_table(found, columns, caption="What got slower, most first", rows="deployments"),
        count=f"{len(found):,}",
    )


def costs(data: ReportData, sessions: pd.DataFrame) -> Section:
    """Show what sessions cost, by deployment, and what the next 30 days will cost."""
    title = "What sessions cost"
    if sessions.empty:
        return Section("costs", title, nothing="There are no sessions.")
    forecast = cost_forecast(data.deployments, sessions, _FORECAST_SPAN, start=data.start)
    found = session_costs(sessions).join(forecast[["triggers", "expected", "low", "high"]]).reset_index()
    (total,) = rows_of(session_costs(sessions, by=None))
    scale = round_scale(found["share"].fillna(0).max())
    columns = [
        Column("Deployment", "deployment", lambda row: _deployment_or_none(data, row.deployment_id)),
        Column("Credits", "strong", lambda row: format_credits(row.credits), "number"),
        Column("Share", "bar", lambda row: _share_or_none(row.share, scale), note=scale_note(scale)),
        Column("Sessions", "text", lambda row: f"{row.sessions:,}", "number"),
        Column("Next 30 days", "text", lambda row: format_credits(row.expected), "number", note="expected"),
        Column("95 % interval", "text", _credits_interval, "number"),
    ]
    unknown = f"The usage of {total.unknown:,} more is not known. " if total.unknown else ""
    without = forecast.attrs["triggers_without_credits"]
    unpriced = f" {without:,} more are of deployments without a known session." if without else ""
    return Section(
        "costs",
        title,
        f"{total.sessions - total.unknown:,} sessions used",
        f"{format_credits(total.credits)} credits.",
        f"{unknown}{forecast['triggers'].sum() - without:,} triggers of the next 30 days are expected to use "
        f"{format_credits(forecast['expected'].sum(min_count=1))}.{unpriced} Intervals do not add up.",
        table=make_table(found, columns, caption="Credits by deployment, the dearest first", rows="deployments"),
    )


def _deployment_or_none(data: ReportData, identifier: Any) -> DeploymentName:  # noqa: ANN401 - a text or missing
    return DeploymentName("No deployment", MISSING) if pd.isna(identifier) else data.deployment(identifier)


def _share_or_none(share: float, scale: float) -> BarText | None:
    return None if pd.isna(share) else share_cell(share, scale)


def _credits_interval(row: Any) -> str | None:  # noqa: ANN401 - a row as a named tuple
    return None if pd.isna(row.low) else f"{format_credits(row.low)}–{format_credits(row.high)}"


def next_triggers(data: ReportData) -> Section:
    """Show what fires within the horizon: when each deployment fires first, and how often."""
    title = f"What fires in the next {span_text(data.shown_horizon)}"
    triggers = data.triggers
    if triggers.empty:
        return Section("next", title, nothing="Nothing fires in this time.")
    firing = _first_triggers(triggers)
    columns = [
        Column("Deployment", "deployment", lambda row: data.deployment(row.deployment_id)),
        Column("First", "time", lambda row: data.time(row.trigger_at)),
        Column("Times", "text", lambda row: f"{row.times:,}", "number"),
        Column(
            "Schedule", "schedule", lambda row: _schedule(row.schedule_expression, row.schedule_timezone), "wide"
        ),
    ]
    rows = min(len(firing), MOST_ROWS)
    start = data.time_text(data.start)
    soonest = "; ".join(
        f"{data.name(row.deployment_id)} at {data.time_text(row.trigger_at)}"
        for row in rows_of(firing.head(_NAMED_IN_ALT))
    )
    alt = (
        f"Timeline of {len(triggers):,} triggers of {len(firing):,} deployments from {start} on; one lane each "
        f"for the {rows} that fire soonest: {soonest}."
    )
    return Section(
        "next",
        title,
        f"{len(triggers):,} triggers of {len(firing):,} deployments, from {start} on. Paused and archived "
        "deployments do not fire.",
        figure=plot_figure(
            lambda ax: plot_next_triggers(triggers, ax=ax, top=MOST_ROWS, labels=data.labels),
            name="next",
            alt=alt,
            height=_MARGIN_INCHES + _ROW_INCHES * max(rows, _FEWEST_ROWS),
        ),
        table=make_table(firing, columns, caption="What fires next, soonest first", rows="deployments"),
        count=f"{len(triggers):,}",
    )


def load(data: ReportData) -> Section:
    """Show how the triggers of the week spread over its hours."""
    week = data.week
    if week.empty:
        return Section("load", "Load of the week", nothing="Nothing fires in the next seven days.")
    hours = trigger_load(week, freq="1h")
    busiest = (
        hours[hours["triggers"] > 0].sort_values(["triggers", "window"], ascending=[False, True]).head(_BUSIEST)
    )
    words = "; ".join(f"{data.time_text(row.window)} with {row.triggers:,}" for row in rows_of(busiest))
    columns = [
        Column("Hour from", "time", lambda row: data.time(row.window)),
        Column("Triggers", "text", lambda row: f"{row.triggers:,}", "number"),
        Column("Deployments", "text", lambda row: f"{row.deployments:,}", "number"),
        Column("At minute 0", "text", lambda row: f"{row.at_minute_0:,}", "number"),
    ]
    only = f" of the next {span_text(data.longest_span)}" if data.longest_span < WEEK else ""
    return Section(
        "load",
        "Load of the week",
        f"{len(week):,} triggers{only} by weekday and hour, in {data.tz}; and of those of the busiest hours, "
        "how many start in the very first minute.",
        figure=plot_figure(
            lambda ax: plot_trigger_load(week, ax=ax),
            name="load",
            alt=f"Heatmap of {len(week):,} triggers by weekday and hour. Busiest hours: {words}.",
            height=_LOAD_INCHES,
        ),
        table=make_table(busiest, columns, caption="The busiest hours", rows="hours"),
    )


def lints(data: ReportData) -> Section:
    """Show what may surprise about a schedule, the worst first."""
    found = schedule_lints(data.live, start=data.start)
    title = "Schedules to look at"
    if found.empty:
        return Section("lints", title, nothing="No schedule has anything odd about it.")
    rank = {lint: number for number, lint in enumerate(_WORST_LINTS)}
    found = found.assign(rank=found["lint"].map(rank).fillna(len(rank)))
    found = found.sort_values(["rank", "lint"], kind="stable")
    counts = ", ".join(
        f"{_lint_words(str(lint))} {count:,}" for lint, count in found["lint"].value_counts(sort=False).items()
    )
    columns = [
        Column("Deployment", "deployment", lambda row: data.deployment(row.deployment_id)),
        Column("Finding", "badge", lambda row: Badge(_lint_words(row.lint))),
        Column("What it means", "text", lambda row: row.detail, "wide"),
    ]
    return Section(
        "lints",
        title,
        f"Schedules that may not do what was meant: {counts}.",
        table=make_table(found, columns, caption="What may surprise about schedules", rows="findings"),
        count=f"{len(found):,}",
    )


def _first_triggers(triggers: pd.DataFrame) -> pd.DataFrame:
    """Return the first trigger of each deployment, soonest first, with the number of all of its."""
    first = triggers.drop_duplicates("deployment_id").astype({"deployment_id": TEXT})
    times = triggers["deployment_id"].value_counts()
    times.index = times.index.astype(TEXT)
    return first.assign(times=first["deployment_id"].map(times))


def _schedule(expression: object, zone: object) -> Schedule:
    try:
        words = parse(str(expression), str(zone)).describe()
    except CronError:  # the service may know more than we do
        words = str(zone)
    return Schedule(words, str(expression))


def _state(row: Any) -> Badge | None:  # noqa: ANN401 - a row as a named tuple
    if row.paused_reason_type == "error":
        return Badge("paused by error", is_bad=True)
    return None if pd.isna(row.status) else Badge(str(row.status))


def _lint_words(name: str) -> str:
    return name.replace("_", " ").replace("dst", "DST")
