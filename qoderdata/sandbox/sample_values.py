"""Where do the columns, random numbers, ids and times of generated records come from?

The generator is counter-based (SplitMix64 over a key and an index). So every byte of an account is the same, in
whatever order its parts are generated, on every platform and version of NumPy. Texts are in `sample_texts.toml`.
"""

from __future__ import annotations

import tomllib
from copy import copy
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from qoderdata.cron import EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

T = TypeVar("T")

#: Nanoseconds in a second.
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

#: The texts of records; ``sample_texts.toml`` says what they are.
TEXTS: dict[str, Any] = tomllib.loads(
    resources.files("qoderdata.sandbox").joinpath("sample_texts.toml").read_text(encoding="utf-8")
)
#: The names of all deployments but the examples, each in one language; repeated names get a number.
NAMES = [
    f"{first}{part['separator']}{second}"
    for part in TEXTS["names"]
    for first in part["first"]
    for second in part["second"]
]


class Columns:
    """Base of classes whose attributes are columns: arrays with one value per row."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self.by_name().values())))

    def by_name(self) -> dict[str, NDArray[Any]]:
        """Return the columns by name."""
        return dict(vars(self))

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """Return some of the rows."""
        return self._copy_with({name: column[which] for name, column in self.by_name().items()})

    def join(self, *others: Self) -> Self:
        """Return all rows, one part after the other."""
        parts = [part.by_name() for part in (self, *others)]
        return self._copy_with({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def _copy_with(self, columns: dict[str, NDArray[Any]]) -> Self:
        """Return a copy with other columns."""
        other = copy(self)
        vars(other).update(columns)
        return other


def first_case(cases: Sequence[tuple[NDArray[np.bool_], int]], default: int) -> NDArray[np.int64]:
    """Return for each row the code of the first case whose condition is true."""
    return np.select([condition for condition, _ in cases], [int(code) for _, code in cases], int(default))


def _random_bits(seed: int, purpose: str, index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the ``index``-th number of the stream of a seed and purpose: SplitMix64 (Steele, Lea, Flood 2014)."""
    key = np.frombuffer(blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), dtype="<u8")[0]
    state = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed


class Draws:
    """Random numbers for whole columns, one value per index; the same seed gives the same numbers."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def uniform(self, purpose: str, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return numbers in [0, 1)."""
        return (_random_bits(self.seed, purpose, index) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, purpose: str, index: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
        """Return whole numbers in [0, bound)."""
        return (self.uniform(purpose, index) * bound).astype(np.int64)

    def among(self, purpose: str, index: NDArray[np.int64], values: Sequence[float]) -> NDArray[np.float64]:
        """Return one of the values for each index; a value that occurs twice is twice as likely."""
        return np.asarray(values, dtype=np.float64)[self.below(purpose, index, len(values))]

    def tails(self, purpose: str, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the 54 random bits at the end of an id."""
        return (_random_bits(self.seed, purpose, index) >> np.uint64(10)).astype(np.int64)


class Dice:
    """Random choices for one record, which depend on a name, such as its id, and on the choices before."""

    def __init__(self, name: str) -> None:
        self._rest = int.from_bytes(blake2b(name.encode()).digest(), "little")

    def below(self, bound: int) -> int:
        """Return a whole number in [0, bound)."""
        self._rest, value = divmod(self._rest, bound)
        return value

    def pick(self, values: Sequence[T]) -> T:
        """Return one of the values."""
        return values[self.below(len(values))]

    def percent(self, share: int) -> bool:
        """Return True with a probability of `share` percent."""
        return self.below(100) < share


def uuid7(nanoseconds: int, tail: int) -> str:
    """Return 32 hex digits in the form of a UUIDv7 (RFC 9562), which sort in order of time.

    The digits after the milliseconds hold the rest of the time, as the RFC allows, then 54 random bits.

    Examples
    --------
    >>> uuid7(1_781_427_481_448_000_000, 7)
    '019ec55a2b6870008000000000000007'
    """
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    value = milliseconds << 80 | 7 << 76 | (rest >> 8) << 64 | 2 << 62 | (rest & 255) << 54 | tail
    return f"{value:032x}"


def make_ids(prefix: str, created: NDArray[np.int64], tails: NDArray[np.int64]) -> list[str]:
    """Return ids that sort by the time of creation."""
    return [f"{prefix}_{uuid7(at, tail)}" for at, tail in zip(created.tolist(), tails.tolist(), strict=True)]


def uuid7_time(identity: str) -> int:
    """Return the time in an id with a prefix such as ``agent_``, in nanoseconds since 1970, to the millisecond."""
    return int(identity.split("_")[1][:12], 16) * 1_000_000


def as_datetime(nanoseconds: int) -> datetime:
    """Return a time in UTC, cut to the microsecond."""
    return EPOCH + timedelta(microseconds=nanoseconds // 1_000)


def stamp(nanoseconds: int) -> str:
    """Write nanoseconds since 1970 as Go does: RFC 3339 in UTC, without trailing zeros of the fraction.

    Examples
    --------
    >>> stamp(1_781_427_481_000_000_000), stamp(1_781_427_481_013_300_000)
    ('2026-06-14T08:58:01Z', '2026-06-14T08:58:01.0133Z')
    """
    seconds, rest = divmod(nanoseconds, SECOND)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    return f"{text}.{f'{rest:09d}'.rstrip('0')}Z" if rest else f"{text}Z"


def nanoseconds(text: str) -> int:
    """Read an RFC 3339 time with any offset, up to nine fraction digits, as nanoseconds since 1970.

    Examples
    --------
    >>> nanoseconds("2026-06-14T08:58:01.000000001Z"), nanoseconds("2026-06-14T10:58:01+02:00")
    (1781427481000000001, 1781427481000000000)
    """
    head, point, tail = text.partition(".")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))] if point else ""
    parsed = datetime.fromisoformat(head + tail[len(digits) :])
    if parsed.tzinfo is None or (point and not 1 <= len(digits) <= 9) or "T" not in head:  # RFC 3339, Go
        raise ValueError(f"{text!r} is not an RFC 3339 time with an offset")
    return int(parsed.timestamp()) * SECOND + int(digits.ljust(9, "0"))
