"""Work in other threads: in order, one ahead, and nobody is kept waiting."""

import threading
from collections.abc import Iterator

import pytest

from qoderdata.background import prefetch

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

        ahead = prefetch(items(), name="t-error")
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(ValueError, match="third") as caught:
            next(ahead)
        assert caught.value is failure

    def test_none_and_false_are_items_like_any_other(self) -> None:
        assert list(prefetch([None, False, 0, ""], name="t-odd")) == [None, False, 0, ""]

    def test_it_is_one_item_ahead_and_not_two(self) -> None:
        begun = [threading.Event() for _ in range(4)]

        def items() -> Iterator[int]:
            for number, event in enumerate(begun):
                event.set()
                yield number

        ahead = prefetch(items(), name="t-ahead")
        assert not begun[0].is_set(), "nothing is begun before the first is wanted"
        for number in range(3):
            assert next(ahead) == number
            assert begun[number + 1].wait(LONG), "the next one is being made"
            assert not any(event.is_set() for event in begun[number + 2 :]), "and no other"
        assert list(ahead) == [3]

    @pytest.mark.parametrize("leave", ["close", "throw"])
    def test_leaving_drops_what_is_being_made(self, leave: str) -> None:
        release, making, begun = threading.Event(), threading.Event(), []

        def items() -> Iterator[int]:
            for number in range(5):
                begun.append(number)
                if number:
                    making.set()
                    release.wait(LONG)
                yield number

        ahead = prefetch(items(), name="t-leave")
        next(ahead)
        assert making.wait(LONG)
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

    def test_no_thread_is_left_after_ctrl_c_at_its_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        start = threading.Thread.start

        def start_and_interrupt(thread: threading.Thread) -> None:
            start(thread)
            if thread.name == "t-start":
                raise KeyboardInterrupt

        monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
        ahead = prefetch(range(5), name="t-start")
        with pytest.raises(KeyboardInterrupt):
            next(ahead)
        for thread in threads("t-start"):
            thread.join(LONG)
        assert threads("t-start") == []

    def test_no_thread_is_left_after_the_last_item(self) -> None:
        assert list(prefetch(range(3), name="t-end")) == [0, 1, 2]
        for thread in threads("t-end"):
            thread.join(LONG)
        assert threads("t-end") == []
