"""Whether a page has any field that its readers passed over, told by counting keys.

Readers pass over fields that they are not told of. What they did find can be counted, and so can what there is,
from the bytes alone.
"""

from __future__ import annotations

import re

import numpy as np

_SPACE = ord(" ")
#: A string, and what follows if it is a key with a value.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"([ \t\r\n]*+:[ \t\r\n]*+(?!null))?', re.DOTALL)


def has_no_more(page: bytes | memoryview, texts: bytes, others: int, *, verbatim: bool) -> bool:
    r"""Tell whether a page has no more keys with a value than were found.

    Parameters
    ----------
    page
        Valid JSON, or the beginning of it up to the end of a value. It has all that was found.
    texts
        What was found as JSON text, without space between keys and colons.
    others
        How many keys with a value were found besides.
    verbatim
        Whether each of the texts stands in the page byte for byte. What looks like a key in one of their strings
        then does so in the page, too, and a glance is enough.

    Returns
    -------
    bool
        Whether that is all. A value is everything but ``null``.

    Examples
    --------
    >>> has_no_more(rb'{"a":{"b":1,"c":"\":"},"d":null,"e":2}', rb'{"b":1,"c":"\":"}', 2, verbatim=True)
    True
    >>> has_no_more(rb'{"a":{"b":1,"c":"\":"},"d":null,"e":2}', rb'{"b":1,"c":"\":"}', 1, verbatim=True)
    False
    """
    at_a_glance = (
        verbatim and _count_at_most(page) - _count_at_most(texts) == others and not _may_hide_a_key(page, texts)
    )
    return at_a_glance or count_values(page) - count_values(texts) == others


def count_values(text: bytes | memoryview) -> int:
    """Count the keys whose value is not ``null``, in all objects of a JSON text.

    Parameters
    ----------
    text
        Valid JSON, or the beginning of it up to the end of a value.

    Returns
    -------
    int
        The count.

    Examples
    --------
    >>> count_values(b'{"a": 1, "b": null, "c": {"d": ":"}}')
    3
    """
    return sum(map(bool, _STRING.findall(text)))


def _count_at_most(text: bytes | memoryview) -> int:
    """Count what looks like a key with a value: some strings have the like, too."""
    return _count(text, b'":') - _count(text, b'":nu')


def _may_hide_a_key(page: bytes | memoryview, texts: bytes) -> bool:
    """Tell whether there may be space between a key and its colon."""
    if np.frombuffer(page, np.uint8).min(initial=_SPACE) < _SPACE:
        return True
    spaced = _count(page, b" :")
    return spaced > 0 and spaced != _count(texts, b" :")


def _count(text: bytes | memoryview, pattern: bytes) -> int:
    """Do what `bytes.count` does for two or four bytes that differ, ten times faster and without Python's lock."""
    width = len(pattern)
    integer = np.dtype(f"u{width}")
    wanted = np.frombuffer(pattern, integer)
    places = [(start, (len(text) - start) // width) for start in range(width) if len(text) >= start + width]
    return sum(
        int(np.count_nonzero(np.frombuffer(text, integer, count, start) == wanted)) for start, count in places
    )
