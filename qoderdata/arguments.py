"""Parse the arguments of callers (times, ages, spans, windows, time zones), and check ids, choices and flags.

A time without a zone and a number without a unit are errors, never a guess. Every time is returned in UTC.
"""

from __future__ import annotations

import contextlib
import numbers
import re
from collections.abc import Iterable, Mapping
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from qoderdata.errors import DataQualityWarning, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import pandas as pd

#: A choice: one of some texts, or ``None``.
C = TypeVar("C", bound=str | None)

#: An instant: ISO 8601 text with an offset, or a zone-aware datetime.
Instant = str | datetime
#: A length of time: what `pandas.Timedelta` takes, except a number without a unit.
Span = str | timedelta

#: How ids begin.
ID_PREFIXES = {"deployment_id": "dep_", "agent_id": "agent_", "session_id": "sess_", "run_id": "drun_"}

_SURROGATE = re.compile("[\ud800-\udfff]")
_USUAL_SPAN = re.compile(r"([1-9][0-9]{0,5})(min|h|D|W)")
#: Windows of a day or more are days of the wall clock, so they are not written in hours.
_WHOLE_DAYS = re.compile(r"\s*[0-9]*\s*(D|W|days?)\s*", re.IGNORECASE)
#: 292 years, the longest span of `pandas.Timedelta`.
_LONGEST = timedelta(days=106_751)
_UNITS = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "D": timedelta(days=1), "W": timedelta(weeks=1)}
_BARE_NUMBER = re.compile(r"\s*[+-]?\s*[0-9][0-9_,\s]*(\.[0-9]*)?\s*")
#: Digits that pandas would join, as in "1 2h" and "1,5h", and a last number that it would drop, as in "PT1H5".
_PART_WITHOUT_UNIT = re.compile(r"[0-9.][\s,+-]+[0-9]|P.*[0-9]\s*$")
#: The beginning of a time. A date in another order is ambiguous; pandas would read a time of day as today's.
_YEAR_MONTH_DAY = re.compile(r"\s*[0-9]{4}(-[0-9]{2}-|[0-9]{2})[0-9]{2}")
#: Units that pandas deprecates; their new forms are in lower case, except these two.
_DEPRECATED_UNIT = re.compile(r"(?<=[0-9.\s])(w|d|H|MIN|S|MS|US|NS)(?![A-Za-z])")
_NEW_UNITS = {"w": "W", "d": "D"}
_ALLOWED_UNITS = "s, min, h, D or W"
#: Units that pandas 2 reads, with a warning, and pandas 3 does not.
_REMOVED_UNIT = re.compile(r"(?<=[0-9.\s])[TLUNtlun](?![A-Za-z])")
#: Months, quarters and years, as words or as pandas writes them, such as "1M", "MS" and "QE".
_CALENDAR_UNIT = re.compile(
    r"\s*[0-9.]*\s*(B?[MQYA][SE]?(-[A-Z]{3})?|(?i:mo|y|yr|month|quarter|year)s?|(?i:month|quarter|year)ly)\s*"
)
#: A calendar month, as windows of time; the other units above are refused.
_ONE_MONTH = re.compile(r"\s*1?\s*(M[SE]?|(?i:mo|month|monthly))\s*")


class UnusableSpanError(ValueError):
    """A length of time whose meaning is clear, but that cannot be used."""


def parse_instant(value: Instant, *, name: str) -> pd.Timestamp:
    """Parse ISO 8601 text with an offset, or a zone-aware datetime, to UTC in microseconds.

    Raise `ValueError` if it is not a time of the years 1 to 9999, or has no zone; `name` is the parameter's.

    Examples
    --------
    >>> parse_instant("2026-06-15T09:00+08:00", name="since")
    Timestamp('2026-06-15 01:00:00+0000', tz='UTC')
    """
    import pandas as pd  # noqa: PLC0415 - slow to import, and most pulls are given no time

    is_date_first = isinstance(value, str) and _YEAR_MONTH_DAY.match(value) is not None
    try:
        stamp = pd.Timestamp(value if is_date_first or not isinstance(value, str) else "NaT")
    except (ValueError, TypeError):
        stamp = pd.Timestamp("NaT")
    if pd.isna(stamp):
        advice = "give an existing day and hour" if is_date_first else "write year, month and day first"
        raise ValueError(f"{name}={value!r} is not a time; {advice}, like '2026-06-15T00:00Z'")
    if stamp.tzinfo is None:
        example = stamp.isoformat(timespec="minutes")
        raise ValueError(f"{name}={value!r} has no time zone; write one, like '{example}Z' for UTC")
    stamp = stamp.tz_convert("UTC")
    if not MINYEAR <= stamp.year <= MAXYEAR:
        # A pandas time of these years has no repr, and no offset of a zone.
        shown = stamp.isoformat() if isinstance(value, pd.Timestamp) else value
        raise ValueError(f"{name}={shown!r} is not a time of the years 1 to 9999 in UTC")
    return stamp.as_unit("us")


