"""The top and the end of the page: headline numbers, how old the data is, whether it is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from qoderdata.report.markup import Child, Markup, element
from qoderdata.report.material import fetched_at
from qoderdata.report.page import Section
from qoderdata.report.tables import records, sentence
from qoderdata.summaries import failure_rates
from qoderdata.words import NOTHING, duration, interval, moment, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qoderdata.report.material import Material

_OLD = pd.Timedelta("1D")
_COMPLETE: dict[object, str] = {True: "complete", False: "not complete"}


def headline(material: Material) -> list[Child]:
    """Show title, warnings about the data, and the headline numbers."""
    return [
        element("p", "Qoder Cloud", class_="kicker"),
        element("h1", "Scheduled agents"),
        element("p", *_as_of(material), class_="as-of"),
        *_cautions(material),
        element("dl", _tiles(material), class_="tiles"),
    ]


def _as_of(material: Material) -> list[Child]:
    age = _age(material.deployments, material)
    words = f"The data was {age}." if age else "When the data was fetched is not known."
    return ["As of ", material.time(material.start), ". ", words]


def _age(frame: pd.DataFrame, material: Material) -> str | None:
    at = fetched_at(frame)
    if at is None:
        return None
    if at > material.start:
        return f"fetched on {moment(at, material.tz)}"
    return f"fetched {duration(material.start - at)} before"


def _cautions(material: Material) -> list[Child]:
    """Warn of what makes the numbers less than they seem."""
    cautions: list[Child] = []
    for words, frame in (("deployments", material.deployments), ("runs", material.runs)):
        if frame is None:
            continue
        at = fetched_at(frame)
        if frame.attrs.get("complete") is False:
            cautions.append(f"The {words} are not complete: a pull was cut short. Numbers here are too small.")
        if at is not None and material.start - at > _OLD:
            cautions.append(f"The {words} are {duration(material.start - at)} old.")
    return [element("p", caution, class_="caution", role="note") for caution in cautions]


def _tiles(material: Material) -> list[Markup]:
    live = material.live
    paused = live["status"] == "paused"
    by_error = int((live["paused_reason_type"] == "error").sum())
    streaks = live["stats_consecutive_failures"].fillna(0)
    failing = int((streaks > 0).sum())
    archived = len(material.deployments) - len(live)
    total = failure_rates(material.deployments, by=None)
    firing = material.triggers["deployment_id"].nunique()
    tiles = [
        _tile(
            "Deployments",
            f"{len(material.deployments):,}",
            f"{int((~paused).sum()):,} active, {int(paused.sum()):,} paused, {archived:,} archived",
        ),
        *_counters(total),
        _tile(
            "Failing now",
            f"{failing:,}",
            f"longest streak {int(streaks.max()):,}" if failing else "nobody",
            bad=failing > 0,
        ),
        _tile(
            "Paused by error",
            f"{by_error:,}",
            f"{int(paused.sum()) - by_error:,} more are paused",
            bad=by_error > 0,
        ),
        _tile(
            f"Next {material.ahead}",
            f"{len(material.triggers):,}",
            f"triggers of {firing:,} deployments",
        ),
    ]
    if material.missed is not None:
        certain = int(material.missed["certain"].sum())
        doubtful = len(material.missed) - certain
        note = f"{doubtful:,} more are in doubt" if doubtful else "none in doubt"
        tiles.append(_tile("Missed", f"{certain:,}", note, bad=certain > 0))
    return tiles


def _counters(total: pd.DataFrame) -> list[Markup]:
    """Show the lifetime counters of all; an empty account has none."""
    if total.empty:
        return [_tile("Runs", "0", ""), _tile("Failure rate", NOTHING, "no runs"), _tile("Never run", "0", "")]
    (row,) = records(total)
    return [
        _tile("Runs", f"{row.total_runs:,}", f"{row.total_failures:,} failed"),
        _tile("Failure rate", percent(row.failure_rate), f"95 % interval {interval(row.ci_low, row.ci_high)}"),
        _tile("Never run", f"{row.never_run:,}", f"of {row.deployments:,} deployments"),
    ]


def _tile(words: str, number: str, note: str, *, bad: bool = False) -> Markup:
    return element(
        "div",
        element("dt", words),
        element("dd", number, class_="figure bad" if bad else "figure"),
        element("dd", note, class_="note"),
    )


def about(material: Material, warnings: Sequence[str]) -> Section:
    """Say where the data comes from, how old it is, whether it is complete, and what the numbers mean."""
    frames = [("Deployments", material.deployments)]
    if material.runs is not None:
        frames.append(("Runs", material.runs))
    blocks: list[Child] = [
        element("dl", [_source(words, frame, material) for words, frame in frames], class_="sources")
    ]
    if warnings:
        blocks.append(element("p", "While this was made:", class_="about"))
        blocks.append(element("ul", [element("li", warning) for warning in warnings], class_="warnings"))
    blocks.append(
        sentence(
            "Lifetime numbers are the service's own counters, of archived deployments too where they are given. "
            "There a rate is failed by all runs; where it is made from runs, failed by completed and failed ones. "
            "Intervals are Wilson's: of 100 such intervals about 95 hold the true rate. A dash stands where there "
            f"is no value, which is not zero. Times are in {material.tz} unless another zone stands beside them."
        )
    )
    return Section("about", "About the data", blocks)


def _source(words: str, frame: pd.DataFrame, material: Material) -> list[Child]:
    attrs = frame.attrs
    complete = _COMPLETE.get(attrs.get("complete"), "not known whether complete")
    parts = [f"{len(frame):,} rows", complete, _age(frame, material) or "not known when fetched"]
    if attrs.get("source"):
        parts.append(f"from {attrs['source']}")
    if attrs.get("from_cache"):
        parts.append("kept in the cache since")
    return [element("dt", words), element("dd", ", ".join(parts) + ".")]
