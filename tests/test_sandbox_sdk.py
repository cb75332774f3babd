"""The proof by a client that nobody here wrote: the official SDK reads everything, with its own paging."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import qca
from qca.managed import AsyncManaged, Managed

from qoderdata.sandbox import Sandbox
from qoderdata.sandbox.draws import nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Record = dict[str, Any]


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(deployments=110, seed=21, runs=330) as sandbox:
        yield sandbox


@pytest.fixture(params="ABC")
def sandbox(request: pytest.FixtureRequest, running: Sandbox) -> Sandbox:
    running.edition = request.param
    return running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Managed]:
    with Managed(pat=sandbox.pat, base_url=sandbox.base_url, max_retries=0) as managed:
        yield managed


def comparable(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Read every time as far as the SDK does, to the microsecond."""
    if isinstance(value, dict):
        return {key: comparable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}(\.\d+)?Z", value):
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value))
    return value


def read(models: Iterable[Any]) -> list[Record]:
    """Take the SDK's models apart; its own models do not foresee ``cas_config`` and texts as content."""
    return [comparable(model.model_dump(mode="json", exclude_unset=True, warnings=False)) for model in models]


def live(sandbox: Sandbox) -> list[Record]:
    return [record for record in sandbox.deployments if record["archived_at"] is None]


@pytest.mark.parametrize("limit", [None, 100, 7])
def test_it_walks_all_deployments(sandbox: Sandbox, client: Managed, limit: int | None) -> None:
    assert read(client.deployments.list(limit=limit)) == comparable(live(sandbox))
    assert read(client.deployments.list(include_archived=True, limit=limit)) == comparable(sandbox.deployments)


@pytest.mark.parametrize("limit", [None, 100])
def test_it_walks_all_runs(sandbox: Sandbox, client: Managed, limit: int | None) -> None:
    assert read(client.deployment_runs.list(limit=limit)) == comparable(sandbox.runs)


def test_it_walks_the_runs_of_each_deployment(sandbox: Sandbox, client: Managed) -> None:
    for deployment in sandbox.deployments[::15]:
        expected = [run for run in sandbox.runs if run["deployment_id"] == deployment["id"]]
        assert read(client.deployments.runs.list(deployment["id"], limit=3)) == comparable(expected)


def test_its_filters_mean_what_they_say(sandbox: Sandbox, client: Managed) -> None:
    at = datetime(2026, 6, 14, tzinfo=UTC)
    bound = int(at.timestamp()) * 10**9
    agent = sandbox.deployments[0]["agent"]["id"]
    paused = [record for record in live(sandbox) if record["status"] == "paused"]
    of_agent = [record for record in live(sandbox) if record["agent"]["id"] == agent]
    by_hand = [run for run in sandbox.runs if run["trigger_context"]["type"] == "manual" and run["error"]]
    assert read(client.deployments.list(status="paused")) == comparable(paused) != []
    assert read(client.deployments.list(agent_id=agent)) == comparable(of_agent) != []
    assert read(client.deployment_runs.list(trigger_type="manual", has_error=True)) == comparable(by_hand) != []
    since = [run for run in sandbox.runs if sandbox.edition != "C" or nanoseconds(run["created_at"]) >= bound]
    before = [run for run in sandbox.runs if sandbox.edition != "C" or nanoseconds(run["created_at"]) < bound]
    assert read(client.deployment_runs.list(created_at_gte=at, limit=100)) == comparable(since)
    assert read(client.deployment_runs.list(created_at_lt=at, limit=100)) == comparable(before)
    newer = [one for one in live(sandbox) if sandbox.edition != "C" or nanoseconds(one["created_at"]) >= bound]
    assert read(client.deployments.list(created_at_gte=at)) == comparable(newer)


def test_it_reads_one(sandbox: Sandbox, client: Managed) -> None:
    deployment, run = sandbox.deployments[17], sandbox.runs[17]
    assert read([client.deployments.retrieve(deployment["id"])]) == comparable([deployment])
    assert read([client.deployment_runs.retrieve(run["id"])]) == comparable([run])


def test_its_asynchronous_sibling_walks_too(sandbox: Sandbox) -> None:
    async def walk() -> list[Record]:
        async with AsyncManaged(pat=sandbox.pat, base_url=sandbox.base_url) as managed:
            return read([model async for model in managed.deployments.list(limit=50)])

    assert asyncio.run(walk()) == comparable(live(sandbox))


def test_errors_are_its_own_exceptions(sandbox: Sandbox, client: Managed) -> None:
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


def test_it_stops_early_where_next_page_is_left_out(sandbox: Sandbox, client: Managed) -> None:
    """Which is why leaving it out is not the default."""
    sandbox.send_next_page = False
    got = read(client.deployments.list())
    sandbox.send_next_page = True
    assert got == comparable(live(sandbox)[:20])


def test_a_repeated_cursor_does_not_escape_it(sandbox: Sandbox, client: Managed) -> None:
    sandbox.misbehave("repeat-cursor")
    with pytest.raises(RuntimeError, match="cursor did not advance"):
        list(client.deployments.list())