def parse_span(value: Span, *, name: str) -> timedelta:
    """Parse a length of time, as `pandas.Timedelta` takes it, to microseconds; never a number without a unit.

    The units that pandas deprecates (``w``, ``d``, ``H``, ``MIN``, ``S``) are accepted. Raise `ValueError` if
    it is no length of time, is negative, or has no unit.

    Examples
    --------
    >>> parse_span("15min", name="max_age"), parse_span("1 days 12:00:00", name="max_age")
    (datetime.timedelta(seconds=900), datetime.timedelta(days=1, seconds=43200))
    >>> parse_span(24, name="horizon")
    Traceback (most recent call last):
    ValueError: horizon=24 is not a length of time, as it has no unit (s, min, h, D or W); write one like '7D'
    """
    usual = _USUAL_SPAN.fullmatch(value) if isinstance(value, str) else None
    if usual is not None and int(usual[1]) * _UNITS[usual[2]] <= _LONGEST:
        return int(usual[1]) * _UNITS[usual[2]]
    if _is_bare_number(value) or (isinstance(value, str) and _PART_WITHOUT_UNIT.search(value)):
        raise ValueError(
            f"{name}={value!r} is not a length of time, as it has no unit ({_ALLOWED_UNITS}); write one like '7D'"
        )
    import pandas as pd  # noqa: PLC0415 - slow to import, and spans are mostly written as above

    try:
        length = pd.Timedelta(_with_new_units(value))
    except (pd.errors.OutOfBoundsTimedelta, pd.errors.OutOfBoundsDatetime):  # pandas 2 raises the second one
        text = f"{name}={value!r} is too long; the longest is '{_LONGEST.days}D', 292 years"
        raise UnusableSpanError(text) from None
    except (ValueError, TypeError):
        length = pd.Timedelta("NaT")
    if pd.isna(length) or length < pd.Timedelta(0):
        if isinstance(value, str) and _CALENDAR_UNIT.fullmatch(value):
            raise _no_fixed_length(value, name)
        raise ValueError(f"{name}={value!r} is not a length of time; write one like '15min' or '7D'")
    return length.as_unit("us").to_pytimedelta()


def parse_bound(value: Instant | Span, *, now: datetime, name: str) -> pd.Timestamp:
    """Parse a time bound to UTC in microseconds: an instant, or an age before `now`.

    Examples
    --------
    >>> parse_bound("30D", now=datetime.fromisoformat("2026-06-15T09:00+00:00"), name="since")
    Timestamp('2026-05-16 09:00:00+0000', tz='UTC')
    """
    if isinstance(value, datetime):
        return parse_instant(value, name=name)
    if _is_bare_number(value):
        raise ValueError(
            f"{name}={value!r} has no unit; write an age with one ({_ALLOWED_UNITS}), like '7D', "
            "or a time like '2026-06-15T00:00Z'"
        )
    try:
        age = parse_span(value, name=name)
    except UnusableSpanError:
        raise
    except ValueError:
        age = None
    if age is not None:
        return parse_instant(now, name="now") - age
    try:
        return parse_instant(str(value), name=name)
    except ValueError as error:
        message = f"{error}; or an age, like '30D'"
    raise ValueError(message)


def bound_text(bound: Instant | Span | None) -> str | None:
    """Return a bound as text for a cache key: an instant in UTC, an age as it was written."""
    if bound is None:
        return None
    try:
        return parse_instant(bound, name="bound").isoformat()  # type: ignore[arg-type] # an age: ValueError
    except ValueError:
        return str(bound)


def parse_period(
    since: Instant | Span | None, until: Instant | Span | None, *, now: datetime, what: str, prefix: str = ""
) -> tuple[datetime | None, datetime | None]:
    """Parse the bounds of a half-open period in UTC, ``since <= t < until``; ``None``: no bound.

    `what` is what the period is to contain, and `prefix` begins the parameters' names, for the message. Raise
    `ValueError` if `since` is not before `until`.

    Examples
    --------
    >>> now = datetime.fromisoformat("2026-06-15T09:00+00:00")
    >>> since, until = parse_period("1D", None, now=now, what="run")
    >>> since.isoformat(), until
    ('2026-06-14T09:00:00+00:00', None)
    """
    start = None if since is None else parse_bound(since, now=now, name=f"{prefix}since").to_pydatetime()
    end = None if until is None else parse_bound(until, now=now, name=f"{prefix}until").to_pydatetime()
    if start is not None and end is not None and start >= end:
        raise ValueError(
            f"{prefix}since={since!r} is not before {prefix}until={until!r}: no {what} can be in between"
        )
    return start, end


