"""Tests of `with_names`: names are joined to ids on every engine, and summaries keep them."""

from __future__ import annotations

import sys
import warnings
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

import qoderdata as qd
from qoderdata.errors import DataQualityWarning, FrameTypeError, MissingColumnError
from qoderdata.frames import with_names
from qoderdata.sandbox import Sandbox
from tests.engine_frames import ENGINES, computed, opened

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2026, 6, 1, tzinfo=UTC)


def stamp(hours: float) -> str:
    return f"{START + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"


def agent(number: int) -> str:
    return f"agent_{number % 3}"


DEPLOYMENTS = qd.flatten_deployments(
    [
        {
            "id": f"dep_{number}", "name": f"nächtlich {number}", "agent": {"id": agent(number)},
            "environment_id": f"env_{number % 2}", "created_at": stamp(-number),
            "schedule": {"expression": "0 */6 * * *", "timezone": "UTC"},
            "metadata": {
                "team": f"team {number % 2}", "cost": number,
                "cas_config": {
                    "stats": {"total_runs": 9, "total_failures": number, "consecutive_failures": 0},
                    "config": {"timeout_ms": 500},
                },
            },
        }
        for number in range(4)
    ]
)  # fmt: skip
AGENTS = pd.DataFrame({"id": ["agent_0", "agent_1"], "name": ["scribe", "clerk"]}, dtype="str")
ENVIRONMENTS = pd.DataFrame({"id": ["env_0", "env_1"], "name": ["cloud", "own"]}, dtype="str")
#: Every fifth run has an unknown deployment or none.
RUNS = qd.flatten_runs(
    [
        {
            "id": f"drun_{number:02}", "deployment_id": f"dep_{number % 4}" if number % 5 else "dep_gone",
            "agent": {"id": agent(number)}, "status": ["completed", "failed", "completed"][number % 3],
            "trigger_context": {"type": "schedule"}, "triggered_at": stamp(7 * number),
            "created_at": stamp(7 * number), "duration_ms": 1000 + 500 * number,
            "cas_run_extras": {"attempt": 1, "started_at": stamp(7 * number + 0.1)},
            "error": {"type": "timeout", "message": f"no answer in {number} s"} if number % 3 == 1 else None,
        }
        for number in range(60)
    ]
)  # fmt: skip
RUNS.loc[RUNS.index[4::15], "deployment_id"] = None
SESSIONS = qd.flatten_sessions(
    [
        {
            "id": f"sess_{number:02}", "deployment_id": f"dep_{number % 4}", "environment_id": f"env_{number % 2}",
            "agent": {"id": agent(number), "name": None if number % 5 == 0 else f"name at {number:02}"},
            "created_at": stamp(number), "usage": {"total_credits": number / 4},
        }
        for number in range(20)
    ]
)  # fmt: skip
TRIGGERS = qd.next_triggers(DEPLOYMENTS, "1D", start=START)
MISSED = qd.missed_triggers(DEPLOYMENTS, RUNS, since=START, until=START + timedelta(days=2))


def to_pandas(frame: Any) -> pd.DataFrame:  # noqa: ANN401 a frame of any engine
    """Collect a frame of any engine as a pandas frame, with the keys first."""
    if isinstance(frame, dd.DataFrame):
        return pd.DataFrame(frame.compute())  # type: ignore[no-untyped-call] # Dask has no types
    if isinstance(frame, duckdb.DuckDBPyRelation):
        frame = frame.to_arrow_table()
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        frame = frame.with_columns(pl.col(pl.Categorical).cast(pl.String)).to_arrow()
    return pd.DataFrame(frame if isinstance(frame, pd.DataFrame) else frame.to_pandas())


def names_of_ids(ids: Any, names: dict[str, str]) -> list[str | None]:  # noqa: ANN401 a column or level
    return [names.get(one) if isinstance(one, str) else None for one in ids]


def to_list(column: pd.Series[Any]) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in column]


NAME_OF = dict(zip(DEPLOYMENTS["id"], DEPLOYMENTS["name"], strict=True))
AGENT_OF = dict(zip(AGENTS["id"], AGENTS["name"], strict=True))
ENVIRONMENT_OF = dict(zip(ENVIRONMENTS["id"], ENVIRONMENTS["name"], strict=True))


