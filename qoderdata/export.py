r"""How is a frame of any engine written to one file, CSV that is safe in a spreadsheet or Parquet?

A lazy frame is read in pieces if its engine supports it. In a CSV file, columns of Arrow's plain types are written
as a whole; Python objects, lists and structures are written one by one, as JSON.

Spreadsheet programs read a cell as a formula if it starts with ``=``, ``+``, ``-`` or ``@``. Programs differ in
the characters that they skip before this one (spaces, quotes, an apostrophe, invisible characters), and East Asian
versions accept the full-width forms too. Some programs skip a tab or a line break at the start of a text; others
start a new cell there. A program whose separator is ``;`` or a tab finds more cells inside a text. So an
apostrophe is added before each dangerous start: at the start of a text, after ``;``, after a tab, and after a line
break. A text that already looks escaped is escaped again, so that removing one apostrophe before each dangerous
start restores every text.

The values of ``environment_variables`` may be secrets; they are masked as `qoderdata.masking` says.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Number
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from qoderdata import files
from qoderdata.arguments import check_flag
from qoderdata.decode import jsontext
from qoderdata.errors import not_a_frame
from qoderdata.masking import SECRET_PATTERN, is_secret, mask_text, mask_value
from qoderdata.schema import AGENTS, DEPLOYMENTS, ENVIRONMENTS, EVENTS, RUNS, SESSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Piece = list[pa.Array[Any] | list[object]]
    #: The names of the columns, and their values piece by piece; the first piece may be empty.
    Pieces = tuple[list[str], Iterator[Piece]]


#: The key of the metadata in which pandas keeps a frame's attrs.
_ATTRS = b"PANDAS_ATTRS"
_GZIP = ".csv.gz"
#: Rows per batch: large enough to be fast, small enough that several fit into memory.
BATCH_ROWS = 65_536
#: Partitions of Dask that are computed at once: those of a join, such as runs with outcomes, then share it.
_DASK_PARTITIONS = 16

#: Columns of arrays whose Arrow type pandas does not know: NumPy has no zones, and missing values have no type.
_LIST_TYPES = {
    field.name: field.type
    for table in (DEPLOYMENTS, RUNS, SESSIONS, EVENTS, AGENTS, ENVIRONMENTS)
    for field in table.arrow
    if pa.types.is_list(field.type)
}

_MARK = "'"
#: Skipped by one program or another before it looks: quotes, controls, spaces, invisible characters.
_SKIPPED = (
    r"""['"\x01-\x08\x0b\x0c\x0e-\x20\x7f-\xa0\xad"""
    "\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]*"
)
#: Starts a formula, or hides what follows (NUL). Full-width and small forms are what East Asian versions take.
_STARTS = "[=+@\\-\\x00\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]"
_SEPARATORS = r"[;\t\r\n]"
_BREAKS = r"[\t\r\n]"

_AT_START = rf"\A(?={_SKIPPED}{_BREAKS})"
_IN_EACH_CELL = rf"(?:\A|(?<={_SEPARATORS}))(?={_SKIPPED}{_STARTS})"
_ESCAPE = re.compile(f"{_AT_START}|{_IN_EACH_CELL}")
#: The same as `_ESCAPE` for Arrow's regular expressions, which cannot look around; `\x00` is written for RE2.
_NEEDS = rf"\A{_SKIPPED}{_BREAKS}|(?:\A|{_SEPARATORS}){_SKIPPED}{_STARTS}"
_ZERO_FRACTION = r"\.0+($|[+-])"


