"""A text that comes again is proved once; a column in which texts differ costs nothing."""

from __future__ import annotations

import json

import pytest

from qoderdata.errors import APIResponseValidationError
from qoderdata.frame.decoder import Decoder
from qoderdata.frame.repeats import Repeats
from qoderdata.schema import DEPLOYMENTS


def test_what_was_proved_comes_once() -> None:
    repeats = Repeats()
    first = repeats.unproved("resources", [b"[]", b"[1]", b"[]", b"[1]"])
    assert set(first) == {b"[]", b"[1]"}
    repeats.add(first)
    assert set(repeats.unproved("resources", [b"[]", b"[2]", b"[2]", b"[]", b"[1]", b"[1]"])) == {b"[2]"}


def test_what_was_not_proved_comes_again() -> None:
    repeats = Repeats()
    for _ in range(2):
        assert set(repeats.unproved("resources", [b"[]", b"[]"])) == {b"[]"}


def test_a_column_of_different_texts_is_proved_as_it_is() -> None:
    repeats = Repeats()
    texts = [b"[]", b"[1]", b"[2]"]
    assert repeats.unproved("initial_events", texts) is texts
    assert repeats.unproved("initial_events", [b"[]"] * 3) == [b"[]"] * 3
    assert set(repeats.unproved("resources", [b"[]"] * 3)) == {b"[]"}, "it is not of this column"


def page(resources: list[str]) -> bytes:
    records = ",".join(f'{{"id":"dep_{number}","resources":{text}}}' for number, text in enumerate(resources))
    return f'{{"data":[{records}],"has_more":false,"first_id":null,"last_id":null}}'.encode()


def test_a_text_between_proved_ones_is_proved_too() -> None:
    """Twice the same key is an error, whatever the pages before taught."""
    decoder = Decoder(DEPLOYMENTS)
    good = ['[{"a":1}]'] * 30
    decoder.decode(decoder.scan(page(good)))
    assert decoder.decode(decoder.scan(page(good)))["resources"].to_pylist() == good
    with pytest.raises(APIResponseValidationError, match="twice"):
        decoder.decode(decoder.scan(page([*good, '[{"a":1,"a":2}]', *good])))


def test_repeated_texts_are_rewritten_where_another_one_must_be() -> None:
    decoder = Decoder(DEPLOYMENTS)
    good = ['[{"a":1}]'] * 30
    decoder.decode(decoder.scan(page(good)))
    found = decoder.decode(decoder.scan(page([*good, r'[{"a":"\u00e9"}]', "null"])))["resources"].to_pylist()
    assert found == [*good, '[{"a":"é"}]', None]
    assert json.loads(found[-2]) == [{"a": "é"}]
