"""Tests of `export_parquet`: engines read the same values, and frames of every engine can be exported."""

from __future__ import annotations

import csv
import importlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qoderdata import export
from qoderdata.export import export_csv, export_parquet
from qoderdata.frame_checks import TEXT
from qoderdata.frames import flatten_deployments, flatten_events, flatten_runs, flatten_sessions, to_pandas
from qoderdata.schema import AGENTS, DEPLOYMENTS, ENVIRONMENTS, RUNS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qoderdata.schema import Schema

UPCOMING_TIMES = [datetime(2026, 6, 15, 1, tzinfo=UTC), datetime(2026, 6, 16, 1, tzinfo=UTC)]


def deployment(name: str, **fields: object) -> dict[str, object]:
    return {"type": "deployment", "id": f"dep_{name}", "name": name, **fields}


RECORDS = [
    deployment(
        "a",
        vault_ids=["vault_1"],
        created_at="2026-06-14T08:58:01.123456Z",
        agent={"type": "agent", "id": "agent_1", "version": 2**53 + 1},
        schedule={"type": "cron", "upcoming_runs_at": ["2026-06-15T01:00:00Z", "2026-06-16T01:00:00Z"]},
        environment_variables={"KEY": "kept"},
    ),
    deployment("b", vault_ids=[], schedule={"upcoming_runs_at": []}),
    deployment("c"),
]


@pytest.fixture
def frame() -> pd.DataFrame:
    frame = flatten_deployments(RECORDS)
    frame.attrs = {"source": "made by hand", "complete": True, "requests": 0}
    return frame


#: The dtype of text that pandas reads: ``str``, or ``object`` before version 3.
READ_TEXT: Any = pd.Series(["a"]).dtype


def assert_same_frame(left: pd.DataFrame, right: pd.DataFrame) -> None:
    if READ_TEXT != TEXT:
        right = right.copy()
        for name in right.columns[right.dtypes == TEXT]:
            right[name] = right[name].astype(object).where(right[name].notna(), None)
    pd.testing.assert_frame_equal(left, right)
    assert left.attrs == right.attrs


def test_pandas_reads_the_same_frame(frame: pd.DataFrame, tmp_path: Path) -> None:
    export_parquet(frame, tmp_path / "x.parquet")
    read_back = pd.read_parquet(tmp_path / "x.parquet")
    assert_same_frame(read_back, frame)
    assert read_back["schedule_upcoming_runs_at"][0].dtype == "datetime64[us]"
    assert json.loads(read_back["extra"][0])["environment_variables.KEY"] == "kept"


@pytest.mark.parametrize(("flatten", "schema"), [(flatten_deployments, DEPLOYMENTS), (flatten_runs, RUNS)])
@pytest.mark.parametrize("records", [[], [{"id": "x", "deployment_id": "y"}]])
def test_column_types_do_not_depend_on_the_data(
    flatten: Callable[[list[dict[str, str]]], pd.DataFrame],
    schema: Schema,
    records: list[dict[str, str]],
    tmp_path: Path,
) -> None:
    export_parquet(flatten(records), tmp_path / "x.parquet")
    assert_same_frame(pd.read_parquet(tmp_path / "x.parquet"), flatten(records))
    assert pq.read_schema(tmp_path / "x.parquet").equals(schema.arrow)


