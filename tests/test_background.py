"""Tests of `qoderdata.background.prefetch`: order, errors, number of items ahead, and the end of the thread."""

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from qoderdata.background import GCPaused, prefetch

#: Seconds to wait for an event or for the end of a thread.
TIMEOUT_S = 10


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


class TestPrefetch:
    def test_items_come_in_order_then_the_exception_is_raised(self) -> None:
        failure = ValueError("the third item failed")

        def items() -> Iterator[int]:
            yield from (1, 2)
            raise failure

        ahead = prefetch(items(), name="t-error")
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(ValueError, match="third") as caught:
            next(ahead)
        assert caught.value is failure

    def test_none_and_false_are_yielded_as_items(self) -> None:
        assert list(prefetch([None, False, 0, ""], name="t-falsy")) == [None, False, 0, ""]

    def test_exactly_one_item_is_prefetched(self) -> None:
        started = [threading.Event() for _ in range(4)]

        def items() -> Iterator[int]:
            for number, event in enumerate(started):
                event.set()
                yield number

        ahead = prefetch(items(), name="t-ahead")
        assert not started[0].is_set(), "no item is produced before the first call of next"
        for number in range(3):
            assert next(ahead) == number
            assert started[number + 1].wait(TIMEOUT_S), "the next item is prefetched"
            assert not any(event.is_set() for event in started[number + 2 :]), "only one item is prefetched"
        assert list(ahead) == [3]

    @pytest.mark.parametrize("method", ["close", "throw"])
    def test_closing_drops_the_item_in_progress_and_ends_the_thread(self, method: str) -> None:
        release, second_started, started = threading.Event(), threading.Event(), []

        def items() -> Iterator[int]:
            for number in range(5):
                started.append(number)
                if number:
                    second_started.set()
                    release.wait(TIMEOUT_S)
                yield number

        ahead = prefetch(items(), name="t-close")
        next(ahead)
        assert second_started.wait(TIMEOUT_S)
        if method == "close":
            ahead.close()
        else:
            with pytest.raises(KeyboardInterrupt):
                ahead.throw(KeyboardInterrupt)
        (thread,) = threads_named("t-close")
        assert thread.daemon, "a daemon thread does not keep the process alive"
        release.set()
        thread.join(TIMEOUT_S)
        assert started == [0, 1]

    def test_thread_ends_after_keyboard_interrupt_at_its_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        start = threading.Thread.start

        def start_and_interrupt(thread: threading.Thread) -> None:
            start(thread)
            if thread.name == "t-start":
                raise KeyboardInterrupt

        monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
        ahead = prefetch(range(5), name="t-start")
        with pytest.raises(KeyboardInterrupt):
            next(ahead)
        for thread in threads_named("t-start"):
            thread.join(TIMEOUT_S)
        assert threads_named("t-start") == []

    def test_thread_ends_after_the_last_item(self) -> None:
        assert list(prefetch(range(3), name="t-end")) == [0, 1, 2]
        for thread in threads_named("t-end"):
            thread.join(TIMEOUT_S)
        assert threads_named("t-end") == []


def test_garbage_collector_that_was_disabled_stays_so() -> None:
    gc.disable()
    try:
        with GCPaused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_garbage_collector_is_enabled_again_after_the_last_context() -> None:
    paused = GCPaused()
    for _ in range(2):
        with paused:
            with paused:
                pass
            assert not gc.isenabled()
        assert gc.isenabled()


@pytest.mark.parametrize("seconds", [0.2, 60])
def test_exit_waits_a_short_time_for_the_item_in_progress(seconds: float) -> None:
    """Python ends daemon threads at its exit; the process aborts if one is in C++ code then."""
    program = (
        "import sys, time\n"
        "from qoderdata.background import prefetch\n"
        "def items():\n"
        "    yield 1\n"
        "    time.sleep(float(sys.argv[1]))\n"
        "    print('complete', flush=True)\n"
        "    yield 2\n"
        "ahead = prefetch(items(), name='t-exit')\n"
        "next(ahead)\n"
        "ahead.close()\n"
    )
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", program, str(seconds)], capture_output=True, text=True, timeout=50, check=True
    )
    assert ended.stdout.split() == (["complete"] if seconds < 1 else [])
    assert time.monotonic() - began < 40
