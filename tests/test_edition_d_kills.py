"""Tests of `load_runs` in processes killed while they read events: no data is lost, few requests are repeated."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import qoderdata as qd
from tests.edition_d_service import KINDS, TOKEN, Account, EditionD, Request

if TYPE_CHECKING:
    from pathlib import Path

#: Commits are frequent, so that some kills are during a commit.
_LOAD = """
import sys
import qoderdata as qd
from qoderdata.store import journal
journal._FULL_ENTRIES = 3
client = qd.Client(pat=sys.argv[1], base_url=sys.argv[2], min_interval=0)
qd.load_runs(outcomes="events", client=client, cache_dir=sys.argv[3], progress=False)
"""

#: Event reads after which the service stops to answer a process that is to be killed.
_MAX_READS = 8


def load_and_kill(service: EditionD, folder: Path, *, after: int, delay: float) -> bool:
    """Load in a process, kill it `delay` seconds after that many event reads; return whether it was still running.

    The service then stops to answer, so that the process cannot finish before a late kill on a busy machine.
    """
    reads, reached, is_killed = itertools.count(1), threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        number = next(reads) if request.list == "sessions/*/events" and not is_killed.is_set() else 0
        if number == after:
            reached.set()
        if number >= after + _MAX_READS:
            is_killed.wait(60)

    service.before = hold
    with subprocess.Popen([sys.executable, "-c", _LOAD, TOKEN, service.base_url, str(folder)]) as process:
        while not reached.wait(0.001) and process.poll() is None:
            pass
        time.sleep(delay)
        process.kill()
    is_killed.set()
    service.before = None
    return process.returncode != 0


#: With all random faults, as many as `test_random_faults` kills during commits.
_MANY_KILLS = 100 if os.environ.get("QODERDATA_RANDOM_FAULTS") == "full" else 25


@pytest.mark.parametrize(
    ("most_per_kind", "kills"),
    [pytest.param(2, 2, id="short"), pytest.param(10**6, _MANY_KILLS, id="long", marks=pytest.mark.long)],
)
def test_load_runs_resumes_after_kills_while_events_are_read(
    tmp_path: Path, most_per_kind: int, kills: int
) -> None:
    rng = random.Random(11)  # noqa: S311 - no secrets
    account = Account(tuple(kind._replace(runs=min(most_per_kind, kind.runs)) for kind in KINDS))
    expected = sum(kind.requests for kind in account.kind_of.values())
    with EditionD(account) as service:
        killed = 0
        for _ in range(kills):
            after = rng.randrange(1, 2 * expected // (kills + 1) - 4)
            killed += load_and_kill(service, tmp_path, after=after, delay=rng.uniform(0, 0.02))
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