class TestPandas:
    def test_names_are_added_next_to_ids_and_metadata_at_the_end(self) -> None:
        before = RUNS.copy(deep=True)
        named = with_names(RUNS, DEPLOYMENTS, agents=AGENTS, metadata=["team", "cost"])
        columns = list(RUNS.columns)
        columns.insert(columns.index("deployment_id") + 1, "deployment_name")
        columns.insert(columns.index("agent_id") + 1, "agent_name")
        assert list(named.columns) == [*columns, "metadata_team", "metadata_cost"]
        assert to_list(named["deployment_name"]) == names_of_ids(RUNS["deployment_id"], NAME_OF)
        assert to_list(named["agent_name"]) == names_of_ids(RUNS["agent_id"], AGENT_OF)
        teams = {f"dep_{number}": f"team {number % 2}" for number in range(4)}
        assert to_list(named["metadata_team"]) == names_of_ids(RUNS["deployment_id"], teams)
        assert set(named["metadata_cost"].dropna()) == {"0", "1", "2", "3"}
        new = [name for name in named.columns if name not in RUNS.columns]
        assert {str(named[name].dtype) for name in new} == {"str"}
        pd.testing.assert_frame_equal(named[RUNS.columns], RUNS)
        pd.testing.assert_frame_equal(RUNS, before)

    @pytest.mark.parametrize(
        "frame", [RUNS, SESSIONS, TRIGGERS, MISSED], ids=["runs", "sessions", "triggers", "missed"]
    )
    def test_every_kind_of_frame_gets_names_and_keeps_its_rows(self, frame: pd.DataFrame) -> None:
        named = with_names(frame, DEPLOYMENTS, agents=AGENTS, environments=ENVIRONMENTS, metadata="team")
        for key, names in (
            ("deployment_id", NAME_OF), ("agent_id", AGENT_OF), ("environment_id", ENVIRONMENT_OF),
        ):  # fmt: skip
            if key in frame.columns and not (key == "agent_id" and "agent_name" in frame.columns):
                assert to_list(named[key.replace("_id", "_name")]) == names_of_ids(frame[key], names)
        assert "metadata_team" in named.columns
        empty = with_names(frame[:0], DEPLOYMENTS, agents=AGENTS, environments=ENVIRONMENTS, metadata="team")
        pd.testing.assert_frame_equal(empty, named[:0])

    def test_names_of_index_levels_become_the_first_columns(self) -> None:
        rates = qd.run_failure_rates(RUNS, by=["agent_id", "deployment_id"])
        named = with_names(rates, DEPLOYMENTS, agents=AGENTS, metadata="team")
        assert list(named.columns) == ["deployment_name", "agent_name", *rates.columns, "metadata_team"]
        assert to_list(named["deployment_name"]) == names_of_ids(
            rates.index.get_level_values("deployment_id"), NAME_OF
        )
        assert to_list(named["agent_name"]) == names_of_ids(rates.index.get_level_values("agent_id"), AGENT_OF)
        pd.testing.assert_index_equal(named.index, rates.index)

    def test_deployments_frame_gets_names_by_its_own_ids(self) -> None:
        rates = qd.failure_rates(DEPLOYMENTS)
        assert list(with_names(rates, DEPLOYMENTS, metadata="team").columns) == [*rates.columns, "metadata_team"]
        named = with_names(DEPLOYMENTS, agents=AGENTS, environments=ENVIRONMENTS, metadata=["team"])
        assert to_list(named["metadata_team"]) == [f"team {number % 2}" for number in range(4)]
        assert to_list(named["environment_name"]) == names_of_ids(DEPLOYMENTS["environment_id"], ENVIRONMENT_OF)
        assert to_list(with_names(DEPLOYMENTS[["id"]], DEPLOYMENTS)["deployment_name"]) == to_list(
            DEPLOYMENTS["name"]
        )

    def test_agent_names_from_sessions_are_the_newest_known_ones(self) -> None:
        shuffled = SESSIONS.sample(frac=1, random_state=7).set_index("created_at", drop=False)
        named = with_names(RUNS, agents=shuffled)
        assert to_list(named["agent_name"]) == names_of_ids(
            RUNS["agent_id"], {"agent_0": "name at 18", "agent_1": "name at 19", "agent_2": "name at 17"}
        )

    def test_existing_names_are_replaced_only_for_known_ids(self) -> None:
        named = with_names(SESSIONS, agents=AGENTS)
        expected = [
            AGENT_OF.get(one, old)
            for one, old in zip(SESSIONS["agent_id"], to_list(SESSIONS["agent_name"]), strict=True)
        ]
        assert to_list(named["agent_name"]) == expected
        assert list(named.columns) == list(SESSIONS.columns)
        once = with_names(RUNS, DEPLOYMENTS, metadata="team")
        pd.testing.assert_frame_equal(with_names(once, DEPLOYMENTS, metadata="team"), once)

    def test_first_name_of_a_duplicate_id_is_used(self) -> None:
        twice = pd.concat([DEPLOYMENTS, DEPLOYMENTS.assign(name="old")])
        pd.testing.assert_frame_equal(with_names(RUNS, twice), with_names(RUNS, DEPLOYMENTS))

    @pytest.mark.parametrize(
        "changed",
        [
            RUNS.set_axis([7] * len(RUNS)),
            RUNS.astype({"deployment_id": "object"}),
            RUNS.astype({"deployment_id": "category"}),
            RUNS.convert_dtypes(dtype_backend="pyarrow"),
        ],
        ids=["constant index", "objects", "categories", "Arrow dtypes"],
    )
    def test_ids_of_other_dtypes_get_the_same_names(self, changed: pd.DataFrame) -> None:
        named = with_names(changed, DEPLOYMENTS)
        assert to_list(named["deployment_name"]) == names_of_ids(RUNS["deployment_id"], NAME_OF)
        pd.testing.assert_frame_equal(named[changed.columns], changed)

    def test_attrs_are_kept(self) -> None:
        runs = RUNS.copy()
        runs.attrs["complete"] = True
        assert with_names(runs, DEPLOYMENTS).attrs == runs.attrs


