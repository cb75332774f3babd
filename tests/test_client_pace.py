"""Polite: the distance between requests, and the waits between attempts, by a clock that nobody waits for."""

from __future__ import annotations

import email.utils
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata import errors
from qoderdata.client import Client, retries

if TYPE_CHECKING:
    from conftest import FastClock, ScriptedService


def in_seconds(seconds: int) -> str:
    """Write an HTTP date, so long after the time at which a test's clock begins."""
    return email.utils.format_datetime(datetime(2026, 6, 15, tzinfo=UTC) + timedelta(seconds=seconds), usegmt=True)


class TestWaits:
    def test_they_double_up_to_eight_seconds(self, service: ScriptedService, clock: FastClock) -> None:
        service.play(service.answer(503))
        with pytest.raises(errors.InternalServerError):
            Client("pt-secret", service.base_url, max_retries=7).get_deployment("dep_1")
        for slept, full in zip(clock.sleeps, [0.5, 1, 2, 4, 8, 8, 8], strict=True):
            assert 0.75 * full <= slept <= full

    def test_they_differ_from_client_to_client(self) -> None:
        assert len({retries.backoff(1) for _ in range(20)}) > 1

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"Retry-After": "1"}, 1),
            ({"Retry-After": "60"}, 60),
            ({"Retry-After": in_seconds(7)}, 7),
            ({"Retry-After": in_seconds(60)}, 60),
            # A date is measured by the service's own clock: that of this machine may be wrong by an hour.
            ({"Date": in_seconds(-3600), "Retry-After": in_seconds(-3591)}, 9),
            ({"Date": in_seconds(3600), "Retry-After": in_seconds(3609)}, 9),
            # Milliseconds come first, where they can be used.
            *(
                ({"retry-after-ms": text, "Retry-After": "7"}, wait)
                for text, wait in [("1500", 1.5), ("250.5", 0.2505), ("60000", 60), ("1499.9999999999998", 1.5)]
            ),
            *(({"retry-after-ms": text, "Retry-After": "7"}, 7) for text in ("", "0", "-1", "soon", "nan", "1e3")),
        ],
    )
    @pytest.mark.parametrize("status", [429, 503])
    def test_what_the_service_asks_for_is_waited(
        self, service: ScriptedService, clock: FastClock, status: int, headers: dict[str, Any], seconds: float
    ) -> None:
        service.play(service.answer(status, **headers), service.answer())
        Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert clock.sleeps == [pytest.approx(seconds)]

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"Retry-After": "61"}, 61),
            ({"Retry-After": in_seconds(61)}, 61),
            ({"retry-after-ms": "61000"}, 61),
            ({"retry-after-ms": "99999999999000"}, 99_999_999_999),
        ],
    )
    @pytest.mark.parametrize(("status", "kind"), [(429, errors.RateLimitError), (503, errors.InternalServerError)])
    def test_too_long_a_wait_is_the_callers_choice(  # noqa: PLR0917 - a table
        self,
        service: ScriptedService,
        clock: FastClock,
        status: int,
        kind: type[errors.APIStatusError],
        headers: dict[str, Any],
        seconds: int,
    ) -> None:
        service.play(service.answer(status, **headers))
        with pytest.raises(kind, match=f"asks to wait {seconds} s") as caught:
            Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert caught.value.retry_after == seconds
        assert (len(service.requests), clock.sleeps) == (1, [])

    @pytest.mark.parametrize(
        "text",
        ["", "0", "-5", "soon", "nan", "inf", "1e3", "Mon, 15 Jun 2020 00:00:00 GMT", "Mon, 99 Jun 2026"],
    )
    def test_a_hint_that_is_none_is_none(self, service: ScriptedService, clock: FastClock, text: str) -> None:
        service.play(service.answer(429, Retry_After=text), service.answer())
        Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert 0.375 <= clock.sleeps[0] <= 0.5

    @given(text=st.text(), milliseconds=st.text(), date=st.text())
    def test_any_header_is_a_positive_wait_or_none(self, text: str, milliseconds: str, date: str) -> None:
        headers = {"Retry-After": text, "retry-after-ms": milliseconds, "Date": date}
        wait = retries.requested_wait(headers, now=retries.SystemClock().now())
        assert wait is None or wait > 0

    @pytest.mark.parametrize("text", ["Mon, 15 Jun 2026 00:00:30", "Mon, 15 Jun 2026 00:00:30 -0000"])
    def test_a_date_without_a_zone_is_gmt(self, clock: FastClock, text: str) -> None:
        assert retries.requested_wait({"Retry-After": text}, now=clock.now()) == 30


class TestPace:
    def test_starts_keep_their_distance(self, service: ScriptedService, clock: FastClock) -> None:
        client = Client("pt-secret", service.base_url, min_interval=0.1)
        for _ in range(5):
            client.get_deployment("dep_1")
        assert clock.sleeps == [pytest.approx(0.1)] * 4

    def test_time_that_has_passed_counts(self, service: ScriptedService, clock: FastClock) -> None:
        client = Client("pt-secret", service.base_url, min_interval=0.1)
        client.get_deployment("dep_1")
        clock.sleep(0.04)
        client.get_deployment("dep_1")
        clock.sleep(5)
        client.get_deployment("dep_1")
        assert clock.sleeps == [0.04, pytest.approx(0.06), 5]

    def test_retries_keep_it_too(self, service: ScriptedService, clock: FastClock) -> None:
        service.play(service.answer(429, Retry_After="1"), service.answer())
        Client("pt-secret", service.base_url, min_interval=30).get_deployment("dep_1")
        assert clock.sleeps == [30]

    def test_threads_share_it(self, service: ScriptedService, clock: FastClock) -> None:
        client = Client("pt-secret", service.base_url, min_interval=0.1)
        threads = [threading.Thread(target=client.get_deployment, args=("dep_1",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(service.requests) == 8
        assert clock.monotonic() >= 0.7 - 1e-9, "the last of eight starts 0.7 s after the first"

    def test_a_wait_that_the_service_asked_for_holds_every_thread(
        self, service: ScriptedService, clock: FastClock
    ) -> None:
        meter = retries.RateLimiter(0.1, clock)
        meter.wait()
        meter.pause(10)
        meter.wait()
        meter.wait()
        assert clock.sleeps == [pytest.approx(10), pytest.approx(0.1)]
        assert service.requests == []

    def test_no_interval_no_wait(self, service: ScriptedService, clock: FastClock) -> None:
        client = Client("pt-secret", service.base_url, min_interval=0)
        for _ in range(3):
            client.get_deployment("dep_1")
        assert clock.sleeps == []

    def test_the_machines_own_clock_runs(self) -> None:
        own = retries.SystemClock()
        before, moment = own.monotonic(), own.now()
        own.sleep(0)
        assert own.monotonic() >= before
        assert moment.utcoffset() == timedelta(0)
