"""Tests of the filters of `load_deployments`: each edition gives the same rows."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata import Client, load_deployments
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Record = dict[str, Any]

EDITIONS = "ABC"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(deployments=220, seed=5, runs=440) as running:
        # Two times in one microsecond, and one time without a fraction at the bound `AT`.
        first, second, third = running.deployments[40:43]
        running.rewrite(first | {"created_at": "2026-06-01T09:00:00.000001999Z"})
        running.rewrite(second | {"created_at": "2026-06-01T09:00:00.000001Z"})
        running.rewrite(third | {"created_at": "2026-06-01T09:00:00Z"})
        yield running


@pytest.fixture(scope="module")
def truth(sandbox: Sandbox) -> list[Record]:
    return sandbox.deployments


def created_at(record: Record) -> datetime:
    """Return the creation time; digits after the microseconds are dropped."""
    return datetime.fromisoformat(record["created_at"])


def matches(record: Record, filters: dict[str, Any]) -> bool:
    """Return whether a record matches the filters."""
    since, until = filters.get("created_since"), filters.get("created_until")
    return (
        filters.get("status") in (None, record["status"])
        and filters.get("agent_id") in (None, record["agent"]["id"])
        and (filters.get("include_archived", False) or record["archived_at"] is None)
        and (since is None or created_at(record) >= since)
        and (until is None or created_at(record) < until)
    )


def load(sandbox: Sandbox, **filters: Any) -> pd.DataFrame:  # noqa: ANN401 - filters of load_deployments
    client = Client(sandbox.pat, sandbox.base_url)
    return load_deployments(**{"client": client, "cache_dir": "memory://filters", "refresh": True, **filters})


def check(sandbox: Sandbox, truth: list[Record], filters: dict[str, Any]) -> int:
    """Load in each edition, compare with the matching records, and return their number."""
    expected = [record["id"] for record in truth if matches(record, filters)]
    frames = []
    for edition in EDITIONS:
        sandbox.edition = edition
        frame = load(sandbox, **filters)
        assert list(frame["id"]) == expected, edition
        assert frame.index.equals(pd.RangeIndex(len(expected)))
        frames.append(frame)
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])
    return len(expected)


AT = datetime(2026, 6, 1, 9, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("filters", "has_matches", "has_others"),
    [
        ({"include_archived": True}, True, False),
        ({}, True, True),
        ({"status": "active"}, True, True),
        ({"status": "paused"}, True, True),
        ({"status": "active", "include_archived": True}, True, True),
        ({"status": "paused", "include_archived": True}, True, True),
        ({"agent_id": "agent_unknown"}, False, True),
        ({"created_since": AT}, True, True),
        ({"created_until": AT}, True, True),
        ({"created_since": AT, "created_until": AT + MICROSECOND, "include_archived": True}, True, True),
        ({"created_since": AT + MICROSECOND, "created_until": AT + 2 * MICROSECOND}, True, True),
        ({"created_since": AT + MICROSECOND * 2, "created_until": AT + MICROSECOND * 3}, False, True),
        ({"created_since": datetime(2099, 1, 1, tzinfo=UTC)}, False, True),
        ({"created_until": datetime(1999, 1, 1, tzinfo=UTC)}, False, True),
        ({"created_since": datetime(1999, 1, 1, tzinfo=UTC), "include_archived": True}, True, False),
        ({"created_since": datetime(900, 1, 1, tzinfo=UTC), "include_archived": True}, True, False),
        ({"created_until": datetime(900, 1, 1, tzinfo=UTC)}, False, True),
    ],
    ids=str,
)
def test_filter_gives_the_matching_records_in_each_edition(
    sandbox: Sandbox, truth: list[Record], filters: dict[str, Any], *, has_matches: bool, has_others: bool
) -> None:
    count = check(sandbox, truth, filters)
    assert (count > 0, count < len(truth)) == (has_matches, has_others)


def test_agent_id_gives_the_records_of_the_agent(sandbox: Sandbox, truth: list[Record]) -> None:
    agents = sorted({record["agent"]["id"] for record in truth})
    counts = [check(sandbox, truth, {"agent_id": agent, "include_archived": True}) for agent in agents[:4]]
    assert all(counts)
    assert sum(counts) < len(truth) or len(agents) <= 4


def check_combined_filters(sandbox: Sandbox, truth: list[Record], data: st.DataObject) -> None:
    """Load with random filters; bounds are the times of records, or a microsecond before or after."""
    times = st.builds(
        lambda index, steps: created_at(truth[index]) + steps * MICROSECOND,
        st.integers(0, len(truth) - 1),
        st.integers(-1, 1),
    )
    filters = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "status": st.sampled_from(["active", "paused"]),
                "agent_id": st.sampled_from([record["agent"]["id"] for record in truth[::7]]),
                "include_archived": st.booleans(),
                "created_since": times,
                "created_until": times,
            },
        )
    )
    if {"created_since", "created_until"} <= filters.keys():
        filters["created_until"] = max(filters["created_until"], filters["created_since"] + MICROSECOND)
    check(sandbox, truth, filters)


test_combined_filters_give_the_matching_records = settings(max_examples=10, deadline=None)(
    given(data=st.data())(check_combined_filters)
)
test_200_combinations_of_filters_give_the_matching_records = pytest.mark.long(
    settings(max_examples=200, deadline=None)(given(data=st.data())(check_combined_filters))
)


@pytest.mark.parametrize(
    "write",
    [
        lambda time: time.isoformat(),
        lambda time: time.isoformat().replace("+00:00", "Z"),
        lambda time: time.astimezone(ZoneInfo("Asia/Shanghai")),
        lambda time: time.astimezone(ZoneInfo("Asia/Shanghai")).isoformat(),
        pd.Timestamp,
        lambda time: pd.Timestamp(time).as_unit("ns"),
    ],
)
def test_bounds_in_any_type_and_time_zone_give_the_same_rows(
    sandbox: Sandbox, truth: list[Record], write: Callable[[datetime], Any]
) -> None:
    since, until = created_at(truth[200]), created_at(truth[100])
    expected = load(sandbox, created_since=since, created_until=until)
    assert len(expected) > 50
    pd.testing.assert_frame_equal(load(sandbox, created_since=write(since), created_until=write(until)), expected)


@pytest.mark.parametrize("edition", EDITIONS)
def test_filters_are_sent_to_the_service(sandbox: Sandbox, truth: list[Record], edition: str) -> None:
    """All filters are sent to each edition, because an edition without a filter ignores it."""
    sandbox.edition = edition
    agent = truth[0]["agent"]["id"]
    sandbox.requests.clear()
    load(
        sandbox,
        status="active",
        agent_id=agent,
        include_archived=True,
        created_since=AT,
        created_until="2030-01-01T00:00Z",
    )
    query = sandbox.requests[-1].query
    assert query.pop("limit") in ("100", "1000")
    query.pop("after_id", None)
    assert query == {
        "status": "active",
        "agent_id": agent,
        "include_archived": "true",
        "created_at[gte]": "2026-06-01T09:00:00.000000Z",
        "created_at[lte]": "2030-01-01T00:00:00.000000Z",
    }


def test_created_since_accepts_an_age(sandbox: Sandbox, truth: list[Record]) -> None:
    sandbox.requests.clear()
    age = datetime.now(UTC) - AT + timedelta(days=1)
    load(sandbox, created_since=age, created_until="0s")
    sent = datetime.fromisoformat(sandbox.requests[-1].query["created_at[gte]"])
    assert abs(sent - (AT - timedelta(days=1))) < timedelta(minutes=1)
    expected = [record["id"] for record in truth if matches(record, {"created_since": sent})]
    assert list(load(sandbox, created_since=age)["id"]) == expected != []


def test_pages_older_than_created_since_are_not_requested(caplog: pytest.LogCaptureFixture) -> None:
    """Edition B ignores the bound, but lists the newest first, so older pages are not needed."""
    with Sandbox(deployments=1_500, seed=5, runs=0, edition="B") as large:
        since = created_at(large.deployments[150])
        client = Client(large.pat, large.base_url)
        with caplog.at_level(logging.INFO, logger="qoderdata"):
            frame = load_deployments(client=client, include_archived=True, created_since=since)
        assert list(frame["id"]) == [record["id"] for record in large.deployments[:151]]
        assert len(large.requests) <= 9
        assert "deployments: 3 pages, 151 rows" in caplog.text


def test_records_of_exactly_created_since_are_loaded_from_all_pages() -> None:
    with Sandbox(deployments=3, seed=5, runs=0, edition="B") as small:
        for record in small.deployments:
            small.rewrite(record | {"created_at": "2026-06-01T09:00:00Z"})
        client = Client(small.pat, small.base_url)
        client.page_limit = 1
        frame = load_deployments(client=client, include_archived=True, created_since=AT)
        assert list(frame["id"]) == [record["id"] for record in small.deployments]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"status": "archived"}, r"status='archived' is not known; allowed are 'active', 'paused', None"),
        ({"status": ""}, "status=''"),
        ({"created_since": "2026-06-01"}, r"created_since='2026-06-01' has no time zone"),
        ({"created_until": datetime(2026, 6, 1)}, "created_until=.*has no time zone"),  # noqa: DTZ001 - to test it
        ({"created_since": "last week"}, "created_since='last week' is not a time"),
        ({"max_age": "a while"}, "max_age='a while' is not a length of time"),
        ({"max_age": "-1h"}, "max_age='-1h'"),
        ({"max_age": 5}, "max_age=5 is not a length of time, as it has no unit"),
        ({"max_age": 5, "as_of": "0s", "refresh": False}, "max_age=5 is not a length of time, as it has no unit"),
        ({"offline": True}, "give one of them"),
        ({"refresh": "nope"}, "refresh='nope' is neither True nor False"),
        ({"refresh": "yes", "as_of": "0s"}, "refresh='yes' is neither True nor False"),
        ({"refresh": False, "offline": "false"}, "offline='false' is neither True nor False"),
        ({"refresh": False, "offline": "false", "as_of": "0s"}, "offline='false' is neither True nor False"),
        ({"include_archived": "false"}, "include_archived='false' is neither True nor False"),
        ({"agent_id": ""}, "agent_id='' is not the id of anything"),
        ({"agent_id": float("nan")}, "agent_id=nan is not the id of anything"),
        ({"created_since": 7}, "created_since=7 has no unit"),
        ({"created_since": "10:00Z"}, "created_since='10:00Z' is not a time"),
        ({"created_since": AT, "created_until": AT}, "created_since=.* is not before created_until="),
        ({"created_since": "1D", "created_until": "2D"}, "created_since='1D' is not before created_until='2D'"),
    ],
)
def test_invalid_arguments_raise_value_error_without_a_request(
    sandbox: Sandbox, arguments: dict[str, Any], message: str
) -> None:
    sandbox.requests.clear()
    with pytest.raises(ValueError, match=message):
        load(sandbox, **arguments)
    assert sandbox.requests == []
