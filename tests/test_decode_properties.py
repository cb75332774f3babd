"""Property tests of `qoderdata.decode`: no value is lost, and the fast and the exact path give the same result."""

from __future__ import annotations

import json
import re
import warnings
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qoderdata.decode import Decoder, NotJSONError, from_records, jsontext
from qoderdata.errors import APIResponseValidationError, DataQualityWarning
from qoderdata.frames import to_pandas
from qoderdata.schema import (
    AGENTS,
    DEPLOYMENTS,
    ENVIRONMENTS,
    EVENTS,
    RUNS,
    SESSIONS,
    Branch,
    Column,
    Kind,
    Schema,
)
from tests.hostile_pages import lost, parse

if TYPE_CHECKING:
    from collections.abc import Callable

ZERO_TIME = "0001-01-01T00:00:00Z"
SOME = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
NUMBERS = st.integers(-5, 5) | st.sampled_from([2**53 + 1, -(2**63), 2**63, 10**25])
FLOATS = st.sampled_from([0.5, 3.0, -0.0, 1e-7, 1e22, 123456789012345.6])
ODD_TIMES = [ZERO_TIME, "0000-02-29T00:00:00Z", "2026-06-14T08:58:01+08:00", "2026-06-14 08:58:01Z", "2026-06-14"]
KEYS = st.sampled_from(["owner", "environment_variables", "a.b", "a", "b", "\\", "", "é", "id", "type", "extra"])
LONE_SURROGATES = st.sampled_from(["\ud83d", "x\udead"])
JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | FLOATS | TEXT | LONE_SURROGATES | st.sampled_from(ODD_TIMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS_WITH_ID = st.fixed_dictionaries(
    {"id": TEXT | LONE_SURROGATES}, optional={"speed": JSON_VALUES, "a.b": TEXT}
)
PLAIN_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


#: The times are computed from this one, in UTC.
_NEAR = datetime(2000, 1, 1)  # noqa: DTZ001
#: From the second day of year 1 to the last but one of 9999; needs one draw, `st.datetimes` needs seven.
_SECONDS = st.integers(
    *((end - _NEAR) // timedelta(seconds=1) for end in (datetime(1, 1, 2), datetime(9999, 12, 30)))  # noqa: DTZ001
)


@st.composite
def times(draw: st.DrawFn, *, zero: bool = True) -> str:
    time = _NEAR + timedelta(seconds=draw(_SECONDS))
    digits = draw(st.sampled_from(["", ".1", ".13334", ".123456", ".123456789", ".999999999"]))
    text = time.isoformat() + digits + "Z"
    return draw(st.sampled_from([text, text, ZERO_TIME])) if zero else text


FITTING: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: TEXT,
    Kind.TEXT_OR_ID: TEXT,
    Kind.INTEGER: st.integers(-(2**63), 2**63 - 1),
    Kind.NUMBER: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 2**53),
    Kind.TIME: times(),
    Kind.TEXTS: st.lists(TEXT, max_size=2),
    Kind.TIMES: st.lists(times(zero=False), max_size=2),
    Kind.JSON_LIST: st.lists(PLAIN_VALUES.filter(lambda value: isinstance(value, dict)), max_size=2),
}


def fitting(column: Column, *, odd: bool) -> st.SearchStrategy[Any]:
    """Return values that fit a column; if `odd`, also an object in place of its id."""
    found = FITTING[column.kind]
    return found | OBJECTS_WITH_ID if odd and column.kind is Kind.TEXT_OR_ID else found


@st.composite
def objects(draw: st.DrawFn, branch: Branch, *, odd: bool) -> Any:  # noqa: ANN401 - any JSON value
    """Return objects that match a branch of a schema; if `odd`, some have other values."""
    if odd and draw(st.integers(0, 11)) == 0:
        return draw(JSON_VALUES)
    found: dict[str, Any] = {}
    chances = draw(st.binary(min_size=len(branch.keys), max_size=len(branch.keys)))
    for (key, known), byte in zip(branch.keys.items(), chances, strict=True):
        chance = byte % 24
        if chance < 3:
            continue
        if chance == 3:
            found[key] = None
        elif odd and chance == 4:
            found[key] = draw(JSON_VALUES)
        elif isinstance(known, Branch):
            found[key] = draw(objects(known, odd=odd))
        else:
            found[key] = known if isinstance(known, str) else draw(fitting(known, odd=odd))
    if branch.rest is not None:
        found |= draw(st.dictionaries(TEXT.map("x{}".format), TEXT, max_size=2))
    elif odd and draw(st.booleans()):
        found |= draw(st.dictionaries(KEYS, JSON_VALUES, max_size=2))
    elif not odd and all(value is None for value in found.values()):
        return None
    return found