def export_csv(frame: Any, path: str | Path, *, spreadsheet_safe: bool = True) -> None:  # noqa: ANN401 - any frame that narwhals knows
    r"""Write a frame to one CSV file, whole or not at all.

    The file is UTF-8 without a byte order mark, with one header line and ``\n`` between the lines. Texts are
    quoted; numbers, ``true`` and ``false`` are not, except in sparse columns and columns of Python objects. A
    missing value is an empty cell without quotes, an empty text one with quotes. In a file of one column every
    cell is quoted, since CSV readers skip empty lines. Times are written in ISO 8601 with their offset (without
    one if the column has no zone), lengths of time in ISO 8601, lists and objects as JSON. Times in whole seconds
    have no fraction, so a column may have two formats: give `pandas.read_csv` ``date_format="ISO8601"`` with
    ``parse_dates``, or the column stays text.

    The values of ``environment_variables`` may be secrets: each is replaced by ``***``, in ``extra``, in other
    JSON text, and in a column of that name. `export_parquet` keeps them.

    Parameters
    ----------
    frame
        Any frame that narwhals knows. An index of a pandas frame that has a name, or is not just numbers, is
        written as columns.
    path
        The file, ``.csv``, or ``.csv.gz`` for gzip. An old one is replaced when the new one is complete.
    spreadsheet_safe
        Whether an apostrophe goes before everything in a text or a header that a spreadsheet could run: a
        start with ``= + - @`` (full-width too), a tab, a line break or NUL, also after spaces, quotes and
        invisible characters, and after a ``;``, a tab or a line break inside. Numbers are not changed. To
        restore the texts, remove one apostrophe before each such start.

    Raises
    ------
    FrameTypeError
        `frame` is no frame that narwhals knows.
    ValueError
        The file's name ends in another format, or `spreadsheet_safe` is neither True nor False.
    OSError
        The folder is not there or cannot be written.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> from pathlib import Path
    >>> import qoderdata as qd
    >>> frame = pd.DataFrame(
    ...     {
    ...         "name": ["=HYPERLINK(0)", None],
    ...         "delta": [-5, 2],
    ...         "at": pd.to_datetime(["2026-06-15T09:00+08:00", None]),
    ...     }
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     qd.export_csv(frame, f"{folder}/names.csv")
    ...     print(Path(f"{folder}/names.csv").read_text())
    "name","delta","at"
    "'=HYPERLINK(0)",-5,"2026-06-15T09:00:00+08:00"
    ,2,
    """
    check_flag(spreadsheet_safe, name="spreadsheet_safe")
    files.check_ending(path, (".csv", _GZIP), what="this writes CSV")

    def write(sink: pa.NativeFile) -> None:
        if str(path).lower().endswith(_GZIP):  # without a name or a time, so that the same frame is the same file
            with pa.CompressedOutputStream(sink, "gzip") as compressed:
                _write_csv(frame, compressed, safe=spreadsheet_safe)
        else:
            _write_csv(frame, sink, safe=spreadsheet_safe)

    files.replace(path, write)


def csv_text(frame: Any) -> str:  # noqa: ANN401 - as `export_csv`
    """Return a frame as CSV text: the same that `export_csv` writes to a file, safe for spreadsheets.

    Examples
    --------
    >>> import pandas as pd
    >>> print(csv_text(pd.DataFrame({"name": ["@SUM(A1)"], "runs": [3]})))
    "name","runs"
    "'@SUM(A1)",3
    <BLANKLINE>
    """
    sink = pa.BufferOutputStream()
    _write_csv(frame, sink, safe=True)
    return sink.getvalue().to_pybytes().decode()


def export_parquet(frame: Any, path: str | Path) -> None:  # noqa: ANN401 - any frame that narwhals knows
    """Write a frame to one Parquet file, whole or not at all.

    Nothing is masked or changed: what may hold secrets, such as ``environment_variables`` in ``extra``, is in
    the file as it is.

    Parameters
    ----------
    frame
        Any frame that narwhals knows: pandas, Polars, PyArrow, a DuckDB relation, Dask, Spark. Polars, DuckDB
        and Dask process a lazy frame in pieces. A Spark frame is collected in the memory of this process; use
        Spark's own writer for a frame that is too large for it.
    path
        The file, ``.parquet`` or ``.pq``. An old one is replaced when the new one is complete.

    Raises
    ------
    FrameTypeError
        `frame` is no frame that narwhals knows.
    ValueError
        The file's name ends in another format.
    OSError
        The folder is not there or cannot be written.
    pyarrow.ArrowInvalid
        A column of Python objects mixes types, which Parquet cannot hold.

    Notes
    -----
    `pandas.read_parquet` gives a pandas frame back with its types, its index and its ``attrs`` (JSON in the
    schema's metadata under ``PANDAS_ATTRS``, pandas's own place). The arrays of ``schedule_upcoming_runs_at``
    are lists of UTC times in the file, as they are in the service, for DuckDB, Polars and Spark to read.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> import qoderdata as qd
    >>> frame = pd.DataFrame({"id": ["dep_1"], "runs": pd.array([None], dtype="Int64")})
    >>> frame.attrs["complete"] = True
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     qd.export_parquet(frame, f"{folder}/runs.parquet")
    ...     again = pd.read_parquet(f"{folder}/runs.parquet")
    >>> again.dtypes.equals(frame.dtypes), again.attrs
    (True, {'complete': True})
    """
    files.check_ending(path, (".parquet", ".pq"), what="this writes Parquet")
    files.replace(path, lambda sink: _write_parquet(frame, sink))


