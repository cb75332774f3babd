"""The same call gives the same rows in every edition, whatever the edition knows of the filter."""

from __future__ import annotations

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
        # Two in one microsecond, and one at a bound without a fraction.
        first, second, third = running.deployments[40:43]
        running.rewrite(first | {"created_at": "2026-06-01T09:00:00.000001999Z"})
        running.rewrite(second | {"created_at": "2026-06-01T09:00:00.000001Z"})
        running.rewrite(third | {"created_at": "2026-06-01T09:00:00Z"})
        yield running


@pytest.fixture(scope="module")
def truth(sandbox: Sandbox) -> list[Record]:
    return sandbox.deployments


def created(record: Record) -> datetime:
    """Read a time; digits past the microsecond are cut."""
    return datetime.fromisoformat(record["created_at"])


def wanted(record: Record, filters: dict[str, Any]) -> bool:
    """Say what each filter means, one record at a time."""
    since, until = filters.get("created_since"), filters.get("created_until")
    return (
        filters.get("status") in (None, record["status"])
        and filters.get("agent_id") in (None, record["agent"]["id"])
        and (filters.get("include_archived", False) or record["archived_at"] is None)
        and (since is None or created(record) >= since)
        and (until is None or created(record) < until)
    )


def load(sandbox: Sandbox, **filters: Any) -> pd.DataFrame:  # noqa: ANN401 - whatever the filters take
    client = Client(sandbox.pat, sandbox.base_url)
    return load_deployments(**{"client": client, "cache_dir": "memory://filters", "refresh": True, **filters})


def check(sandbox: Sandbox, truth: list[Record], filters: dict[str, Any]) -> int:
    """Load in every edition, and compare with brute force on the truth; give how many rows there are."""
    expected = [record["id"] for record in truth if wanted(record, filters)]
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
    ("filters", "some", "not_all"),
    [
        ({"include_archived": True}, True, False),
        ({}, True, True),
        ({"status": "active"}, True, True),
        ({"status": "paused"}, True, True),
        ({"status": "active", "include_archived": True}, True, True),
        ({"status": "paused", "include_archived": True}, True, True),
        ({"agent_id": "agent_of_nobody"}, False, True),
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
def test_each_filter(
    sandbox: Sandbox, truth: list[Record], filters: dict[str, Any], *, some: bool, not_all: bool
) -> None:
    count = check(sandbox, truth, filters)
    assert (count > 0, count < len(truth)) == (some, not_all)


def test_each_agent(sandbox: Sandbox, truth: list[Record]) -> None:
    agents = sorted({record["agent"]["id"] for record in truth})
    counts = [check(sandbox, truth, {"agent_id": agent, "include_archived": True}) for agent in agents[:4]]
    assert all(counts)
    assert sum(counts) < len(truth) or len(agents) <= 4


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_all_filters_at_once(sandbox: Sandbox, truth: list[Record], data: st.DataObject) -> None:
    """Bounds at, and a microsecond beside, the times of records."""
    times = st.builds(
        lambda index, steps: created(truth[index]) + steps * MICROSECOND,
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


@pytest.mark.parametrize(
    "write",
    [
        lambda moment: moment.isoformat(),
        lambda moment: moment.isoformat().replace("+00:00", "Z"),
        lambda moment: moment.astimezone(ZoneInfo("Asia/Shanghai")),
        lambda moment: moment.astimezone(ZoneInfo("Asia/Shanghai")).isoformat(),
        pd.Timestamp,
        lambda moment: pd.Timestamp(moment).as_unit("ns"),
    ],
)
def test_a_bound_may_be_written_in_any_zone(
    sandbox: Sandbox, truth: list[Record], write: Callable[[datetime], Any]
) -> None:
    since, until = created(truth[200]), created(truth[100])
    expected = load(sandbox, created_since=since, created_until=until)
    assert len(expected) > 50
    pd.testing.assert_frame_equal(load(sandbox, created_since=write(since), created_until=write(until)), expected)


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_service_is_asked_for_what_it_can_do(sandbox: Sandbox, truth: list[Record], edition: str) -> None:
    """An edition that knows a filter sends less; one that does not ignores it."""
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


def test_an_age_is_a_bound_too(sandbox: Sandbox, truth: list[Record]) -> None:
    sandbox.requests.clear()
    age = datetime.now(UTC) - AT + timedelta(days=1)
    load(sandbox, created_since=age, created_until="0s")
    sent = datetime.fromisoformat(sandbox.requests[-1].query["created_at[gte]"])
    assert abs(sent - (AT - timedelta(days=1))) < timedelta(minutes=1)
    expected = [record["id"] for record in truth if wanted(record, {"created_since": sent})]
    assert list(load(sandbox, created_since=age)["id"]) == expected != []


def test_what_lies_before_the_bound_is_not_walked() -> None:
    """An edition that ignores the bound sends the newest first: behind a page that is past it there is nothing."""
    with Sandbox(deployments=1_500, seed=5, runs=0, edition="B") as large:
        since = created(large.deployments[150])
        client = Client(large.pat, large.base_url)
        frame = load_deployments(client=client, include_archived=True, created_since=since)
        assert list(frame["id"]) == [record["id"] for record in large.deployments[:151]]
        assert len(large.requests) <= 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"status": "archived"}, r"status='archived' is not known; allowed are 'active', 'paused', None"),
        ({"status": ""}, "status=''"),
        ({"created_since": "2026-06-01"}, r"created_since='2026-06-01' has no time zone"),
        ({"created_until": datetime(2026, 6, 1)}, "created_until=.*has no time zone"),  # noqa: DTZ001 - the point
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
def test_what_cannot_be_meant_is_refused_without_a_request(
    sandbox: Sandbox, arguments: dict[str, Any], message: str
) -> None:
    sandbox.requests.clear()
    with pytest.raises(ValueError, match=message):
        load(sandbox, **arguments)
    assert sandbox.requests == []