@st.composite
def records(draw: st.DrawFn, schema: Schema, *, odd: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 4))):
        record = draw(objects(schema.tree, odd=odd))
        found.append({**(record if isinstance(record, dict) else {}), "id": f"id_{index}"})
    return found


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows as dicts, with times as microseconds: Arrow's times exceed the range of `datetime`."""
    arrays = []
    for column in table.columns:
        if pa.types.is_timestamp(column.type):
            arrays.append(column.cast(pa.int64()))
        elif pa.types.is_list(column.type) and pa.types.is_timestamp(column.type.value_type):
            arrays.append(column.cast(pa.list_(pa.int64())))  # type: ignore[arg-type]  # the stubs do not accept lists
        else:
            arrays.append(column)
    return pa.table(arrays, names=table.column_names).to_pylist()


def assert_no_value_is_lost(found: list[dict[str, Any]], table: pa.Table, schema: Schema) -> None:
    for record, row in zip(found, rows(table), strict=True):
        assert lost(parse(json.dumps(record)), row, schema) == []


EACH_SCHEMA = pytest.mark.parametrize(
    "schema", [DEPLOYMENTS, RUNS, SESSIONS, EVENTS, AGENTS, ENVIRONMENTS], ids=lambda schema: schema.name
)


STYLES: dict[str, Callable[[Any], str]] = {
    "compact": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "escaped": lambda value: json.dumps(value, separators=(",", ":")),
    "letter o escaped, also in keys": lambda value: STYLES["compact"](value).replace("o", r"\u006f"),
    "spaced": lambda value: json.dumps(value, ensure_ascii=False),
    "indented": lambda value: json.dumps(value, ensure_ascii=False, indent=1),
    "escaped like Go": lambda value: re.sub(
        "[<>&\u2028]", lambda match: f"\\u{ord(match[0]):04x}", STYLES["compact"](value)
    ),
}


def page(found: list[dict[str, Any]], style: str) -> bytes:
    envelope = {"data": found, "first_id": None, "has_more": True, "last_id": "x", "next_page": "x"}
    return jsontext._LONE_SURROGATE.sub(jsontext._escape, STYLES[style](envelope)).encode()


def table_and_warnings(read: Callable[[], pa.Table]) -> tuple[pa.Table | None, list[str]]:
    """Return the table and the warnings, or no table if decoding raises an error."""
    with warnings.catch_warnings(record=True, action="always") as caught:
        try:
            table = read()
        except (NotJSONError, APIResponseValidationError):
            return None, []
    table.validate(full=True)
    return table, [str(warning.message) for warning in caught]


def assert_both_paths_agree(body: bytes, schema: Schema) -> None:
    decoder = Decoder(schema)

    def fast() -> pa.Table:
        first_table = decoder.to_table(decoder.read_page(body))
        # The reader has learned the fields of the first page; this must not change the result.
        second = Decoder(schema)
        second._reader = decoder._reader
        page = second.read_page(body)
        second_table = second.to_table(page)
        assert second_table.equals(first_table)
        envelope = jsontext.parse(body)
        cursor = envelope.get("next_page") or envelope.get("last_id")
        assert (page.has_more, page.cursor) == (envelope["has_more"], cursor), (
            "these fields may be read from the end of the body only"
        )
        return second.finish([second_table])

    def exact() -> pa.Table:
        envelope = jsontext.parse(body)
        if not isinstance(envelope, dict) or envelope.get("has_more") not in (True, False):
            raise APIResponseValidationError("not an envelope")
        if not all(isinstance(envelope.get(key), str | None) for key in ("last_id", "next_page")):
            raise APIResponseValidationError("not an envelope")
        return from_records({"data": envelope.get("data")}, schema)

    (fast_table, fast_warnings), (exact_table, exact_warnings) = (
        table_and_warnings(fast),
        table_and_warnings(exact),
    )
    assert (fast_table is None) == (exact_table is None)
    if fast_table is not None and exact_table is not None:
        different = [name for name in schema.names if not fast_table[name].equals(exact_table[name])]
        assert not different
        assert fast_warnings == exact_warnings