class TestOtherEngines:
    @pytest.mark.filterwarnings("ignore:no deployment has the key 'a")
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("lookups", ["pandas", "same engine"])
    @pytest.mark.parametrize("rows", [slice(None), slice(0, 0)], ids=["all rows", "no rows"])
    def test_columns_and_values_equal_those_of_pandas(self, engine: str, lookups: str, rows: slice) -> None:
        expected = with_names(RUNS[rows], DEPLOYMENTS, agents=AGENTS, metadata=["team", 'a "key"'])
        given = engine if lookups == "same engine" else "pandas"
        native = opened(RUNS[rows], engine)
        named = with_names(
            native, opened(DEPLOYMENTS, given), agents=opened(AGENTS, given), metadata=["team", 'a "key"']
        )
        assert type(named) is type(native)
        found = to_pandas(named)
        assert list(found.columns) == list(expected.columns)
        if engine != "duckdb":
            assert found["id"].to_list() == RUNS["id"][rows].to_list()
        found, expected = (one.sort_values("id", ignore_index=True) for one in (found, expected))
        for name in ("id", "deployment_id", "deployment_name", "agent_name", "metadata_team", 'metadata_a "key"'):
            assert to_list(found[name]) == to_list(expected[name])

    @pytest.mark.parametrize("engine", ENGINES)
    def test_existing_names_of_unknown_ids_are_kept(self, engine: str) -> None:
        expected = with_names(SESSIONS, agents=AGENTS)
        found = to_pandas(with_names(opened(SESSIONS, engine), agents=AGENTS)).sort_values("id")
        assert list(found.columns) == [
            name for name in expected.columns if engine != "dask" or name != "vault_ids"
        ]
        assert to_list(found["agent_name"]) == to_list(expected.sort_values("id")["agent_name"])

    @pytest.mark.parametrize("engine", ENGINES)
    def test_names_are_missing_when_no_id_is_known(self, engine: str) -> None:
        found = to_pandas(with_names(opened(RUNS, engine), DEPLOYMENTS[:0]))
        assert to_list(found["deployment_name"]) == [None] * len(RUNS)

    def test_lazy_frames_stay_lazy(self) -> None:
        plan = pl.LazyFrame({"deployment_id": ["dep_1"]}).map_batches(
            lambda _: pytest.fail("the frame was read"), schema={"deployment_id": pl.String}
        )
        assert isinstance(with_names(plan, DEPLOYMENTS), pl.LazyFrame)


