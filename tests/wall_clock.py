"""A fake wall clock, for modules of the package that call ``datetime.now``."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


class WallClock(datetime):
    """A `datetime` whose ``now`` adds `step` to `moment`, which tests set, and returns it."""

    moment = datetime(2026, 6, 15, tzinfo=UTC)
    step = timedelta(0)

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override] # noqa: ANN401 any time zone
        cls.moment += cls.step
        return cls.moment.astimezone(tz)


def set_wall_clock(
    monkeypatch: pytest.MonkeyPatch, moment: datetime, *modules: str, step: timedelta = timedelta(0)
) -> None:
    """Set the time of the clock, and let these modules of the package use it, until the end of the test."""
    monkeypatch.setattr(WallClock, "moment", moment)
    monkeypatch.setattr(WallClock, "step", step)
    for module in modules:
        monkeypatch.setattr(importlib.import_module(f"qoderdata.{module}"), "datetime", WallClock)