@EACH_SCHEMA
@given(data=st.data())
@SOME
def test_invalid_records_lose_no_value_in_either_path(schema: Schema, data: st.DataObject) -> None:
    found = data.draw(records(schema, odd=True))
    with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
        table = from_records(found, schema)
    assert_no_value_is_lost(found, table, schema)
    assert_both_paths_agree(page(found, data.draw(st.sampled_from(sorted(STYLES)))), schema)


@given(data=st.data())
@settings(SOME, max_examples=150)
def test_both_paths_agree_on_any_order_of_envelope_fields(data: st.DataObject) -> None:
    """The envelope's fields come in any order, with some missing, and other fields and lists between them."""
    texts = data.draw(st.lists(TEXT | st.sampled_from([']"', '"],"has_more":false}']), min_size=1, max_size=4))
    found = [{"id": f"id_{index}", "status": text} for index, text in enumerate(texts)]
    envelope: dict[str, Any] = {
        "data": found,
        "has_more": data.draw(st.booleans()),
        "first_id": data.draw(st.sampled_from([None, "a", "a]", ']"', 5])),
        "last_id": data.draw(st.sampled_from([None, "b", '],"has_more":false}'])),
        "next_page": data.draw(st.sampled_from([None, "c"])),
        "tags": data.draw(st.sampled_from([[], [1], [{"has_more": True, "last_id": "x"}]])),
        "more": data.draw(st.sampled_from([{}, {"tags": [], "has_more": True, "last_id": "x"}])),
    }
    names = data.draw(st.permutations([*envelope]))
    if data.draw(st.booleans()):
        names = ["data", *(name for name in names if name != "data")]
    missing = data.draw(st.sets(st.sampled_from(["first_id", "last_id", "next_page", "tags", "more", "has_more"])))
    shown = {name: envelope[name] for name in names if name not in missing}
    assert_both_paths_agree(STYLES["compact"](shown).encode(), RUNS)


@EACH_SCHEMA
@given(data=st.data())
@SOME
def test_both_paths_agree_on_damaged_pages(schema: Schema, data: st.DataObject) -> None:
    """Bytes are changed, removed and inserted, and keys doubled; both paths must raise an error or neither."""
    body = page(data.draw(records(schema, odd=data.draw(st.booleans()))), "compact")
    for _ in range(data.draw(st.integers(1, 2))):
        position = data.draw(st.integers(0, len(body)))
        put = data.draw(st.sampled_from([b"", *(bytes([byte]) for byte in b'"\\{}[],:01.e- \n\x00\xff\xc3n')]))
        kind = data.draw(st.sampled_from(["replace", "insert", "cut", "twice"]))
        if kind == "twice":
            keys = [match for match in re.finditer(rb'"\w+":', body) if match.start() >= position]
            if keys:
                position = keys[0].start()
                body = body[:position] + keys[0][0] + b"null," + body[position:]
        elif kind == "cut":
            body = body[:position] if data.draw(st.booleans()) else body[position:]
        else:
            body = body[:position] + put + body[position + (kind == "replace") :]
    assert_both_paths_agree(body, schema)


@EACH_SCHEMA
@given(data=st.data())
@SOME
def test_valid_records_lose_no_value_and_round_trip_through_parquet(schema: Schema, data: st.DataObject) -> None:
    """Valid records cause no warning and take the fast path, so the two paths are really compared."""
    found = data.draw(records(schema, odd=False))
    table = from_records(found, schema)
    assert_no_value_is_lost(found, table, schema)
    assert table["extra"].null_count == len(table)

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    read_back = pq.read_table(pa.BufferReader(sink.getvalue()))
    pd.testing.assert_frame_equal(to_pandas(read_back, schema), to_pandas(table, schema))

    body = page(found, data.draw(st.sampled_from(["compact", "escaped", "escaped like Go"])))
    decoder = Decoder(schema)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(Decoder, "_exact")
        assert decoder.to_table(decoder.read_page(body)).equals(table)
