"""Tests of the sandbox with the official SDK: it reads everything, with its own paging."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import qca
from pydantic import TypeAdapter
from qca.managed import AsyncManaged, Managed

from qoderdata.sandbox import Sandbox
from qoderdata.sandbox.changes import EDITIONS
from qoderdata.sandbox.sample_values import nanoseconds
from tests.sandbox_requests import Record, live_deployments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@pytest.fixture(scope="module", autouse=True)
def _cache_type_adapters() -> Iterator[None]:
    """Let the SDK keep the validator of each type, which it otherwise builds again for each value."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qca.common._models.TypeAdapter", cache(TypeAdapter))
        yield


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(deployments=45, seed=21, runs=150) as sandbox:
        yield sandbox


@pytest.fixture(params=EDITIONS)
def sandbox(request: pytest.FixtureRequest, running: Sandbox) -> Sandbox:
    running.edition = request.param
    return running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Managed]:
    with Managed(pat=sandbox.pat, base_url=sandbox.base_url, max_retries=0) as managed:
        yield managed


def comparable(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Parse every time to the microsecond, as the SDK does."""
    if isinstance(value, dict):
        return {key: comparable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}(\.\d+)?Z", value):
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value))
    return value


def read(models: Iterable[Any]) -> list[Record]:
    """Convert the SDK's models to dicts; they do not foresee ``cas_config`` and text as content."""
    return [comparable(model.model_dump(mode="json", exclude_unset=True, warnings=False)) for model in models]


def test_sdk_lists_all_deployments(sandbox: Sandbox, client: Managed) -> None:
    assert read(client.deployments.list()) == comparable(live_deployments(sandbox))
    assert read(client.deployments.list(include_archived=True, limit=7)) == comparable(sandbox.deployments)


def test_sdk_lists_all_runs(sandbox: Sandbox, client: Managed) -> None:
    assert read(client.deployment_runs.list()) == comparable(sandbox.runs)


def test_sdk_lists_the_runs_of_each_deployment(sandbox: Sandbox, client: Managed) -> None:
    for deployment in sandbox.deployments[::9]:
        expected = [run for run in sandbox.runs if run["deployment_id"] == deployment["id"]]
        assert read(client.deployments.runs.list(deployment["id"], limit=3)) == comparable(expected)


def test_sdk_filters_of_deployments_and_runs_return_the_matching_records(
    sandbox: Sandbox, client: Managed
) -> None:
    at = datetime(2026, 6, 14, tzinfo=UTC)
    bound = int(at.timestamp()) * 10**9
    agent = sandbox.deployments[0]["agent"]["id"]
    paused = [record for record in live_deployments(sandbox) if record["status"] == "paused"]
    of_agent = [record for record in live_deployments(sandbox) if record["agent"]["id"] == agent]
    by_hand = [run for run in sandbox.runs if run["trigger_context"]["type"] == "manual" and run["error"] is None]
    failed = [run for run in sandbox.runs if run["error"]]
    both = [run for run in failed if run["trigger_context"]["type"] == "manual"]
    assert read(client.deployments.list(status="paused")) == comparable(paused) != []
    assert read(client.deployments.list(agent_id=agent)) == comparable(of_agent) != []
    assert read(client.deployment_runs.list(trigger_type="manual", has_error=False)) == comparable(by_hand) != []
    assert read(client.deployment_runs.list(has_error=True)) == comparable(failed) != []
    assert read(client.deployment_runs.list(trigger_type="manual", has_error=True)) == comparable(both)
    assert bool(both) == (sandbox.edition < "D"), "in edition D, no manual run of this account has an error"
    since = [run for run in sandbox.runs if sandbox.edition in "AB" or nanoseconds(run["created_at"]) >= bound]
    before = [run for run in sandbox.runs if sandbox.edition in "AB" or nanoseconds(run["created_at"]) < bound]
    assert read(client.deployment_runs.list(created_at_gte=at, limit=100)) == comparable(since) != []
    assert read(client.deployment_runs.list(created_at_lt=at, limit=100)) == comparable(before) != []
    newer = [
        one
        for one in live_deployments(sandbox)
        if sandbox.edition in "AB" or nanoseconds(one["created_at"]) >= bound
    ]
    assert read(client.deployments.list(created_at_gte=at)) == comparable(newer) != []


def test_sdk_lists_all_sessions(sandbox: Sandbox, client: Managed) -> None:
    sessions = sandbox.sessions
    listed = [session for session in sessions if session["archived_at"] is None]
    assert read(client.sessions.list()) == comparable(listed)
    assert read(client.sessions.list(include_archived=True, limit=100)) == comparable(sessions)
    assert 0 < len(listed) < len(sessions)


def test_sdk_filters_of_sessions_return_the_matching_sessions(sandbox: Sandbox, client: Managed) -> None:
    listed = [session for session in sandbox.sessions if session["archived_at"] is None]
    ended = [session for session in listed if session["status"] in ("idle", "terminated")]
    busiest = listed[10]["deployment_id"]
    agent = listed[0]["agent"]
    of_one = [session for session in listed if session["deployment_id"] == busiest]
    of_agent = [session for session in listed if session["agent"] == agent]
    assert read(client.sessions.list(statuses=["idle", "terminated"], limit=100)) == comparable(ended) != listed
    assert read(client.sessions.list(deployment_id=busiest)) == comparable(of_one) != []
    found = client.sessions.list(agent_id=agent["id"], agent_version=agent["version"])
    assert read(found) == comparable(of_agent) != []
    assert read(client.sessions.list(order="asc", limit=100)) == comparable(listed[::-1])
    at = datetime(2026, 6, 14, tzinfo=UTC)
    bound = int(at.timestamp()) * 10**9
    since = [one for one in listed if sandbox.edition in "AB" or nanoseconds(one["created_at"]) >= bound]
    assert read(client.sessions.list(created_at_gte=at, limit=100)) == comparable(since) != []


def test_sdk_lists_the_events_of_sessions(sandbox: Sandbox, client: Managed) -> None:
    longest = max(sandbox.sessions, key=lambda session: len(sandbox.events(session["id"])))
    assert len(sandbox.events(longest["id"])) > 100
    for session in [longest, *sandbox.sessions[::40]]:
        events = sandbox.events(session["id"])
        assert read(client.sessions.events.list(session["id"], limit=100)) == comparable(events)
        assert read(client.sessions.events.list(session["id"], order="desc")) == comparable(events[::-1])
        types = ["session.status_idle", "session.error"]
        chosen = [event for event in events if event["type"] in types]
        assert read(client.sessions.events.list(session["id"], types=types)) == comparable(chosen)


def test_sdk_lists_and_retrieves_agents_and_environments(sandbox: Sandbox, client: Managed) -> None:
    for resource, records in ((client.agents, sandbox.agents), (client.environments, sandbox.environments)):
        listed = [record for record in records if record["archived_at"] is None]
        assert read(resource.list(limit=2)) == comparable(listed)
        assert read(resource.list(include_archived=True)) == comparable(records)
        assert len(listed) < len(records)
        assert read([resource.retrieve(records[0]["id"])]) == comparable([records[0]])


def test_sdk_retrieves_single_records(sandbox: Sandbox, client: Managed) -> None:
    deployment, run = sandbox.deployments[17], sandbox.runs[17]
    assert read([client.deployments.retrieve(deployment["id"])]) == comparable([deployment])
    assert read([client.deployment_runs.retrieve(run["id"])]) == comparable([run])
    scoped = client.deployments.runs.retrieve(run["id"], deployment_id=run["deployment_id"])
    assert read([scoped]) == comparable([run])
    session = sandbox.sessions[17]
    assert read([client.sessions.retrieve(session["id"])]) == comparable([session])


def test_async_sdk_client_lists_all_deployments(sandbox: Sandbox) -> None:
    async def walk() -> list[Record]:
        async with AsyncManaged(pat=sandbox.pat, base_url=sandbox.base_url) as managed:
            return read([model async for model in managed.deployments.list(limit=50)])

    assert asyncio.run(walk()) == comparable(live_deployments(sandbox))


def test_sdk_raises_its_own_exceptions_on_errors(sandbox: Sandbox, client: Managed) -> None:
    with pytest.raises(qca.NotFoundError) as missing:
        client.deployments.retrieve("dep_0")
    assert missing.value.request_id == sandbox.requests[-1].request_id
    with (
        Managed(pat="pt-wrong", base_url=sandbox.base_url, max_retries=0) as stranger,
        pytest.raises(qca.AuthenticationError, match="Invalid API key or token"),
    ):
        stranger.deployments.list()
    errors = {"429": qca.RateLimitError, "500": qca.InternalServerError, "reset": qca.APIConnectionError}
    for fault, error in errors.items():
        sandbox.misbehave(fault)
        with pytest.raises(error):
            client.deployments.list()


def test_sdk_stops_after_one_page_without_next_page(sandbox: Sandbox, client: Managed) -> None:
    """Therefore the sandbox sends ``next_page`` by default."""
    sandbox.send_next_page = False
    got = read(client.deployments.list())
    sandbox.send_next_page = True
    assert got == comparable(live_deployments(sandbox)[:20])


def test_sdk_raises_on_a_repeated_cursor(sandbox: Sandbox, client: Managed) -> None:
    sandbox.misbehave("repeat-cursor")
    with pytest.raises(RuntimeError, match="cursor did not advance"):
        list(client.deployments.list())
