"""How is a list read ahead in another thread, and the garbage collector paused?

The thread is a daemon, which `concurrent.futures` does not offer: a request that hangs does not keep the process
alive. But Python stops daemon threads at its exit, and the process aborts if one of them is in C++ code then. So
the exit waits a short time for the item that is being made.
"""

from __future__ import annotations

import atexit
import gc
import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

T = TypeVar("T")

#: How long the exit of the process waits for each thread, in seconds.
_EXIT_WAIT = 0.5
_running: set[threading.Thread] = set()


@atexit.register
def _wait_for_threads() -> None:
    for thread in tuple(_running):
        thread.join(_EXIT_WAIT)


def prefetch(items: Iterable[T], *, name: str) -> Generator[T, None, None]:
    """Iterate in another thread of this name, one item ahead of the caller; an error is raised after the items.

    While the caller handles an item, the next one is made, and the one after it when the caller asks again.
    Closing the generator early, or leaving it by an exception or Ctrl-C, does not wait: the item that is being
    made is dropped, and no other is begun.

    Examples
    --------
    >>> list(prefetch((number**2 for number in range(4)), name="squares"))
    [0, 1, 4, 9]
    """
    queue: SimpleQueue[Any] = SimpleQueue()
    end: Future[None] = Future()
    free_slot = threading.Semaphore(1)
    is_closed = threading.Event()

    def run() -> None:
        thread = threading.current_thread()
        _running.add(thread)
        try:
            for item in items:
                queue.put(item)
                del item
                free_slot.acquire()
                if is_closed.is_set():
                    break
            end.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised where the item is waited for
            end.set_exception(error)
        _running.discard(thread)
        queue.put(end)

    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
        for item in iter(queue.get, end):
            yield item
            free_slot.release()
        end.result()
    finally:
        is_closed.set()
        free_slot.release()


class GCPaused:
    """A context, for any number of threads at once, in which the garbage collector does not look for cycles.

    Records are many objects without cycles; to look for cycles among them costs a third of the time.

    Examples
    --------
    >>> with GCPaused():
    ...     gc.isenabled()
    False
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._was_enabled:
                gc.enable()


#: The only instance: the collector is one for the whole process.
gc_paused = GCPaused()
