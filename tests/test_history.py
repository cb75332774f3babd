"""Tests of `qoderdata.history`: which snapshots of the deployments are kept, for how long, and their values."""

from __future__ import annotations

import errno
import os
import random
import re
import stat
import subprocess
import sys
import warnings
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qoderdata as qd
from qoderdata import history
from qoderdata.decode import from_records
from qoderdata.errors import CacheError, CacheWarning, DataQualityWarning
from qoderdata.files import Folder
from qoderdata.frames import to_pandas
from qoderdata.sandbox import Sandbox
from qoderdata.schema import DEPLOYMENTS
from tests.wall_clock import WallClock, set_wall_clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from qoderdata.settings import Account

START = datetime(2026, 6, 15, 6, tzinfo=UTC)
IDENTITY: Account = {"base_url": "http://127.0.0.1/x", "workspace_id": None, "account": "a"}


pytestmark = pytest.mark.usefixtures("clean_memory")


@pytest.fixture(autouse=True)
def _fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    set_wall_clock(monkeypatch, START, "load.lists")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(deployments=30, seed=7, runs=60) as served:
        yield served


def series(folder: Path | str) -> history.Series:
    return history.series(Folder(folder), IDENTITY, include_archived=True)


def bases_of(to: history.Series) -> list[datetime]:
    return [file.fetched_at for file in history._list(to.folder) if file.is_base]


def table(rows: int, **facts: Any) -> pa.Table:  # noqa: ANN401
    return from_records(
        [{"id": f"dep_{number}", "name": "x" * 40, **facts} for number in range(rows)], DEPLOYMENTS
    )


def pull(client: qd.Client, folder: Path | str, at: datetime = START, **filters: Any) -> pd.DataFrame:  # noqa: ANN401
    WallClock.moment = at
    return qd.load_deployments(client=client, cache_dir=folder, refresh=True, **filters)


@pytest.mark.parametrize("location", ["path", "url"])
def test_each_pull_of_all_deployments_writes_an_equal_snapshot(
    location: str, sandbox: Sandbox, client: qd.Client, tmp_path: Path
) -> None:
    folder = tmp_path if location == "path" else "memory://history"
    pulled = {}
    for number in range(5):
        at = START + timedelta(hours=number)
        pulled[at] = [pull(client, folder, at, include_archived=archived) for archived in (False, True)]
        sandbox.create_runs(3)
        sandbox.archive(pulled[at][0]["id"].iloc[number])
        sandbox.create_deployments(2)
    for at, frames in pulled.items():
        for archived, frame in enumerate(frames):
            past = qd.load_deployments(
                as_of=at + timedelta(minutes=59), include_archived=bool(archived), client=client, cache_dir=folder
            )
            pd.testing.assert_frame_equal(past, frame)
            assert past.attrs == {**frame.attrs, "from_cache": True, "requests": 0}
    listed = qd.snapshots(client, folder)
    assert listed["fetched_at"].tolist() == [at for at in pulled for _ in (0, 1)]
    assert listed["deployments"].tolist() == [len(frame) for frames in pulled.values() for frame in frames]
    assert listed["include_archived"].tolist() == [False, True] * 5
    usage = qd.cache_usage(folder)["snapshots"]
    assert usage["bytes"] > listed["bytes"].sum() > 0
    some = qd.load_snapshots(
        START + timedelta(hours=1), START + timedelta(hours=3), client=client, cache_dir=folder
    )
    assert [one.attrs["fetched_at"] for one in some] == [
        (START + timedelta(hours=number)).isoformat() for number in (1, 2)
    ]
    narrow = qd.load_snapshots(columns=["id", "status"], client=client, cache_dir=folder)
    pd.testing.assert_frame_equal(narrow[-1], pulled[at][0][["id", "status"]])
    for columns in (iter(["id", "status"]), ["id", "status", "id"]):
        again = qd.load_snapshots(columns=columns, client=client, cache_dir=folder)  # type: ignore[arg-type] # an iterator
        pd.testing.assert_frame_equal(again[-1], narrow[-1])
    assert list(qd.load_snapshots(columns="name", client=client, cache_dir=folder)[0].columns) == ["name"]
    assert qd.clear_cache(folder) == usage["files"] + 2
    assert qd.snapshots(client, folder).empty


