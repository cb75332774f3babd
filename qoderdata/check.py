"""What is wrong with the deployments now: one verdict, the worst first."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd

from qoderdata.arguments import Instant, Span, check_count, check_number, parse_instant, parse_span, parse_zone
from qoderdata.errors import UnknownOutcomesWarning
from qoderdata.formatting import (
    format_credits,
    format_duration,
    format_milliseconds,
    format_percent,
    format_time,
    make_distinct,
    one_line,
)
from qoderdata.frame_checks import TEXT, require_frame, require_unique_deployments, without_repeated_columns
from qoderdata.frames import STALE, fetched_at, flatten_runs, is_in, rows_before
from qoderdata.outcomes import STATUSES, is_assumed, is_unknown
from qoderdata.summaries import compare_periods, failure_streaks, session_costs, unusual_runs
from qoderdata.summaries.time_windows import parse_micros
from qoderdata.timelines import missed_triggers, schedule_lints
from qoderdata.translation import gettext as _
from qoderdata.translation import mark, ngettext

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

#: All kinds in the order in which they are listed, each with its severity, and what to do about it.
KINDS = {
    "failing": ("error", mark("Read its last failed session, then fix or pause it.")),
    "paused_by_error": ("error", mark("Fix the cause, then resume it.")),
    "missed": ("error", mark("Find out why no run started; start one by hand if it is still needed.")),
    "stuck": (
        "error",
        mark("Cancel the run, or give it more time; if it waits for a person, answer it in its session."),
    ),
    "unreadable_schedule": ("error", mark("Correct its schedule.")),
    "worse": ("warning", mark("Compare its failures with those of the week before.")),
    "over_budget": ("warning", mark("Raise its budget, or give it less to do.")),
    "never_fires": ("warning", mark("Correct its schedule.")),
    "incomplete_data": ("warning", None),  # the finding itself says what to do
}
_COLUMNS = (
    "id", "name", "status", "created_at", "updated_at", "archived_at", "schedule_expression", "schedule_timezone",
    "paused_reason_type", "paused_reason_error_type",
)  # fmt: skip
_OPTIONAL = ("stats_consecutive_failures", "budget_max_credit_cost", "config_timeout_ms")
_RUN_COLUMNS = ("id", "deployment_id", "status", "triggered_at", "error_type")
_RESULT: dict[str, Any] = {
    **dict.fromkeys(("severity", "kind", "deployment_id", "name", "detail"), TEXT),
    "since": "datetime64[us, UTC]",
}
#: Allows for rounding when a share is compared with its limit: as floats, 8.73 / 9.7 is a little above 0.9.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class _Finding:
    """One finding; within a kind, a larger `weight` is listed first."""

    kind: str
    deployment_id: str | None
    detail: str
    since: pd.Timestamp | None = None
    weight: float = 0.0


def is_paused_by_error(deployments: pd.DataFrame) -> pd.Series[bool]:
    """Return which deployments the service has paused because of an error."""
    return deployments["status"].eq("paused") & deployments["paused_reason_type"].eq("error")


def check(
    df: pd.DataFrame,
    runs: pd.DataFrame | None = None,
    sessions: pd.DataFrame | None = None,
    *,
    all_runs: pd.DataFrame | None = None,
    snapshots: Sequence[pd.DataFrame] | None = None,
    now: Instant | None = None,
    since: Span = "1D",
    streak: int = 3,
    recent: Span = "7D",
    budget_share: float = 0.9,
    doubtful: float = 0.05,
    tz: str = "UTC",
) -> pd.DataFrame:
    """Return what is wrong with the deployments, the worst first.

    Archived deployments are left out. What needs runs or sessions is left out if they are not given; without
    runs, ``failing`` is based on the service's counters.

    Parameters
    ----------
    df
        A deployments frame.
    runs
        Their runs: all of the last two `recent` at least. What happened after they were read
        (``attrs["fetched_at"]``, if it is there and before `now`) is not known: a run is ``stuck`` by how long it
        had been running then. Triggers after `df` or the runs were read are not ``missed``.
    sessions
        Their sessions.
    all_runs
        All their runs, for ``failing``; ``None``: `runs`. A streak that began before `runs` is found by the
        service's counter or with this. The newest edition has no counters.
    snapshots
        Earlier deployments frames, for `missed_triggers`.
    now
        The zone-aware present; ``None`` is the time of the call. Runs and sessions from then on do not count.
    since
        Triggers missed in this time before `now` count.
    streak
        This many failed runs in a row, retries included, are ``failing``.
    recent
        The period that ``worse`` compares with the one before.
    budget_share
        The share of its budget that the 95th percentile of a deployment's credits may take.
    doubtful
        The share of runs whose outcome may be assumed or unknown. Rates are not compared for ``worse`` if the
        share of the completed runs that are assumed was larger in the period before by more than this.
    tz
        The IANA zone of the times in ``detail``.

    Returns
    -------
    pandas.DataFrame
        One row per finding, errors before warnings. Nothing found: no rows, same columns and dtypes.

        ================= =================== ===============================================================
        ``severity``      str                 ``error`` or ``warning``
        ``kind``          str                 see below
        ``deployment_id`` str                 missing if it is about the data
        ``name``          str                 the deployment's name
        ``detail``        str                 a sentence or two; begins with the name, and the end of the id
                                              if several deployments share the name
        ``since``         datetime64[us, UTC] since when at least, if that is known
        ================= =================== ===============================================================

        ======================= ======= =====================================================================
        ``failing``             error   its last runs failed, `streak` at least, and it is active. A run of
                                        unknown outcome or assumed success ends a streak, and ``detail`` says
                                        so. If it has no such run and none that completed, the service's
                                        counter counts too
        ``paused_by_error``     error   the service paused it
        ``missed``              error   scheduled times of the last `since` that certainly had no run
        ``stuck``               error   a run is unfinished for too long; see `unusual_runs`
        ``unreadable_schedule`` error   its cron text or zone cannot be read, or it has none, as its type is
                                        another than cron; and it is not paused
        ``worse``               warning it fails more than in the period before; see `compare_periods`, and
                                        `doubtful`
        ``over_budget``         warning the 95th percentile of its credits is above `budget_share` of its budget
        ``never_fires``         warning its schedule has no future time, and it is not paused
        ``incomplete_data``     warning a frame is not complete or older than a day, too many outcomes are
                                        doubtful, or there are no runs, and counters are missing
        ======================= ======= =====================================================================

    Raises
    ------
    ValueError
        A parameter is not valid; the message says what is allowed. An id is in `df` twice, or `all_runs` are given
        without `runs`.
    FrameTypeError
        Not a pandas frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        A run's ``id`` is in one of the frames more than once: each row counts.

    Examples
    --------
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{
    ...     "id": "dep_1", "name": "nightly", "status": "paused",
    ...     "paused_reason": {"type": "error", "error": {"type": "vault_not_found_error"}},
    ... }])
    >>> print(qd.check(df)["detail"].item())
    nightly is paused by error: vault_not_found_error.
    """
    check_count(streak, name="streak")
    for name, share in (("budget_share", budget_share), ("doubtful", doubtful)):
        check_number(share, lambda number: number >= 0, name=name, must="be a share, 0 or more, such as 0.05")
    since_length = timedelta(microseconds=parse_micros(since, name="since"))
    tz = parse_zone(tz).key
    df = require_frame(df, _COLUMNS, what="deployments", optional=_OPTIONAL)
    require_unique_deployments(df)
    end = parse_instant(pd.Timestamp.now("UTC") if now is None else now, name="now")
    if runs is not None:
        runs = require_frame(runs, _RUN_COLUMNS, what="runs", optional=["status_from"])
        runs = rows_before(runs, "triggered_at", end).reset_index(drop=True)
    if all_runs is not None:
        if runs is None:
            raise ValueError("all_runs needs runs: give both")
        all_runs = require_frame(all_runs, _RUN_COLUMNS, what="all_runs", optional=["status_from"])
        all_runs = rows_before(all_runs, "triggered_at", end)
    if sessions is not None:
        sessions = require_frame(sessions, ["id"], what="sessions", optional=["created_at"])
        sessions = rows_before(sessions, "created_at", end) if "created_at" in sessions else sessions
    live = df[df["archived_at"].isna()]
    active = live[live["status"] != "paused"]
    names = distinct_names(df)
    bad_schedules = schedule_lints(live, start=end)
    bad_schedules = bad_schedules[bad_schedules["lint"].isin({"unreadable", "never_fires"})]
    findings = [
        *_paused(live, names, tz),
        *_schedules(bad_schedules, active, names),
        *_incomplete(df, runs, sessions, end, tz),
    ]
    known_runs = flatten_runs([]) if runs is None else runs
    findings += _failing(known_runs if all_runs is None else all_runs, active, names, tz, streak=streak)
    if runs is None:
        findings += _without_counters(active, doubtful=doubtful)
    else:
        usable = live[~is_in(live["id"], bad_schedules["deployment_id"])]
        read_at = min(end, fetched_at(runs) or end)
        until = min(end, fetched_at(df, runs) or end)
        missed_since = end - since_length
        if missed_since < until:
            findings += _missed(usable, runs, names, tz, snapshots=snapshots, since=missed_since, until=until)
        findings += _stuck(runs, live, names, now=read_at)
        findings += _doubtful(runs, doubtful=doubtful)
        findings += _worse(runs, active, names, recent=recent, until=end, doubtful=doubtful)
    if sessions is not None:
        findings += _over_budget(sessions, live, names, share=budget_share)
    kinds = list(KINDS)
    findings.sort(
        key=lambda one: (kinds.index(one.kind), -one.weight, names.get(one.deployment_id or "", ""), one.detail)
    )
    known = dict(zip(df["id"], df["name"], strict=True))
    rows = [
        (KINDS[one.kind][0], one.kind, one.deployment_id, known.get(one.deployment_id), one.detail, one.since)
        for one in findings
    ]
    return pd.DataFrame(rows, columns=list(_RESULT), dtype=object).astype(_RESULT)


def distinct_names(df: pd.DataFrame) -> dict[str, str]:
    """Return by id what people see of a deployment: its name, and the end of the id if several share the name."""
    ids = df["id"].to_list()
    names = df["name"].fillna("").map(one_line)
    return dict(zip(ids, make_distinct(names.mask(names.eq(""), df["id"]).to_list(), ids), strict=True))


def _rows(frame: pd.DataFrame) -> Iterator[Any]:
    return iter(frame.itertuples())


# -- errors ------------------------------------------------------------------------------------------------------


def failing_now(runs: pd.DataFrame, active: pd.DataFrame) -> pd.DataFrame:
    """Return the deployments of `active` whose last run failed, the longest streak first.

    If none of a deployment's runs completed or has an unknown outcome, the streak may be longer than `runs` reach
    back: the service's counter counts then, if `active` has it. The columns are ``deployment_id``, ``streak``,
    ``since`` (missing if the streak began before `runs`), ``doubt`` (``"unknown"`` or ``"assumed"`` if that is the
    outcome of the run before the streak, which may be longer then), ``error_type`` and ``error_message`` (of the
    last failed run, if any).
    """
    runs = without_repeated_columns(runs).reset_index(drop=True)  # the index may have the name of a column
    created_at = ["created_at"] if "created_at" in runs.columns else []
    columns = ["id", "deployment_id", "triggered_at", *created_at]
    # A run of unknown outcome may have completed.
    status = runs["status"].astype(TEXT).mask(is_unknown(runs), "completed")
    streaks = failure_streaks(runs[columns].assign(status=status))
    doubt = (
        pd.Series(pd.NA, runs.index, dtype=TEXT)
        .mask(is_unknown(runs), "unknown")
        .mask(is_assumed(runs), "assumed")
    )
    ordered = runs.assign(status=status, doubt=doubt)[runs["triggered_at"].notna()]
    ordered = ordered.sort_values(["triggered_at", *created_at, "id"], na_position="first")
    lasts = ordered.drop_duplicates(["deployment_id", "status"], keep="last").set_index("deployment_id")
    completed = runs.loc[status.eq("completed"), "deployment_id"]
    ids = pd.Index(active["id"])
    last = lasts[lasts["status"].eq("failed")].reindex(ids, columns=["error_type", "error_message"]).astype(TEXT)
    seen = streaks["current_streak"].reindex(ids).fillna(0).astype("int64")
    counted = pd.Series(0, index=ids)
    if "stats_consecutive_failures" in active.columns:
        counted = active.set_index("id")["stats_consecutive_failures"].fillna(0).astype("int64")
        counted = counted.where(~is_in(ids, completed), 0)
    found = pd.DataFrame(
        {
            "deployment_id": ids.astype(TEXT),
            "streak": seen.combine(counted, max).array,
            "since": streaks["current_streak_since"].reindex(ids).where(counted <= seen).array,
            "doubt": lasts.loc[lasts["status"].eq("completed"), "doubt"].reindex(ids).array,
            "error_type": last["error_type"].array,
            "error_message": last["error_message"].array,
        }
    )
    return found[found["streak"] > 0].sort_values("streak", ascending=False, kind="stable", ignore_index=True)


def _failing(
    runs: pd.DataFrame, active: pd.DataFrame, names: dict[str, str], tz: str, *, streak: int
) -> Iterator[_Finding]:
    failing = failing_now(runs, active)
    for row in _rows(failing[failing["streak"] >= streak]):
        begin = None if pd.isna(row.since) else row.since
        has_error = isinstance(row.error_type, str)
        detail = ngettext(
            "{name} failed {count} time in a row{since}{error}.",
            "{name} failed {count} times in a row{since}{error}.",
            int(row.streak),
            name=names[row.deployment_id],
            since=_(" since {time}", time=format_time(begin, tz)) if begin is not None else "",
            error=_(", the last one with {error}", error=one_line(row.error_type)) if has_error else "",
        )
        if row.doubt == "unknown":
            detail = _(
                "{detail} There may be more: the outcome of the run before them is not known.", detail=detail
            )
        elif row.doubt == "assumed":
            detail = _(
                "{detail} There may be more: the run before them is assumed to have completed.", detail=detail
            )
        yield _Finding("failing", row.deployment_id, detail, begin, row.streak)


def _without_counters(active: pd.DataFrame, *, doubtful: float) -> Iterator[_Finding]:
    column, count = "stats_consecutive_failures", len(active)
    unknown = int(active[column].isna().sum()) if column in active.columns else count
    if not unknown or unknown <= doubtful * count:
        return
    detail = _(
        "Without runs it is not known whether {count} of {all} deployments are failing.",
        count=f"{unknown:,}",
        all=f"{count:,}",
    )
    if unknown == count:
        detail = _("Without runs it is not known which deployments are failing.")
    yield _Finding("incomplete_data", None, detail, None, 3)


def _paused(live: pd.DataFrame, names: dict[str, str], tz: str) -> Iterator[_Finding]:
    for row in _rows(live[is_paused_by_error(live)]):
        facts = {
            "name": names[row.id],
            "time": format_time(row.updated_at, tz),
            "error": one_line(row.paused_reason_error_type),
        }
        if pd.isna(row.updated_at) and pd.isna(row.paused_reason_error_type):
            detail = _("{name} is paused by error.", **facts)
        elif pd.isna(row.updated_at):
            detail = _("{name} is paused by error: {error}.", **facts)
        elif pd.isna(row.paused_reason_error_type):
            detail = _("{name} is paused by error since {time}.", **facts)
        else:
            detail = _("{name} is paused by error since {time}: {error}.", **facts)
        yield _Finding("paused_by_error", row.id, detail, row.updated_at)


def _missed(
    live: pd.DataFrame,
    runs: pd.DataFrame,
    names: dict[str, str],
    tz: str,
    *,
    snapshots: Sequence[pd.DataFrame] | None,
    since: datetime,
    until: datetime,
) -> Iterator[_Finding]:
    missed = missed_triggers(live, runs, since=since, until=until, snapshots=snapshots)
    missed = missed[missed["certain"]]
    for id_, times in missed.groupby("deployment_id", sort=False)["scheduled_at"]:
        first, last = times.iloc[0], times.iloc[-1]
        facts = {"name": names[str(id_)], "first": format_time(first, tz), "last": format_time(last, tz)}
        if len(times) == 1:
            detail = _("{name} missed the trigger of {first}.", **facts)
        else:
            detail = _("{name} missed {count} triggers from {first} to {last}.", **facts, count=f"{len(times):,}")
        yield _Finding("missed", str(id_), detail, first, len(times))


def _stuck(runs: pd.DataFrame, live: pd.DataFrame, names: dict[str, str], *, now: datetime) -> Iterator[_Finding]:
    if not runs["status"].isin(STATUSES["unfinished"]).any():
        return
    with_timeout = live if "config_timeout_ms" in live.columns else None
    unusual = unusual_runs(runs, with_timeout, now=now)
    stuck = unusual[unusual["kind"].eq("stuck") & is_in(unusual["deployment_id"], live["id"])]
    of_sessions = runs["id"][runs["status_from"].eq("session")] if "status_from" in runs else runs["id"][:0]
    stuck = stuck.assign(waiting=stuck["status"].eq("waiting"), by_session=is_in(stuck["run_id"], of_sessions))
    found = stuck.groupby("deployment_id", sort=False).agg(
        runs=("status", "size"),
        longest=("duration_ms", "max"),
        first=("triggered_at", "min"),
        waiting=("waiting", "sum"),
        by_session=("by_session", "any"),
    )
    for row in _rows(found):
        facts = {"name": names[row.Index], "length": format_milliseconds(row.longest)}
        if row.runs == 1:
            detail = _("{name}: a run has not ended after {length}.", **facts)
        else:
            count = f"{row.runs:,}"
            detail = _("{name}: {count} runs have not ended, the longest after {length}.", **facts, count=count)
        if row.waiting:
            detail = _("{detail} Waiting for a person: {count}.", detail=detail, count=f"{row.waiting:,}")
        if row.by_session:
            detail = _("{detail} A run may have ended earlier, if a person continued its session.", detail=detail)
        yield _Finding("stuck", row.Index, detail, row.first, row.runs)


def _schedules(lints: pd.DataFrame, active: pd.DataFrame, names: dict[str, str]) -> Iterator[_Finding]:
    for row in _rows(lints[is_in(lints["deployment_id"], active["id"])]):
        facts = {"name": names[row.deployment_id], "detail": one_line(row.detail)}
        if row.lint == "unreadable":
            sentence = _("{name} has a schedule that cannot be read: {detail}.", **facts)
            yield _Finding("unreadable_schedule", row.deployment_id, sentence)
        else:
            yield _Finding("never_fires", row.deployment_id, _("{name} never fires: {detail}.", **facts))


# -- warnings ----------------------------------------------------------------------------------------------------


def _worse(
    runs: pd.DataFrame,
    active: pd.DataFrame,
    names: dict[str, str],
    *,
    recent: Span,
    until: pd.Timestamp,
    doubtful: float,
) -> Iterator[_Finding]:
    with warnings.catch_warnings(action="ignore", category=UnknownOutcomesWarning):  # `_doubtful` says it
        compared = compare_periods(runs, recent=recent, until=until)
    length = parse_span(recent, name="recent")
    hidden = _more_assumed_before(runs, until, length, doubtful=doubtful)
    is_worse = compared["verdict"].eq("worse") & ~compared.index.isin(hidden)
    worse = compared[is_worse & is_in(compared.index, active["id"])]
    for row in _rows(worse):
        detail = _(
            "{name} failed {failed} of {decided} runs in the last {length} ({rate}), and {failed_before} of "
            "{decided_before} before ({rate_before}).",
            name=names[row.Index],
            failed=f"{row.recent_failed:,}",
            decided=f"{row.recent_decided:,}",
            length=format_duration(length),
            rate=format_percent(row.recent_rate),
            failed_before=f"{row.baseline_failed:,}",
            decided_before=f"{row.baseline_decided:,}",
            rate_before=format_percent(row.baseline_rate),
        )
        yield _Finding("worse", row.Index, detail, until - length, row.change_low)


def _more_assumed_before(
    runs: pd.DataFrame, until: pd.Timestamp, length: timedelta, *, doubtful: float
) -> pd.Index[str]:
    """Return the deployments of which more completed runs were assumed in the baseline, by more than `doubtful`.

    Failures of such runs are not seen, so the recent failure rate seems to be worse. The share is that of the
    completed runs: new failures do not change it.
    """
    completed = runs[runs["status"].isin(STATUSES["completed"])]
    age, assumed = until - completed["triggered_at"], is_assumed(completed).astype("float64")
    in_baseline, in_recent = age.between(length, 2 * length, "right"), age.between(timedelta(0), length, "right")
    before, after = (assumed[rows].groupby(completed["deployment_id"]).mean() for rows in (in_baseline, in_recent))
    more = before - after  # missing where a period has no completed run
    return more.index[more > doubtful]


def _over_budget(
    sessions: pd.DataFrame, live: pd.DataFrame, names: dict[str, str], *, share: float
) -> Iterator[_Finding]:
    if "budget_max_credit_cost" not in live.columns:
        return
    budgets = live.set_index("id")["budget_max_credit_cost"]
    costs = session_costs(sessions)
    high = costs["credits_p95"][is_in(costs.index, budgets.index)]
    used = high / budgets[budgets > 0].reindex(high.index)
    for id_, part in used[used > share * (1 + _TOLERANCE)].items():
        name, budget, credit = names[str(id_)], budgets[str(id_)], high[str(id_)]
        detail = _(
            "{name} uses {share} of its budget of {budget} credits at the 95th percentile of its sessions "
            "({credits}).",
            name=name,
            share=format_percent(part),
            budget=f"{budget:,.14g}",
            credits=format_credits(credit),
        )
        yield _Finding("over_budget", str(id_), detail, None, part)


def _incomplete(
    df: pd.DataFrame,
    runs: pd.DataFrame | None,
    sessions: pd.DataFrame | None,
    now: pd.Timestamp,
    tz: str,
) -> Iterator[_Finding]:
    for what, frame in ((_("deployments"), df), (_("runs"), runs), (_("sessions"), sessions)):
        if frame is None:
            continue
        if frame.attrs.get("complete") is False:
            detail = _("The {what} are not complete; load them again.", what=what)
            if frame is runs:
                detail = _("The runs are not complete, so that no missed trigger is certain; load them again.")
            yield _Finding("incomplete_data", None, detail, None, 2)
        at = fetched_at(frame)
        if at is not None and now - at > STALE:
            detail = _(
                "The {what} are of {time}, {length} ago; load them again.",
                what=what,
                time=format_time(at, tz),
                length=format_duration(now - at),
            )
            yield _Finding("incomplete_data", None, detail, at, 1)


def _doubtful(runs: pd.DataFrame, *, doubtful: float) -> Iterator[_Finding]:
    if runs.empty:
        return
    unknown = int(is_unknown(runs).sum())
    assumed = int(is_assumed(runs).sum())
    part = (assumed + unknown) / len(runs)
    if part > doubtful:
        facts = {
            "assumed": f"{assumed:,}",
            "unknown": f"{unknown:,}",
            "share": format_percent(part),
        }
        if runs.attrs.get("outcomes") == "events":
            detail = ngettext(
                "Of {count} run, {assumed} completed by assumption, and the outcome of {unknown} is unknown "
                "({share}); the service gave no session or no end for them.",
                "Of {count} runs, {assumed} completed by assumption, and the outcome of {unknown} is unknown "
                "({share}); the service gave no session or no end for them.",
                len(runs),
                **facts,
            )
        else:
            detail = ngettext(
                "Of {count} run, {assumed} completed by assumption, and the outcome of {unknown} is unknown "
                "({share}); load_runs(outcomes='events') reads how they ended.",
                "Of {count} runs, {assumed} completed by assumption, and the outcome of {unknown} is unknown "
                "({share}); load_runs(outcomes='events') reads how they ended.",
                len(runs),
                **facts,
            )
        yield _Finding("incomplete_data", None, detail, None, part)
