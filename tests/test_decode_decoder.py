"""Tests of `qoderdata.decode.decoder`: pages are scanned, decoded by the fast or the exact path, and joined."""

from __future__ import annotations

import gc
import json
import re
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from qoderdata.background import GCPaused
from qoderdata.decode import Decoder, NotJSONError, from_records
from qoderdata.decode.fast import MAX_LEARNED
from qoderdata.decode.jsontext import DEEPEST
from qoderdata.errors import APIResponseValidationError, DataQualityWarning
from qoderdata.schema import AGENTS, DEPLOYMENTS, ENVIRONMENTS, EVENTS, RUNS, SESSIONS, Schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

Record = dict[str, Any]

ZERO_TIME = "0001-01-01T00:00:00Z"


def deployment(number: int, **fields: object) -> Record:
    return {
        "id": f"dep_{number}",
        "type": "deployment",
        "agent": {"id": "agent_1", "type": "agent", "version": number},
        "metadata": {"cas_config": {"stats": {"total_runs": number}}, "team": "data"},
        "initial_events": [{"type": "user.message", "content": 'Say "hello"\n<b>&'}],
        "created_at": "2026-06-14T08:58:01Z",
        **fields,
    }


def body(records: Sequence[Record], **envelope: object) -> bytes:
    return json.dumps({"data": records, "has_more": False, **envelope}, separators=(",", ":")).encode()


class CountingDecoder(Decoder):
    """A decoder that counts the records decoded by the exact path."""

    exact = 0

    def _exact(self, records: Sequence[Mapping[str, object]]) -> pa.Table:
        table = super()._exact(records)
        self.exact += len(table)
        return table


class TestReadPage:
    def test_envelope_fields_are_read(self) -> None:
        page = Decoder(DEPLOYMENTS).read_page(
            body([deployment(1)], has_more=True, first_id="a", last_id="b", next_page="c", total=[7])
        )
        assert (page.has_more, page.cursor) == (True, "c")

    @pytest.mark.parametrize("next_page", [None, ""])
    def test_cursor_is_last_id_if_next_page_is_missing(self, next_page: str | None) -> None:
        envelope = body([deployment(1)], has_more=True, first_id="a", last_id="b", next_page=next_page)
        assert Decoder(DEPLOYMENTS).read_page(envelope).cursor == "b"

    @pytest.mark.parametrize("first_id", ["dep_1", 5, {}])
    def test_first_id_of_any_type_is_ignored(self, first_id: object) -> None:
        decoder = CountingDecoder(DEPLOYMENTS)
        decoder.to_table(decoder.read_page(body([deployment(1)], first_id=first_id)))
        assert decoder.exact == 0

    @pytest.mark.parametrize(
        "text",
        [
            b'{"data":[],"first_id":"a","next_page":"c","warnings":[],"has_more":true,"last_id":"b"}',
            rb'{"data":[],"first_\u0069d":"a","next\u005fpage":"c","warnings":[],"has_more":true,"last_id":"b"}',
        ],
    )
    def test_envelope_fields_before_and_after_another_list_are_read(self, text: bytes) -> None:
        assert Decoder(DEPLOYMENTS).read_page(text).cursor == "c"

    @pytest.mark.parametrize("cursors", [{}, {"first_id": None, "last_id": None, "next_page": None}])
    def test_absent_and_null_cursors_are_none(self, cursors: Record) -> None:
        page = Decoder(DEPLOYMENTS).read_page(body([], **cursors))
        assert not page.has_more
        assert page.cursor is None

    @pytest.mark.parametrize(
        "schema", [DEPLOYMENTS, RUNS, SESSIONS, EVENTS, AGENTS, ENVIRONMENTS], ids=lambda of: of.name
    )
    def test_page_without_records_gives_an_empty_table(self, schema: Schema) -> None:
        decoder = CountingDecoder(schema)
        assert decoder.to_table(decoder.read_page(body([]))).equals(schema.arrow.empty_table())
        assert decoder.exact == 0

    @pytest.mark.parametrize("cut", range(1, 60, 7))
    def test_truncated_body_raises_not_json_error(self, cut: int) -> None:
        whole = body([deployment(1)])
        with pytest.raises(NotJSONError):
            Decoder(DEPLOYMENTS).read_page(whole[:-cut])

    @pytest.mark.parametrize(
        "text",
        [
            *(
                b"",
                b" ",
                b"<html>busy</html>",
                b"null,",
                b"{}{}",
                b'{"data":[],"has_more":false}x',
                b"\xef\xbb\xbf{}",
            ),
            *(b'{"data":[],"has_more":false,}', b'{"data":[{"id":NaN}],"has_more":false}', b'{"data":[}', b"[1"),
            *(b'{"data":[{"id":"\xff"}],"has_more":false}', b'{"data":[{"id":"a"}],"has_more":false,"x":"\xc3"}'),
            *(b'{"data":[{"id":"a\nb"}],"has_more":false}', '{"data":[],"has_more":false}'.encode("utf-16")),
        ],
    )
    def test_invalid_json_raises_not_json_error(self, text: bytes) -> None:
        with pytest.raises(NotJSONError):
            Decoder(DEPLOYMENTS).read_page(text)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"null", "is not an object"),
            (b'"busy"', "is not an object"),
            (b"[]", "is not an object"),
            (b"{}", "has no list data"),
            (b'{"has_more":true}', "has no list data"),
            (b'{"data":null,"has_more":true}', "has no list data"),
            (b'{"data":{"id":"a"},"has_more":true}', "has no list data"),
            (b'{"data":[]}', "has no has_more"),
            (b'{"data":[],"has_more":null}', "has no has_more"),
            (b'{"data":[],"has_more":1}', "has no has_more"),
            (b'{"data":[{"id":"a"}],"has_more":"true"}', "has no has_more"),
            (b'{"data":[],"has_more":false,"last_id":5}', "cursor that is not text"),
            (rb'{"data":[],"has_more":false,"next_page":"\ud800"}', "cursor that is not text"),
            (b'{"data":[],"data":[{"id":"a"}],"has_more":false,"next_page":1}', "cursor that is not text"),
            (b'{"type":"error","error":{"type":"api_error","message":"x"}}', "has no list data"),
            (b"[" * 100_000 + b"]" * 100_000, "levels deep"),
        ],
    )
    def test_json_that_is_not_a_page_raises_validation_error(self, text: bytes, message: str) -> None:
        with pytest.raises(APIResponseValidationError, match=message):
            Decoder(DEPLOYMENTS).read_page(text)

    @pytest.mark.parametrize("depth", [DEEPEST + 1, 9999])
    def test_too_deeply_nested_page_raises_validation_error(self, depth: int) -> None:
        """From Python 3.14 on, the page itself can be parsed, and its record is refused."""
        text = b'{"data":[{"id":"a","x":' + b"[" * depth + b"]" * depth + b'}],"has_more":false}'
        decoder = Decoder(DEPLOYMENTS)
        with pytest.raises(APIResponseValidationError, match="levels deep"):
            decoder.to_table(decoder.read_page(text))

    def test_repr_of_a_page_does_not_contain_the_body(self) -> None:
        page = Decoder(DEPLOYMENTS).read_page(body([deployment(1, environment_variables="SECRET=1")]))
        assert "SECRET" not in f"{page!r} {page}"