def test_filtered_or_cached_loads_write_no_snapshot(client: qd.Client, tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = [
        {"status": "active"},
        {"agent_id": "agent_1"},
        {"created_since": "2026-01-01T00:00Z"},
    ]
    for filters in calls:
        pull(client, tmp_path, **filters)
    qd.load_agents(client=client, cache_dir=tmp_path)
    assert qd.snapshots(client, tmp_path).empty
    pull(client, tmp_path)
    qd.load_deployments(client=client, cache_dir=tmp_path)
    assert len(qd.snapshots(client, tmp_path)) == 1


def test_as_of_with_a_filter_filters_the_snapshot(sandbox: Sandbox, client: qd.Client, tmp_path: Path) -> None:
    frame = pull(client, tmp_path)
    sandbox.stop()
    past = qd.load_deployments(as_of="0h", status="paused", client=client, cache_dir=tmp_path)
    assert past["id"].tolist() == frame.loc[frame["status"] == "paused", "id"].tolist()


def test_as_of_without_a_snapshot_or_with_invalid_arguments_raises(client: qd.Client, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no snapshot without archived deployments"):
        qd.load_deployments(as_of=START, client=client, cache_dir=tmp_path)
    pull(client, tmp_path)
    pull(client, tmp_path, START + timedelta(hours=1))
    WallClock.moment = START
    with pytest.raises(CacheError, match=r"the first one is of 2026-06-15 06:00 UTC$"):
        qd.load_deployments(as_of=START - timedelta(seconds=1), client=client, cache_dir=tmp_path)
    with pytest.raises(CacheError, match="no snapshot with archived deployments"):
        qd.load_deployments(as_of=START, include_archived=True, client=client, cache_dir=tmp_path)
    with pytest.raises(CacheError, match=r"it asks the service; with include_archived=False: 2 snapshots$"):
        qd.load_deployments(as_of=START, include_archived=True, client=client, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="as_of"):
        qd.load_deployments(as_of=START, refresh=True, client=client, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="unit"):
        qd.load_deployments(as_of="7", client=client, cache_dir=tmp_path)
    for columns, named in ((["colour"], ["colour"]), ([], []), (5, [5]), ([["name"]], [["name"]])):
        with pytest.raises(ValueError, match=rf"{re.escape(f'columns={named}')}: give columns that a deployments"):
            qd.load_snapshots(columns=columns, client=client, cache_dir=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="include_archived='false' is neither True nor False"):
        qd.load_snapshots(include_archived="false", client=client, cache_dir=tmp_path)  # type: ignore[arg-type]


def test_snapshots_of_another_account_are_not_used(sandbox: Sandbox, client: qd.Client, tmp_path: Path) -> None:
    pull(client, tmp_path)
    other = qd.Client("pt-other", sandbox.base_url)
    assert qd.snapshots(other, tmp_path).empty
    mine, theirs = (
        Path(history.series(Folder(tmp_path), one.identity, include_archived=False).folder.path)
        for one in (client, other)
    )
    mine.rename(theirs)
    with pytest.warns(CacheWarning, match="another account"):
        assert qd.snapshots(other, tmp_path).empty


def test_snapshots_of_another_service_are_not_offered(sandbox: Sandbox, client: qd.Client, tmp_path: Path) -> None:
    pull(client, tmp_path)
    other = qd.Client(sandbox.pat, "http://127.0.0.1/other")
    with pytest.raises(CacheError, match=r"it asks the service$"):
        qd.load_deployments(as_of=START, client=other, cache_dir=tmp_path)


def check_kept_snapshots(quarters: list[int], seed: int) -> None:
    """Check that all snapshots of 24 hours and the last of each day for 400 days stay, with their base files.

    After a longer time without a snapshot, the next one removes none.
    """
    to = series(f"memory://thin-{seed}")
    Folder(f"memory://thin-{seed}").clear()
    times = [START + timedelta(minutes=15 * number) for number in sorted(quarters)]
    for number, at in enumerate(times):
        history.write(to, table(5, description=str(number)), at)
    last = {at.date(): at for at in times}
    now = times[-1]
    if len(times) > 1 and now - times[-2] > timedelta(days=400):
        now = times[-2]  # a clock may be wrong, and nothing was removed
    expected = [
        at for at in times
        if now - at <= timedelta(days=1) or (now - at <= timedelta(days=400) and last[at.date()] == at)
    ]  # fmt: skip
    # Each write removes old snapshots that are not the last of their day; they cannot come back.
    found = history.read(to, history.files_of(to))
    assert [one.file.fetched_at for one in found] == expected
    assert [one.table["description"][0].as_py() for one in found] == [str(times.index(at)) for at in expected]
    bases = len(Folder(f"memory://thin-{seed}").parquet_files()) - len(found)
    assert bases <= len({date.fromordinal(at.toordinal()) for at in times})


with_random_times = given(
    st.lists(st.integers(0, 450 * 24 * 4), min_size=1, max_size=40, unique=True), st.integers(0, 99_999)
)
test_old_snapshots_are_removed_except_the_last_of_each_day = settings(max_examples=12, deadline=None)(
    with_random_times(check_kept_snapshots)
)
test_old_snapshots_are_removed_in_300_random_series = pytest.mark.long(
    settings(max_examples=300, deadline=None)(with_random_times(check_kept_snapshots))
)


def test_bases_that_no_snapshot_needs_are_removed(tmp_path: Path) -> None:
    to = series(tmp_path)
    for day in range(0, 600, 10):
        history.write(to, table(5), START + timedelta(days=day))
    bases = len(Folder(tmp_path).parquet_files()) - len(history.files_of(to))
    assert len(history.files_of(to)) == 41
    # A base is used for 14 days, thus for two of these snapshots.
    assert bases <= 420 / 20 + 1


def test_one_snapshot_of_a_wrong_clock_removes_no_other(tmp_path: Path) -> None:
    to = series(tmp_path)
    times = [START + timedelta(days=day) for day in (0, 100, 200, 200 + 10 * 365)]
    for at in [*times, START + timedelta(days=201)]:
        history.write(to, table(5), at)
    assert {file.fetched_at for file in history.files_of(to)} == {*times, START + timedelta(days=201)}


def test_all_snapshots_of_the_last_24_hours_are_kept(tmp_path: Path) -> None:
    to = series(tmp_path)
    hours = [0, 1, 24]
    for hour in hours:
        history.write(to, table(5), START + timedelta(hours=hour))
    assert [file.fetched_at for file in history.files_of(to)] == [START + timedelta(hours=hour) for hour in hours]


def test_a_base_is_kept_for_a_day_after_its_last_use_in_case_another_process_still_uses_it(tmp_path: Path) -> None:
    to = series(tmp_path)
    for days in (0, 14.5, 414.5):
        history.write(to, table(5), START + timedelta(days=days))
    assert bases_of(to) == [START, START + timedelta(days=14.5), START + timedelta(days=414.5)]


@pytest.mark.parametrize(("known", "bases"), [(5, 1), (4, 2)])
def test_a_base_without_half_of_the_deployments_is_replaced_once(known: int, bases: int, tmp_path: Path) -> None:
    to = series(tmp_path)
    first, second = table(20).slice(0, 10), table(20).slice(10 - known, 10)
    for number, deployments in enumerate((first, second, second)):
        history.write(to, deployments, START + timedelta(hours=number))
    assert bases_of(to) == [START + timedelta(hours=number) for number in range(bases)]


def test_snapshots_that_another_process_removes_meanwhile_are_left_out_silently(tmp_path: Path) -> None:
    to = series(tmp_path)
    for hour in range(3):
        history.write(to, table(5), START + timedelta(hours=hour))
    files = history.files_of(to)
    to.folder.remove(files[1].name)
    assert [one.file for one in history.read(to, files)] == [files[0], files[2]]


@pytest.mark.parametrize("row_group", [1, 3, 2_500])
def test_snapshots_keep_all_values_after_any_change(
    row_group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values become missing, lists become empty or change their order, and deployments change their position."""
    monkeypatch.setattr(history, "_ROW_GROUP", row_group)
    monkeypatch.setattr(history, "_PIECE", 1_000)
    to = series(tmp_path)
    changes: list[dict[str, Any]] = [
        {"vault_ids": ["a", "b"], "schedule": {"upcoming_runs_at": ["2026-06-15T00:00:00Z"]}, "budget": {}},
        {"vault_ids": [], "schedule": {"upcoming_runs_at": []}, "budget": {"max_credit_cost": "12.50"}},
        {"vault_ids": None, "schedule": None, "metadata": {"team": "x"}},
        {"vault_ids": ["b", "a"], "description": None, "odd": {"x": [1]}},
        {"vault_ids": ["ba"], "description": "été"},
    ]
    written = []
    for number in range(12):
        records = [
            {"id": f"dep_{one}", "name": f"n{one}", **changes[(number * one) % len(changes)]}
            for one in range(number % 3, 9 + number)
        ]
        random.Random(number).shuffle(records)  # noqa: S311 - no secrets
        written.append(from_records(records, DEPLOYMENTS))
        history.write(to, written[-1], START + timedelta(hours=number))
    history.write(to, DEPLOYMENTS.arrow.empty_table(), START + timedelta(hours=12))
    found = history.read(to, history.files_of(to))
    assert found[-1].table.num_rows == 0
    assert [one.table.to_pylist() for one in found[:-1]] == [one.to_pylist() for one in written]


def test_every_second_deployment_of_a_base_keeps_its_values(tmp_path: Path) -> None:
    """The values of their neighbors in the base are not compared with theirs."""
    to = series(tmp_path)
    every, some = (
        from_records([{"id": f"dep_{step * n}", "name": f"name {n}"} for n in range(6 // step)], DEPLOYMENTS)
        for step in (1, 2)
    )
    history.write(to, every, START)
    history.write(to, some, START + timedelta(hours=1))
    assert history.read(to, history.files_of(to))[1].table.to_pylist() == some.to_pylist()


def test_snapshot_of_an_older_version_has_the_current_columns(tmp_path: Path) -> None:
    to = series(tmp_path)
    history.write(to, table(3).drop_columns(["budget_max_credit_cost"]), START)
    history.write(to, table(3, budget={"max_credit_cost": "1"}), START + timedelta(hours=1))
    found = history.read(to, history.files_of(to))
    assert [one.table["budget_max_credit_cost"].to_pylist() for one in found] == [[None] * 3, [1.0] * 3]


@pytest.mark.parametrize("damage", ["changed bit", "truncated", "empty"])
def test_damaged_snapshot_is_left_out_with_a_warning(damage: str, client: qd.Client, tmp_path: Path) -> None:
    first = pull(client, tmp_path)
    pull(client, tmp_path, START + timedelta(hours=1))
    path = max(path for path in (tmp_path / "history").rglob("2*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"changed bit": bytes(content), "truncated": bytes(content[:-9]), "empty": b""}[damage])
    with pytest.warns(CacheWarning, match=r"2026-06-15 07:00 UTC in \S+ was left out: "):
        assert qd.snapshots(client, tmp_path)["fetched_at"].tolist() == [START]
    with pytest.warns(CacheWarning, match="was left out"):
        assert len(qd.load_snapshots(client=client, cache_dir=tmp_path)) == 1
    with pytest.warns(CacheWarning, match="was left out"):
        past = qd.load_deployments(as_of="0h", client=client, cache_dir=tmp_path)
    pd.testing.assert_frame_equal(past, first)


@pytest.mark.parametrize(("damaged", "named"), [(1, ""), (2, " and 1 more"), (3, " and 2 more")])
def test_one_warning_counts_the_damaged_snapshots(damaged: int, named: str, tmp_path: Path) -> None:
    to = series(tmp_path)
    for hour in range(4):
        history.write(to, table(5), START + timedelta(hours=hour))
    files = history.files_of(to)
    for file in files[:damaged]:
        Path(to.folder.path_of(file.name)).write_bytes(b"")
    message = (
        f"the snapshot of 2026-06-15 06:00 UTC{named} in {to.folder.location} was left out: {files[0].name} is"
    )
    with pytest.warns(CacheWarning, match=re.escape(message)) as caught:
        assert [one.file for one in history.read(to, files)] == files[damaged:]
    assert len(caught) == 1


def test_as_of_takes_the_last_usable_snapshot_and_counts_the_damaged_ones_in_one_warning(
    client: qd.Client, tmp_path: Path
) -> None:
    first = pull(client, tmp_path)
    for hour in (1, 2):
        pull(client, tmp_path, START + timedelta(hours=hour))
    for path in sorted((tmp_path / "history").rglob("2*.parquet"))[1:]:
        path.write_bytes(b"")
    with pytest.warns(CacheWarning, match=r"2026-06-15 08:00 UTC and 1 more in \S+ was left out") as caught:
        past = qd.load_deployments(as_of="0h", client=client, cache_dir=tmp_path)
    assert len(caught) == 1
    pd.testing.assert_frame_equal(past, first)


def test_account_of_a_series_is_read_from_any_file_that_can_be_read(client: qd.Client, tmp_path: Path) -> None:
    pull(client, tmp_path)
    base, snapshot = sorted((tmp_path / "history").rglob("*.parquet"), reverse=True)
    assert history.accounts(Folder(tmp_path)) == [client.identity]
    base.write_bytes(b"PAR1")
    assert history.accounts(Folder(tmp_path)) == [client.identity]
    snapshot.write_bytes(b"PAR1")
    assert history.accounts(Folder(tmp_path)) == []


def test_snapshot_of_another_format_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = series(tmp_path)
    history.write(to, table(3), START)
    monkeypatch.setattr(history, "FORMAT", history.FORMAT + 1)
    with pytest.warns(CacheWarning, match="is of another format"):
        assert history.read(to, history.files_of(to)) == []


def test_files_with_other_names_or_an_invalid_time_are_ignored(client: qd.Client, tmp_path: Path) -> None:
    pull(client, tmp_path)
    (file,) = (path for path in tmp_path.glob("history/*/*.parquet") if not path.name.startswith("base-"))
    file.with_name(file.name.replace("20260615T", "20261315T")).write_bytes(file.read_bytes())
    file.with_name("notes.txt").touch()
    copied = file.with_name("copy") / file.name
    copied.parent.mkdir()
    copied.write_bytes(file.read_bytes())
    assert len(qd.snapshots(client, tmp_path)) == 1


def test_pull_after_a_damaged_base_writes_a_readable_snapshot(client: qd.Client, tmp_path: Path) -> None:
    pull(client, tmp_path)
    (base,) = (tmp_path / "history").rglob("base-*.parquet")
    base.write_bytes(b"PAR1")
    frame = pull(client, tmp_path, START + timedelta(hours=1))
    with pytest.warns(CacheWarning, match="its base cannot be read"):
        found = qd.load_snapshots(client=client, cache_dir=tmp_path)
    assert len(found) == 1
    pd.testing.assert_frame_equal(found[0], frame)


def test_snapshot_files_are_private(client: qd.Client, tmp_path: Path) -> None:
    pull(client, tmp_path / "cache")
    modes = {
        path: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (tmp_path / "cache" / "history").rglob("*")
    }
    assert modes
    assert set(modes.values()) == {0}


def test_columns_that_a_snapshot_lacks_are_filled_from_extra(tmp_path: Path) -> None:
    """So `changes` reports only what did change; a value that does not fit stays in ``extra``."""
    added = {"budget_max_credit_cost", "config_max_retries"}
    old = replace(DEPLOYMENTS, columns=tuple(one for one in DEPLOYMENTS.columns if one.name not in added))
    records: list[dict[str, Any]] = [
        {"id": "dep_1", "name": "a", "budget": {"max_credit_cost": "1.50", "type": "limit"}, "a.b": 1},
        {"id": "dep_2", "name": "b", "metadata": {"cas_config": {"config": {"max_retries": "many"}}}},
        {"id": "dep_3", "name": "c", "metadata": {"cas_config": {"config": {"max_retries": 3}}}},
    ]
    later = [*records[:2], {**records[2], "name": "d"}]
    to = series(tmp_path)
    for hour, (schema, found) in enumerate(
        [(old, records), (old, records), (DEPLOYMENTS, records), (DEPLOYMENTS, later)]
    ):
        with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
            history.write(to, from_records(found, schema), START + timedelta(hours=hour))
    tables = [one.table for one in history.read(to, history.files_of(to))]
    assert all(one.schema.equals(DEPLOYMENTS.arrow) for one in tables)
    assert tables[0].equals(tables[1])
    assert tables[1].equals(tables[2])
    assert tables[0]["extra"].to_pylist() == [
        '{"a\\\\.b":1}',
        '{"metadata.cas_config.config.max_retries":"many"}',
        None,
    ]
    frames = [to_pandas(one, DEPLOYMENTS) for one in tables]
    assert qd.changes(frames[0], frames[2]).empty
    assert qd.changes(frames[0], frames[3])["field"].tolist() == ["name"]
    for columns in (["id"], ["budget_max_credit_cost", "id"], ["extra"], ["name", "created_at"]):
        some = history.read(to, history.files_of(to), columns)
        assert [one.table for one in some] == [one.select(columns) for one in tables]


def test_full_disk_raises_and_keeps_earlier_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = series(tmp_path)
    history.write(to, table(5), START)
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        history.write(to, table(6), START + timedelta(days=2))
    monkeypatch.undo()
    assert [file.rows for file in history.files_of(to)] == [5]
    assert history.read(to, history.files_of(to))[0].table.num_rows == 5
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_snapshot_removes_old_temporary_files_of_killed_processes(tmp_path: Path) -> None:
    to = series(tmp_path)
    history.write(to, table(5), START)
    temporary = Path(to.folder.path) / ".base-20260615.1234-abcdef01.tmp"
    temporary.write_bytes(b"half of")
    os.utime(temporary, times=(0, 0))
    history.write(to, table(5), START + timedelta(hours=1))
    assert not temporary.exists()
    assert len(history.files_of(to)) == 2


def test_unwritable_snapshot_warns(client: qd.Client, tmp_path: Path) -> None:
    (tmp_path / history.FOLDER).write_text("in the way")
    with pytest.warns(CacheWarning, match=r"no snapshot was kept.*cannot be written") as caught:
        frame = pull(client, tmp_path)
    assert [str(warning.filename) for warning in caught] == [__file__]
    assert len(frame) == len(qd.load_deployments(client=client, cache_dir=tmp_path, offline=True)) > 0


def test_unwritable_cache_folder_warns_once(client: qd.Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(CacheWarning, match="the answer was not cached") as caught:
        assert len(pull(client, tmp_path / "file")) > 0
    assert len(caught) == 1


#: What programs of tests need, without the imports of this file, which take much longer.
PROLOGUE = f"""
import os, signal, sys
from datetime import datetime, timedelta
from qoderdata import history
from qoderdata.decode import from_records
from qoderdata.files import Folder
from qoderdata.schema import DEPLOYMENTS
def write(folder, day, rows, description, seconds=0):
    records = [{{"id": f"dep_{{number}}", "name": "x" * 40, "description": description}} for number in range(rows)]
    series = history.series(Folder(folder), {IDENTITY}, include_archived=True)
    at = datetime.fromisoformat("{START}") + timedelta(days=day, seconds=seconds)
    history.write(series, from_records(records, DEPLOYMENTS), at)
"""
#: The numbers of files that a process writes before it is killed.
KILLED_AFTER = (0, 1, 2, 20, 21)
KILLED_WRITERS = (
    PROLOGUE
    + f"""
replace = Folder.replace
def write_until_killed(folder, left):
    def replace_or_kill(self, name, fill):
        nonlocal left
        def fill_or_kill(sink):
            fill(sink)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        replace(self, name, fill_or_kill)
    Folder.replace = replace_or_kill
    for day in range(40):
        write(folder, day, 5, str(day))
for after in {KILLED_AFTER}:
    child = os.fork()
    if child == 0:
        write_until_killed(f"{{sys.argv[1]}}/{{after}}", after + 1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""
)


def test_killed_writer_keeps_earlier_snapshots(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED_WRITERS, str(tmp_path)], check=True)
    for after in KILLED_AFTER:
        to = series(tmp_path / str(after))
        found = history.read(to, history.files_of(to))
        texts = [one.table["description"][0].as_py() for one in found]
        assert texts == [str(day) for day in range(len(texts))]
        assert after - 4 <= len(texts) <= after
        history.write(to, table(7), START + timedelta(days=60))
        assert history.read(to, history.files_of(to))[-1].table.num_rows == 7


WRITER = (
    PROLOGUE
    + """
folder, number = sys.argv[1], int(sys.argv[2])
for day in range(12):
    write(folder, day, 50, f"{number}-{day}", seconds=number)
"""
)


def test_two_processes_can_write_snapshots_at_once(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(number)]) for number in (0, 1)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    to = series(tmp_path)
    found = history.read(to, history.files_of(to))
    texts = {one.table["description"][0].as_py() for one in found}
    assert {f"1-{day}" for day in range(12)} <= texts


def test_unchanged_texts_are_stored_once(tmp_path: Path) -> None:
    """Texts that do not change are stored once, so snapshots need less than a fifth of the size of whole files."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - only for comparison

    to = series(tmp_path)
    full_size = 0
    for day in range(14):
        records = [
            {"id": f"dep_{one}", "description": " ".join(str(hash((one, word))) for word in range(60)),
             "metadata": {"cas_config": {"stats": {"total_runs": day * 24 + one}}}}
            for one in range(300)
        ]  # fmt: skip
        one = from_records(records, DEPLOYMENTS)
        history.write(to, one, START + timedelta(days=day))
        pq.write_table(one, tmp_path / "whole.parquet", compression="zstd")
        full_size += (tmp_path / "whole.parquet").stat().st_size
    assert sum(info.size for info in Folder(tmp_path).parquet_files()) < full_size / 5
