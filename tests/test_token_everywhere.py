"""The token, searched for in everything that a working day leaves behind: files, logs, screens, errors, frames.

The day has every public call in it, and every failure that the service can be told to have.
"""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import pickle
import traceback
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import qoderdata as qd
from qoderdata import cli, errors
from qoderdata.client import Client, client
from qoderdata.decode import Decoder
from qoderdata.files import Folder
from qoderdata.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Long and odd enough to be found wherever it is.
TOKEN = "pt-Qz7xWv93kLmTbRyH2nDs5uGf8eJc4aPo"  # noqa: S105 - made up, and what the search is for
#: What the sandbox's owner put into `environment_variables`; kept in `extra`, and shown to nobody.
SECRET = "sandbox-secret-"  # noqa: S105 - likewise

FAULTS = [
    "400", "401", "403", "404", "409", "501", "redirect",
    "408", "429", "429-retry-after", "500", "502-html", "503-empty", "504",
    "html-200", "reset", "cut-body", "cut-json",
]  # fmt: skip


def guises(text: str) -> list[bytes]:
    """Return the forms that a text can hide in: plain, either half, hexadecimal, and Base64 at each offset."""
    raw = text.encode()
    half = len(raw) // 2
    forms = [raw[3:half], raw[half:], raw.hex().encode(), raw.hex().upper().encode(), raw[::-1]]
    for offset in range(3):
        padded = base64.b64encode(b"\0" * offset + raw)
        forms.append(padded[4 : len(padded) // 4 * 4 - 4])
    return forms


def found_in(content: bytes | str, text: str) -> list[bytes]:
    data = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    return [form for form in guises(text) if form in data]


def test_the_search_finds_what_there_is() -> None:
    """A search that cannot find proves nothing."""
    for hidden in (
        f"Bearer {TOKEN}",
        f"...{TOKEN[:20]}",
        TOKEN.encode().hex(),
        base64.b64encode(f"Bearer {TOKEN}".encode()),
        base64.b64encode(f"x{TOKEN}yz".encode()),
        base64.b64encode(f"xx{TOKEN}yz".encode()),
    ):
        assert found_in(hidden, TOKEN), hidden
    assert not found_in("pt-sandbox-7 Bearer ***", TOKEN)


@dataclass(repr=False)
class Day:
    """What happened, and what was left behind."""

    folder: Path
    frames: list[pd.DataFrame] = field(default_factory=list)
    objects: list[object] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def fails(self, call: Callable[[], object], kind: type[BaseException]) -> None:
        """Make a call that fails, and keep the exception; the frames of who knows the token stay out of it."""
        try:
            call()
        except kind as error:
            self.failures.append(error)
        else:
            raise AssertionError(f"no {kind.__name__}")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(deployments=25, seed=7, runs=120) as running:
        running.pat = TOKEN
        yield running


@pytest.fixture(autouse=True)
def _settings(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QODER_PAT", TOKEN)
    monkeypatch.setenv("QODER_MANAGED_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("QODERDATA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command sets its own


def load_everything(day: Day, client: Client) -> tuple[pd.DataFrame, pd.DataFrame]:
    deployments = qd.load_deployments(include_archived=True, client=client, progress=True)
    runs = qd.load_runs(client=client, progress=True)
    day.frames += [deployments, runs]
    day.frames += [qd.load_deployments(include_archived=True, offline=True), qd.load_runs(offline=True)]
    day.frames += [qd.load_deployments(status="paused", max_age="0s"), qd.load_runs(status="failed")]
    day.frames += [qd.load_deployments(client=Client(workspace_id="ws_1"), refresh=True)]
    day.frames += [qd.flatten_deployments([client.get_deployment(deployments["id"][0])])]
    day.frames += [qd.flatten_runs([client.get_run(runs["id"][0])]), qd.upcoming_runs(deployments)]
    day.frames += [qd.expand_metadata(deployments)]
    day.objects += [qd.scan_deployments(engine="duckdb", include_archived=True), qd.cache_usage()]
    day.objects += [Folder(day.folder / "cache"), Decoder]
    return deployments, runs


def analyse_everything(day: Day, deployments: pd.DataFrame, runs: pd.DataFrame, now: pd.Timestamp) -> None:
    since = now - pd.Timedelta("7D")
    rates, triggers = qd.failure_rates(deployments), qd.next_triggers(deployments, start=now)
    by_day = qd.run_failure_rates(runs, by=None, freq="1D")
    load = qd.trigger_load(triggers)
    day.frames += [rates, triggers, by_day, load, qd.failure_streaks(runs), qd.error_breakdown(runs)]
    day.frames += [qd.duration_regressions(runs), qd.consistency(deployments, runs), qd.start_delays(runs)]
    day.frames += [qd.schedule_lints(deployments), qd.missed_triggers(deployments, runs, since=since, until=now)]
    axes = [qd.plot_failure_rates(rates), qd.plot_next_triggers(triggers), qd.plot_trigger_load(triggers)]
    axes += [qd.plot_run_failure_rates(by_day), qd.plot_run_calendar(runs), qd.plot_durations(runs)]
    for number, ax in enumerate(axes):
        plt.sca(ax)
        plt.savefig(day.folder / f"plot-{number}.svg")
    plt.close("all")
    for name, frame in (("deployments", deployments), ("runs", runs), ("rates", rates)):
        qd.export_csv(frame, day.folder / f"{name}.csv")
        qd.export_parquet(frame, day.folder / f"{name}.parquet")
    qd.write_report(deployments, day.folder / "report.html", runs=runs, start=now)


def run_every_command(day: Day, sandbox: Sandbox) -> None:
    out = f"{day.folder}/out"
    commands = {
        f"--verbose pull deployments --refresh --out {out}-deployments.csv": 0,
        f"--verbose pull runs --refresh --json --out {out}-runs.parquet": 0,
        "failures": 0,
        "runs --by agent_id": 0,
        "triggers --json": 0,
        "missed --csv": 0,
        "cache": 0,
        "cache --json": 0,
        f"export deployments {out}-export.csv": 0,
        f"export lints {out}-lints.parquet": 0,
        f"report {out}-report.html --runs": 0,
        "failures --base-url http://127.0.0.1:9/api/v1/cloud --offline": 2,
        "failures --base-url http://example.com": 2,
        f"failures --refresh --base-url {sandbox.base_url}/elsewhere": 4,
    }
    for words, code in commands.items():
        assert cli.main(words.split()) == code, words
    for fault, code in (("401", 3), ("403", 4), ("no-cursor", 4)):
        sandbox.misbehave(fault, at=1)
        assert cli.main(["--verbose", "pull", "deployments", "--refresh"]) == code


def fail_in_every_way(day: Day, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = Client(max_retries=1)
    impatient.page_limit = 20
    for load in (qd.load_deployments, qd.load_runs):
        for fault in FAULTS:
            sandbox._faults = type(sandbox._faults)()
            for at in (0, 1):
                sandbox.misbehave(fault, at=at, location=f"https://example.com/?token={TOKEN}")
            day.fails(lambda load=load: load(client=impatient, refresh=True), errors.APIError)  # type: ignore[misc]
    for fault in ("no-cursor", "repeat-cursor"):
        sandbox.misbehave(fault, at=1)
        day.fails(lambda: qd.load_deployments(client=impatient, refresh=True), errors.PaginationError)
    sandbox._faults = type(sandbox._faults)()
    day.fails(lambda: qd.load_deployments(offline=True, agent_id="agent_of_nobody"), errors.CacheError)
    day.fails(lambda: qd.load_deployments(created_since="2026-06-01"), ValueError)
    day.fails(lambda: qd.load_deployments(client=Client(TOKEN[::-1]), refresh=True), errors.AuthenticationError)
    day.fails(lambda: Client(f"{TOKEN} and more"), errors.CredentialError)
    day.fails(lambda: Client(TOKEN, "http://example.com"), ValueError)
    day.fails(lambda: impatient.get_run("drun_of_nobody"), errors.NotFoundError)
    day.fails(lambda: pickle.dumps(impatient), TypeError)
    for raised in (KeyboardInterrupt, MemoryError, RuntimeError):
        for name in ("read_page", "to_table", "finish"):
            with monkeypatch.context() as patch:
                patch.setattr(Decoder, name, failing(raised()))
                day.fails(lambda: qd.load_deployments(client=impatient, refresh=True), raised)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(OSError(errno.ENOSPC, "No space left on device")))
        day.frames.append(qd.load_deployments(refresh=True))
    for path in (day.folder / "cache" / "queries").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    day.frames.append(qd.load_deployments())
    record = sandbox.deployments[3]
    sandbox.rewrite(record | {"agent": {"id": 5, "version": "one"}, "name": None})
    day.frames.append(qd.load_deployments(refresh=True, include_archived=True))
    sandbox.stop()
    day.fails(lambda: qd.load_deployments(client=impatient, refresh=True), errors.APIConnectionError)
    day.fails(lambda: qd.load_runs(client=impatient, refresh=True), errors.APIConnectionError)


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def all_that_can_be_shown(error: BaseException) -> str:
    """Format an exception as talkative tools do, with causes, contexts, notes and local variables."""
    seen: list[str] = []
    link: BaseException | None = error
    while link is not None:
        seen.extend(traceback.TracebackException.from_exception(link, capture_locals=True, compact=False).format())
        seen += [str(link), repr(link), repr(link.args), repr(vars(link))]
        link = link.__cause__ or link.__context__
    return "\n".join(seen)


def in_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Return every file as it lies, its name, and what is packed in it."""
    for path in folder.rglob("*"):
        yield f"the name {path}", str(path.relative_to(folder)).encode()
        if path.is_file():
            yield str(path), path.read_bytes()
            if path.suffix == ".parquet":
                try:
                    table = pq.read_table(path, partitioning=None)
                except pa.ArrowInvalid:  # one that was damaged on purpose
                    continue
                yield f"{path}, its rows", repr(table.to_pylist()).encode(errors="surrogatepass")
                yield f"{path}, its metadata", repr(pq.read_metadata(path).metadata).encode()


@pytest.mark.filterwarnings("default")
def test_a_whole_day_and_the_token_is_nowhere(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # lists every font of the machine
    day = Day(tmp_path)
    now = pd.Timestamp(sandbox.now)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mine = Client()
        day.objects += [mine, qd, client]
        deployments, runs = load_everything(day, mine)
        analyse_everything(day, deployments, runs, now)
        run_every_command(day, sandbox)
        left: dict[str, str | bytes] = {f"before all failed, {name}": found for name, found in in_files(tmp_path)}
        fail_in_every_way(day, sandbox, monkeypatch)
    screen = capfd.readouterr()

    left |= dict(in_files(tmp_path))
    left |= {"the log": caplog.text, "standard output": screen.out, "standard error": screen.err}
    left |= {f"log record {number}": repr(vars(one)) for number, one in enumerate(caplog.records)}
    left |= {f"warning {number}": f"{one.message!r} {one.filename}" for number, one in enumerate(caught)}
    left |= {f"{error!r:.80}": all_that_can_be_shown(error) for error in day.failures}
    left |= {f"object {one!r:.80}": f"{one!r} {one}" for one in day.objects}
    for number, frame in enumerate(day.frames):
        left[f"frame {number}"] = pickle.dumps([frame, frame.attrs])
        assert json.loads(json.dumps(frame.attrs)) == frame.attrs

    assert {name: found for name, content in left.items() if (found := found_in(content, TOKEN))} == {}
    # The search had something to search in.
    assert len(day.failures) > 2 * len(FAULTS)
    assert len(caught) >= 3
    assert len([name for name in left if name.endswith(".parquet")]) >= 6
    assert "pages" in caplog.text
    assert len(screen.out) > 1000
    assert len(screen.err) > 500

    # What the account's owner keeps in variables is kept, like any field, and shown to nobody.
    for shown in (caplog.text, screen.out, screen.err, *(str(one.message) for one in caught)):
        assert SECRET not in shown
    for name in ("report.html", "out-report.html", "deployments.csv", "out-deployments.csv", "out-export.csv"):
        assert SECRET.encode() not in (tmp_path / name).read_bytes(), name
    assert any(SECRET.encode() in content for name, content in in_files(tmp_path / "cache") if "rows" in name)


def test_the_service_sees_it_in_one_header_alone(sandbox: Sandbox) -> None:
    qd.load_deployments(client=Client(workspace_id="ws_1"))
    qd.load_runs()
    assert sandbox.requests
    for request in sandbox.requests:
        assert request.headers.pop("authorization") == f"Bearer {TOKEN}"
        assert not found_in(repr(vars(request)), TOKEN)


def test_the_account_in_a_file_name_is_not_the_token(tmp_path: Path, sandbox: Sandbox) -> None:
    """Two tokens that begin or end alike have accounts, and so files, that have nothing in common."""
    accounts = [Client(token).account for token in (TOKEN, TOKEN + "x", "x" + TOKEN, TOKEN[:-1])]
    assert len({account[:4] for account in accounts}) == len(accounts)
    sandbox.requests.clear()
    qd.load_deployments()
    names = [path.name for path in (tmp_path / "cache" / "queries").iterdir()]
    assert len(names) == 1
    assert not any(account in names[0] for account in accounts)