def _write_csv(frame: Any, sink: pa.NativeFile, *, safe: bool) -> None:  # noqa: ANN401 - as `export_csv`
    names, pieces = _pandas_pieces(frame) if isinstance(frame, pd.DataFrame) else _pieces(frame)
    headers = [escape(name) if safe else name for name in names]
    batches = (pa.record_batch(_row_cells(names, piece, safe=safe), headers) for piece in pieces)
    first = next(batches)
    with csv.CSVWriter(sink, first.schema) as writer:  # type: ignore[arg-type]  # takes Arrow's files too
        for batch in itertools.chain([first], batches):
            writer.write_batch(batch)


def _row_cells(names: list[str], piece: Piece, *, safe: bool) -> list[pa.Array[Any]]:
    columns = [cells(column, name=name, safe=safe) for name, column in zip(names, piece, strict=True)]
    if len(columns) == 1:  # a missing value alone would be an empty line, which readers skip
        return [columns[0].cast(pa.large_string()).fill_null("")]
    return columns


def _pieces(frame: Any) -> Pieces:  # noqa: ANN401 - as `export_csv`
    batches = read_batches(frame)
    types: list[Any] = batches.schema.types
    empty: Piece = [pa.nulls(0, kind) for kind in types]
    return batches.schema.names, itertools.chain([empty], (list(batch.columns) for batch in batches))


def _pandas_pieces(frame: pd.DataFrame) -> Pieces:
    """Read a pandas frame; a meaningful index becomes columns."""
    names = [_header(name) for name in frame.columns]
    columns = [frame.iloc[:, index] for index in range(len(names))]
    index = frame.index
    if is_meaningful(index):
        levels = ["index" if name is None else _header(name) for name in index.names]
        names = [f"{level}_index" if level in names else level for level in levels] + names
        columns = [pd.Series(index.get_level_values(level)) for level in range(index.nlevels)] + columns
    starts = range(0, max(len(frame), 1), BATCH_ROWS)
    return names, (
        [
            _column(column.iloc[start : start + BATCH_ROWS], name)
            for name, column in zip(names, columns, strict=True)
        ]
        for start in starts
    )


def _header(name: object) -> str:
    return "_".join(str(part) for part in name if part != "") if isinstance(name, tuple) else str(name)


def _column(series: pd.Series[Any], name: str) -> pa.Array[Any] | list[object]:
    """Return a column as Arrow if Arrow has its type; objects stay as they are, except lists of the schema."""
    is_object = series.dtype == object
    if is_object and (name not in _LIST_TYPES or any(isinstance(value, set | frozenset) for value in series)):
        return series.tolist()  # Arrow would write a set in any order
    try:
        array = pa.array(series, from_pandas=True)
        if is_object:
            array = _with_known_type(array, name)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowInvalid):  # a sparse column, or mixed objects
        return series.tolist()
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if is_object and array.type != _LIST_TYPES[name]:
        return series.tolist()
    inner = array.type.value_type if isinstance(array, pa.DictionaryArray) else array.type
    return series.tolist() if isinstance(inner, pa.ExtensionType) else array


