"""Tests that the access token is in no output of the package: files, logs, printed text, errors and frames.

The outputs come from many public calls and commands, and from all failures that the sandbox can produce.
"""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import pickle
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from unittest.mock import Mock

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
from tests.test_client_token import traceback_with_locals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Unique, so that a search finds it in any text.
TOKEN = "pt-Qz7xWv93kLmTbRyH2nDs5uGf8eJc4aPo"  # noqa: S105 - not a real token
#: The value in `environment_variables` of the sandbox; stored in `extra`, and never shown.
SECRET = "sandbox-secret-"  # noqa: S105 - not a real secret

FAULTS = [
    "400", "401", "403", "404", "409", "501", "redirect",
    "408", "429", "429-retry-after", "500", "502-html", "503-empty", "504",
    "html-200", "reset", "cut-body", "cut-json",
]  # fmt: skip


def encoded_forms(text: str) -> list[bytes]:
    """Return what to search for: both halves of a text, the text in hexadecimal, reversed, and in Base64."""
    raw = text.encode()
    half = len(raw) // 2
    forms = [raw[3:half], raw[half:], raw.hex().encode(), raw.hex().upper().encode(), raw[::-1]]
    for offset in range(3):
        padded = base64.b64encode(b"\0" * offset + raw)
        forms.append(padded[4 : len(padded) // 4 * 4 - 4])
    return forms


def forms_found_in(content: bytes | str, text: str) -> list[bytes]:
    """Return the forms of a text that are in some content."""
    data = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    return [form for form in encoded_forms(text) if form in data]


def test_search_finds_a_token_in_each_encoding() -> None:
    """Otherwise the other tests would prove nothing."""
    for hidden in (
        f"Bearer {TOKEN}",
        f"...{TOKEN[:20]}",
        TOKEN.encode().hex(),
        base64.b64encode(f"Bearer {TOKEN}".encode()),
        base64.b64encode(f"x{TOKEN}yz".encode()),
        base64.b64encode(f"xx{TOKEN}yz".encode()),
    ):
        assert forms_found_in(hidden, TOKEN), hidden
    assert not forms_found_in("pt-sandbox-7 Bearer ***", TOKEN)


@dataclass(repr=False)
class Outputs:
    """All that the calls returned, raised and wrote."""

    folder: Path
    frames: list[pd.DataFrame] = field(default_factory=list)
    objects: list[object] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def must_raise(self, call: Callable[[], object], kind: type[BaseException]) -> None:
        """Record the exception of a call. Its traceback lacks the caller, which has the token in a variable."""
        try:
            call()
        except kind as error:
            self.failures.append(error)
        else:
            raise AssertionError(f"no {kind.__name__} was raised")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(deployments=25, seed=7, runs=120) as served:
        served.pat = TOKEN
        yield served


@pytest.fixture(autouse=True)
def _settings(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QODER_PAT", TOKEN)
    monkeypatch.setenv("QODER_MANAGED_BASE_URL", sandbox.base_url)
    monkeypatch.setenv("QODERDATA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command replaces it


def call_all_loaders(outputs: Outputs, client: Client) -> tuple[pd.DataFrame, pd.DataFrame]:
    deployments = qd.load_deployments(include_archived=True, client=client, progress=True)
    runs = qd.load_runs(client=client, progress=True)
    outputs.frames += [deployments, runs]
    outputs.frames += [qd.load_deployments(include_archived=True, offline=True), qd.load_runs(offline=True)]
    outputs.frames += [qd.load_deployments(status="paused", max_age="0s"), qd.load_runs(status="failed")]
    outputs.frames += [qd.load_deployments(client=Client(workspace_id="ws_1"), refresh=True)]
    outputs.frames += [qd.flatten_deployments([client.get_deployment(deployments["id"][0])])]
    outputs.frames += [qd.flatten_runs([client.get_run(runs["id"][0])]), qd.upcoming_runs(deployments)]
    outputs.frames += [qd.expand_metadata(deployments)]
    outputs.objects += [qd.scan_deployments(engine="duckdb", include_archived=True), qd.cache_usage()]
    outputs.objects += [Folder(outputs.folder / "cache"), Decoder]
    return deployments, runs


def call_all_analyses(outputs: Outputs, deployments: pd.DataFrame, runs: pd.DataFrame, now: pd.Timestamp) -> None:
    since = now - pd.Timedelta("7D")
    rates, triggers = qd.failure_rates(deployments), qd.next_triggers(deployments, start=now)
    by_day = qd.run_failure_rates(runs, by=None, freq="1D")
    load = qd.trigger_load(triggers)
    outputs.frames += [rates, triggers, by_day, load, qd.failure_streaks(runs), qd.error_breakdown(runs)]
    outputs.frames += [qd.duration_regressions(runs), qd.consistency(deployments, runs), qd.start_delays(runs)]
    outputs.frames += [
        qd.schedule_lints(deployments),
        qd.missed_triggers(deployments, runs, since=since, until=now),
    ]
    axes = [qd.plot_failure_rates(rates), qd.plot_next_triggers(triggers), qd.plot_trigger_load(triggers)]
    axes += [qd.plot_run_failure_rates(by_day), qd.plot_run_calendar(runs), qd.plot_durations(runs)]
    for number, ax in enumerate(axes):
        plt.sca(ax)
        plt.savefig(outputs.folder / f"plot-{number}.svg")
    plt.close("all")
    for name, frame in (("deployments", deployments), ("runs", runs), ("rates", rates)):
        qd.export_csv(frame, outputs.folder / f"{name}.csv")
        qd.export_parquet(frame, outputs.folder / f"{name}.parquet")


def run_all_commands(outputs: Outputs, sandbox: Sandbox) -> None:
    out = f"{outputs.folder}/out"
    commands = {
        f"--verbose pull deployments --refresh --out {out}-deployments.csv": 0,
        f"--verbose pull runs --refresh --json --out {out}-runs.parquet": 0,
        "failures": 0,
        "runs --by agent_id --since all": 0,
        "triggers --json": 0,
        "missed --csv --since 2026-06-01T00:00Z": 0,
        "cache": 0,
        "cache --json": 0,
        f"export deployments {out}-export.csv": 0,
        f"export lints {out}-lints.parquet": 0,
        f"report {out}-report.html --runs --since all --start {sandbox.now.isoformat()}": 0,
        "failures --base-url http://127.0.0.1:9/api/v1/cloud --offline": 2,
        "failures --base-url http://example.com": 2,
        f"failures --refresh --base-url {sandbox.base_url}/elsewhere": 4,
    }
    for words, code in commands.items():
        assert cli.main(words.split()) == code, words
    for fault, code in (("401", 3), ("403", 4), ("no-cursor", 4)):
        sandbox.misbehave(fault, at=1)
        assert cli.main(["--verbose", "pull", "deployments", "--refresh"]) == code


def cause_all_failures(outputs: Outputs, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    client_with_one_retry = Client(max_retries=1)
    client_with_one_retry.page_limit = 20
    for load in (qd.load_deployments, qd.load_runs):
        for fault in FAULTS:
            sandbox._faults = type(sandbox._faults)()
            for at in (0, 1):
                sandbox.misbehave(fault, at=at, location=f"https://example.com/?token={TOKEN}")
            outputs.must_raise(
                lambda load=load: load(client=client_with_one_retry, refresh=True),  # type: ignore[misc]
                errors.APIError,
            )
    for fault in ("no-cursor", "repeat-cursor"):
        sandbox.misbehave(fault, at=1)
        outputs.must_raise(
            lambda: qd.load_deployments(client=client_with_one_retry, refresh=True), errors.PaginationError
        )
    sandbox._faults = type(sandbox._faults)()
    outputs.must_raise(
        lambda: qd.load_deployments(offline=True, cache_dir=outputs.folder / "none"), errors.CacheError
    )
    outputs.must_raise(lambda: qd.load_deployments(created_since="2026-06-01"), ValueError)
    outputs.must_raise(
        lambda: qd.load_deployments(client=Client(TOKEN[::-1]), refresh=True), errors.AuthenticationError
    )
    outputs.must_raise(lambda: Client(f"{TOKEN} and more"), errors.CredentialError)
    outputs.must_raise(lambda: Client(TOKEN, "http://example.com"), ValueError)
    outputs.must_raise(lambda: client_with_one_retry.get_run("drun_of_nobody"), errors.NotFoundError)
    outputs.must_raise(lambda: pickle.dumps(client_with_one_retry), TypeError)
    for raised in (KeyboardInterrupt, MemoryError, RuntimeError):
        for name in ("read_page", "to_table", "finish"):
            with monkeypatch.context() as patch:
                patch.setattr(Decoder, name, Mock(side_effect=raised()))
                outputs.must_raise(lambda: qd.load_deployments(client=client_with_one_retry, refresh=True), raised)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        outputs.frames.append(qd.load_deployments(refresh=True))
    for path in (outputs.folder / "cache" / "queries").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    outputs.frames.append(qd.load_deployments())
    record = sandbox.deployments[3]
    sandbox.rewrite(record | {"agent": {"id": 5, "version": "one"}, "name": None})
    outputs.frames.append(qd.load_deployments(refresh=True, include_archived=True))
    sandbox.stop()
    outputs.must_raise(
        lambda: qd.load_deployments(client=client_with_one_retry, refresh=True), errors.APIConnectionError
    )
    outputs.must_raise(lambda: qd.load_runs(client=client_with_one_retry, refresh=True), errors.APIConnectionError)


def file_contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of every file, and the rows and metadata of every Parquet file."""
    for path in folder.rglob("*"):
        yield f"the name {path}", str(path.relative_to(folder)).encode()
        if path.is_file():
            yield str(path), path.read_bytes()
            if path.suffix == ".parquet":
                try:
                    table = pq.read_table(path, partitioning=None)
                except pa.ArrowInvalid:  # damaged by the test
                    continue
                yield f"{path} (rows)", repr(table.to_pylist()).encode(errors="surrogatepass")
                yield f"{path} (metadata)", repr(pq.read_metadata(path).metadata).encode()


@pytest.mark.filterwarnings("default")
def test_token_is_in_no_output_of_any_call_or_failure(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # at DEBUG it lists every font of the machine
    outputs = Outputs(tmp_path)
    now = pd.Timestamp(sandbox.now)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True, action="always") as caught:
        default_client = Client()
        outputs.objects += [default_client, qd, client]
        deployments, runs = call_all_loaders(outputs, default_client)
        call_all_analyses(outputs, deployments, runs, now)
        run_all_commands(outputs, sandbox)
        contents: dict[str, str | bytes] = {
            f"before the failures: {name}": found for name, found in file_contents(tmp_path)
        }
        cause_all_failures(outputs, sandbox, monkeypatch)
    screen = capfd.readouterr()

    contents |= dict(file_contents(tmp_path))
    contents |= {"the log": caplog.text, "standard output": screen.out, "standard error": screen.err}
    contents |= {f"log record {number}": repr(vars(one)) for number, one in enumerate(caplog.records)}
    contents |= {f"warning {number}": f"{one.message!r} {one.filename}" for number, one in enumerate(caught)}
    contents |= {f"{error!r:.80}": traceback_with_locals(error) for error in outputs.failures}
    contents |= {f"object {one!r:.80}": f"{one!r} {one}" for one in outputs.objects}
    for number, frame in enumerate(outputs.frames):
        contents[f"frame {number}"] = pickle.dumps([frame, frame.attrs])
        assert json.loads(json.dumps(frame.attrs)) == frame.attrs

    assert {name: found for name, content in contents.items() if (found := forms_found_in(content, TOKEN))} == {}
    # There was enough content to search.
    assert len(outputs.failures) > 2 * len(FAULTS)
    assert len(caught) >= 3
    assert len([name for name in contents if name.endswith(".parquet")]) >= 6
    assert "pages" in caplog.text
    assert len(screen.out) > 1000
    assert len(screen.err) > 500

    page = (tmp_path / "out-report.html").read_text(encoding="utf-8")
    assert any(message in page for message in outputs.frames[1]["error_message"].dropna()), "no run in the report"

    # The values of `environment_variables` are in the cache only.
    for shown in (caplog.text, screen.out, screen.err, *(str(one.message) for one in caught)):
        assert SECRET not in shown
    for name in ("out-report.html", "deployments.csv", "out-deployments.csv", "out-export.csv"):
        assert SECRET.encode() not in (tmp_path / name).read_bytes(), name
    assert any(
        SECRET.encode() in content
        for name, content in file_contents(tmp_path / "cache")
        if name.endswith(" (rows)")
    )


def test_token_is_sent_in_one_header_only(sandbox: Sandbox) -> None:
    qd.load_deployments(client=Client(workspace_id="ws_1"))
    qd.load_runs()
    assert sandbox.requests
    for request in sandbox.requests:
        assert request.headers.pop("authorization") == f"Bearer {TOKEN}"
        assert not forms_found_in(repr(vars(request)), TOKEN)


def test_accounts_of_similar_tokens_differ_and_are_in_no_file_name(tmp_path: Path, sandbox: Sandbox) -> None:
    """The account is a digest of the token, so that similar tokens have different accounts."""
    accounts = [Client(token).account for token in (TOKEN, TOKEN + "x", "x" + TOKEN, TOKEN[:-1])]
    assert len({account[:4] for account in accounts}) == len(accounts)
    sandbox.requests.clear()
    qd.load_deployments()
    names = [path.name for path in (tmp_path / "cache" / "queries").iterdir()]
    assert len(names) == 1
    assert not any(account in names[0] for account in accounts)
