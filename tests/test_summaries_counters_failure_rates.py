"""Tests of `failure_rates`, the rates of lifetime counters."""

from __future__ import annotations

import contextlib
import math
from functools import cache
from random import Random
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import binomtest

from qoderdata import decode, frames, schema
from qoderdata.errors import DataQualityWarning, MissingColumnError
from qoderdata.sandbox import Sandbox
from qoderdata.summaries import failure_rates
from tests.summary_frames import WILSON_SQL, Z_SQL, records

COUNTERS = ["stats_total_runs", "stats_total_failures", "stats_consecutive_failures"]


def deployments(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Build a frame from (id, agent_id, runs, failures, streak)."""
    records = [
        {"id": id_, "name": f"name of {id_}", "agent_id": agent, **dict(zip(COUNTERS, counters, strict=True))}
        for id_, agent, *counters in rows
    ]
    return frames.to_pandas(pa.Table.from_pylist(records, schema.DEPLOYMENTS.arrow), schema.DEPLOYMENTS)


@pytest.mark.parametrize(
    ("runs", "failures", "streak", "rate", "low", "high", "failing", "never_run"),
    [
        (10, 2, 1, 0.2, 0.056682, 0.509838, 1, 0), (10, 0, 0, 0.0, 0.0, 0.277533, 0, 0),
        (3, 3, 3, 1.0, 0.438503, 1.0, 1, 0), (0, 0, 0, None, None, None, 0, 1),
        (None, None, None, None, None, None, 0, 0), (2**53 + 1, 0, 0, 0.0, 0.0, 4.26e-16, 0, 0),
    ],
    ids=["some failed", "none failed", "all failed", "never ran", "no counters", "runs above 2**53"],
)  # fmt: skip
def test_counts_rate_and_interval_of_one_deployment(  # noqa: PLR0917 one column of the table each
    runs: int | None,
    failures: int | None,
    streak: int | None,
    rate: float | None,
    low: float | None,
    high: float | None,
    failing: int,
    never_run: int,
) -> None:
    """Without runs the rate is missing; without counters the counts are missing, not 0."""
    no_counters = pytest.warns(DataQualityWarning, match="fill_counters")
    with contextlib.nullcontext() if runs is not None else no_counters:
        row = failure_rates(deployments(("dep_1", "agent_1", runs, failures, streak))).loc["dep_1"]
    assert row["name"] == "name of dep_1"
    counts = ["deployments", "total_runs", "total_failures", "consecutive_failures", "failing", "never_run"]
    got = [None if pd.isna(row[name]) else row[name] for name in counts]
    assert got == [1, runs, failures, streak, failing, never_run]
    for name, expected in [("failure_rate", rate), ("ci_low", low), ("ci_high", high)]:
        assert row[name] == pytest.approx(math.nan if expected is None else expected, nan_ok=True, abs=1e-6), name


@pytest.mark.parametrize(
    "counters",
    [(-1, 0, 0), (5, -1, 0), (5, 6, 0), (5, 1, -1)],
    ids=["negative runs", "negative failures", "more failures than runs", "negative streak"],
)
def test_impossible_counters_warn_and_are_left_out(counters: tuple[int, int, int]) -> None:
    """They give no rate, are not in the sums of their group, and the warning names the deployment."""
    df = deployments(("dep_bad", "a", *counters), ("dep_good", "a", 10, 1, 1))
    with pytest.warns(DataQualityWarning, match=r"^1 deployment has .*: dep_bad$"):
        alone = failure_rates(df).loc["dep_bad"]
    assert alone["deployments"] == 1
    assert alone[["total_runs", "failure_rate", "ci_low", "ci_high", "consecutive_failures"]].isna().all()
    with pytest.warns(DataQualityWarning):
        pooled = failure_rates(df, by=None).iloc[0]
    assert pooled[["deployments", "total_runs", "total_failures", "failing"]].tolist() == [2, 10, 1, 1]


def test_many_impossible_counters_give_one_warning_with_the_first_ids() -> None:
    """Ids come from the service: they may hold an escape sequence of a terminal."""
    ids = ["dep\x1b[31m", *(f"dep_{i}" for i in range(1, 12))]
    df = deployments(*((id_, "a", 1, 2, 0) for id_ in ids))
    with pytest.warns(DataQualityWarning, match=r"^12 deployments .*: dep�\[31m, dep_1, .* and 2 more$") as caught:
        failure_rates(df)
    assert len(caught) == 1
    with pytest.warns(DataQualityWarning, match="^12 deployments .*: –$"):
        failure_rates(df.drop(columns="id"), by="agent_id")


def test_a_missing_key_is_its_own_group() -> None:
    rates = failure_rates(
        deployments(("d1", None, 10, 5, 0), ("d2", "a", 10, 1, 0), ("d3", None, 10, 4, 2)), by="agent_id"
    )
    assert rates.index.fillna("missing").tolist() == ["missing", "a"]
    assert rates[["deployments", "total_runs", "total_failures"]].to_numpy().tolist() == [[2, 20, 9], [1, 10, 1]]


def test_group_rate_is_computed_from_summed_counters() -> None:
    """1 of 2 and 0 of 998 runs failed: the rate is 0.1 %, not the mean of the two rates, 25 %."""
    rates = failure_rates(deployments(("d1", "a", 2, 1, 1), ("d2", "a", 998, 0, 0)), by="agent_id")
    assert rates["failure_rate"].tolist() == [0.001]


def test_group_keys_are_the_index() -> None:
    df = deployments(("d1", "a", 2, 1, 1))
    assert failure_rates(df).index.names == ["id"]
    assert failure_rates(df).columns[0] == "name"
    assert failure_rates(df, by=["id"]).columns[0] == "name"
    several = failure_rates(df, by=["agent_id", "status"])
    assert isinstance(several.index, pd.MultiIndex)
    assert several.index.names == ["agent_id", "status"]
    assert failure_rates(df, by=None).index.tolist() == [0]


def test_by_may_be_a_column_of_any_dtype() -> None:
    """Group by a number, a boolean, a category and a time, as `expand_metadata` may add them."""
    df = deployments(("d1", "a", 2, 1, 1), ("d2", "a", 2, 0, 0))
    for values in (
        [1.5, 2.5],
        [True, False],
        pd.Categorical(["x", "y"]),
        pd.to_datetime(["2026-01-01", "2026-01-02"], utc=True),
    ):
        rates = failure_rates(df.assign(team=values), by="team")
        assert rates["failure_rate"].tolist() == [0.5, 0.0]


def test_rows_are_sorted_worst_first_missing_last_then_by_key() -> None:
    df = deployments(
        ("d5", "a", None, None, None), ("d4", "a", 0, 0, 0), ("d2", "a", 4, 2, 0),
        ("d3", "a", 4, 2, 0), ("d1", "a", 2, 1, 0), ("d0", "a", 9, 0, 0),
    )  # fmt: skip
    assert failure_rates(df).index.tolist() == ["d2", "d3", "d1", "d0", "d4", "d5"]


def test_dtypes_of_counts_and_rates() -> None:
    counts = ["deployments", "total_runs", "total_failures", "consecutive_failures", "failing", "never_run"]
    rates = failure_rates(deployments(("d1", "a", 2, 1, 1)))
    assert {str(rates[name].dtype) for name in counts} == {"Int64"}
    assert {str(rates[name].dtype) for name in ("failure_rate", "ci_low", "ci_high")} == {"float64"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"by": "team"}, MissingColumnError, "deployments frame has no column 'team'; it has: id, name"),
        (
            {"by": "team"},
            MissingColumnError,
            r"with_names adds .* metadata=\['team'\] gives the column 'metadata_team'",
        ),
        (
            {"by": "deployment_id"},
            MissingColumnError,
            "'deployment_id'.*; pass the frame that load_deployments returns",
        ),
        ({"by": []}, ValueError, r"by=\[\] must be a column"),
        ({"by": ["id", "id"]}, ValueError, "different columns"),
        ({"by": 3}, ValueError, "by=3 must be a column"),
        ({"by": pd.Series(["red", "red"])}, ValueError, r"by must name .* a Series; add it: frame\.assign\("),
        ({"by": "failing"}, ValueError, "'failing' is a column of the result"),
        ({"confidence": 1}, ValueError, "confidence=1 must lie between 0 and 1"),
        ({"confidence": 0}, ValueError, "confidence=0 "),
        ({"confidence": True}, ValueError, "confidence=True"),
        (
            {"confidence": "0.95"},
            ValueError,
            "confidence='0.95' must lie between 0 and 1, such as 0.95; it is text, not a number",
        ),
    ],
)
def test_invalid_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        failure_rates(deployments(("d1", "a", 2, 1, 1)).assign(failing=1), **options)


def test_the_column_of_names_is_needed_only_by_id() -> None:
    df = deployments(("d1", "a", 2, 1, 1)).drop(columns="name")
    assert failure_rates(df, by=None)["total_runs"].tolist() == [2]
    with pytest.raises(MissingColumnError, match="deployments frame has no column 'name'"):
        failure_rates(df)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.99, 0.9999])
def test_the_interval_is_a_wilson_interval(confidence: float) -> None:
    """Compare with SciPy; the interval contains the rate and lies between 0 and 1."""
    draw = Random(confidence)  # noqa: S311 nothing secret
    some = [10 ** draw.randrange(7) for _ in range(60)]
    pairs = [(1, 0), (1, 1), (10**6, 1), (10**6, 10**6), *((trials, draw.randint(0, trials)) for trials in some)]
    df = deployments(*((f"d{number}", "a", trials, hits, 0) for number, (trials, hits) in enumerate(pairs)))
    rates = failure_rates(df, confidence=confidence)
    assert len(rates) == len(pairs)
    for row in records(rates):
        trials, hits = pairs[int(row["id"][1:])]
        expected = binomtest(hits, trials).proportion_ci(confidence, method="wilson")
        assert row["ci_low"] == pytest.approx(expected.low, abs=1e-12)
        assert row["ci_high"] == pytest.approx(expected.high, abs=1e-12)
        assert 0 <= row["ci_low"] <= row["failure_rate"] <= row["ci_high"] <= 1


@pytest.mark.filterwarnings("ignore::qoderdata.errors.DataQualityWarning")
@pytest.mark.parametrize("seed", range(4))
def test_group_figures_equal_brute_force(seed: int) -> None:
    """Use 100 groups of 1 to 6 rows."""
    draw = Random(seed)  # noqa: S311 nothing secret
    rows: list[tuple[str | None, list[int | None]]] = [
        (agent, [draw.choice([None, *range(-1, 7)]) for _ in COUNTERS])
        for agent in [None, *(f"a{number}" for number in range(99))]
        for _ in range(draw.randint(1, 6))
    ]
    draw.shuffle(rows)
    rates = failure_rates(
        deployments(*((f"d{i}", agent, *row) for i, (agent, row) in enumerate(rows))), "agent_id"
    )
    groups: dict[str | None, list[list[int | None]]] = {}
    for agent, counters in rows:
        groups.setdefault(agent, []).append(counters)
    assert len(rates) == len(groups)
    for row in records(rates):
        members = groups[row["agent_id"]]
        possible = [
            (runs, failures, streak)
            for runs, failures, streak in members
            if not (
                min((value for value in (runs, failures, streak) if value is not None), default=0) < 0
                or (runs is not None and failures is not None and failures > runs)
            )
        ]
        known = [(runs, failures) for runs, failures, _ in possible if runs is not None and failures is not None]
        total, failed = sum(runs for runs, _ in known), sum(failures for _, failures in known)
        streaks = [streak for *_, streak in possible if streak is not None]
        assert row["deployments"] == len(members)
        assert row["failing"] == sum(streak > 0 for streak in streaks)
        assert row["never_run"] == sum(runs == 0 for runs, _ in known)
        assert row["total_runs"] == (total if known else None)
        assert row["total_failures"] == (failed if known else None)
        assert row["consecutive_failures"] == max(streaks, default=None)
        assert row["failure_rate"] == (failed / total if total else None)


@cache
def deployments_of_a_sandbox() -> pa.Table:
    with Sandbox(deployments=120, seed=7) as sandbox:
        return decode.from_records(sandbox.deployments, schema.DEPLOYMENTS)


@pytest.mark.parametrize("by", ["id", "agent_id", "environment_id", "status"])
def test_all_figures_equal_those_of_sql(by: str) -> None:
    """Use a sandbox account, as the Arrow table that is written to Parquet."""
    deployed = deployments_of_a_sandbox()
    counts = ["deployments", "total_runs", "total_failures", "consecutive_failures", "failing", "never_run"]
    expected = duckdb.execute(
        f"""
        SELECT {by}, {", ".join(counts)}, p, {WILSON_SQL} FROM (
            SELECT {by}, count(*) AS deployments, sum(stats_total_runs)::BIGINT AS total_runs,
                sum(stats_total_failures)::BIGINT AS total_failures,
                max(stats_consecutive_failures) AS consecutive_failures,
                count(*) FILTER (stats_consecutive_failures > 0) AS failing,
                count(*) FILTER (stats_total_runs = 0) AS never_run,
                nullif(total_runs, 0) AS n, total_failures / n AS p, {Z_SQL}
            FROM deployed GROUP BY ALL)
        ORDER BY p DESC NULLS LAST, total_failures DESC NULLS LAST, {by} NULLS LAST
        """  # noqa: S608 a column name of this test
    ).fetchall()
    got = records(failure_rates(frames.to_pandas(deployed, schema.DEPLOYMENTS), by=by))
    assert len(got) == len(expected)
    for row, expected_row in zip(got, expected, strict=True):
        assert [row[by], *(row[name] for name in counts)] == list(expected_row[:7])
        figures = [row["failure_rate"], row["ci_low"], row["ci_high"]]
        assert figures == [
            None if value is None else pytest.approx(value, rel=1e-12, abs=1e-15) for value in expected_row[7:]
        ]


@pytest.mark.parametrize("counters", [[2**63 - 1, 1], [2**62, 2**62], [2**63 - 1] * 5])
def test_a_total_beyond_64_bits_is_missing(counters: list[int]) -> None:
    rows = [(f"d{i}", "agent_1", runs, 1, 0) for i, runs in enumerate(counters)]
    df = deployments(*rows, ("d9", "agent_2", 10, 5, 0))
    with pytest.warns(DataQualityWarning, match="counters of 1 group add up to more than 64 bits"):
        rates = failure_rates(df, "agent_id")
    assert rates["total_runs"].isna().tolist() == [False, True]
    assert rates["failure_rate"].isna().tolist() == [False, True]
    assert rates["total_failures"].tolist() == [5, len(counters)]


def test_a_total_beyond_64_bits_gives_no_numpy_warning() -> None:
    """The sum overflows to less than the failures, with which NumPy must not warn."""
    failures = [2**62, 2**61, 0, 0, 0]
    df = deployments(*((f"d{i}", "agent_1", 2**62, failed, 0) for i, failed in enumerate(failures)))
    with pytest.warns(DataQualityWarning, match="more than 64 bits"):
        assert failure_rates(df, None)["failure_rate"].isna().all()


def test_totals_up_to_64_bits_are_exact() -> None:
    draw = Random(7)  # noqa: S311 nothing secret
    groups = {
        f"a{number:02}": [draw.randrange(2**40) for _ in range(draw.randrange(9))]
        + [2**62]
        + [2**60] * (number % 4)
        for number in range(40)
    }
    rows = [(f"d{agent}{i}", agent, one, one, 0) for agent, runs in groups.items() for i, one in enumerate(runs)]
    rates = failure_rates(deployments(*rows), "agent_id").sort_index()
    sums = [sum(runs) for runs in groups.values()]
    assert rates["total_runs"].tolist() == rates["total_failures"].tolist() == sums
