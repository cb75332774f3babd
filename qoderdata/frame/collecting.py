"""When Python looks for garbage cycles: not while pages are decoded.

Records are many objects and no cycles; to look for cycles among them costs a third of the time.
"""

from __future__ import annotations

import gc
import threading


class Uncollected:
    """A context, for any number of threads at once, without cyclic garbage collection.

    Collection is as it was when the last thread has left.

    Examples
    --------
    >>> with Uncollected():
    ...     gc.isenabled()
    False
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._was_enabled:
                gc.enable()


#: The one for all, since collection is one for all.
UNCOLLECTED = Uncollected()
