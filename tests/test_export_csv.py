"""Tests of `export_csv` and `csv_text`: cells, header, masked secrets and file names."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qoderdata.export import csv_text, export_csv, export_parquet
from tests.test_export_formulas import unescape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SECRET = "s3cret-value"  # noqa: S105 - must not be in any file


def read_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.reader(handle))


def exported_cells(tmp_path: Path, values: object, **options: bool) -> list[str]:
    """Return the exported cells of one column."""
    path = tmp_path / "one.csv"
    export_csv(pd.DataFrame({"id": "x", "column": values}), path, **options)
    return [row[1] for row in read_rows(path)[1:]]


STAMPS = pd.Series(["2026-06-15T01:00:00.500000Z", None], dtype="datetime64[us, UTC]")


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        (pd.Series(["a", None, ""], dtype="str"), ["a", "", ""]),
        (pd.Series([-5, None, 2**63 - 1], dtype="Int64"), ["-5", "", "9223372036854775807"]),
        (pd.Series([-0.1, float("nan"), 1e300]), ["-0.1", "", "1e+300"]),
        (pd.Series([True, None], dtype="boolean"), ["true", ""]),
        (STAMPS, ["2026-06-15T01:00:00.500000+00:00", ""]),
        (STAMPS[:1].dt.floor("s"), ["2026-06-15T01:00:00+00:00"]),
        (STAMPS[:1].dt.tz_convert("Asia/Kolkata"), ["2026-06-15T06:30:00.500000+05:30"]),
        (STAMPS[:1].dt.tz_localize(None), ["2026-06-15T01:00:00.500000"]),
        (pd.Series([pd.Timestamp("0001-01-02", tz="UTC").as_unit("us")]), ["0001-01-02T00:00:00+00:00"]),
        (pd.Series([pd.Timedelta("90min"), pd.NaT]), ["P0DT1H30M0S", ""]),
        (pd.Series(["=x", "b", None], dtype="category"), ["'=x", "b", ""]),
        (pd.Series(["a", "=b", None, "=c"], dtype="str"), ["a", "'=b", "", "'=c"]),
        (pd.Series(pd.cut([1], [0, 2])), ["(0, 2]"]),
        (pd.Series(pd.period_range("2026-06", periods=1, freq="M")), ["2026-06"]),
        (pd.Series([1 + 2j]), ["(1+2j)"]),
        (pd.Series(pd.arrays.SparseArray([0, 1])), ["0", "1"]),
        ([["a", "=b"], None, []], ['["a","=b"]', "", "[]"]),
        ([np.array(["v1"], dtype=object), None], ['["v1"]', ""]),
        ([np.array(["2026-06-15T01:00"], dtype="M8[s]")], ['["2026-06-15T01:00:00"]']),
        ([{"a": {1: [None, float("nan"), 2**70, "é"]}}], ['{"a":{"1":[null,null,1180591620717411303424,"é"]}}']),
        ([{"b", "a"}, frozenset()], ['["a","b"]', "[]"]),
        ([date(2026, 6, 15), time(9, 30)], ["2026-06-15", "09:30:00"]),
        ([datetime(2026, 6, 15, tzinfo=timezone(timedelta(hours=8)))], ["2026-06-15T00:00:00+08:00"]),
        ([np.datetime64("2026-06-15", "ns"), np.datetime64("NaT")], ["2026-06-15T00:00:00", ""]),
        ([Decimal("-1.50"), [Decimal("1.50"), Decimal("NaN")]], ["-1.50", "[1.50,null]"]),
        ([-5, "-5", True, np.float64(-0.5), float("-inf")], ["-5", "'-5", "true", "-0.5", "-inf"]),
        ([b"\x00\xff", "\ud800"], ["00ff", "\\ud800"]),
    ],
)
def test_values_of_each_dtype_are_written_as_expected(tmp_path: Path, values: object, cells: list[str]) -> None:
    if isinstance(values, list):
        values = pd.Series(values, dtype=object)
    assert exported_cells(tmp_path, values) == cells


def test_upcoming_runs_have_an_offset(tmp_path: Path) -> None:
    """The frame has naive arrays, which are in UTC; an empty list differs from a missing one."""
    moments = np.array(["2026-06-15T01:00:00"], dtype="datetime64[us]")
    frame = pd.DataFrame({"id": list("abc"), "schedule_upcoming_runs_at": [moments, moments[:0], None]})
    export_csv(frame, tmp_path / "x.csv")
    assert [row[1] for row in read_rows(tmp_path / "x.csv")[1:]] == ['["2026-06-15T01:00:00+00:00"]', "[]", ""]


def test_upcoming_runs_as_text_with_an_offset_are_written_as_times(tmp_path: Path) -> None:
    listed: list[Any] = [["2026-06-15T09:00:00+08:00"], [], None]
    frame = pd.DataFrame({"id": list("abc"), "schedule_upcoming_runs_at": listed})
    export_csv(frame, tmp_path / "x.csv")
    export_parquet(frame, tmp_path / "x.parquet")
    assert [row[1] for row in read_rows(tmp_path / "x.csv")[1:]] == ['["2026-06-15T01:00:00+00:00"]', "[]", ""]
    in_parquet = pq.read_table(tmp_path / "x.parquet")["schedule_upcoming_runs_at"].to_pylist()
    assert in_parquet == [[datetime(2026, 6, 15, 1, tzinfo=UTC)], [], None]


@pytest.mark.parametrize("text", ["2026-06-15T01:00:00.000", "not a time"])
def test_upcoming_runs_as_other_text_are_written_as_they_are(tmp_path: Path, text: str) -> None:
    """A frame that pandas reads from JSON has them."""
    listed: list[Any] = [[text], [], None]
    frame = pd.DataFrame({"id": list("abc"), "schedule_upcoming_runs_at": listed})
    export_csv(frame, tmp_path / "x.csv")
    export_parquet(frame, tmp_path / "x.parquet")
    assert [row[1] for row in read_rows(tmp_path / "x.csv")[1:]] == [f'["{text}"]', "[]", ""]
    assert pq.read_table(tmp_path / "x.parquet")["schedule_upcoming_runs_at"].to_pylist() == listed


@pytest.mark.parametrize("numbers", [[1_781_485_200_000], [1.5], np.array([1_781_485_200_000])])
def test_upcoming_runs_as_numbers_are_written_as_they_are(tmp_path: Path, numbers: Sequence[float]) -> None:
    """Their unit is unknown, so they are no times of 1970."""
    frame = pd.DataFrame({"id": list("abc"), "schedule_upcoming_runs_at": [numbers, [], None]})
    export_csv(frame, tmp_path / "x.csv")
    export_parquet(frame, tmp_path / "x.parquet")
    assert [row[1] for row in read_rows(tmp_path / "x.csv")[1:]] == [f"[{numbers[0]}]", "[]", ""]
    in_parquet = pq.read_table(tmp_path / "x.parquet")["schedule_upcoming_runs_at"].to_pylist()
    assert in_parquet == [list(numbers), [], None]


def test_sets_in_a_column_of_lists_are_sorted(tmp_path: Path) -> None:
    ids = [f"vlt_{number:02}" for number in range(20)]
    export_csv(pd.DataFrame({"id": ["a"], "vault_ids": [set(ids)]}), tmp_path / "x.csv")
    assert json.loads(read_rows(tmp_path / "x.csv")[1][1]) == ids


@pytest.mark.parametrize("name", ["vault_ids", "schedule_upcoming_runs_at"])
def test_objects_in_a_column_of_lists_stay_objects(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"id": list("ab"), name: [[{"a": 1}], None]})
    export_csv(frame, tmp_path / "x.csv")
    export_parquet(frame, tmp_path / "x.parquet")
    assert [row[1] for row in read_rows(tmp_path / "x.csv")[1:]] == ['[{"a":1}]', ""]
    assert pq.read_table(tmp_path / "x.parquet")[name].to_pylist() == [[{"a": 1}], None]


@pytest.mark.parametrize("name", ["vault_ids", "schedule_upcoming_runs_at"])
def test_text_in_a_column_of_lists_stays_text(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"id": list("abc"), name: pd.Series([None, "vlt_1", ["vlt_2"]], dtype=object)})
    export_csv(frame, tmp_path / "x.csv")
    assert [row[1] for row in read_rows(tmp_path / "x.csv")[1:]] == ["", "vlt_1", '["vlt_2"]']


def test_csv_text_equals_the_content_of_the_file(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["=é", "b\r\n"], "runs": [1, -2]})
    export_csv(frame, tmp_path / "x.csv")
    assert csv_text(frame).encode() == (tmp_path / "x.csv").read_bytes()


def test_empty_text_is_quoted_and_missing_text_is_not(tmp_path: Path) -> None:
    export_csv(pd.DataFrame({"id": ["a", "b"], "text": ["", None]}), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_bytes() == b'"id","text"\n"a",""\n"b",\n'


@pytest.mark.parametrize("values", [[None, "a"], [None, 1.5], [None, True]])
def test_single_column_with_a_missing_value_keeps_its_rows(tmp_path: Path, values: list[object]) -> None:
    """Most readers skip an empty line."""
    export_csv(pd.DataFrame({"only": values}).convert_dtypes(), tmp_path / "x.csv")
    assert len(read_rows(tmp_path / "x.csv")) == 3


def _grouped() -> pd.DataFrame:
    windows = pd.DatetimeIndex(["2026-06-15"], tz="Asia/Shanghai")
    index = pd.MultiIndex.from_product([["dep_1"], windows], names=["deployment_id", "window"])
    return pd.DataFrame({"runs": [3]}, index=index)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (pd.DataFrame({"a": [1]}), [["a"], ["1"]]),
        (pd.DataFrame({"a": [1, 2]}).iloc[[1]], [["a"], ["2"]]),
        (pd.DataFrame({"a": [1]}, index=pd.Index(["dep_1"], name="id")), [["id", "a"], ["dep_1", "1"]]),
        (pd.DataFrame({"a": [1]}, index=["x"]), [["index", "a"], ["x", "1"]]),
        (pd.DataFrame({"id": [1]}, index=pd.Index(["dep_1"], name="id")), [["id_index", "id"], ["dep_1", "1"]]),
        (_grouped(), [["deployment_id", "window", "runs"], ["dep_1", "2026-06-15T00:00:00+08:00", "3"]]),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), [["a", "a"], ["1", "2"]]),
        (
            pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("c", "")])),
            [["a_b", "c"], ["1", "2"]],
        ),
        (pd.DataFrame({"=a": pd.Series([], dtype="str"), 5: pd.Series([], dtype=object)}), [["'=a", "5"]]),
    ],
)
def test_index_and_header_are_written(tmp_path: Path, frame: pd.DataFrame, expected: list[list[str]]) -> None:
    export_csv(frame, tmp_path / "x.csv")
    assert read_rows(tmp_path / "x.csv") == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "extra",
            f'{{"environment_variables":{{"KEY":"{SECRET}","OFF":null}}}}',
            '{"environment_variables":{"KEY":"***","OFF":null}}',
        ),
        (
            "extra",
            f'{{"budget":9007199254740993,"environment_variables.KEY":"{SECRET}"}}',
            '{"budget":9007199254740993,"environment_variables.KEY":"***"}',
        ),
        (
            "extra",
            f'{{"session.environment_variables":[{{"name":"K","value":"{SECRET}"}}]}}',
            '{"session.environment_variables":[{"name":"***","value":"***"}]}',
        ),
        ("extra", f'{{"environment\\u005fvariables":"{SECRET}"}}', '{"environment_variables":"***"}'),
        (
            "extra",
            f'{{"environment_variables":"KEY={SECRET}\\nB=2;C={SECRET}"}}',
            '{"environment_variables":"***"}',
        ),
        ("extra", f'{{"environment_variables\\\\.KEY":"{SECRET}"}}', r'{"environment_variables\\.KEY":"***"}'),
        (
            "agent",
            pd.Categorical([f'{{"environment_variables":{{"KEY":"{SECRET}"}}}}']),
            '{"environment_variables":{"KEY":"***"}}',
        ),
        ("environment_variables", f"KEY={SECRET};B=2", "***"),
        ("resources", f'[{{"environment_variables":["{SECRET}"]}}]', '[{"environment_variables":["***"]}]'),
        ("environment_variables", SECRET, "***"),
        ("environment_variables", f'{{"KEY":"{SECRET}"}}', '{"KEY":"***"}'),
        ("environment_variables_KEY", SECRET, "***"),
        ("environment_variables", pd.Categorical([SECRET]), "***"),
        ("environment_variables", pd.Series([{"KEY": SECRET}], dtype=object), '{"KEY":"***"}'),
        ("environment_variables", pd.Series([5]), "***"),
        (
            "anything",
            pd.Series([{"environment_variables": {"KEY": SECRET}}], dtype=object),
            '{"environment_variables":{"KEY":"***"}}',
        ),
        (
            "anything",
            pd.Series([{"extra": f'{{"environment_variables":"KEY={SECRET}"}}'}], dtype=object),
            r'{"extra":"{\"environment_variables\":\"***\"}"}',
        ),
        ("environment_variables", "123", "***"),
        ("environment_variables", '"text"', "***"),
        ("environment_variables", "null", "***"),
        ("description", "about environment_variables", "about environment_variables"),
        ("description", "a \\u0041 b", "a \\u0041 b"),
        ("description", '{"a": "\\u0041"}', '{"a": "\\u0041"}'),
        ("description", '"about environment_variables"', '"about environment_variables"'),
        ("description", f' {{"environment_variables":"KEY={SECRET}', "***"),
    ],
)
@pytest.mark.parametrize("spreadsheet_safe", [True, False])
def test_secrets_are_masked(
    tmp_path: Path, name: str, value: object, expected: str, *, spreadsheet_safe: bool
) -> None:
    export_csv(pd.DataFrame({"id": ["x"], name: value}), tmp_path / "x.csv", spreadsheet_safe=spreadsheet_safe)
    assert read_rows(tmp_path / "x.csv")[1][1] == expected


def test_spreadsheet_safe_must_be_a_flag(tmp_path: Path) -> None:
    """None would write formulas."""
    with pytest.raises(ValueError, match="spreadsheet_safe=None is neither True nor False"):
        export_csv(pd.DataFrame({"id": ["=1+1"]}), tmp_path / "x.csv", spreadsheet_safe=None)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


class TestFileName:
    """The file name selects the format."""

    def test_gz_name_writes_reproducible_gzip(self, tmp_path: Path) -> None:
        """The gzip header contains no name and no time."""
        frame = pd.DataFrame({"id": ["a"] * 1000, "runs": range(1000)})
        export_csv(frame, tmp_path / "r.csv.gz")
        export_csv(frame, tmp_path / "other.CSV.GZ")
        data = (tmp_path / "r.csv.gz").read_bytes()
        assert gzip.decompress(data).decode() == csv_text(frame)
        assert (data[:4], data[4:8]) == (b"\x1f\x8b\x08\x00", b"\0\0\0\0")
        assert (tmp_path / "other.CSV.GZ").read_bytes() == data
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "r.csv.gz"), frame, check_dtype=False)

    @pytest.mark.parametrize("name", ["r.xlsx", "r.parquet", "r.csv.zip", "r.gz"])
    def test_name_of_another_format_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ValueError, match=r"this writes CSV; give a name that ends in \.csv or \.csv\.gz"):
            export_csv(pd.DataFrame({"a": [1]}), tmp_path / name)
        assert not list(tmp_path.glob("*r.*"))


ALPHABET = st.one_of(st.sampled_from("=+-@\t\r\n\0'\" ;,\uff1d\u200b"), st.characters(codec="utf-8"))
TEXTS = st.none() | st.text(ALPHABET, max_size=8)
NUMBERS = st.none() | st.integers(-(2**63), 2**63 - 1)
FLOATS = st.none() | st.floats(allow_nan=False)
TIMES = st.none() | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - Hypothesis needs naive bounds
ROWS = st.lists(st.tuples(TEXTS, NUMBERS, FLOATS, TIMES), max_size=8)
NAMES = st.lists(st.text(ALPHABET, min_size=1, max_size=6), min_size=4, max_size=4, unique=True)


def to_pandas(rows: list[tuple[Any, ...]], names: list[str]) -> pd.DataFrame:
    types: list[Any] = ["str", "Int64", "Float64", "datetime64[us, UTC]"]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    return pd.DataFrame(
        {name: pd.Series(values, dtype=kind) for name, values, kind in zip(names, columns, types, strict=True)}
    )


def to_arrow(rows: list[tuple[Any, ...]], names: list[str]) -> pa.Table:
    types = [pa.string(), pa.int64(), pa.float64(), pa.timestamp("us", "UTC")]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    return pa.table([pa.array(values, kind) for values, kind in zip(columns, types, strict=True)], names)


def to_polars(rows: list[tuple[Any, ...]], names: list[str]) -> Any:  # noqa: ANN401 - a frame or a series, according to the stubs
    assume("\0" not in "".join(names))  # Polars cannot export such a column name to Arrow
    return pl.from_arrow(to_arrow(rows, names))


READ_CSV = """
    SELECT * FROM read_csv(
        ?, header = true, delim = ',', quote = '"', escape = '"', new_line = '\\n',
        columns = {text: 'VARCHAR', number: 'BIGINT', real: 'DOUBLE', moment: 'VARCHAR'},
        auto_detect = false, allow_quoted_nulls = false
    )
