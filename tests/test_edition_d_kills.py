"""Event reads in a process that gets SIGKILL at random moments: nothing is lost, little is read twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import qoderdata as qd
from tests.edition_d_service import KINDS, TOKEN, Account, EditionD

if TYPE_CHECKING:
    from pathlib import Path

_LOAD = """
import sys
import qoderdata as qd
client = qd.Client(pat=sys.argv[1], base_url=sys.argv[2], min_interval=0)
qd.load_runs(outcomes="events", client=client, cache_dir=sys.argv[3], progress=False)
"""


def load_and_kill(service: EditionD, folder: Path, *, after: int, delay: float) -> bool:
    """Start a process, kill it some event reads and a moment later; return whether it was still at work."""

    def read() -> int:
        return sum(request.list == "sessions/*/events" for request in service.requests)

    seen = read()
    with subprocess.Popen([sys.executable, "-c", _LOAD, TOKEN, service.base_url, str(folder)]) as process:
        while read() < seen + after and process.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
    return process.returncode != 0


@pytest.mark.parametrize(
    ("most", "kills"), [pytest.param(2, 2, id="short"), pytest.param(10**6, 25, id="long", marks=pytest.mark.long)]
)
def test_killed_while_events_are_read(tmp_path: Path, most: int, kills: int) -> None:
    chance = random.Random(11)  # noqa: S311 - moments, not secrets
    account = Account(tuple(kind._replace(runs=min(most, kind.runs)) for kind in KINDS))
    expected = sum(kind.requests for kind in account.kind_of.values())
    with EditionD(account) as service:
        killed = 0
        for _ in range(kills):
            after = chance.randrange(1, 2 * expected // (kills + 1) - 4)
            killed += load_and_kill(service, tmp_path, after=after, delay=chance.uniform(0, 0.02))
        client = qd.Client(pat=TOKEN, base_url=service.base_url, min_interval=0)
        frame = qd.load_runs(outcomes="events", client=client, cache_dir=tmp_path, progress=False)
        requests = list(service.requests)
    assert killed > kills // 2
    assert dict(
        zip(frame["id"], frame["status"].astype(object).where(frame["status"].notna(), None), strict=True)
    ) == {id_: truth.status for id_, truth in account.truth.items()}
    ended = {id_: truth.completed_at for id_, truth in account.truth.items() if truth.completed_at is not None}
    assert dict(frame.loc[frame["completed_at"].notna(), ["id", "completed_at"]].itertuples(index=False)) == ended
    counts = Counter(request.list for request in requests if request.status == 200)
    assert expected <= counts["sessions/*/events"] <= expected + 4 * killed
    assert counts["deployment_runs"] == -(-len(account.runs) // 100)
    gone = Counter(request.path for request in requests if request.status == 404)
    assert set(gone.values()) == {1}
