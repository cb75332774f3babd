"""Tests of `load_deployments`: all values of all deployments, in each edition, with the fewest requests."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from qoderdata import Client, flatten_deployments, load_deployments
from qoderdata.errors import DataQualityWarning
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).resolve().parent.parent / "data"
Record = dict[str, Any]
LeafPath = tuple[str | int, ...]

DEPLOYMENTS = 1_250
TEXT = "str"
TIME = "datetime64[us, UTC]"

#: The data types that a frame of the documentation has, written by hand.
DTYPES = {
    name: column["dtype"]
    for name, column in json.loads((DATA / "list_deployments.frame.json").read_bytes()).items()
}
CONSTANTS = [(("type",), "deployment"), (("agent", "type"), "agent"), (("budget", "type"), "limit")]
ARRAYS = ("schedule_upcoming_runs_at", "vault_ids")
NOTHING = object()
JSON_TEXTS = ("initial_events", "resources", "metadata")
ZERO_TIME = "0001-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def account() -> Iterator[Sandbox]:
    with Sandbox(deployments=DEPLOYMENTS, seed=7) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def truth(account: Sandbox) -> list[Record]:
    return account.deployments


@pytest.fixture(scope="module")
def live(truth: list[Record]) -> pd.DataFrame:
    return flatten_deployments(record for record in truth if record["archived_at"] is None)


@pytest.fixture
def sandbox(account: Sandbox) -> Sandbox:
    account.edition, account.send_next_page, account.short_pages = "C", True, False
    account.requests.clear()
    return account


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("QODERDATA_CACHE_DIR", str(folder))
    return folder


# -- comparison of each value, written from the documentation without code of the package ------------------------


def leaves(value: object, path: LeafPath = ()) -> Iterator[tuple[LeafPath, object]]:
    """Yield each leaf of a JSON value with its path; an empty object or list is a leaf."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def rows(frame: pd.DataFrame) -> Iterator[Record]:
    """Yield each row as a dict of its non-missing values, with JSON texts parsed."""
    for values in zip(*(frame[name].astype(object) for name in frame.columns), strict=True):
        row = {
            name: value
            for name, value in zip(frame.columns, values, strict=True)
            if isinstance(value, np.ndarray) or (value is not None and not pd.isna(value))
        }
        for name in {*JSON_TEXTS, "extra"} & row.keys():
            row[name] = json.loads(str(row[name]))
        yield row


def equal_values(cell: object, leaf: object) -> bool:
    """Compare a cell with a leaf; digits after the microseconds are dropped."""
    if isinstance(cell, pd.Timestamp | np.datetime64):
        time = cell if isinstance(cell, pd.Timestamp) else pd.Timestamp(cell, tz="UTC")
        return time.unit == "us" and isinstance(leaf, str) and time == datetime.fromisoformat(leaf)
    if isinstance(cell, float) and isinstance(leaf, str):
        return Decimal(repr(cell)) == Decimal(leaf)
    return type(cell) is type(leaf) and cell == leaf


def descend(value: Any, keys: LeafPath) -> object:  # noqa: ANN401 - any JSON value
    for key in keys:
        value = value[key]
    return value


def cell_of(row: Record, path: LeafPath) -> tuple[str, object]:
    """Return the column of a leaf and its value there; `NOTHING` if the row does not have the column."""
    if path[:2] == ("metadata", "cas_config"):
        path = path[2:]
    elif path[0] in JSON_TEXTS:
        return str(path[0]), descend(row[str(path[0])], path[1:]) if path[0] in row else NOTHING
    column = "_".join(key for key in path if isinstance(key, str))
    if column in ARRAYS and column in row:
        return column, descend(row[column], path[-1:]) if isinstance(path[-1], int) else list(row[column])
    return column, row.get(column, NOTHING)


def count_leaves(cell: object) -> int:
    """Return the number of leaves in a cell."""
    return sum(1 for _ in leaves(cell.tolist() if isinstance(cell, np.ndarray) else cell))