"""


@pytest.mark.parametrize("make", [to_pandas, to_arrow, to_polars])
@settings(max_examples=60)
@given(rows=ROWS, names=NAMES, safe=st.booleans())
def test_values_round_trip_through_csv(
    tmp_path_factory: pytest.TempPathFactory,
    make: Callable[[list[tuple[Any, ...]], list[str]], Any],
    rows: list[tuple[Any, ...]],
    names: list[str],
    *,
    safe: bool,
) -> None:
    """Python's csv and DuckDB read every value, and the escaping can be undone."""
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    export_csv(make(rows, names), path, spreadsheet_safe=safe)
    plain = unescape if safe else str

    header, *body = read_rows(path)
    assert [plain(name) for name in header] == names
    found = [
        (
            plain(text),
            int(number) if number else None,
            float(real) if real else None,
            datetime.fromisoformat(when) if when else None,
        )
        for text, number, real, when in body
    ]
    assert found == [(text or "", number, real, when) for text, number, real, when in rows]

    table = duckdb.execute(READ_CSV, [str(path)]).fetchall()
    assert [(None if text is None else plain(text), number, real) for text, number, real, _ in table] == [
        row[:3] for row in rows
    ]


def test_read_csv_of_times_with_and_without_fraction_gives_the_same_times(tmp_path: Path) -> None:
    """Pandas reads a column that holds both with the options that the docstring names."""
    texts = pd.Series(["2026-06-15T01:00:02Z", "2026-06-15T01:00:02.942443Z", None])
    times = pd.to_datetime(texts, format="ISO8601")
    frame = pd.DataFrame({"id": ["a", "b", "c"], "triggered_at": times})
    export_csv(frame, tmp_path / "runs.csv")
    read = pd.read_csv(tmp_path / "runs.csv", parse_dates=["triggered_at"], date_format="ISO8601")
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)


def test_whole_seconds_west_of_greenwich_have_no_fraction(tmp_path: Path) -> None:
    times = pd.Series(pd.to_datetime(["2026-06-14T12:00:00Z"])).dt.tz_convert("America/New_York")
    export_csv(times.to_frame("at"), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines() == ['"at"', '"2026-06-14T08:00:00-04:00"']


@pytest.mark.parametrize("make", [pl.DataFrame, pl.LazyFrame, pa.table])
def test_nan_of_other_libraries_is_an_empty_cell(make: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    export_csv(make({"id": ["a", "b"], "rate": [float("nan"), 0.5]}), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == '"id","rate"\n"a",\n"b",0.5\n'
