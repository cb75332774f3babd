r"""A hostile day: mutated records, kills, odd lists, odd answers and changed bits, by the hundred and thousand.

Nothing may be lost, nothing wrong may pass in silence, and no error may be raw. `make test-long` runs a small day.
The full one takes about an hour on two cores, and logs its figures::

    QODERDATA_HOSTILE_DAY=full python -m pytest -m long tests/test_hostile_day.py -o log_cli=true \\
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
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pandas as pd
import pyarrow as pa
import pytest

import qoderdata as qd
from qoderdata.client import retries
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
from tests.edition_d_service import KINDS, TOKEN, Account, EditionD
from tests.test_client_limits import FAST_RESPONSES, SLOW_RESPONSES, chunk, server
from tests.test_decode_properties import rows
from tests.test_load_runs_hostile import EMPTY, OddService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.long

logger = logging.getLogger("hostile_day")


class Size(NamedTuple):
    """How large the day is."""

    records: int
    #: In commits of runs, and as many while events are read.
    kills: int
    lists: int
    #: Every so-manieth bit of the footer and the manifest.
    bits: int


FULL = Size(records=300_000, kills=100, lists=40, bits=1)
SMALL = Size(records=12_000, kills=5, lists=10, bits=31)
SIZE = FULL if os.environ.get("QODERDATA_HOSTILE_DAY") == "full" else SMALL


# -- records -----------------------------------------------------------------------------------------------------

SCHEMAS = {schema.name: schema for schema in (DEPLOYMENTS, RUNS, SESSIONS, EVENTS, AGENTS, ENVIRONMENTS)}
PAGE = 8


def table_or_error(read: Callable[[], pa.Table]) -> pa.Table | type[Exception]:
    try:
        return read()
    except (NotJSONError, APIResponseValidationError) as error:
        return type(error)


def fast(decoder: Decoder, body: bytes) -> pa.Table:
    return decoder.to_table(decoder.read_page(body))


def exact(body: bytes, schema: Schema) -> pa.Table:
    envelope = jsontext.parse(body)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("has_more"), bool):
        raise APIResponseValidationError("no envelope")
    if not all(
        isinstance(text := envelope.get(name), str | None) and (text is None or jsontext.is_utf8(text))
        for name in ("last_id", "next_page")
    ):
        raise APIResponseValidationError("no envelope")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataQualityWarning)
        return from_records({"data": envelope.get("data")}, schema)


@dataclass
class Readers:
    """The readers of one schema: one that has learned what came so far, for pages and for single records."""

    schema: Schema

    def __post_init__(self) -> None:
        self.learned = Decoder(self.schema)
        self.single = Decoder(self.schema)


def different(one: pa.Table, other: pa.Table) -> list[str]:
    return [name for name in one.column_names if not one[name].equals(other[name])]


def check_page(readers: Readers, body: bytes, texts: list[bytes]) -> int:
    """Read a page in all ways; return how many records were accounted for leaf by leaf."""
    schema = readers.schema
    first = table_or_error(lambda: fast(Decoder(schema), body))
    again = table_or_error(lambda: fast(readers.learned, body))
    slow = table_or_error(lambda: exact(body, schema))
    if not isinstance(first, pa.Table) or not isinstance(again, pa.Table) or not isinstance(slow, pa.Table):
        assert first is again is slow, body
        return 0
    assert different(first, slow) == [], body
    assert different(again, slow) == [], body
    if texts:
        alone = [fast(readers.single, b'{"data":[%b],"has_more":false}' % text) for text in texts]
        assert different(pa.concat_tables(alone).unify_dictionaries(), first) == [], body
    records = hostile_pages.parse(body)["data"]
    for record, row in zip(records, rows(first), strict=True):
        assert hostile_pages.lost(record, row, schema) == [], record
    return len(records)


@pytest.mark.parametrize("name", SCHEMAS)
def test_mutated_records(name: str) -> None:
    """The fast path, the exact path and single objects agree, and each leaf is in its column or in ``extra``."""
    schema, wanted = SCHEMAS[name], SIZE.records // len(SCHEMAS)
    mutator, readers = hostile_pages.Mutator(random.Random(name)), Readers(schema)  # noqa: S311 - no secrets
    pages = refused = found = 0
    while found < wanted:
        body, texts = mutator.page(mutator.records(schema, PAGE))
        counted = check_page(readers, body, texts)
        pages, found, refused = pages + 1, found + counted, refused + (not counted)
    logger.info("%s: %d records in %d pages, %d refused by all, %s", name, found, pages, refused, mutator.made)
    assert 0 < refused < pages // 4


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_account_of_leaves_finds_what_is_lost(name: str) -> None:
    """Else the test above could not fail."""
    schema, chance = SCHEMAS[name], random.Random(5)  # noqa: S311 - likewise
    mutator, seen = hostile_pages.Mutator(chance), 0
    while seen < 100:
        (record,) = mutator.records(schema, 1)
        text = hostile_pages.write(record).encode()
        (row,), sent = (
            rows(fast(Decoder(schema), b'{"data":[%b],"has_more":false}' % text)),
            hostile_pages.parse(text),
        )
        column = chance.choice(
            [name for name, value in row.items() if value is not None and value not in ("{}", [])]
        )
        assert hostile_pages.lost(sent, row, schema) == []
        assert hostile_pages.lost(sent, {**row, column: None}, schema) != [], column
        seen += 1


# -- kills -------------------------------------------------------------------------------------------------------

#: Imports once, and forks a process for each line: a folder, and what to load there.
_ZYGOTE = """
import gc, os, sys, warnings
import qoderdata as qd
from qoderdata import frames
from qoderdata.load import runs
from qoderdata.store import journal
journal._FULL_ENTRIES = 3
for line in sys.stdin:
    folder, outcomes = line.split()
    child = os.fork()
    if not child:
        client = qd.Client(pat=sys.argv[1], base_url=sys.argv[2], min_interval=0)
        warnings.simplefilter("ignore")
        qd.load_runs(outcomes=outcomes, refresh=True, client=client, cache_dir=folder, progress=False)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Loader:
    """Loads in processes that can be killed."""

    def __init__(self, token: str, base_url: str) -> None:
        self._zygote = subprocess.Popen(
            [sys.executable, "-c", _ZYGOTE, token, base_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zygote.kill()
        self._zygote.wait()
        for pipe in (self._zygote.stdin, self._zygote.stdout):
            if pipe is not None:
                pipe.close()

    def load_and_kill(self, folder: Path, outcomes: str, *, when: Callable[[], bool], delay: float) -> bool:
        """Load, and kill a moment after something is so; return whether the process was still at work."""
        stdin, stdout = self._zygote.stdin, self._zygote.stdout
        assert stdin is not None
        assert stdout is not None
        print(folder, outcomes, file=stdin, flush=True)
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


class Commits:
    """Tell when the so-manieth commit of a pull begins.

    Parameters
    ----------
    folder
        The cache.
    number
        Which one.
    """

    MARKER = "runs/*/journal/committing"

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._left, self._was_there = folder, number, True

    def begin(self) -> bool:
        is_there = bool(list(self._folder.glob(self.MARKER)))
        self._left -= is_there and not self._was_there
        self._was_there = is_there
        return self._left <= 0


def statuses(frame: pd.DataFrame) -> dict[str, str | None]:
    values = frame["status"].astype(object).where(frame["status"].notna(), None)
    return dict(zip(frame["id"], values, strict=True))


def test_killed_in_commits(tmp_path: Path) -> None:
    """Each pull has some new runs, and is killed while one of its commits is under way, or soon after."""
    chance = random.Random(3)  # noqa: S311 - moments, not secrets
    killed = in_commit = 0
    with Sandbox(deployments=30, seed=7, runs=2_000) as sandbox, Loader(sandbox.pat, sandbox.base_url) as loader:
        going: list[str] = []
        while killed < SIZE.kills:
            sandbox.create_runs(chance.randrange(50, 250))
            going += [run["id"] for run in sandbox.create_runs(2, status="running")]
            if chance.randrange(2):
                sandbox.finish_run(going.pop(chance.randrange(len(going))))
            commits = Commits(tmp_path, chance.choice((1, 1, 2, 3)))
            killed += loader.load_and_kill(
                tmp_path, "runs", when=commits.begin, delay=chance.choice((0, 0.005, 0.03))
            )
            in_commit += bool(list(tmp_path.glob(Commits.MARKER)))
            if not killed % 10:
                known = set(flatten_runs(sandbox.runs)["id"])
                assert set(load_offline(sandbox, tmp_path)["id"]) <= known
        client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url, min_interval=0)
        frame = qd.load_runs(client=client, cache_dir=tmp_path, refresh=True, progress=False)
        pd.testing.assert_frame_equal(frame, flatten_runs(sandbox.runs))
        assert frame.attrs["complete"]
    logger.info("runs: %d kills, %d of them in a commit; all %d runs are there", killed, in_commit, len(frame))
    assert in_commit > killed // 4


def load_offline(sandbox: Sandbox, folder: Path) -> pd.DataFrame:
    client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataQualityWarning)
        frame = qd.load_runs(client=client, cache_dir=folder, offline=True, progress=False)
    assert frame["id"].is_unique
    return frame


