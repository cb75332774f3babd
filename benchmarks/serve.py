"""Serve pages that are made in advance, so that a request costs little more than a write to the socket.

A page has 1,000 records, as in edition A, or the number that `--page` sets. The cursor parameters of all
contenders work. No two records are equal: each has its own prompt, description, name and metadata values. One text
in four has non-ASCII characters, one in seven has quotes, line breaks and backslashes. A deployment has about
1.5 KB. The base URL is printed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socketserver
import time
from datetime import UTC, datetime, timedelta
from typing import Any

LARGEST_PAGE = 1000
RECORD_BYTES = 1500
CURSOR = re.compile(rb"[?&](?:after_id|page)=page_(\d+)")
NON_ASCII = "日报汇总每周检查数据库备份在庫チェック部署失败重试über café naïve Größe"
ZONES = ["Asia/Shanghai", "UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo"]
NEWEST = datetime(2026, 6, 15, tzinfo=UTC)

Record = dict[str, Any]


class Values:
    """Random values of records."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - no secret
        letters = "etaoinshrdlucmfwypvbgk"
        self.words = ["".join(self.random.choices(letters, k=self.random.randint(2, 10))) for _ in range(20_000)]

    def text(self, words: int) -> str:
        """Return words; one text in four has non-ASCII characters, one in seven needs escapes."""
        found = self.random.choices(self.words, k=words)
        if self.random.random() < 1 / 4:
            start = self.random.randrange(len(NON_ASCII) - 8)
            found.insert(self.random.randrange(len(found)), NON_ASCII[start : start + 8])
        if self.random.random() < 1 / 7:
            found.insert(self.random.randrange(len(found)), '"C:\\temp"\n')
        return " ".join(found)

    def id(self, prefix: str) -> str:
        """Return an id."""
        return f"{prefix}_{self.random.getrandbits(128):032x}"

    def time(self, before: datetime = NEWEST) -> str:
        """Return a random time in the year that ends at `before`, with 0 to 9 fraction digits."""
        time = before - timedelta(seconds=self.random.randrange(365 * 86_400))
        digits = self.random.choice([0, 0, 3, 6, 9])
        fraction = f".{self.random.randrange(10**digits):0{digits}}" if digits else ""
        return f"{time:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def deployments(count: int, variant: str) -> list[Record]:
    """Return deployments, newest first."""
    values = Values(7)
    return [deployment(values, number, variant) for number in range(count)]