class TestToTable:
    @pytest.mark.parametrize(
        ("record", "message"),
        [
            (b"null", "record 1 of the answer is not an object"),
            (b"[]", "record 1 of the answer is not an object"),
            (b'{"name":"x"}', "record 1 of the answer has no id"),
            (b'{"id":null}', "record 1 of the answer has no id"),
            (b'{"id":7}', "record 1 of the answer has no id"),
            (rb'{"id":"\ud800"}', "record 1 of the answer has no id"),
        ],
    )
    @pytest.mark.parametrize("known", [False, True], ids=["first page", "later page"])
    def test_record_without_a_valid_id_raises_validation_error(
        self, record: bytes, message: str, *, known: bool
    ) -> None:
        decoder = Decoder(DEPLOYMENTS)
        if known:
            decoder.to_table(decoder.read_page(body([deployment(0, owner=1)])))
        with pytest.raises(APIResponseValidationError, match=message):
            decoder.read_page(b'{"data":[{"id":"dep_0"},' + record + b'],"has_more":false}')

    @pytest.mark.parametrize(
        ("record", "same_as"),
        [
            (b'{"id":"b","id":"a"}', b'{"id":"a"}'),
            (b'{"id":"a","agent":{"version":1,"version":2}}', b'{"id":"a","agent":{"version":2}}'),
            (b'{"id":"a","agent":{"id":"x"},"agent":{"version":2}}', b'{"id":"a","agent":{"version":2}}'),
            (b'{"id":"a","metadata":{"x":"1","y":"","x":"2"}}', b'{"id":"a","metadata":{"x":"2","y":""}}'),
            (b'{"id":"a","metadata":{"x":"1"},"metadata":{}}', b'{"id":"a","metadata":{}}'),
            (
                b'{"id":"a","metadata":{"cas_config":{"stats":null,"stats":{"total_runs":1}}}}',
                b'{"id":"a","metadata":{"cas_config":{"stats":{"total_runs":1}}}}',
            ),
            (b'{"id":"a","resources":[{"y":1,"z":3,"y":2}]}', b'{"id":"a","resources":[{"y":2,"z":3}]}'),
            (b'{"id":"a","resources":[1],"resources":[]}', b'{"id":"a","resources":[]}'),
            (b'{"id":"a","owner":1,"owner":2}', b'{"id":"a","owner":2}'),
            (rb'{"id":"a","owner":1,"o\u0077ner":2}', b'{"id":"a","owner":2}'),
            (b'{"id":"a","owner":{"z":1,"z":2}}', b'{"id":"a","owner":{"z":2}}'),
        ],
    )
    @pytest.mark.parametrize("known", [False, True], ids=["first page", "later page"])
    def test_last_of_two_equal_keys_is_used(self, record: bytes, same_as: bytes, *, known: bool) -> None:
        """Every JSON parser does this; the fast and the exact path agree."""
        decoder = Decoder(DEPLOYMENTS)
        if known:
            decoder.to_table(decoder.read_page(body([deployment(0, owner=1)])))
        tables = [
            decoder.to_table(decoder.read_page(b'{"data":[' + text + b'],"has_more":false}'))
            for text in (record, same_as)
        ]
        assert tables[0].equals(tables[1])
        assert tables[1].equals(from_records([json.loads(same_as)], DEPLOYMENTS))

    def test_error_names_the_index_of_the_bad_record_in_a_long_page(self) -> None:
        records = [deployment(number) for number in range(500)]
        del records[317]["id"]
        decoder = Decoder(DEPLOYMENTS)
        with pytest.raises(APIResponseValidationError, match="record 317 of the answer has no id"):
            decoder.read_page(body(records))

    def test_valid_records_never_take_the_exact_path(self) -> None:
        records = [deployment(number) for number in range(50)]
        decoder = CountingDecoder(DEPLOYMENTS)
        table = decoder.to_table(decoder.read_page(body(records)))
        assert decoder.exact == 0
        assert table.equals(from_records(records, DEPLOYMENTS))

    def test_one_misfit_sends_at_most_16_records_through_the_exact_path(self) -> None:
        """The page is split, so that the other records take the fast path."""
        records = [deployment(number) for number in range(1000)]
        records[444]["agent"]["version"] = "4"
        decoder = CountingDecoder(DEPLOYMENTS)
        table = decoder.to_table(decoder.read_page(body(records)))
        assert decoder.exact <= 16
        with pytest.warns(DataQualityWarning, match="Ids: dep_444$"):
            assert table.equals(from_records(records, DEPLOYMENTS))
        with pytest.warns(DataQualityWarning, match="Ids: dep_444$"):
            decoder.finish([table])

    def test_page_of_misfits_takes_the_exact_path_once_per_record(self) -> None:
        records = [deployment(number, name=number) for number in range(300)]
        decoder = CountingDecoder(DEPLOYMENTS)
        table = decoder.to_table(decoder.read_page(body(records)))
        assert decoder.exact == 300
        assert table["id"].to_pylist() == [record["id"] for record in records]
        with pytest.warns(DataQualityWarning, match="^300 values of 300 deployments"):
            decoder.finish([table])

    @pytest.mark.parametrize(
        "fields",
        [
            {"owner": {"limit": {"usd": 5}, "left": None}, "environment_variables": "A=1"},
            {"owner": [1, {"b": "é"}], "agent": {"id": "a", "team": True}},
            {
                "metadata": {
                    "cas_config": {"retry": {"s": 5}, "stats": {"skipped": 3, "total_runs": 4}},
                    "owner": "x",
                }
            },
            {"owner": 'a "owner", and the word owner', "resources": [{"owner": 1}]},
        ],
    )
    def test_new_field_is_learned_by_the_fast_path(self, fields: Record) -> None:
        """A new field in every record must not send every page through the slow exact path."""
        decoder = CountingDecoder(DEPLOYMENTS)
        for start in (0, 100, 200):
            records = [deployment(number, **fields) for number in range(start, start + 100)]
            table = decoder.to_table(decoder.read_page(body(records)))
            assert table.equals(from_records(records, DEPLOYMENTS))
            assert decoder.exact <= 16

    def test_number_of_learned_fields_is_limited(self) -> None:
        """New field names in every record must not make the decoder grow without limit; no value is lost."""
        decoder = CountingDecoder(DEPLOYMENTS)
        records = [
            deployment(number, **{f"field{number}": number, "a.b": 1}) for number in range(MAX_LEARNED + 20)
        ]
        for _ in range(2):
            table = decoder.to_table(decoder.read_page(body(records)))
            assert table.equals(from_records(records, DEPLOYMENTS))
        assert len(decoder._reader.learned) == MAX_LEARNED

    @pytest.mark.parametrize(
        ("metadata", "own"),
        [
            (r'{"cas_config":CAS}', "{}"),
            (r'{"cas_config":CAS,"b":"1"}', '{"b":"1"}'),
            (r'{"b":"1","cas_config":CAS}', '{"b":"1"}'),
            (r'{"a":"1","cas_config":CAS,"d":"2"}', '{"a":"1","d":"2"}'),
            (r'{"cas_c\u006fnfig":CAS,"b":"\u0031"}', '{"b":"1"}'),
            (r'{ "cas_config" : CAS , "b" : "1" }', '{"b":"1"}'),
            (r'{"b":{"cas_config":CAS},"cas_config":CAS}', '{"b":{"cas_config":CAS}}'),
            (r'{"b":"{\"cas_config\":CAS}","cas_config":null}', r'{"b":"{\"cas_config\":CAS}"}'),
            (r'{"b":"say \"cas_config\":"}', r'{"b":"say \"cas_config\":"}'),
            (r'{"b":{"cas_config":CAS}}', '{"b":{"cas_config":CAS}}'),
            ("{}", "{}"),
            ("null", None),
        ],
    )
    def test_cas_config_is_removed_from_metadata_at_any_position(self, metadata: str, own: str | None) -> None:
        """Where it is provably correct, the key is cut out of the text and not out of the parsed object."""
        cas = '{"config":{"max_retries":3}}' if '"{' not in metadata else "3"
        text = b'{"data":[{"id":"dep_1","metadata":META}],"has_more":false}'.replace(b"META", metadata.encode())
        decoder = Decoder(DEPLOYMENTS)
        table = decoder.to_table(decoder.read_page(text.replace(b"CAS", cas.encode())))
        assert table["metadata"].to_pylist() == [None if own is None else own.replace("CAS", cas)]
        assert table["extra"].null_count == 1

    @pytest.mark.parametrize(
        ("path", "values"),
        [
            (
                "created_at",
                ["", "2026-06-14", "2026-06-14T08:58:01+00:00", "2026-06-14T08:58Z", "soon" * 20 + "Z"],
            ),
            ("created_at", ["2026-06-14 08:58:01Z", "2026-06-14T08:58:01z", "2026-06-14T08:58:01.1234567xZ"]),
            ("created_at", ["2026-06-14T08:58:01.Z", "2026-06-14T08:58:60Z", "2026-06-14T08:58:01.123456"]),
            (
                "created_at",
                ["2026-06-14T08:58:01.123456789Z", ZERO_TIME, "0000-01-01T00:00:00Z", "0000-12-31T23:59:59Z"],
            ),
            ("vault_ids", [[None], ["a", None], [1], "a", {}, [], None]),
            ("schedule.upcoming_runs_at", [[None], [ZERO_TIME], ["2026-06-14T08:58:01.1Z", "x"], [], None, "x"]),
            ("resources", [{}, "x", 1, ["x"], [None], [1.0], [1e16], [10**30], [], None]),
            ("agent", [{}, {"id": None}, "x", []]),
            ("schedule", [{}, {"type": None}, "x"]),
            ("metadata", [{}, "x", []]),
            ("metadata.cas_config", [{}, None, [], "x", {"stats": {}}, {"config": []}]),
            ("type", ["deployment", "other", None, 1]),
        ],
    )
    def test_odd_values_decode_as_in_the_exact_path(self, path: str, values: list[Any]) -> None:
        """The fast path must detect each value or leave it to the exact path; the result is the same."""
        for value in values:
            fields: Any = value
            for key in reversed(path.split(".")):
                fields = {key: fields}
            records = [deployment(1), deployment(2, **fields), deployment(3)]
            decoder = Decoder(DEPLOYMENTS)
            with warnings.catch_warnings(action="ignore", category=DataQualityWarning):
                table = decoder.finish([decoder.to_table(decoder.read_page(body(records)))])
                assert table.equals(from_records(records, DEPLOYMENTS)), value

    @pytest.mark.parametrize(
        ("path", "deepest"), [("resources", DEEPEST), ("metadata.team", DEEPEST - 1), ("owner", DEEPEST - 1)]
    )
    @pytest.mark.parametrize("depth", range(DEEPEST - 8, DEEPEST + 4))
    def test_nesting_near_the_depth_limit_decodes_as_in_the_exact_path(
        self, path: str, deepest: int, depth: int
    ) -> None:
        """The JSON writer of the fast path has a slightly lower depth limit than the exact path."""
        value: Any = []
        for _ in range(depth):
            value = [value]
        for key in reversed(path.split(".")):
            value = {key: value}
        records = [deployment(1), deployment(2, **value)]
        decoder = Decoder(DEPLOYMENTS)
        page = decoder.read_page(body(records))
        if depth <= deepest:
            exact = from_records(records, DEPLOYMENTS)
            assert decoder.to_table(page).equals(exact)
            assert decoder.to_table(page).equals(exact), "also after the decoder has learned the field"
        else:
            with pytest.raises(APIResponseValidationError, match="levels deep") as caught:
                from_records(records, DEPLOYMENTS)
            with pytest.raises(APIResponseValidationError, match=re.escape(str(caught.value))):
                decoder.to_table(page)

    def test_too_deep_object_in_a_learned_field_is_refused(self) -> None:
        decoder = Decoder(DEPLOYMENTS)

        def read(depth: int) -> None:
            value: Any = 1
            for _ in range(depth):
                value = {"key": value}
            decoder.to_table(decoder.read_page(body([deployment(1, owner=value)])))

        read(1)
        read(DEEPEST)
        with pytest.raises(APIResponseValidationError, match="levels deep"):
            read(DEEPEST + 1)

    def test_two_pages_in_one_body_raise_not_json_error(self) -> None:
        """The end of the body looks like that of a page; everything before it would be lost."""
        both = body([deployment(1)], last_id="dep_1") + body([deployment(2)], last_id="dep_2")
        with pytest.raises(NotJSONError):
            Decoder(DEPLOYMENTS).read_page(both)

    def test_lone_surrogate_goes_to_extra_with_a_warning(self) -> None:
        """A lone surrogate is valid JSON, but no column can hold it, and only the exact path can read it."""
        records = [deployment(1), deployment(2, name="\ud83d", owner="\ude00")]
        decoder = Decoder(DEPLOYMENTS)
        table = decoder.to_table(decoder.read_page(body(records)))
        assert table["extra"].to_pylist() == [None, r'{"name":"\ud83d","owner":"\ude00"}']
        with pytest.warns(DataQualityWarning, match="name: 1"):
            decoder.finish([table])


