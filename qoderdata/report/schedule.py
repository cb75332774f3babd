"""The sections on schedules: what fires next, the load of the week, and what is odd about a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qoderdata.cron import CronError, parse
from qoderdata.plots import plot_next_triggers, plot_trigger_load
from qoderdata.report.markup import Child, element
from qoderdata.report.page import Section
from qoderdata.report.pictures import picture
from qoderdata.report.tables import MOST_ROWS, Column, nothing, records, sentence, table
from qoderdata.timelines import schedule_lints, trigger_load
from qoderdata.words import moment

if TYPE_CHECKING:
    import pandas as pd

    from qoderdata.report.material import Material

_LANE_INCHES, _MARGIN_INCHES, _FEWEST_LANES = 0.25, 1.0, 3
_LOAD_INCHES = 3.4
_BUSIEST = 5
_IN_WORDS = 5
#: What keeps a schedule from firing, then what makes it fire at other times than meant.
_WORST_LINTS = ("unreadable", "never_fires", "dst_gap", "dst_repeat", "inverted_zone", "both_day_fields")


def next_triggers(material: Material) -> Section:
    """Show what fires within the horizon: when each deployment fires first, and how often."""
    title = f"What fires in the next {material.ahead}"
    triggers = material.triggers
    if triggers.empty:
        return Section("next", title, [nothing("Nothing fires in this time.")])
    firing = _by_deployment(triggers)
    columns = [
        Column("Deployment", lambda row: material.who(row.deployment_id)),
        Column("First", lambda row: material.time(row.trigger_at)),
        Column("Times", lambda row: f"{row.times:,}", number=True),
        Column(
            "Schedule", lambda row: _schedule(str(row.schedule_expression), str(row.schedule_timezone)), wide=True
        ),
    ]
    lanes = min(len(firing), MOST_ROWS)
    soonest = "; ".join(
        f"{material.name(row.deployment_id)} at {moment(row.trigger_at, material.tz)}"
        for row in records(firing.head(_IN_WORDS))
    )
    alt = (
        f"Timeline of {len(triggers):,} triggers of {len(firing):,} deployments from "
        f"{moment(material.start, material.tz)} on; one lane each for the {lanes} that fire soonest: {soonest}."
    )
    return Section(
        "next",
        title,
        [
            sentence(
                f"{len(triggers):,} triggers of {len(firing):,} deployments, from "
                f"{moment(material.start, material.tz)} on. Paused and archived deployments do not fire."
            ),
            picture(
                lambda ax: plot_next_triggers(triggers, ax=ax, top=MOST_ROWS, labels=material.labels),
                alt=alt,
                height=_MARGIN_INCHES + _LANE_INCHES * max(lanes, _FEWEST_LANES),
            ),
            table(firing, columns, caption="What fires next, soonest first", rows="deployments"),
        ],
        count=f"{len(triggers):,}",
    )


def load(material: Material) -> Section:
    """Show how the triggers of the week spread over its hours."""
    title = "Load of the week"
    week = material.week
    if week.empty:
        return Section("load", title, [nothing("Nothing fires in the next seven days.")])
    hours = trigger_load(week, freq="1h")
    busiest = hours[hours["triggers"] > 0].sort_values(["triggers", "window"], ascending=[False, True])
    top = busiest.head(_BUSIEST)
    words = "; ".join(f"{moment(row.window, material.tz)} with {row.triggers:,}" for row in records(top))
    columns = [
        Column("Hour from", lambda row: material.time(row.window)),
        Column("Triggers", lambda row: f"{row.triggers:,}", number=True),
        Column("Deployments", lambda row: f"{row.deployments:,}", number=True),
        Column("At minute 0", lambda row: f"{row.at_minute_0:,}", number=True),
    ]
    return Section(
        "load",
        title,
        [
            sentence(
                f"{len(week):,} triggers by weekday and hour, in {material.tz}; and of those of the busiest "
                "hours, how many start in the very first minute."
            ),
            picture(
                lambda ax: plot_trigger_load(week, ax=ax),
                alt=f"Heatmap of {len(week):,} triggers by weekday and hour. Busiest hours: {words}.",
                height=_LOAD_INCHES,
            ),
            table(top, columns, caption="The busiest hours", rows="hours"),
        ],
    )


def lints(material: Material) -> Section:
    """Show what may surprise about a schedule, the worst first."""
    found = schedule_lints(material.live, start=material.start)
    title = "Schedules to look at"
    if found.empty:
        return Section("lints", title, [nothing("No schedule has anything odd about it.")])
    rank = {lint: number for number, lint in enumerate(_WORST_LINTS)}
    found = found.assign(rank=found["lint"].map(rank).fillna(len(rank))).sort_values(
        ["rank", "lint"], kind="stable"
    )
    counts = found["lint"].value_counts(sort=False)
    words = ", ".join(f"{_lint(str(lint))} {count:,}" for lint, count in counts.items())
    columns = [
        Column("Deployment", lambda row: material.who(row.deployment_id)),
        Column("Finding", lambda row: element("span", _lint(row.lint), class_="badge calm")),
        Column("What it means", lambda row: row.detail, wide=True),
    ]
    return Section(
        "lints",
        title,
        [
            sentence(f"Schedules that may not do what was meant: {words}."),
            table(found, columns, caption="What may surprise about schedules", rows="findings"),
        ],
        count=f"{len(found):,}",
    )


def _lint(name: str) -> str:
    return name.replace("_", " ").replace("dst", "DST")


def _by_deployment(triggers: pd.DataFrame) -> pd.DataFrame:
    """Give the first trigger of each deployment, soonest first, with the number of all of its."""
    first = triggers.drop_duplicates("deployment_id").astype({"deployment_id": "str"})
    times = triggers["deployment_id"].value_counts()
    times.index = times.index.astype("str")
    return first.assign(times=first["deployment_id"].map(times))


def _schedule(expression: str, zone: str) -> Child:
    """Show a schedule in words, which name its zone, and as it is written."""
    try:
        words = parse(expression, zone).describe()
    except CronError:  # the service may know more than we do
        words = zone
    return [words, " ", element("code", expression, class_="range minor")]
