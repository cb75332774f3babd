"""Work in other threads: in order, one ahead, and nobody is kept waiting."""

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from qoderdata.background import Workers, one_ahead

#: Seconds after which something that should have happened has not.
LONG = 10


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


class TestOneAhead:
    def test_items_come_in_order_then_the_error_itself(self) -> None:
        failure = ValueError("the third is missing")

        def items() -> Iterator[int]:
            yield from (1, 2)
            raise failure

        ahead = one_ahead(items(), name="t-error")
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(ValueError, match="third") as caught:
            next(ahead)
        assert caught.value is failure

    def test_none_and_false_are_items_like_any_other(self) -> None:
        assert list(one_ahead([None, False, 0, ""], name="t-odd")) == [None, False, 0, ""]

    def test_it_is_one_item_ahead_and_not_two(self) -> None:
        begun = [threading.Event() for _ in range(4)]

        def items() -> Iterator[int]:
            for number, event in enumerate(begun):
                event.set()
                yield number

        ahead = one_ahead(items(), name="t-ahead")
        assert not begun[0].is_set(), "nothing is begun before the first is wanted"
        for number in range(3):
            assert next(ahead) == number
            assert begun[number + 1].wait(LONG), "the next one is being made"
            assert not any(event.is_set() for event in begun[number + 2 :]), "and no other"
        assert list(ahead) == [3]

    @pytest.mark.parametrize("leave", ["close", "throw"])
    def test_leaving_drops_what_is_being_made(self, leave: str) -> None:
        release, begun = threading.Event(), []

        def items() -> Iterator[int]:
            for number in range(5):
                begun.append(number)
                if number:
                    release.wait(LONG)
                yield number

        ahead = one_ahead(items(), name="t-leave")
        next(ahead)
        if leave == "close":
            ahead.close()
        else:
            with pytest.raises(KeyboardInterrupt):
                ahead.throw(KeyboardInterrupt)
        (thread,) = threads("t-leave")
        assert thread.daemon, "it keeps no process alive"
        release.set()
        thread.join(LONG)
        assert begun == [0, 1]

    def test_no_thread_is_left_after_the_last_item(self) -> None:
        assert list(one_ahead(range(3), name="t-end")) == [0, 1, 2]
        for thread in threads("t-end"):
            thread.join(LONG)
        assert threads("t-end") == []


class TestWorkers:
    def test_an_error_is_raised_where_the_result_is_waited_for(self) -> None:
        workers = Workers(1, name="t-raise")
        failed = workers.submit(lambda: 1 // 0)
        after = workers.submit(lambda: "well")
        with pytest.raises(ZeroDivisionError):
            failed.result(LONG)
        assert after.result(LONG) == "well", "the thread outlives a failure"
        workers.close(timeout=LONG)
        assert threads("t-raise") == []

    def test_as_many_work_at_once_as_there_are_threads(self) -> None:
        together = threading.Barrier(3)
        workers = Workers(3, name="t-together")
        places = [workers.submit(lambda: together.wait(LONG)) for _ in range(3)]
        assert sorted(place.result(LONG) for place in places) == [0, 1, 2]
        workers.close(timeout=LONG)

    def test_closing_begins_nothing_more_and_waits_only_so_long(self) -> None:
        begun, release = threading.Event(), threading.Event()

        def hang() -> bool:
            begun.set()
            return release.wait(LONG)

        workers = Workers(1, name="t-close")
        hanging, waiting = workers.submit(hang), workers.submit(lambda: True)
        assert begun.wait(LONG)
        workers.close(timeout=0)
        assert not hanging.done(), "nobody waited for it"
        release.set()
        assert hanging.result(LONG) is True
        with pytest.raises(CancelledError):
            waiting.result(LONG)

    def test_what_was_done_is_let_go(self) -> None:
        """The bodies of pages are large, and a thread that waits for work must not hold the last one."""

        class Body:
            def __call__(self) -> int:
                return 1

        workers = Workers(1, name="t-held")
        body = Body()
        gone = threading.Event()
        weakref.finalize(body, gone.set)
        assert workers.submit(body).result(LONG) == 1
        del body
        assert gone.wait(LONG)
        workers.close(timeout=LONG)
