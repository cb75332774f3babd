"""Tests of `qoderdata.client.retries`: wait times before a retry, and the rate limiter, with a fake clock."""

from __future__ import annotations

import email.utils
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata import errors
from qoderdata.client import Client, retries

if TYPE_CHECKING:
    from conftest import FastClock, ScriptedService


def http_date(seconds: int) -> str:
    """Return an HTTP date, this long after the start time of the fake clock."""
    return email.utils.format_datetime(datetime(2026, 6, 15, tzinfo=UTC) + timedelta(seconds=seconds), usegmt=True)


def test_system_clock_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    retries.SystemClock().sleep(1.5)
    assert slept == [1.5]


class TestRetryWaits:
    def test_backoff_doubles_up_to_8_s(self, service: ScriptedService, clock: FastClock) -> None:
        service.respond_with(service.response(503))
        with pytest.raises(errors.InternalServerError):
            Client("pt-secret", service.base_url, max_retries=7).get_deployment("dep_1")
        for slept, full in zip(clock.sleeps, [0.5, 1, 2, 4, 8, 8, 8], strict=True):
            assert 0.75 * full <= slept <= full

    def test_backoff_has_random_jitter(self) -> None:
        assert len({retries.retry_wait(1, None) for _ in range(20)}) > 1

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"Retry-After": "1"}, 1),
            ({"Retry-After": "60"}, 60),
            ({"Retry-After": http_date(7)}, 7),
            ({"Retry-After": http_date(60)}, 60),
            ({"Retry-After": http_date(7).replace("GMT", "-0000")}, 7),
            # A date is measured from the response's `Date`: the clock of this machine may be wrong by an hour.
            ({"Date": http_date(-3600), "Retry-After": http_date(-3591)}, 9),
            ({"Date": http_date(3600), "Retry-After": http_date(3609)}, 9),
            # A usable `retry-after-ms` takes precedence.
            *(
                ({"retry-after-ms": text, "Retry-After": "7"}, wait)
                for text, wait in [("1500", 1.5), ("250.5", 0.2505), ("60000", 60), ("1499.9999999999998", 1.5)]
            ),
            *(({"retry-after-ms": text, "Retry-After": "7"}, 7) for text in ("", "0", "-1", "soon", "nan", "1e3")),
        ],
    )
    @pytest.mark.parametrize("status", [429, 503])
    def test_requested_wait_up_to_60_s_is_waited(
        self, service: ScriptedService, clock: FastClock, status: int, headers: dict[str, Any], seconds: float
    ) -> None:
        service.respond_with(service.response(status, **headers), service.response())
        Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert clock.sleeps == [pytest.approx(seconds)]

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"Retry-After": "61"}, 61),
            ({"Retry-After": http_date(61)}, 61),
            ({"retry-after-ms": "61000"}, 61),
            ({"retry-after-ms": "99999999999000"}, 99_999_999_999),
        ],
    )
    @pytest.mark.parametrize(("status", "kind"), [(429, errors.RateLimitError), (503, errors.InternalServerError)])
    def test_requested_wait_above_60_s_is_raised_at_once(  # noqa: PLR0917 - parametrized
        self,
        service: ScriptedService,
        clock: FastClock,
        status: int,
        kind: type[errors.APIStatusError],
        headers: dict[str, Any],
        seconds: int,
    ) -> None:
        service.respond_with(service.response(status, **headers))
        with pytest.raises(kind, match=f"asks to wait {seconds} s") as caught:
            Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert caught.value.retry_after == seconds
        assert (len(service.requests), clock.sleeps) == (1, [])

    @pytest.mark.parametrize(
        "text", ["", "0", "-5", "soon", "nan", "inf", "1e3", "Mon, 15 Jun 2020 00:00:00 GMT", "Mon, 99 Jun 2026"]
    )
    def test_unusable_retry_after_is_ignored(self, service: ScriptedService, clock: FastClock, text: str) -> None:
        service.respond_with(service.response(429, Retry_After=text), service.response())
        Client("pt-secret", service.base_url).get_deployment("dep_1")
        assert 0.375 <= clock.sleeps[0] <= 0.5

    @given(text=st.text(), milliseconds=st.text(), date=st.text())
    def test_requested_wait_is_positive_or_none_for_any_headers(
        self, text: str, milliseconds: str, date: str
    ) -> None:
        headers = {"Retry-After": text, "retry-after-ms": milliseconds, "Date": date}
        wait = retries.requested_wait(headers, now=retries.SystemClock().now())
        assert wait is None or wait > 0

    @pytest.mark.parametrize("text", ["Mon, 15 Jun 2026 00:00:30", "Mon, 15 Jun 2026 00:00:30 -0000"])
    def test_retry_after_date_without_time_zone_is_gmt(self, clock: FastClock, text: str) -> None:
        assert retries.requested_wait({"Retry-After": text}, now=clock.now()) == 30