def parse_zone(key: str) -> ZoneInfo:
    """Parse the name of an IANA time zone; raise `ValueError` if there is no such zone.

    Examples
    --------
    >>> parse_zone("Asia/Shanghai").key
    'Asia/Shanghai'
    """
    with contextlib.suppress(ZoneInfoNotFoundError, ValueError, TypeError, AttributeError, OSError):
        return ZoneInfo(key)
    if isinstance(key, tzinfo):
        name = "UTC" if str(key) == "UTC" else getattr(key, "key", getattr(key, "zone", None))
        example = "such as tz='Asia/Shanghai'" if name is None else f"as tz={name!r}"
        raise ValueError(f"tz={key!r} is not the name of a time zone; pass its name, {example}")  # noqa: TRY004 - as for other values
    city = str(key).rpartition("/")[2].replace(" ", "_").casefold()
    near = [zone for zone in available_timezones() if zone.rpartition("/")[2].casefold() == city]
    hint = f"; did you mean {min(sorted(near), key=len)!r}?" if near else ", like 'Asia/Shanghai' or 'UTC'"
    raise ValueError(f"tz={key!r} is not an IANA time zone{hint}")


def pandas_zone(key: str) -> tzinfo:
    """Return a zone to give to pandas.

    Before version 3, pandas reads the name of a zone as pytz's zone, which has no clock changes after 2037.

    Examples
    --------
    >>> pandas_zone("Asia/Shanghai")
    zoneinfo.ZoneInfo(key='Asia/Shanghai')
    >>> pandas_zone("UTC")
    datetime.timezone.utc
    """
    return UTC if key == "UTC" else ZoneInfo(key)


def parse_window(freq: str) -> int | None:
    """Parse the length of windows of time to microseconds; of a day or more, it counts days of the wall clock.

    Accepts what `parse_span` does, ``1M`` for a calendar month, which is ``None``, and ``min``, ``h``, ``D``,
    ``W`` and ``M`` alone. Raise `ValueError` if it is no length of time, or one of less than a day that is not in
    whole minutes or does not divide a day evenly.

    Examples
    --------
    >>> parse_window("15min"), parse_window("1D"), parse_window("1M")
    (900000000, 86400000000, None)
    """
    if isinstance(freq, str) and _ONE_MONTH.fullmatch(freq):
        return None
    is_unit = isinstance(freq, str) and freq.lower() in {"min", "h", "d", "w"}
    length = parse_span(f"1{freq}" if is_unit else freq, name="freq")
    if length < _UNITS["D"]:
        is_window = bool(length) and not _UNITS["D"] % length and not length % _UNITS["min"]
    else:
        is_window = _WHOLE_DAYS.fullmatch(str(freq)) is not None
    if not is_window:
        if _CALENDAR_UNIT.fullmatch(str(freq)):  # "2MS" is two milliseconds too
            raise _no_fixed_length(freq, "freq")
        if length and not length % _UNITS["D"]:
            raise ValueError(f"freq={freq!r}: whole days are written as text in days, such as '1D' or '7D'")
        raise ValueError(
            f"freq={freq!r} must fill a day evenly in whole minutes, such as '30min' or '6h'; whole days are "
            "written '1D'"
        )
    return length // timedelta(microseconds=1)


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8; bytes of the command line that are no text cannot."""
    return not _SURROGATE.search(text)


def is_usable_id(value: str) -> bool:
    """Return whether a request can name an id; a URL's path cannot carry the others."""
    return value.strip() not in {"", ".", ".."} and is_unicode(value)


def check_id(value: object, *, name: str) -> str:
    """Return the id of one object; raise `ValueError` if no request can name it.

    Examples
    --------
    >>> check_id("sess_1", name="session_id")
    'sess_1'
    >>> check_id(None, name="session_id")
    Traceback (most recent call last):
    ValueError: session_id=None is a missing value: this run has no session
    """
    if isinstance(value, str) and is_usable_id(value):
        return value
    if name == "session_id" and str(value) in {"None", "nan", "<NA>"}:
        raise ValueError(f"session_id={value!r} is a missing value: this run has no session")
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        joined = "load those of each, and join them with pd.concat"
        advice = joined if name == "session_id" else "load all, and select rows with isin"
        raise ValueError(f"{name} must be one id, not {type(value).__name__}; for several ids, {advice}")  # noqa: TRY004 - as for other values
    raise ValueError(f"{name}={value!r} is not the id of anything; ids look like {ID_PREFIXES[name]}0197…")