def test_list_column_without_any_list_keeps_its_type(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Rows without any list do not change the type of the column."""
    part = frame.loc[[2], ["id", "schedule_upcoming_runs_at"]]
    export_parquet(part, tmp_path / "x.parquet")
    assert_same_frame(pd.read_parquet(tmp_path / "x.parquet"), part)
    assert pq.read_schema(tmp_path / "x.parquet").field(1).type.value_type == pa.timestamp("us", "UTC")


def test_index_and_categories_round_trip(tmp_path: Path) -> None:
    windows = pd.date_range("2026-06-15", periods=2, freq="D", tz="Asia/Shanghai", unit="us", name="window")
    index = pd.MultiIndex.from_product([["dep_1", "dep_2"], windows], names=["id", "window"])
    frame = pd.DataFrame({"runs": pd.array([1, None, 3, 0], "Int64"), "kind": pd.Categorical(list("abab"))}, index)
    export_parquet(frame, tmp_path / "x.parquet")
    assert_same_frame(pd.read_parquet(tmp_path / "x.parquet"), frame)
    assert duckdb.read_parquet(str(tmp_path / "x.parquet")).columns == ["runs", "kind", "id", "window"]


def test_polars_and_duckdb_read_the_same_values(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    export_parquet(frame, path)
    by_polars = pl.read_parquet(path)
    assert by_polars.schema["schedule_upcoming_runs_at"] == pl.List(pl.Datetime("us", "UTC"))
    assert by_polars["schedule_upcoming_runs_at"].to_list() == [UPCOMING_TIMES, [], None]
    assert by_polars["agent_version"].to_list() == [2**53 + 1, None, None]
    by_duckdb = duckdb.execute(
        "SELECT id, vault_ids, epoch_us(created_at) FROM read_parquet(?) ORDER BY id", [path]
    )
    assert by_duckdb.fetchall() == [
        ("dep_a", ["vault_1"], 1781427481123456),
        ("dep_b", [], None),
        ("dep_c", None, None),
    ]


def test_attrs_without_a_json_form_become_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs["at"] = pd.Timestamp("2026-06-15T01:00Z")
    export_parquet(frame, tmp_path / "x.parquet")
    assert pd.read_parquet(tmp_path / "x.parquet").attrs == {"at": "2026-06-15 01:00:00+00:00"}
    assert frame.attrs == {"at": pd.Timestamp("2026-06-15T01:00Z")}


TABLE = pa.table(
    {
        "id": pa.array(["=a", None, "c"], pa.string()),
        "runs": pa.array([1, None, -3], pa.int64()),
        "at": pa.array([UPCOMING_TIMES[0], None, UPCOMING_TIMES[1]], pa.timestamp("us", "UTC")),
        "lists": pa.array([["x"], [], None], pa.list_(pa.string())),
    }
)


def _dask(table: pa.Table) -> Any:  # noqa: ANN401 - Dask has no types
    dd: Any = importlib.import_module("dask.dataframe")  # slow to import, has no types
    frame = table.to_pandas().astype({"runs": "Int64"})
    parts = [frame[:0], frame[:2], frame[2:]]
    with importlib.import_module("dask.config").set(
        {"dataframe.convert-string": False}
    ):  # otherwise lists become texts
        return dd.concat([dd.from_pandas(part, npartitions=1) for part in parts]).persist()


ENGINES: dict[str, Callable[[pa.Table], Any]] = {
    "pyarrow": lambda table: table,
    "polars": pl.from_arrow,
    "polars lazy": lambda table: pl.DataFrame(table).lazy(),
    "duckdb": duckdb.from_arrow,
    "dask": _dask,
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rows", [0, 3])
def test_frames_of_other_engines_are_exported(engine: str, rows: int, tmp_path: Path) -> None:
    table = TABLE.slice(0, rows)
    export_parquet(ENGINES[engine](table), tmp_path / "x.parquet")
    found = pq.read_table(tmp_path / "x.parquet")
    assert found.column_names == table.column_names
    assert found.to_pylist() == table.to_pylist()
    export_csv(ENGINES[engine](table), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "".join(CSV_LINES[: rows + 1])


CSV_LINES = [
    '"id","runs","at","lists"\n',
    '"\'=a",1,"2026-06-15T01:00:00+00:00","[""x""]"\n',
    ',,,"[]"\n',
    '"c",-3,"2026-06-16T01:00:00+00:00",\n',
]


@pytest.mark.parametrize("partitions", [1, 2])
def test_partitions_of_dask_are_computed_in_turn(
    partitions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_DASK_PARTITIONS", partitions)
    export_parquet(_dask(TABLE), tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == TABLE.to_pylist()


def test_partitions_of_a_joined_dask_frame_share_the_join(tmp_path: Path) -> None:
    dd: Any = importlib.import_module("dask.dataframe")
    reads = []

    def names(number: int) -> pd.DataFrame:
        reads.append(number)
        return pd.DataFrame({"id": [number], "name": [f"deployment {number}"]})

    def runs(number: int) -> pd.DataFrame:
        return pd.DataFrame({"id": [number % 4], "runs": [number]})

    numbers = list(range(16))
    named = dd.from_map(names, numbers[:4], meta=names(0))
    joined = dd.from_map(runs, numbers, meta=runs(0)).merge(named, on="id")
    reads.clear()
    with importlib.import_module("dask.config").set(scheduler="sync"):
        export_parquet(joined, tmp_path / "x.parquet")
    found = pd.read_parquet(tmp_path / "x.parquet")
    assert [tuple(row) for row in found.sort_values("runs").itertuples(index=False)] == [
        (number % 4, number, f"deployment {number % 4}") for number in numbers
    ]
    assert sorted(reads) == numbers[:4]


@pytest.mark.spark
def test_spark_frames_are_exported(tmp_path: Path) -> None:
    from pyspark.sql import SparkSession  # noqa: PLC0415 - slow to import

    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    try:
        frame = session.createDataFrame(TABLE)
        export_parquet(frame, tmp_path / "x.parquet")
        export_csv(frame, tmp_path / "x.csv")
    finally:
        session.stop()
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == TABLE.to_pylist()
    assert (tmp_path / "x.csv").read_text() == "".join(CSV_LINES)


def test_frame_of_several_batches_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BATCH_ROWS", 2)
    parts = [pd.DataFrame({"id": [f"dep_{number}"], "runs": [number]}) for number in range(5)]
    frame = pd.concat(parts, ignore_index=True)
    export_parquet(frame, tmp_path / "x.parquet")
    assert_same_frame(pd.read_parquet(tmp_path / "x.parquet"), frame)
    export_csv(frame, tmp_path / "x.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "x.csv"), frame)


@pytest.mark.parametrize("export", [export_csv, export_parquet])
class TestRefusals:
    """A refused export keeps the old file and leaves no temporary file."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        folder = tmp_path / "out"
        folder.mkdir()
        path = folder / "x"
        path.write_text("old")
        return path

    def test_value_that_is_no_frame_raises_type_error(self, export: Any, path: Path) -> None:  # noqa: ANN401 - two functions
        with pytest.raises(TypeError, match="int"):
            export(5, path)
        assert path.read_text() == "old"
        assert list(path.parent.iterdir()) == [path]

    def test_missing_folder_raises_file_not_found_error(self, export: Any, path: Path) -> None:  # noqa: ANN401 - two functions
        with pytest.raises(FileNotFoundError, match="nowhere"):
            export(pd.DataFrame(), path.parent / "nowhere" / "x")


@pytest.mark.parametrize("name", ["r.csv", "r.parquet.gz", "r.xlsx"])
def test_name_of_another_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"this writes Parquet; give a name that ends in \.parquet or \.pq"):
        export_parquet(pd.DataFrame({"a": [1]}), tmp_path / name)