class TestRateLimiter:
    def test_request_starts_are_min_interval_apart(self, service: ScriptedService, clock: FastClock) -> None:
        client = Client("pt-secret", service.base_url, min_interval=0.1)
        for _ in range(5):
            client.get_deployment("dep_1")
        assert clock.sleeps == [pytest.approx(0.1)] * 4

    def test_elapsed_time_counts_towards_min_interval(self, service: ScriptedService, clock: FastClock) -> None:
        client = Client("pt-secret", service.base_url, min_interval=0.1)
        client.get_deployment("dep_1")
        clock.sleep(0.04)
        client.get_deployment("dep_1")
        clock.sleep(5)
        client.get_deployment("dep_1")
        assert clock.sleeps == [0.04, pytest.approx(0.06), 5]

    def test_min_interval_applies_to_retries(self, service: ScriptedService, clock: FastClock) -> None:
        service.respond_with(service.response(429, Retry_After="1"), service.response())
        Client("pt-secret", service.base_url, min_interval=30).get_deployment("dep_1")
        assert clock.sleeps == [30]

    def test_threads_share_one_rate_limiter(self, service: ScriptedService, clock: FastClock) -> None:
        client = Client("pt-secret", service.base_url, min_interval=0.1)
        threads = [threading.Thread(target=client.get_deployment, args=("dep_1",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(service.requests) == 8
        assert clock.monotonic() >= 0.7 - 1e-9, "the last of eight starts 0.7 s after the first"

    def test_pause_delays_the_next_request(self, service: ScriptedService, clock: FastClock) -> None:
        limiter = retries.RateLimiter(0.1, clock)
        limiter.wait()
        limiter.pause(10)
        limiter.wait()
        limiter.wait()
        assert clock.sleeps == [pytest.approx(10), pytest.approx(0.1)]
        assert service.requests == []

    def test_a_short_pause_does_not_shorten_a_longer_one(self, clock: FastClock) -> None:
        limiter = retries.RateLimiter(0.1, clock)
        limiter.pause(60)
        limiter.pause(0.5)
        limiter.wait()
        assert clock.monotonic() == 60

    def test_requests_after_a_break_keep_the_interval(self, clock: FastClock) -> None:
        limiter = retries.RateLimiter(0.1, clock)
        clock.sleep(5)
        limiter.wait()
        assert clock.monotonic() == 5
        limiter.wait()
        assert clock.monotonic() == pytest.approx(5.1)

    def test_min_interval_0_never_waits(self, service: ScriptedService, clock: FastClock) -> None:
        client = Client("pt-secret", service.base_url, min_interval=0)
        for _ in range(3):
            client.get_deployment("dep_1")
        assert clock.sleeps == []

    def test_system_clock(self) -> None:
        system_clock = retries.SystemClock()
        before, now = system_clock.monotonic(), system_clock.now()
        system_clock.sleep(0)
        assert system_clock.monotonic() >= before
        assert now.utcoffset() == timedelta(0)
