"""Measure how much disk the dated snapshots of a large fleet take in 400 days.

It writes one snapshot per day for as long as one base is used, and extrapolates to 400 days. Between two days,
every active deployment runs once: its counters, its last trigger and its next triggers change. One in a hundred is
edited, and one in a thousand is new. For the last 24 hours, of which every pull is kept, it measures one pull per
15 minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import timedelta
from typing import TYPE_CHECKING

from benchmarks.serve import NEWEST, Record, Values, deployment, stamp
from qoderdata import history
from qoderdata.decode import from_records
from qoderdata.files import Folder
from qoderdata.schema import DEPLOYMENTS

if TYPE_CHECKING:
    from qoderdata.settings import Account

IDENTITY: Account = {"base_url": "http://127.0.0.1", "workspace_id": None, "account": "a"}
PULLS_A_DAY = 96
MEGABYTE = 1e6


def simulate_runs(records: list[Record], values: Values, day: int, share: float) -> None:
    """Run a share of the deployments once more; edit some of these, and add new deployments."""
    pick = values.random
    for record in records:
        if record["status"] == "paused" or pick.random() > share:
            continue
        minute = timedelta(minutes=pick.randrange(1440))
        coming = [NEWEST + minute + timedelta(days=day + ahead) for ahead in range(1, 6)]
        stats, schedule = record["metadata"]["cas_config"]["stats"], record["schedule"]
        stats["total_runs"] += 1
        stats["total_failures"] += pick.random() < 0.1
        stats["last_triggered_at"] = stamp(
            NEWEST + minute + timedelta(days=day, microseconds=pick.randrange(10**9))
        )
        schedule["last_run_at"] = stats["last_triggered_at"]
        stats["next_trigger_at"] = stamp(coming[0])
        schedule["upcoming_runs_at"] = [stamp(at) for at in coming]
        if pick.random() < 1 / 100:
            record["initial_events"][0]["content"][0]["text"] = values.text(100)
            record["updated_at"] = stats["last_triggered_at"]
    records[:0] = [deployment(values, 0, "plain") for _ in records if pick.random() < share / 1000]


def main() -> None:
    """Print the sizes of a base, of one day and of 400 days."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=10_000)
    count = parser.parse_args().deployments
    values = Values(7)
    records = [deployment(values, number, "plain") for number in range(count)]
    base_days = history.BASE_AGE.days
    with tempfile.TemporaryDirectory() as folder:
        series = history.series(Folder(folder), IDENTITY, include_archived=True)
        for day in range(base_days):
            simulate_runs(records, values, day, 1.0)
            history.write(series, from_records(records, DEPLOYMENTS), NEWEST + timedelta(days=day))
        days = [file.size for file in history.files_of(series)]
        before = sum(info.size for info in Folder(folder).parquet_files())
        base = before - sum(days)
        for pull in range(4):
            simulate_runs(records, values, base_days, 1 / PULLS_A_DAY)
            history.write(
                series,
                from_records(records, DEPLOYMENTS),
                NEWEST + timedelta(days=base_days - 1, minutes=15 * (pull + 1)),
            )
        pulled = (sum(info.size for info in Folder(folder).parquet_files()) - before) / 4
    bases = history.KEEP_DAILY_FOR.days / base_days + 1
    kept = history.KEEP_DAILY_FOR.days * sum(days) / len(days) + bases * base
    print(
        f"{count:,} deployments: a base {base / MEGABYTE:.2f} MB, a day {sum(days) / len(days) / MEGABYTE:.3f} MB"
    )
    print(f"{history.KEEP_DAILY_FOR.days} days: {kept / MEGABYTE:.0f} MB")
    print(f"and {PULLS_A_DAY} pulls of the last day: {PULLS_A_DAY * pulled / MEGABYTE:.0f} MB")


if __name__ == "__main__":
    main()