def check(record: Record, row: Record) -> None:
    """Check that a row has each leaf of its record, in its column or in `extra`, and nothing else."""
    extra = row.pop("extra", {})
    found: Counter[str] = Counter()
    paths = set()
    for path, leaf in leaves(record):
        column, cell = cell_of(row, path)
        if cell is not NOTHING and equal_values(cell, leaf):
            found[column] += 1
            continue
        assert cell is NOTHING, path
        if leaf is None or leaf == ZERO_TIME or (path, leaf) in CONSTANTS:
            continue
        names = [".".join(map(str, path[:length])) for length in range(1, len(path) + 1)]
        (length, name) = next((length, name) for length, name in enumerate(names, start=1) if name in extra)
        assert equal_values(descend(extra[name], path[length:]), leaf), path
        paths.add(name)
    assert paths == extra.keys()
    # The user's own metadata is a JSON text also if it has no keys besides `cas_config`.
    if row.get("metadata") == {}:
        found["metadata"] = 1
    assert found == {column: count_leaves(cell) for column, cell in row.items()}


def check_all(frame: pd.DataFrame, truth: list[Record]) -> None:
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == DTYPES
    assert frame.index.equals(pd.RangeIndex(len(truth)))
    assert list(frame["id"]) == [record["id"] for record in truth]
    for record, row in zip(truth, rows(frame), strict=True):
        check(record, row)