class TestFinish:
    def test_finish_without_pages_gives_an_empty_table(self) -> None:
        table = Decoder(RUNS).finish([])
        assert table.schema.equals(RUNS.arrow)
        assert table.num_rows == 0

    def test_record_of_the_later_page_is_kept(self) -> None:
        decoder = Decoder(DEPLOYMENTS)
        pages = [[deployment(1, name="old"), deployment(2)], [deployment(3), deployment(1, name="new")]]
        tables = [decoder.to_table(decoder.read_page(body(page))) for page in pages]
        with pytest.warns(DataQualityWarning, match="^1 deployment came more than once"):
            table = decoder.finish(tables)
        assert table["id"].to_pylist() == ["dep_2", "dep_3", "dep_1"]
        assert table["name"].to_pylist() == [None, None, "new"]


def test_another_type_in_a_shared_object_goes_to_extra() -> None:
    decoder = Decoder(SESSIONS)
    body = b'{"data":[{"id":"sess_1","agent":{"type":"robot","id":"agent_1"}}],"has_more":false}'
    (row,) = decoder.to_table(decoder.read_page(body)).to_pylist()
    assert json.loads(row["extra"]) == {"agent.type": "robot"}


class TestGarbageCollection:
    def test_nested_gc_paused_restores_collection_at_the_end(self) -> None:
        context = GCPaused()
        assert gc.isenabled()
        with context:
            with context:
                assert not gc.isenabled()
            assert not gc.isenabled()
        assert gc.isenabled()

    def test_collection_stays_disabled_if_the_caller_disabled_it(self) -> None:
        gc.disable()
        try:
            with GCPaused():
                assert not gc.isenabled()
            assert not gc.isenabled()
        finally:
            gc.enable()

    def test_collection_is_enabled_again_after_an_error(self) -> None:
        decoder = Decoder(DEPLOYMENTS)
        with pytest.raises(APIResponseValidationError):
            decoder.to_table(decoder.read_page(body([{}])))
        assert gc.isenabled()
