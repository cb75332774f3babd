"""Work in other threads that keeps nobody waiting.

The threads are daemons, which `concurrent.futures` cannot have: a request that hangs when nobody wants its answer
any more does not keep the process alive.
"""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

T = TypeVar("T")


def one_ahead(items: Iterable[T], *, name: str) -> Generator[T, None, None]:
    """Iterate in another thread, one item ahead of the caller.

    While the caller handles an item, the next one is being made; the one behind it waits until the caller comes
    back. Closing the generator early, or leaving it by an exception or Ctrl-C, waits for nothing: the item that is
    being made is dropped, and no other is begun.

    Parameters
    ----------
    items
        What to iterate.
    name
        The thread's name.

    Yields
    ------
    object
        The items, in order. Then whatever ended the iteration is raised.

    Examples
    --------
    >>> list(one_ahead((number**2 for number in range(4)), name="squares"))
    [0, 1, 4, 9]
    """
    made: SimpleQueue[Any] = SimpleQueue()
    end: Future[None] = Future()
    room = threading.Semaphore(1)
    left = threading.Event()

    def run() -> None:
        try:
            for item in items:
                made.put(item)
                del item
                room.acquire()
                if left.is_set():
                    break
            end.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised where the item is waited for
            end.set_exception(error)
        made.put(end)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        for item in iter(made.get, end):
            yield item
            room.release()
        end.result()
    finally:
        left.set()
        room.release()


class Workers:
    """Some threads that do what they are handed, first come, first served.

    Parameters
    ----------
    count
        How many threads.
    name
        Their name.

    Examples
    --------
    >>> workers = Workers(2, name="powers")
    >>> powers = [workers.submit(lambda n=n: 10**n) for n in range(4)]
    >>> [power.result() for power in powers]
    [1, 10, 100, 1000]
    >>> workers.close(timeout=1)
    """

    def __init__(self, count: int, *, name: str) -> None:
        self._work: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Hand over some work.

        Parameters
        ----------
        work
            Called in one of the threads.

        Returns
        -------
        concurrent.futures.Future
            Its result, or what it raised, once it is done; cancelled where `close` finds it waiting.
        """
        future: Future[T] = Future()
        self._work.put((work, future))
        return future

    def close(self, *, timeout: float) -> None:
        """Begin no more work, and wait a little for what has begun; what is handed over later is dropped.

        Parameters
        ----------
        timeout
            Seconds to wait at most.
        """
        self._closed.set()
        for _ in self._threads:
            self._work.put(None)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (task := self._work.get()) is not None:
            self._do(*task)
            del task

    def _do(self, work: Callable[[], T], future: Future[T]) -> None:
        if self._closed.is_set():
            future.cancel()
            return
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
            future.set_exception(error)


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