def warn_if_no_id(value: str | None, *, name: str) -> None:
    """Warn that nothing was found, if the id that was asked for does not begin as ids of its kind do."""
    prefix = ID_PREFIXES[name]
    if value is not None and not value.startswith(prefix):
        warn(
            f"nothing was found: {name}={value!r} does not look like an id, which begins with {prefix}",
            DataQualityWarning,
        )


def check_count(value: int, *, name: str, least: int = 1) -> int:
    """Return a whole number, of Python or of NumPy; raise `ValueError` for another value, or one below `least`.

    Examples
    --------
    >>> check_count(0, name="streak")
    Traceback (most recent call last):
    ValueError: streak=0 must be a whole number, 1 or more
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number, {least} or more")
    return int(value)


def check_number(value: float, is_valid: Callable[[float], bool], *, name: str, must: str) -> None:
    """Raise `ValueError` unless a value is a valid real number, of Python or of NumPy; `must` ends the message.

    Examples
    --------
    >>> check_number(1.5, lambda number: 0 < number < 1, name="target", must="lie between 0 and 1")
    Traceback (most recent call last):
    ValueError: target=1.5 must lie between 0 and 1
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not is_valid(value):
        fault = "; it is text, not a number" if isinstance(value, str) else ""
        raise ValueError(f"{name}={value!r} must {must}{fault}")


def check_choice(value: C, allowed: Collection[C], *, name: str) -> C:
    """Return a value, or raise `ValueError` unless it is one of those that are allowed.

    Examples
    --------
    >>> check_choice("gone", ("active", "paused", None), name="status")
    Traceback (most recent call last):
    ValueError: status='gone' is not known; allowed are 'active', 'paused', None
    """
    # An array and pandas.NA are neither equal nor unequal to a text.
    if not isinstance(value, str | None) or value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; allowed are {', '.join(map(repr, allowed))}")
    return value


def is_flag(value: object) -> bool:
    """Return whether a value is True or False, of Python or of numpy."""
    return type(value).__name__ in {"bool", "bool_"}  # numpy calls its own by the one name or the other


def check_labels(labels: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return labels by id, none for ``None``; raise `TypeError` if they are no mapping.

    Examples
    --------
    >>> check_labels(["nightly"])
    Traceback (most recent call last):
    TypeError: labels must be a mapping of ids to texts, such as {'dep_1': 'nightly'}, not list
    """
    if labels is None or isinstance(labels, Mapping):
        return labels or {}
    kind = type(labels).__name__
    raise TypeError(f"labels must be a mapping of ids to texts, such as {{'dep_1': 'nightly'}}, not {kind}")


def check_flag(value: object, *, name: str) -> None:
    """Raise `ValueError` unless a value is True or False, of Python or of numpy.

    Examples
    --------
    >>> check_flag("false", name="has_error")
    Traceback (most recent call last):
    ValueError: has_error='false' is neither True nor False
    """
    if not is_flag(value):
        raise ValueError(f"{name}={value!r} is neither True nor False")


def check_refresh(*, refresh: object, offline: object, may_be_all: bool = False) -> None:
    """Raise `ValueError` unless both are flags that do not contradict one another; `refresh` may be ``"all"``.

    Examples
    --------
    >>> check_refresh(refresh="all", offline=True, may_be_all=True)
    Traceback (most recent call last):
    ValueError: refresh='all' asks the network and offline=True never does; give one of them
    """
    check_flag(offline, name="offline")
    if not may_be_all:
        check_flag(refresh, name="refresh")
    elif not is_flag(refresh) and not (isinstance(refresh, str) and refresh == "all"):
        raise ValueError(f"refresh={refresh!r} is not known; allowed are True, False and 'all'")
    if refresh and offline:
        raise ValueError(f"refresh={refresh!r} asks the network and offline=True never does; give one of them")


def _no_fixed_length(value: str, name: str) -> UnusableSpanError:
    """Return the error for a month, quarter or year in the place of a length of time."""
    month = ", or '1M' for calendar months" if name == "freq" else ""
    return UnusableSpanError(
        f"{name}={value!r} is not a length of time, as months, quarters and years have no fixed length; "
        f"write days, like '30D'{month}"
    )


def _with_new_units(value: Span) -> Span:
    if not isinstance(value, str) or "P" in value:  # ISO 8601, as in "PT2H"
        return value
    if _REMOVED_UNIT.search(value):
        raise ValueError("pandas 3 does not read this unit")
    return _DEPRECATED_UNIT.sub(lambda unit: _NEW_UNITS.get(unit[1], unit[1].lower()), value)


def _is_bare_number(value: object) -> bool:
    if isinstance(value, str):
        return _BARE_NUMBER.fullmatch(value) is not None
    # numpy.timedelta64 counts as an integer too, but may have a unit.
    return isinstance(value, numbers.Number) and not str(getattr(value, "dtype", "")).startswith("timedelta64[")
