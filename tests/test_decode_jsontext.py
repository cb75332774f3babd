"""Tests of `qoderdata.decode.jsontext`: JSON is parsed without loss and written in a canonical form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qoderdata.decode.jsontext import DEEPEST, NotJSONError, Number, is_utf8, parse, write
from qoderdata.errors import APIResponseValidationError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "{", '{"a":', '{"a":1', '["x', "[1,]", '{"a":1,}', "{'a':1}", "nul", "tru", "01", "1.", "-", "+1",
        "NaN", "Infinity", "-Infinity", '{"a":NaN}', "1e5.5", "[1] 2", "{}{}", "\ufeff{}", '"\t"', '"\x00"',
        r'"\x41"', r'"\u12"', "<html></html>", "/* */ 1", "\x0c1",
    ],
)  # fmt: skip
def test_invalid_json_raises_not_json_error(text: str) -> None:
    with pytest.raises(NotJSONError):
        parse(text.encode())


@pytest.mark.parametrize("body", [b'"\xff"', b'{"a":"\xed\xa0\x80"}', '"é"'.encode("utf-16"), b'"\xc3'])
def test_invalid_utf8_raises_not_json_error(body: bytes) -> None:
    with pytest.raises(NotJSONError):
        parse(body)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":1,"a":2}', {"a": 2}),
        (r'{"a":1,"b":3,"\u0061":2}', {"a": 2, "b": 3}),
        ('[{"b":{"":1,"":null}}]', [{"b": {"": None}}]),
    ],
)
def test_last_of_two_equal_keys_is_used(text: str, value: object) -> None:
    assert parse(text.encode()) == value


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000]
)
def test_too_deep_nesting_raises_an_error_instead_of_crashing(text: str) -> None:
    with pytest.raises(APIResponseValidationError, match=f"more than {DEEPEST} levels"):
        parse(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        *("0", "-1", "9223372036854775808", "123456789012345678901234567890", "-0", "1.0", "1.50", "1e5", "1E+5"),
        *("0.1000000000000000055511151231257827", "1e400", "-1e-400", "9" * 5000),
    ],
)
def test_numbers_keep_their_digits(text: str) -> None:
    assert write(parse(text.encode())) == text


def test_64_bit_integers_are_parsed_to_int() -> None:
    assert parse(b"[0, -9223372036854775808, 1.0]") == [0, -(2**63), Number("1.0")]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (' { "b" : [ 1 , 2 ] , "a" : { } }\n', '{"b":[1,2],"a":{}}'),
        (r'"\u003cb\u003e \u0026 \/ \u00e9"', '"<b> & / é"'),
        (r'"\ud83d\ude00 \u2028"', '"😀 \u2028"'),
        (r'"\ud83d \ude00 \uDEAD"', r'"\ud83d \ude00 \udead"'),
        (r'{"\ud800":1}', r'{"\ud800":1}'),
        (r'"\u0000\u001f\u0008\t\u000a\\\""', r'"\u0000\u001f\b\t\n\\\""'),
        ('"\x7f\u0085"', '"\x7f\u0085"'),
    ],
)
def test_written_text_is_canonical(text: str, canonical: str) -> None:
    assert write(parse(text.encode())) == canonical


@given(JSON_VALUES)
@settings(max_examples=150)
def test_written_values_round_trip(value: Any) -> None:  # noqa: ANN401 - any JSON value
    text = write(value)
    assert json.loads(text) == value
    assert write(parse(text.encode())) == text


@given(st.text(st.characters()))
@settings(max_examples=100)
def test_any_string_is_written_as_valid_utf8(value: str) -> None:
    assert json.loads(write(value).encode()) == value
    assert is_utf8(value) == (value.encode(errors="replace").decode() == value)


def test_tuples_are_written_as_lists() -> None:
    assert write(("a", (1, None))) == '["a",[1,null]]'
