"""Draw repeatable random numbers, and write ids and time stamps.

The generator is counter-based (SplitMix64 over a key and an index), so that an account is the same to the byte
whatever the order in which its parts are asked for, and on every platform and version of NumPy.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

T = TypeVar("T")

#: Nanoseconds in a second.
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def _bits(seed: int, purpose: str, index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood 2014): the ``index``-th number of the stream named by seed and purpose."""
    key = np.frombuffer(blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), dtype="<u8")[0]
    state = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed


class Draws:
    """Random numbers for whole columns, one value an index.

    Parameters
    ----------
    seed
        Two accounts of one seed are the same.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def uniform(self, purpose: str, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Numbers in [0, 1)."""
        return (_bits(self.seed, purpose, index) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, purpose: str, index: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
        """Whole numbers in [0, bound)."""
        return (self.uniform(purpose, index) * bound).astype(np.int64)

    def among(self, purpose: str, index: NDArray[np.int64], values: Sequence[float]) -> NDArray[np.float64]:
        """One of the values, each as likely as it is frequent in the sequence."""
        return np.asarray(values, dtype=np.float64)[self.below(purpose, index, len(values))]

    def tails(self, purpose: str, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw the 54 random bits at the end of an id."""
        return (_bits(self.seed, purpose, index) >> np.uint64(10)).astype(np.int64)


class Dice:
    """Random choices for one record, which depend on its name only.

    Parameters
    ----------
    name
        What the choices depend on, such as the record's id.
    """

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
        """Return whether something happens that happens to this share."""
        return self.below(100) < share


def uuid7(nanoseconds: int, tail: int) -> str:
    """Return 32 hex digits laid out as a UUIDv7 (RFC 9562), which sort as their times do.

    The digits after the milliseconds hold the rest of the time, as the RFC allows, then 54 random bits.

    Parameters
    ----------
    nanoseconds
        The time since 1970.
    tail
        The random bits.

    Returns
    -------
    str
        The digits, without hyphens.

    Examples
    --------
    >>> uuid7(1_781_427_481_448_000_000, 7)
    '019ec55a2b6870008000000000000007'
    """
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    value = milliseconds << 80 | 7 << 76 | (rest >> 8) << 64 | 2 << 62 | (rest & 255) << 54 | tail
    return f"{value:032x}"


def stamp(nanoseconds: int) -> str:
    """Write a time as Go does: RFC 3339 in UTC, trailing zeros of the fraction cut.

    Parameters
    ----------
    nanoseconds
        The time since 1970.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> stamp(1_781_427_481_000_000_000), stamp(1_781_427_481_013_300_000)
    ('2026-06-14T08:58:01Z', '2026-06-14T08:58:01.0133Z')
    """
    seconds, rest = divmod(nanoseconds, SECOND)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    return f"{text}.{f'{rest:09d}'.rstrip('0')}Z" if rest else f"{text}Z"


def nanoseconds(text: str) -> int:
    """Read an RFC 3339 time with any offset and up to nine fraction digits.

    Parameters
    ----------
    text
        The time.

    Returns
    -------
    int
        Nanoseconds since 1970.

    Raises
    ------
    ValueError
        It is not such a time, or has no offset.

    Examples
    --------
    >>> nanoseconds("2026-06-14T08:58:01.000000001Z"), nanoseconds("2026-06-14T10:58:01+02:00")
    (1781427481000000001, 1781427481000000000)
    """
    head, point, tail = text.partition(".")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))] if point else ""
    parsed = datetime.fromisoformat(head + tail[len(digits) :])
    if parsed.tzinfo is None or (point and not 1 <= len(digits) <= 9) or "T" not in head:  # noqa: PLR2004 - RFC 3339, Go
        raise ValueError(f"{text!r} is not an RFC 3339 time with an offset")
    return int(parsed.timestamp()) * SECOND + int(digits.ljust(9, "0"))
