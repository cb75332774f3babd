"""A server of ready pages, in a process of its own: what it costs is a copy to the socket.

Serves 1,000 records a page, as the service's first edition does, or fewer, and every client's way of paging. The
records are the sandbox's, filled up to about 1.5 KB, and repeated under other ids and with other prompts. Prints
its base URL.
"""

from __future__ import annotations

import argparse
import json
import re
import socketserver
import time

from qoderdata.sandbox import Sandbox

LARGEST_PAGE = 1000
TEMPLATES = 2000
RECORD_BYTES = 1500
CURSOR = re.compile(rb"[?&](?:after_id|page)=dep_page_(\d+)")


def records(count: int, variant: str) -> list[bytes]:
    """Make the records, newest first, each with an id of its own."""
    with Sandbox(TEMPLATES, seed=7, new_fields=False) as sandbox:
        templates = sandbox.deployments
    found = []
    for number in range(count):
        record = templates[number % TEMPLATES]
        record["id"] = f"dep_{number:032x}"
        text = f"Look at day {number}, and write down what changed and why. " * 40
        record["initial_events"] = [{"content": "", "type": "user.message"}]
        room = RECORD_BYTES - len(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode())
        record["initial_events"] = [{"content": text[: max(room, 0)], "type": "user.message"}]
        if variant == "unknown":
            record["region"] = "cn-hangzhou"
            record["quota"] = {"tier": "gold", "left": number}
        if variant == "misfit" and number % (5 * LARGEST_PAGE) == LARGEST_PAGE // 2:
            stats = record["metadata"].get("cas_config", {}).get("stats")
            record = json.loads(json.dumps(record))
            if stats:
                record["metadata"]["cas_config"]["stats"]["total_runs"] = "many"
            else:
                record["agent"]["version"] = "newest"
        found.append(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode())
    return found


def pages(count: int, variant: str, size: int) -> list[bytes]:
    """Make the pages; the cursor after page ``k`` is ``dep_<k>``."""
    made = records(count, variant)
    found = []
    for start in range(0, count, size):
        more = start + size < count
        last = json.dumps(f"dep_page_{start // size + 1}")
        after = last if more else "null"
        tail = f'],"first_id":null,"has_more":{str(more).lower()},"last_id":{last},"next_page":{after}}}'
        found.append(b'{"data":[' + b",".join(made[start : start + size]) + tail.encode())
    return found


def answer(body: bytes) -> bytes:
    """Make a whole answer of a page, so that nothing is left to do for a request."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--variant", choices=["plain", "unknown", "misfit"], default="plain")
    parser.add_argument("--page", type=int, default=LARGEST_PAGE, help="records a page")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    arguments = parser.parse_args()
    ready = [answer(page) for page in pages(arguments.records, arguments.variant, arguments.page)]

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