SECRET = "s3cret-value"  # noqa: S105 - must not be in any CSV file
SESSION = {
    "type": "session",
    "id": "sess_1",
    "deployment_id": "dep_1",
    "agent": {"id": "agent_1", "name": "Triage", "model": "m", "system": "=text", "tools": []},
    "vault_ids": ["vault_1"],
    "usage": {"total_credits": 1.25},
    "environment_variables": {"KEY": SECRET},
    "created_at": "2026-06-15T01:00:00Z",
}
#: Frames as the loaders return them for edition D.
FRAMES: dict[str, Callable[[], pd.DataFrame]] = {
    "sessions": lambda: flatten_sessions([SESSION, {**SESSION, "id": "sess_2"}, {"id": "sess_3"}]),
    "no sessions": lambda: flatten_sessions([]),
    "events": lambda: flatten_events([{"id": "ev_1", "type": "session.status_idle"}], "sess_1"),
    "deployments": lambda: flatten_deployments(
        [deployment("d", environment_variables=f"KEY={SECRET};B=2"), deployment("e", environment_variables="")]
    ),
    "agents": lambda: to_pandas(AGENTS.arrow.empty_table(), AGENTS),
    "environments": lambda: to_pandas(ENVIRONMENTS.arrow.empty_table(), ENVIRONMENTS),
}


@pytest.mark.parametrize("name", FRAMES)
class TestEveryTable:
    def test_parquet_round_trips(self, name: str, tmp_path: Path) -> None:
        made = FRAMES[name]()
        export_parquet(made, tmp_path / "x.parquet")
        assert_same_frame(pd.read_parquet(tmp_path / "x.parquet"), made)

    @pytest.mark.parametrize("engine", [lambda frame: frame, pa.Table.from_pandas])
    def test_csv_has_all_rows_and_no_secrets(
        self, name: str, engine: Callable[[pd.DataFrame], Any], tmp_path: Path
    ) -> None:
        made = FRAMES[name]()
        export_csv(engine(made), tmp_path / "x.csv")
        with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        assert [row["id"] for row in rows] == made["id"].tolist()
        assert SECRET not in (tmp_path / "x.csv").read_text()
        if name == "sessions":
            assert rows[1]["usage_total_credits"] == "1.25"
            assert json.loads(rows[1]["agent"])["system"] == "=text"
            assert rows[2]["agent"] == ""


def test_column_of_mixed_objects_raises_arrow_type_error(tmp_path: Path) -> None:
    with pytest.raises(pa.ArrowTypeError, match="mixed"):
        export_parquet(pd.DataFrame({"mixed": pd.Series(["a", 1], dtype=object)}), tmp_path / "x.parquet")
    assert list(tmp_path.glob("*x*")) == []
