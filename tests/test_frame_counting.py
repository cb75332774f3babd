"""A count of keys, from bytes alone, is what a parser counts; and no field hides from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qoderdata.frame.counting import count_values, has_no_more

if TYPE_CHECKING:
    from collections.abc import Callable

#: What could be taken for a key's end, or hide one.
TEXTS = st.text(st.sampled_from('":,{}[]\\ \nnul5é')) | st.sampled_from([":null", '":null', '":', "\\", "null"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)

WRITERS: dict[str, Callable[[Any], str]] = {
    "compact": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "escaped": lambda value: json.dumps(value, separators=(",", ":")),
    "spaced": json.dumps,
    "spaced before colons": lambda value: json.dumps(value, separators=(",", " :")),
    "tabs before colons": lambda value: json.dumps(value, separators=(",", "\t:")),
    "indented": lambda value: json.dumps(value, indent=1),
}


def escaped(value: object) -> str:
    """Write a value with every character of its strings escaped."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{escaped(key)}:{escaped(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(escaped, value)) + "]"
    return (
        '"' + "".join(f"\\u{ord(one):04x}" for one in value) + '"' if isinstance(value, str) else json.dumps(value)
    )


def counted(value: object) -> int:
    if isinstance(value, dict):
        return sum(item is not None for item in value.values()) + sum(map(counted, value.values()))
    return sum(map(counted, value)) if isinstance(value, list) else 0


@pytest.mark.parametrize("style", WRITERS)
@given(value=VALUES)
def test_the_count_is_a_parsers(style: str, value: object) -> None:
    assert count_values(WRITERS[style](value).encode()) == counted(value)


@pytest.mark.parametrize("style", WRITERS)
@given(data=st.data())
def test_what_was_passed_over_shows(style: str, data: st.DataObject) -> None:
    """Texts are compact and stand in the page; what else stands there comes in any style."""
    found, rest = data.draw(st.lists(OBJECTS, max_size=3)), data.draw(st.lists(OBJECTS, max_size=3))
    compact = WRITERS["compact"]
    page = ",".join([*map(compact, found), *map(WRITERS[style], rest)])
    texts = "".join(map(compact, found)).encode()
    for others in range(counted(rest) + 1):
        assert has_no_more(f"[{page}]".encode(), texts, others, verbatim=True) == (others == counted(rest))


@given(found=st.lists(OBJECTS, max_size=3), rest=st.lists(OBJECTS, max_size=3))
def test_texts_that_are_written_otherwise_hide_nothing(found: list[Any], rest: list[Any]) -> None:
    """An escaped colon in the page is none at a glance, and one too many in the text."""
    page = WRITERS["compact"](rest).replace("[", f"[{escaped(found)},", 1).encode()
    texts = WRITERS["compact"](found).encode()
    for others in range(counted(rest) + 1):
        assert has_no_more(page, texts, others, verbatim=False) == (others == counted(rest))


@pytest.mark.parametrize(
    "field",
    [
        '"x":1',
        '"x" :1',
        '"x"\t:1',
        '"x"\n :1',
        '"x\\\\":1',
        '"x\\\\\\"":1',
        '"":1',
        '":":1',
        '"x,":1',
        '"null":"null"',
        '"x": 0',
    ],
)
def test_a_field_that_hides(field: str) -> None:
    page = f'[{{"a":":)","b":"\\":",{field},"c":null}}]'.encode()
    json.loads(page)
    assert has_no_more(page, b"", 3, verbatim=True)
    assert not has_no_more(page, b"", 2, verbatim=True)