class TestFullAccount:
    @pytest.mark.parametrize(
        ("edition", "first", "again"),
        [("A", [200] * 2, [200] * 2), ("B", [200] * 13, [200] * 13), ("C", [400] + [200] * 13, [200] * 13)],
    )
    def test_all_values_are_loaded_with_the_fewest_requests(
        self, sandbox: Sandbox, truth: list[Record], edition: str, first: list[int], again: list[int]
    ) -> None:
        sandbox.edition = edition
        client = Client(sandbox.pat, sandbox.base_url)
        frame = load_deployments(include_archived=True, client=client)
        assert len(truth) == DEPLOYMENTS
        check_all(frame, truth)
        assert [request.status for request in sandbox.requests] == first
        assert frame.attrs["requests"] == len(first)

        sandbox.requests.clear()
        cached = load_deployments(include_archived=True, client=client)
        assert sandbox.requests == []
        pd.testing.assert_frame_equal(cached, frame)

        pulled = load_deployments(include_archived=True, client=client, refresh=True)
        assert [request.status for request in sandbox.requests] == again
        pd.testing.assert_frame_equal(pulled, frame)

    def test_extra_has_only_the_field_without_a_column(self, client: Client) -> None:
        """`check` also accepts a value in `extra` that belongs in a column."""
        frame = load_deployments(include_archived=True, client=client)
        keys = {key for text in frame["extra"].dropna() for key in json.loads(text)}
        assert keys == {"environment_variables"}
        missing = frame.isna().all()
        assert list(missing[missing].index) == []

    @pytest.mark.parametrize("send_next_page", [True, False], ids=["with next_page", "without next_page"])
    @pytest.mark.parametrize("short_pages", [False, True], ids=["full pages", "short pages"])
    @pytest.mark.parametrize("edition", "ABC")
    def test_frame_is_the_same_with_short_pages_or_without_next_page(
        self, sandbox: Sandbox, live: pd.DataFrame, edition: str, *, send_next_page: bool, short_pages: bool
    ) -> None:
        """Short pages hold fewer records than the limit, and their last id is that of a record not shown."""
        sandbox.edition, sandbox.send_next_page, sandbox.short_pages = edition, send_next_page, short_pages
        assert len(live) < DEPLOYMENTS
        frame = load_deployments(client=Client(sandbox.pat, sandbox.base_url))
        pd.testing.assert_frame_equal(frame, live)
        pages = -(-(DEPLOYMENTS if short_pages else len(live)) // (1000 if edition == "A" else 100))
        assert len(sandbox.requests) == pages + (edition == "C")

    def test_attrs_have_source_time_and_requests_and_are_json(self, sandbox: Sandbox, client: Client) -> None:
        before = datetime.now(UTC)
        frame = load_deployments(client=client)
        fetched_at = datetime.fromisoformat(frame.attrs["fetched_at"])
        assert before <= fetched_at <= datetime.now(UTC)
        assert frame.attrs == {
            "source": f"{sandbox.base_url}/deployments",
            "fetched_at": fetched_at.isoformat(),
            "from_cache": False,
            "complete": True,
            "requests": len(sandbox.requests),
        }
        assert json.loads(json.dumps(frame.attrs)) == frame.attrs
        cached = load_deployments(client=client)
        assert cached.attrs == frame.attrs | {"from_cache": True, "requests": 0}

    def test_changes_of_a_frame_do_not_change_later_frames(self, client: Client, live: pd.DataFrame) -> None:
        """Changes of a returned frame do not change the cache or the next frame."""
        for _ in range(3):
            frame = load_deployments(client=client)
            pd.testing.assert_frame_equal(frame, live)
            frame["name"] = "changed"
            frame.loc[frame["id"] != "", "agent_version"] = 0
            frame["schedule_upcoming_runs_at"] = None


class TestEmptyAccount:
    @pytest.mark.parametrize("edition", "ABC")
    def test_has_the_same_columns_and_dtypes(self, edition: str) -> None:
        with Sandbox(deployments=0, runs=0, edition=edition) as sandbox:
            client = Client(sandbox.pat, sandbox.base_url)
            for expected in (False, True):
                frame = load_deployments(client=client)
                check_all(frame, [])
                assert frame.attrs["from_cache"] is expected

    def test_filter_without_matches_gives_an_empty_frame(self, client: Client) -> None:
        check_all(load_deployments(agent_id="agent_unknown", client=client), [])


@pytest.mark.filterwarnings("ignore::qoderdata.errors.DataQualityWarning")
@pytest.mark.parametrize("edition", "ABC")
def test_unusual_values_are_kept_in_extra(edition: str) -> None:
    """The records have values that fit no column, unknown fields, and numbers that a float cannot hold."""
    with Sandbox(deployments=230, seed=3, runs=0, edition=edition) as sandbox:
        records = sandbox.deployments
        unusual: list[Record] = [
            {"agent": {"id": "agent_1", "type": "agent", "version": 2**53 + 1}},
            {"agent": {"id": "agent_1", "type": "team", "version": 2**62}},
            {"agent": {"id": 7, "version": "seven"}},
            {"agent": None, "schedule": None, "metadata": None},
            {"created_at": "2026-06-14T08:58:17.123456999Z", "updated_at": ZERO_TIME, "archived_at": ZERO_TIME},
            {"created_at": "2026-06-14T08:58:17.1Z", "updated_at": "yesterday", "archived_at": None},
            {"schedule": {"expression": "", "upcoming_runs_at": ["2026-06-15T01:00:00Z", "soon"]}},
            {"schedule": {"expression": {"hour": 9}, "timezone": 8, "new": {"deep": [{"er": None}, 1]}}},
            {"metadata": {"cas_config": {"config": {"timeout_ms": True}, "stats": {"total_runs": 1}}, "a.b": "c"}},
            {"metadata": {"cas_config": {"stats": {"total_failures": 3}, "session_strategy": []}, "名": ""}},
            {"vault_ids": ["vault_1", 2], "resources": {"not": "a list"}, "initial_events": []},
            {"vault_ids": [], "resources": [{"x": [[], {}]}], "initial_events": [{"n": 2**53 + 1}]},
            {"budget": {"max": 12345678901234567, "per": {"day": [1, 2]}}, "labels": [], "owner": False},
            {"name": "", "description": "\x00 \u202e \U0001f680", "type": "deployment/2", "status": "resting"},
        ]
        for number, change in enumerate(unusual):
            records[16 * number] |= change
            sandbox.rewrite(records[16 * number])
        assert sandbox.deployments == records
        client = Client(sandbox.pat, sandbox.base_url)
        with pytest.warns(DataQualityWarning, match=r"\d+ values of \d+ deployments") as caught:
            frame = load_deployments(include_archived=True, client=client)
        assert len(caught) == 1, "a load warns once"
        assert records[2 * 16]["id"] in str(caught[0].message)
        check_all(frame, records)
        check_all(load_deployments(include_archived=True, client=client), records)
