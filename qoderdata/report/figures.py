"""Compute the headline and the six figures of a report, each with its change against the period before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from qoderdata.formatting import (
    MISSING,
    format_count,
    format_credits,
    format_interval,
    format_milliseconds,
    format_percent,
)
from qoderdata.outcomes import STATUSES
from qoderdata.report.data import LEAST_DECIDED, WEEK, first_row, span_text
from qoderdata.report.layout import Tile, certainty_note, counters_note, join_facts, join_sentences, unknown_note
from qoderdata.summaries import failure_rates, session_costs
from qoderdata.translation import gettext as _
from qoderdata.translation import ngettext

if TYPE_CHECKING:
    from collections.abc import Callable

    from qoderdata.report.data import ReportData


#: A smaller difference of two rates comes from rounding.
_NO_CHANGE = 1e-9
#: Two rates are about the same if the whole interval of their difference is within this.
_SAME = 0.05
#: Fewer points would be 0.0 with one digit after the dot.
_LEAST_POINTS = 0.05
#: From this on, credits are shown without decimals, so that they fit.
_WHOLE_CREDITS = 10_000


class Headline(NamedTuple):
    """The headline, and the figures behind it."""

    text: str
    about: str
    is_bad: bool


def headline(data: ReportData) -> Headline:
    """Return whether it got worse, from all runs of the last two weeks; without runs what the counters say."""
    row = data.compared
    if row is None or not row.recent_decided:
        return _headline_without_runs(data)
    if not row.recent_failed:
        what = ngettext("none of {count} run failed", "none of {count} runs failed", row.recent_decided)
    else:
        what = ngettext(
            "{rate} of {count} run failed", "{rate} of {count} runs failed", row.recent_decided,
            rate=format_percent(row.recent_rate),
        )  # fmt: skip
    if data.is_comparable:
        what = join_facts(what, points_text(row.change))
        if row.verdict == "unclear" and abs(row.change) > _NO_CHANGE:
            what = _("{what}, which may be chance", what=what)
        lead = {"worse": _("Worse than last week"), "better": _("Better than last week")}.get(
            row.verdict, _("Not clearly different from last week")
        )
        if row.change_low >= -_SAME and row.change_high <= _SAME:
            lead = _("About the same as last week")
    elif data.has_enough_runs:
        lead = _("Not comparable with last week")
    else:
        lead = _("Not enough runs to compare with last week")
    text = _("{lead}: {what}", lead=lead, what=what)
    if row.recent_failed > 1:
        half = _deployments_with_half_of_the_failures(data.runs_within(WEEK))
        who = ngettext(
            "{count} deployment accounts for half of the failures",
            "{count} deployments account for half of the failures",
            half,
        )
        text = _("{text}; {who}", text=text, who=who)
    return Headline(_("{text}.", text=text), _about_headline(data), data.is_comparable and row.verdict == "worse")


def _deployments_with_half_of_the_failures(runs: pd.DataFrame) -> int:
    """Return the smallest number of deployments that have half of the failed runs."""
    failed = runs[runs["status"].isin(STATUSES["failed"])]["deployment_id"].value_counts(dropna=False)
    return int(np.searchsorted(failed.cumsum().to_numpy(), failed.sum() / 2)) + 1


def _about_headline(data: ReportData) -> str:
    row = data.compared
    words = ngettext(
        "Of the last 7 days, from {since} to {until}: {failed} of {count} decided run failed (95 % interval "
        "{interval}). A run is decided when it completed or failed.",
        "Of the last 7 days, from {since} to {until}: {failed} of {count} decided runs failed (95 % interval "
        "{interval}). A run is decided when it completed or failed.",
        row.recent_decided,
        failed=format_count(row.recent_failed),
        since=data.time_text(data.start - WEEK),
        until=data.time_text(data.start),
        interval=format_interval(data.rates.ci_low, data.rates.ci_high),
    )
    if data.runs is not None and not data.do_runs_reach_back:
        first = data.time_text(data.runs["triggered_at"].min())
        return join_sentences(words, _("The runs begin on {since}: the week before is not whole.", since=first))
    before = _(
        "In the 7 days before: {failed} of {count}, {rate}.",
        failed=format_count(row.baseline_failed),
        count=format_count(row.baseline_decided),
        rate=format_percent(row.baseline_rate),
    )
    if data.is_comparable:
        change = _(
            "The 95 % interval of the change is {low} to {high} points.",
            low=_signed(row.change_low),
            high=_signed(row.change_high),
        )
    elif data.has_enough_runs:
        change = _(
            "In one of the weeks more runs count as completed because their sessions are idle or archived, and "
            "failures inside sessions are not seen: the weeks are not compared."
        )
    else:
        change = _("Fewer than {count} decided runs in a week are not compared.", count=LEAST_DECIDED)
    return join_sentences(words, before, change)


def _headline_without_runs(data: ReportData) -> Headline:
    if data.runs is not None:
        since, until = data.time_text(data.start - WEEK), data.time_text(data.start)
        period = _("The last 7 days are from {since} to {until}.", since=since, until=until)
        return Headline(nothing_decided(data), period, is_bad=False)
    failing = data.failing_by_counters
    by_error = len(data.paused_by_error)
    paused = ngettext("{count} is paused by error", "{count} are paused by error", by_error)
    if failing is None:
        text = _("Without runs it is not known how many deployments are failing; {paused}.", paused=paused)
    else:
        text = _(
            "{failing} and {paused}.",
            failing=ngettext("{count} deployment is failing", "{count} deployments are failing", failing),
            paused=paused,
        )
    about = _("With their runs, this page compares the last 7 days with the 7 days before.")
    if failing is not None:
        about = join_sentences(counters_note(data), certainty_note(data), _lacking_counters(data), about)
    return Headline(text, about, is_bad=bool(failing) or by_error > 0)


def _lacking_counters(data: ReportData) -> str:
    """Return a sentence about deployments that may or may not be failing; an empty text if there are none."""
    unknown = int(data.live["stats_consecutive_failures"].isna().sum())
    note = ngettext(
        "Of {count} more deployment it is not known whether it is failing.",
        "Of {count} more deployments it is not known whether they are failing.",
        unknown,
    )
    return note if unknown else ""


def nothing_decided(data: ReportData) -> str:
    """Return a sentence that says that no run of the last week is decided."""
    unknown = unknown_note(data.runs_within(WEEK))
    if unknown:
        return join_sentences(_("No run of the last 7 days is known to have completed or failed."), unknown)
    return _("No run of the last 7 days completed or failed.")


def _points(change: float) -> str:
    """Return the size of a change of a rate in points, with one digit after the dot, or more if that is 0."""
    points = 100 * abs(change)
    is_small = abs(change) > _NO_CHANGE and points < _LEAST_POINTS
    return f"{points:.1g}" if is_small else f"{points:.1f}"


def _signed(change: float) -> str:
    return ("−" if change < 0 else "+") + _points(change)


def points_text(change: float) -> str:
    """Return how a rate changed, in words."""
    if pd.isna(change):
        return _no_week_before()
    if abs(change) <= _NO_CHANGE:
        return _("unchanged")
    if change > 0:
        return _("up {points} points", points=_points(change))
    return _("down {points} points", points=_points(change))


# -- figures -----------------------------------------------------------------------------------------------------


def tiles(data: ReportData) -> list[Tile]:
    """Return six figures: of the last week with their changes, or, without runs, of the present."""
    found = _tiles_of_counters(data) if data.runs is None else _tiles_of_runs(data)
    if data.sessions is not None:
        found[-1] = _credits_tile(data, data.sessions)
    return found


def _tiles_of_runs(data: ReportData) -> list[Tile]:
    week, before = data.runs_within(WEEK), data.runs_within(WEEK, ago=WEEK)
    has_before, now, row = data.do_runs_reach_back, data.rates, data.compared
    decided = 0 if row is None else int(row.recent_decided)
    waiting = int(week["status"].eq("waiting").sum())
    others = "" if now is None else join_facts(
        _("{count} decided", count=f"{decided:,}"),
        _("{count} skipped or cancelled", count=f"{int(now.skipped):,}"),
        _("{count} not ended", count=f"{int(now.unfinished):,}"),
        _("of these {count} waiting for a person", count=f"{waiting:,}") if waiting else "",
        _("{count} unknown", count=f"{int(now.unknown):,}") if now.unknown else "",
    )  # fmt: skip
    rate = format_percent(None if row is None else row.recent_rate)
    points = points_text(row.change) if has_before and row is not None else _no_week_before()
    failing = len(data.streaks)
    then = _change(failing, data.failing_before)
    if has_before and not data.has_similar_outcomes:
        points = then = _("not comparable with the week before")
    of = ngettext("of {count} decided run", "of {count} decided runs", decided)
    is_worse = data.is_comparable and row.verdict == "worse"
    runs = _change(len(week), len(before) if has_before else None)
    return [
        Tile(_("Failure rate"), rate, points, of, is_worse, "rates"),
        Tile(_("Runs"), f"{len(week):,}", runs, others, anchor="trend"),
        Tile(_("Failing now"), f"{failing:,}", then, _streak_note(data.streaks["streak"]), failing > 0, "failing"),
        _missed_tile(data),
        _duration_tile(week, before if has_before else None),
        _deployments_tile(data),
    ]


def _streak_note(lengths: pd.Series[Any]) -> str:
    """Return how long the longest streak of failures is; a length of 0 or a missing one is none."""
    if not (lengths > 0).any():
        return _("no deployment's last run failed")
    return ngettext("longest streak: {count} run", "longest streak: {count} runs", lengths.max())


def _deployments_tile(data: ReportData) -> Tile:
    live = len(data.live)
    archived = len(data.deployments) - live
    if not archived:
        # Perhaps they were left out: then those that were archived this week are missing in the week before.
        return Tile(_("Deployments"), f"{live:,}", None, _("archived ones are not counted"))
    note = ngettext("{count} more is archived", "{count} more are archived", archived)
    return Tile(_("Deployments"), f"{live:,}", _change(live, len(data.live_before)), note)


def _missed_tile(data: ReportData) -> Tile:
    if data.missed is None:
        note = _("not known: the runs cover none of the last 7 days")
        return Tile(_("Missed triggers"), MISSING, None, note, anchor="missed")
    certain = int(data.missed["certain"].sum())
    before = None if data.missed_before is None else int(data.missed_before["certain"].sum())
    doubtful = len(data.missed) - certain
    note = _("{count} more in doubt", count=f"{doubtful:,}") if doubtful else _("none in doubt")
    return Tile(_("Missed triggers"), f"{certain:,}", _change(certain, before), note, certain > 0, "missed")


def _duration_tile(week: pd.DataFrame, week_before: pd.DataFrame | None) -> Tile:
    now = _durations(week)
    after = now.median()
    before = None if week_before is None else _durations(week_before).median()
    change = None if pd.isna(after) else _change(after, before, format_milliseconds)
    if now.empty and week["status"].eq("completed").any():
        note = _("not known of any completed run")
    else:
        note = ngettext("median of {count} completed run", "median of {count} completed runs", len(now))
    return Tile(_("Time of a success"), format_milliseconds(after), change, note, anchor="slower")


def _durations(runs: pd.DataFrame) -> pd.Series[Any]:
    """Return how long completed runs took, in milliseconds; as `run_failure_rates` takes them."""
    return runs.loc[runs["status"].eq("completed"), "duration_ms"].astype("Float64").dropna()


def _credits_tile(data: ReportData, sessions: pd.DataFrame) -> Tile:
    now = first_row(session_costs(data.within(sessions, "created_at", WEEK), by=None))
    then = first_row(session_costs(data.within(sessions, "created_at", WEEK, ago=WEEK), by=None))
    total, before = (0.0 if costs is None else costs.credits for costs in (now, then))
    if now is not None and now.unknown == now.sessions:
        note = ngettext(
            "the usage of {count} session is not known", "the usage of {count} sessions is not known", now.unknown
        )
        return Tile(_("Credits"), MISSING, None, note, anchor="costs")
    has_before = data.reaches_back(sessions["created_at"])
    change = _change(total, before if has_before else None, _short_credits)
    known = 0 if now is None else int(now.sessions - now.unknown)
    note = ngettext("of {count} session", "of {count} sessions", known)
    return Tile(_("Credits"), _short_credits(total), change, note, anchor="costs")


def _short_credits(number: float) -> str:
    return format_credits(number) if number < _WHOLE_CREDITS else f"{number:,.0f}"


def _tiles_of_counters(data: ReportData) -> list[Tile]:
    failing, by_error = data.failing_by_counters, len(data.paused_by_error)
    total = first_row(failure_rates(data.deployments, by=None))
    rate, never, runs = (None, 0, 0) if total is None else (total.failure_rate, total.never_run, total.total_runs)
    lifetime = _("of {runs} runs, archived deployments included", runs=format_count(runs))
    streaks = _streak_note(data.live["stats_consecutive_failures"])
    counted = int(data.deployments["stats_total_runs"].notna().sum())
    of = ngettext("of {count} deployment", "of {count} deployments", counted)
    if failing is None:
        rate = never = None
        streaks = lifetime = of = _("not known without runs")
    paused = int(data.live["status"].eq("paused").sum()) - by_error
    others = ngettext("{count} more is paused", "{count} more are paused", paused)
    ahead, firing = span_text(data.shown_horizon), data.triggers["deployment_id"].nunique()
    fires = ngettext("triggers of {count} deployment", "triggers of {count} deployments", firing)
    return [
        _deployments_tile(data),
        Tile(_("Failing now"), format_count(failing), None, streaks, bool(failing), "failing"),
        Tile(_("Paused by error"), f"{by_error:,}", None, others, by_error > 0, "paused"),
        Tile(_("Lifetime failure rate"), format_percent(rate), None, lifetime, anchor="rates"),
        Tile(_("Next {span}", span=ahead), f"{len(data.triggers):,}", None, fires, anchor="next"),
        Tile(_("Never run"), format_count(never), None, of),
    ]


def _no_week_before() -> str:
    return _("the week before is not known")


def _change(now: float, before: float | None, write: Callable[[float], str] = "{:,}".format) -> str:
    """Return how a figure changed, in words; `write` formats it."""
    if before is None or pd.isna(now - before):
        return _no_week_before()
    if now == before:
        return _("unchanged")
    change = write(abs(now - before))
    if now > before:
        return _("up {change} from {before}", change=change, before=write(before))
    return _("down {change} from {before}", change=change, before=write(before))