def deployment(values: Values, number: int, variant: str) -> Record:
    """Return one deployment of about `RECORD_BYTES`."""
    pick = values.random
    paused = pick.random() < 1 / 8
    runs = pick.randrange(5_000)
    stats: Record = {
        "total_runs": runs,
        "total_failures": int(runs * pick.random() ** 4),
        "consecutive_failures": pick.choice([0, 0, 0, 0, 1, 2, 7]),
        "next_trigger_at": values.time(),
        "last_triggered_at": values.time(),
    }
    record: Record = {
        "id": values.id("dep"),
        "type": "deployment",
        "name": values.text(4),
        "description": values.text(9),
        "status": "paused" if paused else "active",
        "paused_reason": {"type": "manual"} if paused else None,
        "agent": {"id": values.id("agent"), "type": "agent", "version": pick.randint(1, 30)},
        "environment_id": values.id("env"),
        "schedule": {
            "type": "cron",
            "expression": f"{pick.randrange(60)} {pick.randrange(24)} * * {pick.choice(['*', '1-5', 'MON'])}",
            "timezone": pick.choice(ZONES),
            "last_run_at": values.time(),
            "upcoming_runs_at": [values.time() for _ in range(5)],
        },
        "vault_ids": [values.id("vault") for _ in range(pick.randrange(2))],
        "resources": [],
        "metadata": {
            "team": values.text(1),
            "owner": values.text(2),
            "cas_config": {
                "session_strategy": pick.choice(["new", "reuse"]),
                "config": {
                    "max_concurrent": pick.randint(1, 4),
                    "max_retries": 2,
                    "timeout_ms": 60_000 * pick.randint(1, 90),
                },
                "stats": stats,
            },
        },
        "created_at": values.time(),
        "updated_at": values.time(),
        "archived_at": None,
    }
    room = RECORD_BYTES - len(dumps(record)) - 80
    record["initial_events"] = [
        {"type": "user.message", "content": [{"type": "text", "text": values.text(max(room // 7, 5))}]}
    ]
    if variant == "unknown":
        record["region"] = values.text(1)
        record["quota"] = {"tier": pick.choice(["gold", "silver"]), "left": number}
    if variant == "misfit" and number % (5 * LARGEST_PAGE) == LARGEST_PAGE // 2:
        stats["total_runs"] = "many"
    return record


def runs(count: int) -> list[Record]:
    """Return runs of 400 deployments over 90 days, newest first."""
    values = Values(11)
    pick = values.random
    ids = [values.id("dep") for _ in range(400)]
    found = []
    for number in range(count):
        time = NEWEST - timedelta(seconds=90 * 86_400 * number / count)
        status = pick.choices(["completed", "failed", "skipped", "running"], [900, 80, 15, 5])[0]
        started = time + timedelta(milliseconds=pick.randrange(20, 9_000))
        milliseconds = int(pick.lognormvariate(10.5, 0.8))
        record: Record = {
            "id": values.id("drun"),
            "type": "deployment_run",
            "deployment_id": pick.choice(ids),
            "agent": {"id": values.id("agent"), "type": "agent", "version": pick.randint(1, 30)},
            "status": status,
            "trigger_context": {"type": pick.choice(["schedule", "schedule", "manual"])},
            "session_id": values.id("sess"),
            "triggered_at": stamp(time),
            "created_at": stamp(time),
            "error": None,
            "cas_run_extras": {"attempt": 1, "turn_id": values.id("turn"), "started_at": stamp(started)},
        }
        if status in {"completed", "failed"}:
            record["completed_at"] = stamp(started + timedelta(milliseconds=milliseconds))
            record["duration_ms"] = milliseconds
        if status == "failed":
            record["error"] = {"type": pick.choice(["timeout", "api_error"]), "message": values.text(8)}
        found.append(record)
    return found


def stamp(time: datetime) -> str:
    """Return a time as the service writes it."""
    return f"{time:%Y-%m-%dT%H:%M:%S.%f}".rstrip("0").removesuffix(".") + "Z"


def dumps(record: Record) -> bytes:
    """Return compact JSON."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def pages(records: list[Record], size: int) -> list[bytes]:
    """Return the HTTP response of each page; the cursor after page ``k`` is ``page_<k>``."""
    found = []
    for start in range(0, len(records), size):
        more = start + size < len(records)
        last = json.dumps(f"page_{start // size + 1}")
        after = last if more else "null"
        tail = f'],"first_id":null,"has_more":{str(more).lower()},"last_id":{last},"next_page":{after}}}'
        body = b'{"data":[' + b",".join(map(dumps, records[start : start + size])) + tail.encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        found.append(head.encode() + body)
    return found


def main() -> None:
    """Serve the pages until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--variant", choices=["plain", "unknown", "misfit", "runs"], default="plain")
    parser.add_argument("--page", type=int, default=LARGEST_PAGE, help="records per page")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    arguments = parser.parse_args()
    is_runs = arguments.variant == "runs"
    records = runs(arguments.records) if is_runs else deployments(arguments.records, arguments.variant)
    ready = pages(records, arguments.page)
    del records

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            while request := self.rfile.readline():
                while self.rfile.readline().strip():
                    pass
                cursor = CURSOR.search(request)
                time.sleep(arguments.latency)
                self.wfile.write(ready[int(cursor[1]) if cursor else 0])

    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/api/v1/cloud", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