class TestWrongFrames:
    @pytest.mark.parametrize("frame", [[], None, "runs.parquet", RUNS["id"]])
    def test_error_for_a_value_that_is_no_frame_names_the_loaders(self, frame: Any) -> None:  # noqa: ANN401 anything
        with pytest.raises(FrameTypeError, match="load_runs, load_sessions"):
            with_names(frame, DEPLOYMENTS)
        with pytest.raises(FrameTypeError, match="pass the frame that load_agents returns"):
            with_names(RUNS, agents=[] if frame is None else frame)  # type: ignore[arg-type] # must be refused

    def test_error_for_a_frame_without_ids_names_the_loaders(self) -> None:
        with pytest.raises(MissingColumnError, match=r"no column 'agent_id' to name; it has: .*load_runs"):
            with_names(MISSED, agents=AGENTS)
        with pytest.raises(MissingColumnError, match="it has: none"):
            with_names(pd.DataFrame(), DEPLOYMENTS)

    def test_error_for_a_wrong_lookup_frame_names_the_loader(self) -> None:
        with pytest.raises(MissingColumnError, match="pass the frame that load_deployments returns"):
            with_names(RUNS, RUNS)
        with pytest.raises(MissingColumnError, match="pass the frame that load_environments returns"):
            with_names(SESSIONS, environments=AGENTS[["id"]])
        with pytest.raises(MissingColumnError, match="load_deployments"):
            with_names(opened(RUNS, "duckdb"), opened(RUNS, "duckdb"))

    def test_metadata_without_deployments_raises_value_error(self) -> None:
        for frame in (RUNS, SESSIONS):
            with pytest.raises(ValueError, match="load_deployments"):
                with_names(frame, metadata="team")

    def test_call_without_lookup_frames_raises_value_error(self) -> None:
        with pytest.raises(ValueError, match="give deployments, agents or environments"):
            with_names(RUNS)

    def test_two_columns_of_one_name_raise_frame_type_error(self) -> None:
        with pytest.raises(FrameTypeError, match="several columns 'deployment_id'"):
            with_names(RUNS.rename(columns={"agent_id": "deployment_id"}), DEPLOYMENTS)


RUN_SUMMARIES: dict[str, Callable[[Any], Any]] = {
    "rates": qd.run_failure_rates,
    "rates by day": lambda runs: qd.run_failure_rates(runs, freq="1D"),
    "streaks": qd.failure_streaks,
    "errors": lambda runs: qd.error_breakdown(runs, "deployment_id"),
    "regressions": lambda runs: qd.duration_regressions(runs, recent="5D", min_runs=1, min_change_ms=0),
    "delays": qd.start_delays,
}
NOT_ON_DASK = {"streaks", "regressions", "delays"}