def _with_known_type(lists: Any, name: str) -> Any:  # noqa: ANN401 - Arrow arrays
    """Give a column of lists the type that the schema has for it, if all items can be converted.

    Numbers stay as they are: Arrow would take them as times since 1970.
    """
    found = lists.type
    is_list = pa.types.is_list(found)
    are_numbers = is_list and (pa.types.is_integer(found.value_type) or pa.types.is_floating(found.value_type))
    if pa.types.is_null(found) or (is_list and not are_numbers):
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return lists.cast(_LIST_TYPES[name])
    return lists


def _write_parquet(frame: Any, sink: pa.NativeFile) -> None:  # noqa: ANN401 - as `export_parquet`
    if nw.dependencies.is_polars_lazyframe(frame):
        frame.sink_parquet(sink)  # type: ignore[call-overload]  # it takes Arrow's files too
        return
    batches = read_batches(frame)
    metadata = dict(batches.schema.metadata or {})
    attrs = getattr(frame, "attrs", None)
    if isinstance(attrs, dict) and attrs:
        metadata[_ATTRS] = json.dumps(attrs, default=str).encode()
    schema = batches.schema.with_metadata(metadata)
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(metadata))


def read_batches(frame: Any) -> pa.RecordBatchReader:  # noqa: ANN401 - any frame that narwhals knows
    """Open a frame of any library as a stream of Arrow batches, with pandas's own metadata if there are any.

    DuckDB's relations and Dask's partitions are computed as they are read; any other lazy frame is collected
    first. Raise `FrameTypeError`, and `pyarrow.ArrowInvalid` if a column of Python objects mixes types.
    """
    if isinstance(frame, pd.DataFrame):
        return to_arrow(frame).to_reader(BATCH_ROWS)
    if nw.dependencies.is_dask_dataframe(frame):
        return _read_partitions(frame)
    try:
        known = nw.from_native(frame)
    except TypeError:
        raise not_a_frame(frame, what="frame", kinds="one of a library that narwhals knows") from None
    if isinstance(known, nw.DataFrame):
        return known.to_arrow().to_reader(BATCH_ROWS)
    if known.implementation is nw.Implementation.DUCKDB:
        return pa.RecordBatchReader.from_stream(frame)
    collected: pa.Table = known.collect("pyarrow").to_native()
    return collected.to_reader(BATCH_ROWS)


def to_arrow(frame: pd.DataFrame, *, keep_index: bool | None = None) -> pa.Table:
    """Return a pandas frame as an Arrow table that pandas reads back the same.

    Of its attrs, what JSON does not know becomes text. `keep_index`: ``None`` as pandas does: numbers of the rows
    take no column.
    """
    if frame.attrs:
        frame = frame.copy(deep=False)
        frame.attrs = json.loads(json.dumps(frame.attrs, default=str))
    table = pa.Table.from_pandas(frame, preserve_index=keep_index)
    for index, field in enumerate(table.schema):
        if field.name in _LIST_TYPES:
            table = table.set_column(index, field.name, _with_known_type(table.column(index), field.name))
        elif pa.types.is_dictionary(field.type) and pa.types.is_null(field.type.value_type):
            # Categories without a single one; Parquet would read them as no categories at all.
            texts = pa.nulls(len(table), pa.dictionary(field.type.index_type, pa.large_string()))
            table = table.set_column(index, pa.field(field.name, texts.type), texts)
    return table


def is_meaningful(index: pd.Index[Any]) -> bool:
    """Return whether an index is more than the numbers of the rows."""
    return index.name is not None or not pd.api.types.is_integer_dtype(index.dtype)


def _read_partitions(frame: Any) -> pa.RecordBatchReader:  # noqa: ANN401 - Dask has no types
    """Compute a few partitions at a time; the first ones with rows decide about types that Dask leaves open."""
    starts = range(0, frame.npartitions, _DASK_PARTITIONS)
    parts = (frame.partitions[start : start + _DASK_PARTITIONS].compute() for start in starts)
    for first in parts:
        if len(first):
            break
    keep_index = None if is_meaningful(first.index) else False
    start = to_arrow(first, keep_index=keep_index)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from start.to_batches(BATCH_ROWS)
        for part in parts:
            yield from pa.Table.from_pandas(part, start.schema).to_batches(BATCH_ROWS)

    return pa.RecordBatchReader.from_batches(start.schema, batches())


