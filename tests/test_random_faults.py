r"""Tests of loading with random faults: mutated records, kills, inconsistent lists, responses, changed bits.

No data may be lost, each detectable fault must be reported, and each exception must be one of the package.
`make test-long` runs a small number of cases. All cases take about an hour on two cores, and log their figures::

    QODERDATA_RANDOM_FAULTS=full python -m pytest -m long tests/test_random_faults.py -o log_cli=true \\
        -o log_cli_level=INFO
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pandas as pd
import pyarrow as pa
import pytest

import qoderdata as qd
from qoderdata.decode import Decoder, NotJSONError, from_records, jsontext
from qoderdata.errors import (
    APIError,
    APIResponseValidationError,
    BadRequestError,
    CacheWarning,
    DataQualityWarning,
    NotFoundError,
    QoderdataError,
)
from qoderdata.files import Folder
from qoderdata.frames import flatten_runs
from qoderdata.sandbox import Sandbox
from qoderdata.schema import AGENTS, DEPLOYMENTS, ENVIRONMENTS, EVENTS, RUNS, SESSIONS, Schema
from qoderdata.store import RUNS_TABLE, TableStore
from tests import hostile_pages
from tests.test_client_limits import FAST_RESPONSES, SLOW_RESPONSES, chunk, server
from tests.test_decode_properties import rows
from tests.test_load_runs_inconsistent import EMPTY_PAGE, FakeService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.long

logger = logging.getLogger("random_faults")


class Size(NamedTuple):
    """How many cases are tested."""

    records: int
    #: Kills during commits of runs.
    kills: int
    lists: int
    #: Distance between two tested bits of the footer or the manifest.
    bit_step: int


FULL = Size(records=300_000, kills=100, lists=40, bit_step=1)
SMALL = Size(records=12_000, kills=5, lists=10, bit_step=31)
SIZE = FULL if os.environ.get("QODERDATA_RANDOM_FAULTS") == "full" else SMALL


# -- records -----------------------------------------------------------------------------------------------------

SCHEMAS = {schema.name: schema for schema in (DEPLOYMENTS, RUNS, SESSIONS, EVENTS, AGENTS, ENVIRONMENTS)}
PAGE = 8


def table_or_error_type(read: Callable[[], pa.Table]) -> pa.Table | type[Exception]:
    try:
        return read()
    except (NotJSONError, APIResponseValidationError) as error:
        return type(error)


def decode_page(decoder: Decoder, body: bytes) -> pa.Table:
    return decoder.to_table(decoder.read_page(body))


def decode_exactly(body: bytes, schema: Schema) -> pa.Table:
    envelope = jsontext.parse(body)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("has_more"), bool):
        raise APIResponseValidationError("no envelope")
    if not all(
        isinstance(text := envelope.get(name), str | None) and (text is None or jsontext.is_utf8(text))
        for name in ("last_id", "next_page")
    ):
        raise APIResponseValidationError("no envelope")
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        return from_records({"data": envelope.get("data")}, schema)


@dataclass
class ReusedDecoders:
    """Decoders of one schema that are used again for each page, and for each record in a page of its own."""

    schema: Schema

    def __post_init__(self) -> None:
        self.for_pages = Decoder(self.schema)
        self.for_records = Decoder(self.schema)


def differing_columns(one: pa.Table, other: pa.Table) -> list[str]:
    return [name for name in one.column_names if not one[name].equals(other[name])]


def check_page(decoders: ReusedDecoders, body: bytes, texts: list[bytes]) -> int:
    """Check that all ways to decode a page agree; return the number of records whose values were compared."""
    schema = decoders.schema
    with_new_decoder = table_or_error_type(lambda: decode_page(Decoder(schema), body))
    with_used_decoder = table_or_error_type(lambda: decode_page(decoders.for_pages, body))
    exact_table = table_or_error_type(lambda: decode_exactly(body, schema))
    if (
        not isinstance(with_new_decoder, pa.Table)
        or not isinstance(with_used_decoder, pa.Table)
        or not isinstance(exact_table, pa.Table)
    ):
        assert with_new_decoder is with_used_decoder is exact_table, body
        return 0
    assert differing_columns(with_new_decoder, exact_table) == [], body
    assert differing_columns(with_used_decoder, exact_table) == [], body
    if texts:
        single_tables = [
            decode_page(decoders.for_records, b'{"data":[%b],"has_more":false}' % text) for text in texts
        ]
        assert differing_columns(pa.concat_tables(single_tables).unify_dictionaries(), with_new_decoder) == [], (
            body
        )
    records = hostile_pages.parse(body)["data"]
    for record, row in zip(records, rows(with_new_decoder), strict=True):
        assert hostile_pages.lost(record, row, schema) == [], record
    return len(records)


@pytest.mark.parametrize("name", SCHEMAS)
def test_fast_and_exact_path_agree_on_mutated_records(name: str) -> None:
    """Pages and single records give the same rows, with each value in its column or in ``extra``."""
    schema, wanted = SCHEMAS[name], SIZE.records // len(SCHEMAS)
    mutator, decoders = hostile_pages.Mutator(random.Random(name)), ReusedDecoders(schema)  # noqa: S311 - no secrets
    pages = refused = found = 0
    while found < wanted:
        body, texts = mutator.page(mutator.records(schema, PAGE))
        counted = check_page(decoders, body, texts)
        pages, found, refused = pages + 1, found + counted, refused + (not counted)
    logger.info(
        "%s: %d records in %d pages, %d pages refused, mutations: %s",
        name,
        found,
        pages,
        refused,
        mutator.mutation_counts,
    )
    assert 0 < refused < pages // 4


@pytest.mark.parametrize("name", SCHEMAS)
def test_lost_reports_a_cleared_cell(name: str) -> None:
    """The comparison of the test above can fail."""
    schema, rng = SCHEMAS[name], random.Random(5)  # noqa: S311 - no secrets
    mutator, seen = hostile_pages.Mutator(rng), 0
    while seen < 100:
        (record,) = mutator.records(schema, 1)
        text = hostile_pages.write(record).encode()
        (row,), sent = (
            rows(decode_page(Decoder(schema), b'{"data":[%b],"has_more":false}' % text)),
            hostile_pages.parse(text),
        )
        column = rng.choice([name for name, value in row.items() if value is not None and value not in ("{}", [])])
        assert hostile_pages.lost(sent, row, schema) == []
        assert hostile_pages.lost(sent, {**row, column: None}, schema) != [], column
        seen += 1


# -- kills -------------------------------------------------------------------------------------------------------

#: Import the package once, and fork a process for each line of input, which is a folder.
_FORK_SERVER_CODE = """
import gc, os, sys, warnings
import qoderdata as qd
from qoderdata import frames
from qoderdata.load import runs
from qoderdata.store import journal
journal._FULL_ENTRIES = 3
for line in sys.stdin:
    child = os.fork()
    if not child:
        client = qd.Client(pat=sys.argv[1], base_url=sys.argv[2], min_interval=0)
        warnings.simplefilter("ignore")
        qd.load_runs(outcomes="runs", refresh=True, client=client, cache_dir=line.strip(), progress=False)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Loader:
    """Call `load_runs` in processes that can be killed."""

    def __init__(self, token: str, base_url: str) -> None:
        self._fork_server = subprocess.Popen(
            [sys.executable, "-c", _FORK_SERVER_CODE, token, base_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._fork_server.kill()
        self._fork_server.wait()
        for pipe in (self._fork_server.stdin, self._fork_server.stdout):
            if pipe is not None:
                pipe.close()

    def load_and_kill(self, folder: Path, *, when: Callable[[], bool], delay: float) -> bool:
        """Load, and kill the process `delay` seconds after `when` is true; return whether it was still running."""
        stdin, stdout = self._fork_server.stdin, self._fork_server.stdout
        assert stdin is not None
        assert stdout is not None
        print(folder, file=stdin, flush=True)
        child = int(stdout.readline())
        ended: list[int] = []
        waiting = threading.Thread(target=lambda: ended.append(int(stdout.readline())))
        waiting.start()
        while waiting.is_alive() and not when():
            time.sleep(0.0005)
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        waiting.join()
        assert ended[0] in {0, -signal.SIGKILL}
        return ended[0] != 0


class CommitWatcher:
    """Detect the start of the n-th commit of a pull.

    Parameters
    ----------
    folder
        The cache folder.
    number
        The n, from 1.
    """

    MARKER = "runs/*/journal/committing"

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._remaining, self._was_there = folder, number, True

    def has_begun(self) -> bool:
        is_there = bool(list(self._folder.glob(self.MARKER)))
        self._remaining -= is_there and not self._was_there
        self._was_there = is_there
        return self._remaining <= 0


def test_runs_are_complete_after_kills_during_commits(tmp_path: Path) -> None:
    """Each pull loads some new runs, and is killed during one of its commits, or soon after."""
    rng = random.Random(3)  # noqa: S311 - no secrets
    killed = in_commit = 0
    with Sandbox(deployments=30, seed=7, runs=2_000) as sandbox, Loader(sandbox.pat, sandbox.base_url) as loader:
        open_runs: list[str] = []
        while killed < SIZE.kills:
            sandbox.create_runs(rng.randrange(50, 250))
            open_runs += [run["id"] for run in sandbox.create_runs(2, status="running")]
            if rng.randrange(2):
                sandbox.finish_run(open_runs.pop(rng.randrange(len(open_runs))))
            watcher = CommitWatcher(tmp_path, rng.choice((1, 1, 2, 3)))
            killed += loader.load_and_kill(tmp_path, when=watcher.has_begun, delay=rng.choice((0, 0.005, 0.03)))
            in_commit += bool(list(tmp_path.glob(CommitWatcher.MARKER)))
            if not killed % 10:
                known = set(flatten_runs(sandbox.runs)["id"])
                assert set(load_offline(sandbox, tmp_path)["id"]) <= known
        client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
        frame = qd.load_runs(client=client, cache_dir=tmp_path, refresh=True, progress=False)
        pd.testing.assert_frame_equal(frame, flatten_runs(sandbox.runs))
        assert frame.attrs["complete"]
    logger.info("runs: %d kills, %d of them in a commit; all %d runs are loaded", killed, in_commit, len(frame))
    assert in_commit > killed // 4


def load_offline(sandbox: Sandbox, folder: Path) -> pd.DataFrame:
    client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        frame = qd.load_runs(client=client, cache_dir=folder, offline=True, progress=False)
    assert frame["id"].is_unique
    return frame


# -- lists -------------------------------------------------------------------------------------------------------


class InconsistentService(FakeService):
    """A fake service whose list has faults; it records the shown runs and the faults that no client can detect."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(page_limit=rng.choice((10, 25, 100)), offset_cursors=True)
        self.rng = rng
        self.faults: list[str] = []
        self.shown: set[str] = set()
        #: Faults of the walks so far that no client can detect.
        self.undetectable: set[str] = set()
        self.change_page = self.apply_fault

    def start_walk(self, faults: list[str]) -> None:
        """Make these faults in the next walk through the list, each on one of the first four pages."""
        self.faults = faults
        self.at = {fault: self.rng.randrange(4) for fault in faults}

    def _index(self, cursor: str) -> int:
        if not cursor.isdecimal():
            refusal = BadRequestError("after_id is not a cursor")
            refusal.param = "after_id"
            raise refusal
        return super()._index(cursor)

    def apply_fault(self, number: int, page: dict[str, Any]) -> dict[str, Any]:
        fault = next((fault for fault in self.faults if self.at[fault] == number), None)
        data = list(page["data"])
        if fault == "empty end":
            page = EMPTY_PAGE
        elif fault == "early end":
            page = {**page, "has_more": False}
        elif fault == "empty page" and page["has_more"] and data:
            page = {**page, "data": []}
        elif fault == "more at the end" and not page["has_more"] and data:
            page = {**page, "has_more": True}
        elif fault == "jump" and page["has_more"] and int(page["last_id"]) > 20:
            page = {**page, "last_id": str(int(page["last_id"]) - self.rng.randrange(1, 20))}
        elif fault == "shuffled":
            self.rng.shuffle(data)
            page = {**page, "data": data}
        elif fault in {"repeated", "repeated at the end"} and data:
            again = self.rng.sample(self.runs, min(3, len(self.runs)))
            page = {**page, "data": [*again, *data] if fault == "repeated" else [*data, *again]}
        self.shown.update(run["id"] for run in page["data"])
        return page


#: The faults of a list, and whether runs may then be missing without a warning, as `load_runs` documents.
LIST_FAULTS = {
    "empty end": True,
    "early end": True,
    "empty page": True,
    "jump": True,
    "late run": True,
    "repeated at the end": True,
    "more at the end": False,
    "shuffled": False,
    "repeated": False,
    "no fault": False,
}
#: Faults that end a walk; they are reported if runs below the end are stored.
EARLY_ENDS = {"empty end", "early end"}


@pytest.mark.parametrize("seed", range(SIZE.lists))
def test_inconsistent_lists_lose_no_shown_run(seed: int, tmp_path: Path) -> None:
    """Runs that were shown are loaded; ``refresh="all"`` loads the rest."""
    rng = random.Random(seed)  # noqa: S311 - no secrets
    service = InconsistentService(rng)
    reported, unreported, may_be_unreported = 0, 0, False
    for _ in range(rng.randrange(3, 7)):
        service.create(rng.randrange(1, 400), status=rng.choice(("completed", "running", "odd")))
        faults = rng.sample(sorted(LIST_FAULTS), rng.choice((1, 1, 2)))
        if "late run" in faults:
            late = {**rng.choice(service.runs), "id": f"drun_late_{rng.random()}"}
            service.runs.insert(rng.randrange(len(service.runs)), late)
        service.start_walk(faults)
        since, mode = rng.choice((None, None, None, "3650D")), rng.choice((True, True, "all"))
        with warnings.catch_warnings(record=True, action="always") as caught:
            try:
                frame = service.load(tmp_path, refresh=mode, since=since)
            except APIError as error:
                logger.info("seed %d, %s: %s", seed, faults, error)
                continue
        is_reported = not frame.attrs["complete"] or any(
            warning.category is DataQualityWarning for warning in caught
        )
        assert service.shown <= set(frame["id"]), faults
        assert frame["id"].is_unique
        missing = {run["id"] for run in service.runs} - set(frame["id"])
        service.undetectable |= {fault for fault in faults if LIST_FAULTS[fault]}
        # A run below an accepted early end may be listed again at the top, and then has a gap above it.
        may_be_unreported |= "repeated" in faults or (mode == "all" and bool(EARLY_ENDS & set(faults)))
        if missing:
            reported, unreported = reported + is_reported, unreported + (not is_reported)
            assert is_reported or service.undetectable, faults
            # An early end that leaves a gap above stored runs is reported, except with refresh="all".
            if service.undetectable <= EARLY_ENDS and not may_be_unreported and has_gap(service, frame):
                assert is_reported, faults
    service.faults = []
    with warnings.catch_warnings(action="error", category=DataQualityWarning):
        frame = service.load(tmp_path, refresh="all")
    assert set(frame["id"]) == {run["id"] for run in service.runs} | service.shown
    assert frame.attrs["complete"]
    again = service.load(tmp_path)
    assert again.attrs["requests"] == 0
    assert set(again["id"]) == set(frame["id"])
    logger.info(
        "seed %d: %d runs; runs were missing %d times with and %d times without a report",
        seed,
        len(frame),
        reported,
        unreported,
    )


def has_gap(service: InconsistentService, frame: pd.DataFrame) -> bool:
    """Return whether loaded runs are both above and below missing ones."""
    known = set(frame["id"])
    there = [run["id"] in known for run in service.runs]
    return "101" in "".join(str(int(is_there)) for is_there, _ in itertools.groupby(there))


# -- responses ---------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
#: One run.
RUN = b'{"id": "drun_1", "status": "completed", "created_at": "2026-06-14T12:00:00Z"}'


def page_with(value: bytes) -> bytes:
    return b'{"data": [%b, "odd": %b}], "has_more": false}' % (RUN[:-1], value)


def response_with(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return OK + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*parts: bytes) -> bytes:
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts)


#: Twice the limit of the client in `load_from`; not more, as every test run imports this file.
BOMB = gzip.compress(b" " * 2**24, 1)
PAGE_BODY = b'{"data": [%b], "has_more": false}' % RUN
#: Unusual responses that contain the whole run.
VALID_RESPONSES: dict[str, bytes] = {
    "plain": response_with(PAGE_BODY),
    "chunks of one byte": chunked(*(chunk(PAGE_BODY[at : at + 1]) for at in range(len(PAGE_BODY))), chunk(b"")),
    "chunk extensions": chunked(b"%x;a=b\r\n%b\r\n" % (len(PAGE_BODY), PAGE_BODY), b"0;x\r\n\r\n"),
    "trailers": chunked(chunk(PAGE_BODY), b"0\r\nX-T: 1\r\n\r\n"),
    "no Content-Length": OK + b"\r\n" + PAGE_BODY,
    "gzip": response_with(gzip.compress(PAGE_BODY), b"Content-Encoding: gzip"),
    "another content type": response_with(PAGE_BODY, b"Content-Type: text/html"),
    "100-continue": b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + response_with(PAGE_BODY),
    "white space": response_with(b" \n\t" * 5_000 + PAGE_BODY + b"\n" * 5_000),
    "lone surrogate": response_with(page_with(rb'"\ud800"')),
    "a number of 5,000 digits": response_with(page_with(b"9" * 5_000)),
    "1e400": response_with(page_with(b"1e400")),
    "-0": response_with(page_with(b"-0")),
    "200 levels": response_with(page_with(b"[" * 200 + b"]" * 200)),
    "a repeated key": response_with(
        PAGE_BODY.replace(b'"has_more": false', b'"has_more": true, "has_more": false')
    ),
    "text of 3 MB": response_with(page_with(b'"' + b"x" * 3_000_000 + b'"')),
    "NUL character": response_with(page_with(rb'"\u0000"')),
    "10,000 unknown fields": response_with(
        page_with(b"{" + b",".join(b'"k%d": %d' % (number, number) for number in range(10_000)) + b"}")
    ),
    "cookies and unusual headers": response_with(
        PAGE_BODY, b"Set-Cookie: a=b", b"X-\xff: \xfe", b"Link: <x>; rel=next"
    ),
}
#: Responses that cannot be used, and raise `APIError`.
INVALID_RESPONSES: dict[str, bytes] = {
    "no response": b"",
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/9": b"HTTP/9.9 200 OK\r\n\r\n" + PAGE_BODY,
    "status 99999": b"HTTP/1.1 99999 OK\r\nContent-Length: 0\r\n\r\n",
    "status is no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "a header without a colon": OK + b"nonsense\r\n\r\n",
    "200 headers": OK + b"X: y\r\n" * 200 + b"\r\n",
    "a header of 100 kB": OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    "truncated headers": OK + b"Content-Le",
    "truncated body": OK + b"Content-Length: 5000\r\n\r\n" + PAGE_BODY,
    "a negative length": OK + b"Content-Length: -5\r\n\r\n" + PAGE_BODY[:20],
    "a length that is no number": OK + b"Content-Length: many\r\n\r\n" + PAGE_BODY[:20],
    "a length too short": OK + b"Content-Length: 9\r\n\r\n" + PAGE_BODY,
    "a chunk size that is no number": chunked(b"zz\r\n", PAGE_BODY),
    "a negative chunk size": chunked(b"-5\r\n", PAGE_BODY),
    "a huge chunk size": chunked(b"ffffffffffffffffffff\r\n", PAGE_BODY),
    "a chunk that is too short": chunked(b"fff\r\n", PAGE_BODY),
    "no last chunk": chunked(chunk(PAGE_BODY)),
    "gzip without gzip content": response_with(PAGE_BODY, b"Content-Encoding: gzip"),
    "truncated gzip": response_with(gzip.compress(PAGE_BODY)[:-9], b"Content-Encoding: gzip"),
    "an unknown encoding": response_with(b"\x00\x01\x02", b"Content-Encoding: zz"),
    "inflates to 16 MB": response_with(BOMB, b"Content-Encoding: gzip"),
    "HTML": response_with(b"<html><body>Sign in</body></html>", b"Content-Type: text/html"),
    "empty": response_with(b""),
    "null": response_with(b"null"),
    "a list": response_with(b"[]"),
    "a number": response_with(b"9" * 10_000),
    "UTF-16": response_with(PAGE_BODY.decode().encode("utf-16")),
    "Latin-1": response_with(PAGE_BODY.replace(b"completed", b"f\xe4llt")),
    "NaN": response_with(page_with(b"NaN")),
    "two pages": response_with(PAGE_BODY + PAGE_BODY),
    "100,000 levels": response_with(page_with(b"[" * 100_000 + b"]" * 100_000)),
    "no data": response_with(b'{"has_more": false}'),
    "data that is an object": response_with(b'{"data": {}, "has_more": false}'),
    "no has_more": response_with(b'{"data": []}'),
    "has_more that is text": response_with(b'{"data": [], "has_more": "false"}'),
    "a cursor that is a number": response_with(b'{"data": [], "has_more": false, "last_id": 5}'),
    "a record that is text": response_with(b'{"data": ["x"], "has_more": false}'),
    "a record without an id": response_with(b'{"data": [{}], "has_more": false}'),
    "an id that is a number": response_with(b'{"data": [{"id": 5}], "has_more": false}'),
    "more without a cursor": response_with(b'{"data": [], "has_more": true}'),
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "206": b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\n{}}",
    "500 with HTML": b"HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\n<html>",
    "500 with unexpected JSON": b'HTTP/1.1 500 No\r\nContent-Length: 14\r\n\r\n{"error": [5]}',
    "401 that inflates to 16 MB": b"HTTP/1.1 401 No\r\nContent-Encoding: gzip\r\n"
    + b"Content-Length: %d\r\n\r\n%b" % (len(BOMB), BOMB),
}
#: Seconds that a load may take: far more than the time-outs of `load_from`, for a busy machine.
MAX_SECONDS = 20.0


@contextlib.contextmanager
def serve_response(response: bytes) -> Iterator[str]:
    """Run a server that sends the same response to each request, and closes the connection."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(MAX_SECONDS)
                    connection.recv(65_536)
                    connection.sendall(response)
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(0.05)
                    connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def load_from(base_url: str, folder: Path) -> pd.DataFrame:
    """Load the runs with short time-outs and no retries."""
    options: dict[str, Any] = {
        "timeout": (5, 0.3),
        "max_retries": 0,
        "max_response_bytes": 2**23,
        "min_interval": 0,
    }
    client = qd.Client("pt-secret-token", base_url, **options)
    began = time.monotonic()
    try:
        return qd.load_runs(client=client, cache_dir=folder, progress=False)
    finally:
        assert time.monotonic() - began < MAX_SECONDS


@pytest.mark.usefixtures("real_clock")
@pytest.mark.parametrize("name", VALID_RESPONSES)
def test_unusual_valid_response_is_loaded(name: str, tmp_path: Path) -> None:
    with serve_response(VALID_RESPONSES[name]) as base_url:
        frame = load_from(base_url, tmp_path)
    assert list(frame["id"]) == ["drun_1"]
    assert list(frame["status"]) == ["completed"]


@pytest.mark.usefixtures("real_clock")
@pytest.mark.parametrize("name", INVALID_RESPONSES)
def test_invalid_response_raises_api_error(name: str, tmp_path: Path) -> None:
    with serve_response(INVALID_RESPONSES[name]) as base_url, pytest.raises(APIError) as caught:
        load_from(base_url, tmp_path)
    assert "pt-secret-token" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.usefixtures("real_clock")
@pytest.mark.parametrize(
    ("name", "every"), [*((name, 0.01) for name in SLOW_RESPONSES), *((name, 0.0) for name in FAST_RESPONSES)]
)
def test_endless_response_raises_api_error(name: str, every: float, tmp_path: Path) -> None:
    first, then = (SLOW_RESPONSES if every else FAST_RESPONSES)[name]
    with server(first, then, every=every) as port, pytest.raises(APIError):
        load_from(f"http://127.0.0.1:{port}", tmp_path)


def test_at_least_60_responses_are_tested() -> None:
    assert len(VALID_RESPONSES) + len(INVALID_RESPONSES) + len(SLOW_RESPONSES) + len(FAST_RESPONSES) >= 60


# -- bits --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, FakeService]:
    """Return the folder of a store of 43 runs, and its service, which still lists only the newest one."""
    service = FakeService()
    service.create(40, status="completed")
    service.create(3, status="running")
    service.load(tmp_path)
    del service.runs[1:]
    service.get_run = raise_not_found
    return tmp_path, service


def raise_not_found(id_: str) -> dict[str, Any]:
    raise NotFoundError(id_)


def store_of(folder: Path, service: FakeService) -> TableStore:
    return TableStore(
        Folder(folder), RUNS_TABLE, base_url=service.base_url, workspace_id=None, account=service.account
    )


def flip_bit(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def read_or_none(folder: Path, service: FakeService) -> pa.Table | None:
    """Return the stored rows; ``None`` if the store raises or warns."""
    store = store_of(folder, service)
    with warnings.catch_warnings(record=True, action="always") as caught:
        try:
            store.load()
            table = store.read()
        except QoderdataError:
            return None
    return None if caught else table


@pytest.mark.parametrize("part", ["footer", "manifest"])
def test_store_with_a_changed_bit_is_refused_or_reads_the_same(
    stored: tuple[Path, FakeService], part: str
) -> None:
    """A changed bit raises, warns, or changes nothing in the rows."""
    folder, service = stored
    truth = store_of(folder, service)
    truth.load()
    rows_stored = truth.read()
    (file,) = folder.glob("runs/*/manifest.json" if part == "manifest" else "runs/*/data/*/*.parquet")
    content = file.read_bytes()
    first = 0 if part == "manifest" else len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    bits = range(8 * first, 8 * len(content), SIZE.bit_step)
    refused = 0
    for bit in bits:
        file.write_bytes(flip_bit(content, bit))
        found = read_or_none(folder, service)
        refused += found is None
        assert found is None or found.equals(rows_stored), bit
    logger.info(
        "%s: %d bits of %d bytes, %d refused, the others change no row", part, len(bits), len(content), refused
    )
    assert refused > len(bits) * 0.9
    file.write_bytes(content)


@pytest.mark.parametrize("part", ["footer", "manifest"])
def test_refresh_after_a_changed_bit_keeps_all_data(
    stored: tuple[Path, FakeService], part: str, tmp_path: Path
) -> None:
    """A damaged manifest is rebuilt; a damaged data file is set aside unchanged."""
    folder, service = stored
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    rng = random.Random(part)  # noqa: S311 - no secrets
    for number in range(8 if SIZE is SMALL else 60):
        copy = tmp_path / f"copy-{number}"
        for name, content in before.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        (file,) = copy.glob("runs/*/manifest.json" if part == "manifest" else "runs/*/data/*/*.parquet")
        changed = flip_bit(file.read_bytes(), rng.randrange(8 * file.stat().st_size))
        file.write_bytes(changed)
        with pytest.warns(CacheWarning, match="repaired|set-aside"):
            frame = service.load(copy, refresh=True)
        if part == "manifest":
            assert len(frame) == 43
        else:
            assert changed in [
                path.read_bytes() for path in copy.glob("runs/*/set-aside-*/**/*") if path.is_file()
            ]
