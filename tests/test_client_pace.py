"""Polite: the distance between requests, and the waits between attempts, by a clock that nobody waits for."""

from __future__ import annotations

import email.utils
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata import errors
from qoderdata.client import Client, retries

if TYPE_CHECKING:
    from conftest import FastClock, ScriptedService


class TestWaits:
    def test_they_double_up_to_eight_seconds(self, service: ScriptedService, clock: FastClock) -> None:
        service.play(service.answer(503))
        with pytest.raises(errors.InternalServerError):
            Client("pt-secret", service.base_url, max_retries=7).get_deployment("dep_1")
        for slept, full in zip(clock.sleeps, [0.5, 1, 2, 4, 8, 8, 8], strict=True):
            assert 0.75 * full <= slept <= full

    def test_they_differ_from_client_to_client(self) -> None:
        assert len({retries.backoff(1) for _ in range(20)}) > 1

    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize("form", ["seconds", "date"])
    @pytest.mark.parametrize("asked", [1, 7, 60])
    def test_retry_after_is_obeyed(
        self, service: ScriptedService, clock: FastClock, status: int, form: str, asked: int
    ) -> None:
        date = email.utils.format_datetime(clock.now() + timedelta(seconds=asked), usegmt=True)
        service.play(
            service.answer(status, Retry_After=str(asked) if form == "seconds" else date), service.answer()
        )
        Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert clock.sleeps == [pytest.approx(asked)]

    @pytest.mark.parametrize(("status", "kind"), [(429, errors.RateLimitError), (503, errors.InternalServerError)])
    @pytest.mark.parametrize("form", ["seconds", "date"])
    def test_too_long_a_wait_is_the_callers_choice(
        self,
        service: ScriptedService,
        clock: FastClock,
        status: int,
        kind: type[errors.APIStatusError],
        form: str,
    ) -> None:
        date = email.utils.format_datetime(clock.now() + timedelta(seconds=61), usegmt=True)
        service.play(service.answer(status, Retry_After="61" if form == "seconds" else date))
        with pytest.raises(kind, match="asks to wait 61 s") as caught:
            Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert caught.value.retry_after == 61
        assert (len(service.requests), clock.sleeps) == (1, [])

    @pytest.mark.parametrize(
        ("milliseconds", "seconds"), [("1500", 1.5), ("250.5", 0.2505), ("60000", 60), ("1499.9999999999998", 1.5)]
    )
    def test_milliseconds_come_first(
        self, service: ScriptedService, clock: FastClock, milliseconds: str, seconds: float
    ) -> None:
        service.play(service.answer(429, retry_after_ms=milliseconds, Retry_After="7"), service.answer())
        Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert clock.sleeps == [pytest.approx(seconds)]

    @pytest.mark.parametrize(("text", "seconds"), [("61000", 61), ("99999999999000", 99999999999)])
    def test_too_many_milliseconds_are_the_callers_choice(
        self, service: ScriptedService, clock: FastClock, text: str, seconds: int
    ) -> None:
        service.play(service.answer(429, retry_after_ms=text))
        with pytest.raises(errors.RateLimitError, match=f"asks to wait {seconds} s"):
            Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert clock.sleeps == []

    @pytest.mark.parametrize("text", ["", "0", "-1", "soon", "nan", "1e3"])
    def test_unusable_milliseconds_leave_it_to_the_seconds(
        self, service: ScriptedService, clock: FastClock, text: str
    ) -> None:
        service.play(service.answer(429, retry_after_ms=text, Retry_After="7"), service.answer())
        Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert clock.sleeps == [7]

    @pytest.mark.parametrize("wrong_by", [timedelta(hours=-1), timedelta(hours=1)])
    def test_a_date_is_measured_by_the_services_own_clock(
        self, service: ScriptedService, clock: FastClock, wrong_by: timedelta
    ) -> None:
        """The clock of this machine may be wrong by an hour."""
        sent = clock.now() + wrong_by
        dates = [email.utils.format_datetime(sent + timedelta(seconds=after), usegmt=True) for after in (0, 9)]
        service.play(service.answer(503, Date=dates[0], Retry_After=dates[1]), service.answer())
        Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert clock.sleeps == [pytest.approx(9)]

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