# -- cells of a CSV ----------------------------------------------------------------------------------------------


def cells(column: pa.Array[Any] | list[object], *, name: str, safe: bool) -> pa.Array[Any]:
    """Return one column, or a piece of it, as cells: numbers and booleans as they are, all else as texts.

    Missing values stay missing. Its name may say that its values are secrets; `safe`: escape what a spreadsheet
    could run.
    """
    hide = is_secret(name)
    if isinstance(column, pa.DictionaryArray):
        return cells(column.dictionary, name=name, safe=safe).take(column.indices)
    if isinstance(column, pa.Array) and not hide:
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            texts = replace_some(column.cast(pa.large_string()), SECRET_PATTERN, mask_text)
            return replace_some(texts, _NEEDS, escape) if safe else texts
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            return column
        if pa.types.is_floating(kind):
            numbers: pa.Array[Any] = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
            return numbers
        if pa.types.is_timestamp(kind):
            return _times(column)
    values = column.to_pylist() if isinstance(column, pa.Array) else column
    return pa.array([_text(value, hide=hide, safe=safe) for value in values], pa.large_string())


def _times(times: pa.Array[Any]) -> pa.Array[Any]:
    texts = pc.strftime(times, "%Y-%m-%dT%H:%M:%S%Ez" if times.type.tz else "%Y-%m-%dT%H:%M:%S")
    whole: pa.Array[Any] = pc.replace_substring_regex(texts, _ZERO_FRACTION, r"\1").cast(pa.large_string())
    return whole


def _text(value: object, *, hide: bool, safe: bool) -> str | None:
    masked = mask_value(_json(value), hide=hide)
    if masked is None:
        return None
    text = masked if isinstance(masked, str) else jsontext.write(masked)
    text = text.encode(errors="backslashreplace").decode()
    return escape(text) if safe and not isinstance(value, Number) else text


def _json(value: object) -> object:
    """Return what JSON can hold: gaps as ``None``, times and lengths of time in ISO 8601, arrays as lists."""
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return [_json(item) for item in (pd.Series(value) if value.dtype.kind in "mM" else value.tolist())]
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_json(item) for item in value), key=str)
    return _scalar(value)


def _scalar(value: Any) -> object:  # noqa: ANN401 - whatever stands in a column of objects
    if pd.isna(value):
        return None
    if isinstance(value, np.generic):
        value = pd.Series([value])[0] if value.dtype.kind in "mM" else value.item()
    for kinds, write in _SCALARS:
        if isinstance(value, kinds):
            return write(value)
    return str(value)


_SCALARS: tuple[tuple[type | tuple[type, ...], Callable[[Any], object]], ...] = (
    ((str, bool, int), lambda value: value),
    (float, lambda value: value if math.isfinite(value) else str(value)),
    (Decimal, lambda value: jsontext.Number(str(value)) if value.is_finite() else str(value)),
    (timedelta, lambda value: pd.Timedelta(value).isoformat()),
    ((date, time), lambda value: value.isoformat()),
    (bytes, bytes.hex),
)


def escape(text: str) -> str:
    """Put an apostrophe before everything that a spreadsheet could run.

    Examples
    --------
    >>> escape("=1+1"), escape("Nightly - report"), escape("a;  =1+1")
    ("'=1+1", 'Nightly - report', "a;'  =1+1")
    """
    return _ESCAPE.sub(_MARK, text)


def replace_some(texts: pa.Array[Any], pattern: str, change: Callable[[str], str]) -> pa.Array[Any]:
    """Change those texts that match a pattern (RE2), so that the many others never become Python objects."""
    matches: Any = pc.match_substring_regex(texts, pattern).fill_null(fill_value=False)
    found = texts.filter(matches).to_pylist()
    if not found:
        return texts
    changed = pa.array([change(str(text)) for text in found], texts.type)
    replaced: pa.Array[Any] = pc.replace_with_mask(texts, matches, changed)
    return replaced