class TestSummaries:
    @pytest.mark.parametrize("name", RUN_SUMMARIES)
    @pytest.mark.parametrize("engine", ["pandas", *ENGINES])
    def test_summary_by_an_id_has_the_name_as_first_column(self, name: str, engine: str) -> None:
        if engine == "dask" and name in NOT_ON_DASK:
            with pytest.raises(NotImplementedError, match="which Dask does not have"):
                RUN_SUMMARIES[name](opened(RUNS, engine))
            return
        plain, named = RUNS, with_names(RUNS, DEPLOYMENTS, agents=AGENTS)
        with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
            without = RUN_SUMMARIES[name](opened(plain, engine))
            found = RUN_SUMMARIES[name](opened(named, engine))
        assert type(found) is type(without)
        without, found = (to_pandas(computed(one)) for one in (without, found))
        if engine == "pandas":
            assert found.columns[0] == "name"
            without, found = without.reset_index(), found.reset_index()
        assert len(found) > 0
        assert to_list(found["name"]) == names_of_ids(found["deployment_id"], NAME_OF)
        keys = [key for key in ("deployment_id", "window", "error_type") if key in without.columns]
        order = [name for name in found.columns if name != "name"]
        assert order == list(without.columns)
        assert list(found.columns).index("name") == len(keys)
        pd.testing.assert_frame_equal(found[order], without)

    def test_summary_by_several_ids_has_one_name_column_per_id(self) -> None:
        named = with_names(RUNS, DEPLOYMENTS, agents=AGENTS)
        rates = qd.run_failure_rates(named, by=["agent_id", "deployment_id"])
        assert list(rates.columns[:2]) == ["agent_name", "deployment_name"]
        assert to_list(rates["agent_name"]) == names_of_ids(rates.index.get_level_values("agent_id"), AGENT_OF)
        assert to_list(rates["deployment_name"]) == names_of_ids(
            rates.index.get_level_values("deployment_id"), NAME_OF
        )

    def test_summary_not_grouped_by_ids_ignores_names(self) -> None:
        named = with_names(RUNS, DEPLOYMENTS, agents=AGENTS)
        for by in (None, "trigger_type", "deployment_name"):
            pd.testing.assert_frame_equal(
                qd.run_failure_rates(named, by=by), qd.run_failure_rates(named.drop(columns="agent_name"), by=by)
            )

    @pytest.mark.parametrize("engine", ["pandas", *ENGINES])
    def test_failure_rates_of_agents_and_environments_have_names(self, engine: str) -> None:
        named = with_names(DEPLOYMENTS, agents=AGENTS, environments=ENVIRONMENTS)
        for key, names in (("agent_id", AGENT_OF), ("environment_id", ENVIRONMENT_OF)):
            rates = to_pandas(computed(qd.failure_rates(opened(named, engine), by=key)))
            rates = rates.reset_index() if engine == "pandas" else rates
            assert to_list(rates["name"]) == names_of_ids(rates[key], names)

    def test_summary_of_an_empty_frame_has_the_same_columns_and_dtypes(self) -> None:
        named = with_names(RUNS, DEPLOYMENTS)
        for name, summary in RUN_SUMMARIES.items():
            full, empty = summary(named), summary(named[:0])
            assert len(empty) == 0, name
            pd.testing.assert_series_equal(empty.dtypes, full.dtypes)

    def test_windows_without_runs_have_the_name_of_their_group(self) -> None:
        few = with_names(RUNS[::20], DEPLOYMENTS)
        daily = qd.run_failure_rates(few, freq="1D")
        assert (daily["runs"] == 0).any()
        assert to_list(daily["name"]) == names_of_ids(daily.index.get_level_values("deployment_id"), NAME_OF)


@pytest.mark.parametrize(
    ("call", "ids", "frame", "advice"),
    [
        (
            lambda: with_names(RUNS, AGENTS),
            "5 ids in deployment_id, which begin with dep_",
            "deployments frame, whose ids begin with agent_",
            ": pass the frame that load_deployments returns",
        ),
        (
            lambda: with_names(RUNS, agents=DEPLOYMENTS),
            "3 ids in agent_id, which begin with agent_",
            "agents frame, whose ids begin with dep_",
            ": pass the frame that load_agents returns",
        ),
        (
            lambda: with_names(qd.run_failure_rates(RUNS, by="agent_id"), agents=opened(DEPLOYMENTS, "polars")),
            "3 ids in agent_id, which begin with agent_",
            "agents frame, whose ids begin with dep_",
            ": pass the frame that load_agents returns",
        ),
        (
            lambda: with_names(RUNS[["id", "status"]], DEPLOYMENTS),
            "60 ids in id, which begin with drun_",
            "deployments frame, whose ids begin with dep_",
            "; one of the two frames is not of deployments",
        ),
    ],
)
def test_ids_of_which_none_can_be_known_cause_a_warning(
    call: Callable[[], object], ids: str, frame: str, advice: str
) -> None:
    with pytest.warns(DataQualityWarning) as caught:
        call()
    assert [str(one.message) for one in caught] == [f"none of the {ids}, is in the {frame}{advice}"]
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda: with_names(RUNS, DEPLOYMENTS, metadata=["Team", "team"]), "Team"),
        (lambda: with_names(DEPLOYMENTS, metadata="x"), "x"),
        (lambda: with_names(opened(RUNS, "polars"), DEPLOYMENTS, metadata="x"), "x"),
    ],
)
def test_key_that_no_metadata_has_causes_a_warning(call: Callable[[], object], key: str) -> None:
    message = f"^no deployment has the key '{key}' in its metadata; there are: 'cost', 'team'$"
    with pytest.warns(DataQualityWarning, match=message):
        call()