def test_killed_while_events_are_read(tmp_path: Path) -> None:
    chance = random.Random(4)  # noqa: S311 - likewise
    account = Account(KINDS)
    expected = sum(kind.requests for kind in account.kind_of.values())
    killed = tries = 0
    with EditionD(account) as service, Loader(TOKEN, service.base_url) as loader:

        def reads() -> int:
            return sum(request.list == "sessions/*/events" for request in service.requests)

        def reached(count: int) -> bool:
            return reads() >= count

        most = max(2 * expected // (SIZE.kills + 1) - 4, 2)
        while killed < SIZE.kills and tries < 2 * SIZE.kills:
            tries += 1
            wanted = reads() + chance.randrange(1, most)
            killed += loader.load_and_kill(
                tmp_path, "events", when=partial(reached, wanted), delay=chance.uniform(0, 0.02)
            )
        client = qd.Client(pat=TOKEN, base_url=service.base_url, min_interval=0)
        frame = qd.load_runs(outcomes="events", client=client, cache_dir=tmp_path, progress=False)
        counts = Counter(request.list for request in service.requests if request.status == 200)
    assert statuses(frame) == {id_: truth.status for id_, truth in account.truth.items()}
    ended = {id_: truth.completed_at for id_, truth in account.truth.items() if truth.completed_at is not None}
    assert dict(frame.loc[frame["completed_at"].notna(), ["id", "completed_at"]].itertuples(index=False)) == ended
    logger.info(
        "events: %d kills of %d processes; %d event reads for %d",
        killed,
        tries,
        counts["sessions/*/events"],
        expected,
    )
    assert killed > SIZE.kills // 2


# -- lists -------------------------------------------------------------------------------------------------------


class LyingService(OddService):
    """A list that is shown in odd ways, with an account of what was never shown, and why."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(page_limit=chance.choice((10, 25, 100)), positions=True)
        self.chance = chance
        self.lies: list[str] = []
        self.shown: set[str] = set()
        #: Lies that a list can tell without being caught.
        self.unknowable: set[str] = set()
        self.odd = self.show

    def begin(self, lies: list[str]) -> None:
        """Tell these lies in the next walk, each on one page, an empty page or a jump at a random place."""
        self.lies = lies
        self.at = {lie: self.chance.randrange(4) for lie in lies}

    def _place(self, cursor: str) -> int:
        if not cursor.isdecimal():
            refusal = BadRequestError("after_id is not a cursor")
            refusal.param = "after_id"
            raise refusal
        return super()._place(cursor)

    def show(self, number: int, page: dict[str, Any]) -> dict[str, Any]:
        lie = next((lie for lie in self.lies if self.at[lie] == number), None)
        data = list(page["data"])
        if lie == "empty end":
            page = EMPTY
        elif lie == "early end":
            page = {**page, "has_more": False}
        elif lie == "empty page" and page["has_more"] and data:
            page = {**page, "data": []}
        elif lie == "more at the end" and not page["has_more"] and data:
            page = {**page, "has_more": True}
        elif lie == "jump" and page["has_more"] and int(page["last_id"]) > 20:
            page = {**page, "last_id": str(int(page["last_id"]) - self.chance.randrange(1, 20))}
        elif lie == "shuffled":
            self.chance.shuffle(data)
            page = {**page, "data": data}
        elif lie in {"repeated", "repeated at the end"} and data:
            again = self.chance.sample(self.runs, min(3, len(self.runs)))
            page = {**page, "data": [*again, *data] if lie == "repeated" else [*data, *again]}
        self.shown.update(run["id"] for run in page["data"])
        return page


#: What the list does, and whether runs may then be missing without a word: the cases that `load_runs` documents.
LIES = {
    "empty end": True,
    "early end": True,
    "empty page": True,
    "jump": True,
    "late": True,
    "repeated at the end": True,
    "more at the end": False,
    "shuffled": False,
    "repeated": False,
    "honest": False,
}
#: These end a walk, and are told wherever runs beyond the end are stored.
ENDS = {"empty end", "early end"}


@pytest.mark.parametrize("seed", range(SIZE.lists))
def test_odd_lists(seed: int, tmp_path: Path) -> None:
    """What was shown is there; what is missing is told or cannot be known; ``refresh="all"`` brings the rest."""
    chance = random.Random(seed)  # noqa: S311 - lists, not secrets
    service = LyingService(chance)
    told, silent, is_excused = 0, 0, False
    for _ in range(chance.randrange(3, 7)):
        service.create(chance.randrange(1, 400), status=chance.choice(("completed", "running", "odd")))
        lies = chance.sample(sorted(LIES), chance.choice((1, 1, 2)))
        if "late" in lies:
            late = {**chance.choice(service.runs), "id": f"drun_late_{chance.random()}"}
            service.runs.insert(chance.randrange(len(service.runs)), late)
        service.begin(lies)
        since, mode = chance.choice((None, None, None, "3650D")), chance.choice((True, True, "all"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                frame = service.load(tmp_path, refresh=mode, since=since)
            except APIError as error:
                logger.info("seed %d, %s: %s", seed, lies, error)
                continue
        is_told = not frame.attrs["complete"] or any(warning.category is DataQualityWarning for warning in caught)
        assert service.shown <= set(frame["id"]), lies
        assert frame["id"].is_unique
        missing = {run["id"] for run in service.runs} - set(frame["id"])
        service.unknowable |= {lie for lie in lies if LIES[lie]}
        # A run from beyond an end that was believed may be listed once more at the top: it has a gap above it.
        is_excused |= "repeated" in lies or (mode == "all" and bool(ENDS & set(lies)))
        if missing:
            told, silent = told + is_told, silent + (not is_told)
            assert is_told or service.unknowable, lies
            # An end that leaves a gap above stored runs is never believed in silence, but by refresh="all".
            if service.unknowable <= ENDS and not is_excused and first_gap(service, frame):
                assert is_told, lies
    service.lies = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataQualityWarning)
        frame = service.load(tmp_path, refresh="all")
    assert set(frame["id"]) == {run["id"] for run in service.runs} | service.shown
    assert frame.attrs["complete"]
    again = service.load(tmp_path)
    assert again.attrs["requests"] == 0
    assert set(again["id"]) == set(frame["id"])
    logger.info("seed %d: %d runs; missing and told %d times, unknowable %d times", seed, len(frame), told, silent)


def first_gap(service: LyingService, frame: pd.DataFrame) -> bool:
    """Return whether runs that are there lie both above and below some that are missing."""
    known = set(frame["id"])
    there = [run["id"] in known for run in service.runs]
    return "101" in "".join(str(int(is_there)) for is_there, _ in itertools.groupby(there))


# -- answers -----------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
#: A page with one run, whose values may be anything.
RUN = b'{"id": "drun_1", "status": "completed", "created_at": "2026-06-14T12:00:00Z"}'


def page_with(value: bytes) -> bytes:
    return b'{"data": [%b, "odd": %b}], "has_more": false}' % (RUN[:-1], value)


def whole(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return OK + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*parts: bytes) -> bytes:
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts)


#: 100 MB, compressed at the lowest level: every test run imports this file.
BOMB = gzip.compress(b" " * 10**8, 1)
PAGE_BODY = b'{"data": [%b], "has_more": false}' % RUN
#: Answers that are odd, but whole: the run is there.
RIGHT: dict[str, bytes] = {
    "plain": whole(PAGE_BODY),
    "chunks of one byte": chunked(*(chunk(PAGE_BODY[at : at + 1]) for at in range(len(PAGE_BODY))), chunk(b"")),
    "chunk extensions": chunked(b"%x;a=b\r\n%b\r\n" % (len(PAGE_BODY), PAGE_BODY), b"0;x\r\n\r\n"),
    "trailers": chunked(chunk(PAGE_BODY), b"0\r\nX-T: 1\r\n\r\n"),
    "no length": OK + b"\r\n" + PAGE_BODY,
    "gzip": whole(gzip.compress(PAGE_BODY), b"Content-Encoding: gzip"),
    "another type": whole(PAGE_BODY, b"Content-Type: text/html"),
    "100-continue": b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + whole(PAGE_BODY),
    "white space": whole(b" \n\t" * 5_000 + PAGE_BODY + b"\n" * 5_000),
    "lone surrogate": whole(page_with(rb'"\ud800"')),
    "a number of 5,000 digits": whole(page_with(b"9" * 5_000)),
    "1e400": whole(page_with(b"1e400")),
    "-0": whole(page_with(b"-0")),
    "200 levels": whole(page_with(b"[" * 200 + b"]" * 200)),
    "a key twice": whole(PAGE_BODY.replace(b'"has_more": false', b'"has_more": true, "has_more": false')),
    "a text of 3 MB": whole(page_with(b'"' + b"x" * 3_000_000 + b'"')),
    "NUL in a text": whole(page_with(rb'"\u0000"')),
    "10,000 unknown fields": whole(
        page_with(b"{" + b",".join(b'"k%d": %d' % (number, number) for number in range(10_000)) + b"}")
    ),
    "cookies and odd headers": whole(PAGE_BODY, b"Set-Cookie: a=b", b"X-\xff: \xfe", b"Link: <x>; rel=next"),
}
#: Answers that cannot be used: our own error.
WRONG: dict[str, bytes] = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/9": b"HTTP/9.9 200 OK\r\n\r\n" + PAGE_BODY,
    "status 99999": b"HTTP/1.1 99999 OK\r\nContent-Length: 0\r\n\r\n",
    "status no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "a header without a colon": OK + b"nonsense\r\n\r\n",
    "200 headers": OK + b"X: y\r\n" * 200 + b"\r\n",
    "a header of 100 kB": OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    "cut in the headers": OK + b"Content-Le",
    "cut in the body": OK + b"Content-Length: 5000\r\n\r\n" + PAGE_BODY,
    "a negative length": OK + b"Content-Length: -5\r\n\r\n" + PAGE_BODY[:20],
    "a length of no number": OK + b"Content-Length: many\r\n\r\n" + PAGE_BODY[:20],
    "a length too short": OK + b"Content-Length: 9\r\n\r\n" + PAGE_BODY,
    "a chunk size of no number": chunked(b"zz\r\n", PAGE_BODY),
    "a negative chunk size": chunked(b"-5\r\n", PAGE_BODY),
    "a huge chunk size": chunked(b"ffffffffffffffffffff\r\n", PAGE_BODY),
    "a chunk that is too short": chunked(b"fff\r\n", PAGE_BODY),
    "no last chunk": chunked(chunk(PAGE_BODY)),
    "gzip that is none": whole(PAGE_BODY, b"Content-Encoding: gzip"),
    "gzip that is cut": whole(gzip.compress(PAGE_BODY)[:-9], b"Content-Encoding: gzip"),
    "an unknown encoding": whole(b"\x00\x01\x02", b"Content-Encoding: zz"),
    "inflates to 100 MB": whole(BOMB, b"Content-Encoding: gzip"),
    "HTML": whole(b"<html><body>Sign in</body></html>", b"Content-Type: text/html"),
    "empty": whole(b""),
    "null": whole(b"null"),
    "a list": whole(b"[]"),
    "a number": whole(b"9" * 10_000),
    "UTF-16": whole(PAGE_BODY.decode().encode("utf-16")),
    "Latin-1": whole(PAGE_BODY.replace(b"completed", b"f\xe4llt")),
    "NaN": whole(page_with(b"NaN")),
    "two pages": whole(PAGE_BODY + PAGE_BODY),
    "100,000 levels": whole(page_with(b"[" * 100_000 + b"]" * 100_000)),
    "no data": whole(b'{"has_more": false}'),
    "data that is an object": whole(b'{"data": {}, "has_more": false}'),
    "no has_more": whole(b'{"data": []}'),
    "has_more that is text": whole(b'{"data": [], "has_more": "false"}'),
    "a cursor that is a number": whole(b'{"data": [], "has_more": false, "last_id": 5}'),
    "a record that is text": whole(b'{"data": ["x"], "has_more": false}'),
    "a record without an id": whole(b'{"data": [{}], "has_more": false}'),
    "an id that is a number": whole(b'{"data": [{"id": 5}], "has_more": false}'),
    "more without a cursor": whole(b'{"data": [], "has_more": true}'),
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "206": b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\n{}}",
    "500 with HTML": b"HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\n<html>",
    "500 with odd JSON": b'HTTP/1.1 500 No\r\nContent-Length: 14\r\n\r\n{"error": [5]}',
    "401 with a bomb": b"HTTP/1.1 401 No\r\nContent-Encoding: gzip\r\n"
    + b"Content-Length: %d\r\n\r\n%b" % (len(BOMB), BOMB),
}
#: Seconds that a request may take: five times the wait for bytes, and what a busy machine adds.
BOUND = 20.0


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Send one answer to everyone who asks, and close the connection."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(BOUND)
                    connection.recv(65_536)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(0.05)
                    connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def load_odd(base_url: str, folder: Path) -> pd.DataFrame:
    """Load the runs from a service that gives one answer."""
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
        assert time.monotonic() - began < BOUND


@pytest.fixture
def _real_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure real time: the sockets do."""
    monkeypatch.setattr(retries, "SYSTEM", retries.SystemClock())


@pytest.mark.usefixtures("_real_clock")
@pytest.mark.parametrize("name", RIGHT)
def test_odd_answers_that_are_right(name: str, tmp_path: Path) -> None:
    with answering(RIGHT[name]) as base_url:
        frame = load_odd(base_url, tmp_path)
    assert list(frame["id"]) == ["drun_1"]
    assert list(frame["status"]) == ["completed"]


@pytest.mark.usefixtures("_real_clock")
@pytest.mark.parametrize("name", WRONG)
def test_odd_answers_that_are_wrong(name: str, tmp_path: Path) -> None:
    with answering(WRONG[name]) as base_url, pytest.raises(APIError) as caught:
        load_odd(base_url, tmp_path)
    assert "pt-secret-token" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.usefixtures("_real_clock")
@pytest.mark.parametrize(
    ("name", "every"), [*((name, 0.01) for name in SLOW_RESPONSES), *((name, 0.0) for name in FAST_RESPONSES)]
)
def test_answers_that_never_end(name: str, every: float, tmp_path: Path) -> None:
    first, then = (SLOW_RESPONSES if every else FAST_RESPONSES)[name]
    with server(first, then, every=every) as port, pytest.raises(APIError):
        load_odd(f"http://127.0.0.1:{port}", tmp_path)


def test_there_are_sixty_answers() -> None:
    assert len(RIGHT) + len(WRONG) + len(SLOW_RESPONSES) + len(FAST_RESPONSES) >= 60


# -- bits --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, OddService]:
    """Give a store of some runs that the service has forgotten, but for the newest."""
    service = OddService()
    service.create(40, status="completed")
    service.create(3, status="running")
    service.load(tmp_path)
    del service.runs[1:]
    service.single = forgotten
    return tmp_path, service


def forgotten(id_: str) -> dict[str, Any]:
    raise NotFoundError(id_)


def store_of(folder: Path, service: OddService) -> TableStore:
    return TableStore(
        Folder(folder), RUNS_TABLE, base_url=service.base_url, workspace_id=None, account=service.account
    )


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def read_or_refuse(folder: Path, service: OddService) -> pa.Table | None:
    """Return what the store has; ``None`` where it says that it cannot be used."""
    store = store_of(folder, service)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            store.load()
            table = store.read()
        except QoderdataError:
            return None
    return None if caught else table


@pytest.mark.parametrize("what", ["footer", "manifest"])
def test_each_bit(stored: tuple[Path, OddService], what: str) -> None:
    """A changed bit is refused, or changes nothing; and now and then the loader mends it without losing a run."""
    folder, service = stored
    truth = store_of(folder, service)
    truth.load()
    rows_stored = truth.read()
    (file,) = folder.glob("runs/*/manifest.json" if what == "manifest" else "runs/*/data/*/*.parquet")
    content = file.read_bytes()
    first = 0 if what == "manifest" else len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    bits = range(8 * first, 8 * len(content), SIZE.bits)
    refused = 0
    for bit in bits:
        file.write_bytes(flipped(content, bit))
        found = read_or_refuse(folder, service)
        refused += found is None
        assert found is None or found.equals(rows_stored), bit
    logger.info(
        "%s: %d bits of %d bytes, %d refused, the others change nothing", what, len(bits), len(content), refused
    )
    assert refused > len(bits) * 0.9
    file.write_bytes(content)


@pytest.mark.parametrize("what", ["footer", "manifest"])
def test_after_a_changed_bit_nothing_is_lost(stored: tuple[Path, OddService], what: str, tmp_path: Path) -> None:
    """The rows of a manifest are rebuilt; a data file is set aside, with all its bytes but one."""
    folder, service = stored
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    chance = random.Random(what)  # noqa: S311 - bits, not secrets
    for number in range(8 if SIZE is SMALL else 60):
        copy = tmp_path / f"copy-{number}"
        for name, content in before.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        (file,) = copy.glob("runs/*/manifest.json" if what == "manifest" else "runs/*/data/*/*.parquet")
        changed = flipped(file.read_bytes(), chance.randrange(8 * file.stat().st_size))
        file.write_bytes(changed)
        with pytest.warns(CacheWarning, match="repaired|set-aside"):
            frame = service.load(copy, refresh=True)
        if what == "manifest":
            assert len(frame) == 43
        else:
            assert changed in [
                path.read_bytes() for path in copy.glob("runs/*/set-aside-*/**/*") if path.is_file()
            ]