def test_names_that_are_missing_for_another_reason_cause_no_warning() -> None:
    """The whole test fails on a warning."""
    elsewhere = DEPLOYMENTS.assign(id="dep_elsewhere").iloc[:1]
    plain = pd.DataFrame({"deployment_id": ["a", "b"]})
    null = DEPLOYMENTS.assign(metadata='{"team":null}')
    for frame, deployments, keys in (
        (RUNS[:0], AGENTS, []),
        (RUNS, AGENTS[:0], []),
        (RUNS.assign(deployment_id=None), AGENTS, []),
        (RUNS, elsewhere, []),
        (plain, DEPLOYMENTS, []),
        (RUNS, DEPLOYMENTS.assign(metadata="{}"), ["team"]),
        (RUNS, DEPLOYMENTS[:0].assign(metadata="{}"), ["team"]),
        (RUNS, null, ["team"]),
    ):
        named = with_names(frame, deployments, metadata=keys)
        assert named["deployment_name" if not keys else "metadata_team"].isna().all()


@pytest.mark.parametrize("engine", ["pandas", "polars", "pyarrow"])
def test_ids_of_other_tables_are_not_taken_for_deployment_ids(engine: str) -> None:
    deployments = qd.flatten_deployments([{"id": "dep_1", "name": "nightly", "metadata": {"team": "data"}}])
    others = {
        "agents": pd.DataFrame({"id": ["agent_1"], "name": "Triage", "model": "m", "metadata": '{"team":"ai"}'}),
        "environments": pd.DataFrame({"id": ["env_1"], "name": "small", "config_type": "cloud"}),
        "events": qd.flatten_events([{"id": "evt_1", "type": "session.error"}], "sess_1"),
    }
    for other in others.values():
        with pytest.raises(MissingColumnError, match=r"no column 'deployment_id' to name; it has: .*id"):
            with_names(opened(other, engine), deployments, metadata="team")
    own = to_pandas(with_names(opened(others["agents"], engine), metadata="team"))
    assert to_list(own["metadata_team"]) == ["ai"]
    assert to_list(with_names(deployments[["id"]], deployments)["deployment_name"]) == ["nightly"]


def test_all_runs_of_a_loaded_account_get_names(tmp_path: Any) -> None:  # noqa: ANN401 a path
    with Sandbox(deployments=40, seed=7) as sandbox:
        account: dict[str, Any] = {
            "client": qd.Client(pat=sandbox.pat, base_url=sandbox.base_url), "cache_dir": tmp_path,
        }  # fmt: skip
        deployments = qd.load_deployments(include_archived=True, **account)
        runs = qd.load_runs(**account)
        named = with_names(runs, deployments, agents=qd.load_agents(**account), metadata="team")
        deployments_by_id = {one["id"]: one for one in sandbox.deployments}
        agent_names = {one["id"]: one["name"] for one in sandbox.agents}
    assert to_list(named["deployment_name"]) == [deployments_by_id[one]["name"] for one in runs["deployment_id"]]
    assert to_list(named["agent_name"]) == [agent_names[one] for one in runs["agent_id"]]
    assert to_list(named["metadata_team"]) == [
        deployments_by_id[one]["metadata"].get("team") for one in runs["deployment_id"]
    ]
    assert named["agent_name"].notna().all()
    assert np.array_equal(named["id"], runs["id"])
    assert "pyspark" not in sys.modules
