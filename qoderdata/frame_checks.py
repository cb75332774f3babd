"""Check whether a frame is what a function needs: a frame, with certain columns, of the right dtypes.

CSV, ``convert_dtypes`` and other libraries change dtypes. What is unambiguous is converted; what is not is a
`FrameTypeError` that names the column and says how to convert it.
"""

from __future__ import annotations

import enum
import numbers
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa

from qoderdata.errors import DataQualityWarning, FrameTypeError, frame_hint, not_a_frame, require_columns, warn
from qoderdata.formatting import counted
from qoderdata.schema import DEPLOYMENTS, RUNS, SESSIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


class Dtype(enum.Enum):
    """What a column must hold; the value is a pandas dtype, a description, and how other columns are converted."""

    TEXT = pd.StringDtype(na_value=np.nan), "text", "{column}.astype('string')"
    INTEGER = "Int64", "whole numbers", "pd.to_numeric({column}).round().astype('Int64')"
    NUMBER = "float64", "numbers", "pd.to_numeric({column})"
    TIME = (
        "datetime64[us, UTC]",
        "times with a zone",
        "pd.to_datetime({column}, utc=True, format='ISO8601').dt.as_unit('us')",
    )
    TIMES = "object", "lists of times", ""
    FLAG = "bool", "true or false", "{column}.astype('str').str.lower().isin(['true', '1', '1.0'])"

    def __init__(self, pandas: Any, description: str, conversion: str) -> None:  # noqa: ANN401 - a dtype or its name
        self.pandas, self.description, self.conversion = pandas, description, conversion


#: The dtype of text. pandas 3 also calls it ``"str"``, by which pandas 2 means ``object``.
TEXT: pd.StringDtype = Dtype.TEXT.pandas

_COUNTS = (
    "runs", "completed", "assumed", "failed", "skipped", "unfinished", "unknown", "total_runs", "total_failures",
    "sessions",
)  # fmt: skip
_FIGURES = (
    "failure_rate", "ci_low", "ci_high", "credits", "model_credits", "sandbox_runtime_credits", "share",
)  # fmt: skip
#: The columns whose dtype is checked: those of the tables and of results; any other may hold anything.
DTYPES: dict[str, Dtype] = {
    **{
        column.name: Dtype[column.kind.name]
        for table in (DEPLOYMENTS, RUNS, SESSIONS)
        for column in table.columns
        if column.kind.name in Dtype.__members__
    },
    "metadata": Dtype.TEXT,
    **dict.fromkeys(_COUNTS, Dtype.INTEGER),
    **dict.fromkeys(_FIGURES, Dtype.NUMBER),
    **dict.fromkeys(("processed_at", "trigger_at", "scheduled_at", "window"), Dtype.TIME),
    "certain": Dtype.FLAG,
}

_INT64_END = 2.0**63
#: The conversion of times given as numbers since 1970, and the units of numbers of each size from 1973 on.
_FROM_COUNT = "pd.to_datetime({{column}}, unit={unit!r}, utc=True).dt.as_unit('us')"
_UNITS = {"s": 1e11, "ms": 1e14, "us": 1e17}
_ATTACH = "attach the one that its times are in"
#: A time as text without its offset.
_LOCAL_TIME = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.]\d+)?)?)?"


def require_frame(
    frame: object,
    wanted: Collection[str],
    *,
    what: str,
    optional: Collection[str] = (),
    keys: Collection[str] = (),
) -> pd.DataFrame:
    """Return a pandas frame whose columns have the dtypes that the loaders give: the same, or a converted copy.

    A column that is unambiguous is converted: one that is missing everywhere, one of another string, integer or
    time dtype (such as ``convert_dtypes`` or ``dtype_backend="pyarrow"`` give), categories of text, and floats
    that are whole numbers. All other columns are left alone, also those that are not asked for. Columns that are
    `optional` are checked if the frame has them; `keys` may be of any dtype: their text is converted, except
    ordered categories, and so is a known column of text that is missing everywhere. Raise `FrameTypeError`, or
    `MissingColumnError`; `what` names the frame in the message.

    Examples
    --------
    >>> runs = pd.DataFrame({"triggered_at": ["2026-06-15T00:00:00Z"]})
    >>> require_frame(runs, ["triggered_at"], what="runs")
    Traceback (most recent call last):
    qoderdata.errors.FrameTypeError: column 'triggered_at' of the runs frame holds text, not times with a zone; ...
    """
    if not isinstance(frame, pd.DataFrame):
        raise not_a_frame(frame, what=what, kinds="a pandas frame")
    require_columns(frame.columns, [*keys, *wanted], what=what, levels=frame.index.names)
    checked = [*wanted, *(name for name in optional if name in frame.columns)]
    converted = {}
    for name in dict.fromkeys([*keys, *checked]):
        column = frame[name]
        if not isinstance(column, pd.Series):
            raise _error(f"the {what} frame has several columns {name!r}; keep one", name, what)
        kind = DTYPES.get(name)
        is_ordered = isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.ordered
        is_missing_text = kind is Dtype.TEXT and not is_ordered and column.isna().all()
        if kind is not None and (name in checked or is_missing_text):
            if kind is Dtype.TIME and len(texts := _times_as_text(frame, name)) > 1:
                raise _times_error(texts, name, what)
            new = _convert(column, kind, name, what)
        else:
            is_text = column.dtype != TEXT and not is_ordered and _is_text(column)
            new = column.astype(TEXT) if is_text else column
        if new is not column:
            converted[name] = new
    return frame.assign(**converted) if converted else frame


def without_repeated_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the first of columns of one name; `require_frame` has refused several of one that is needed."""
    return frame if frame.columns.is_unique else frame.loc[:, ~frame.columns.duplicated()]


def require_snapshots(snapshots: Sequence[pd.DataFrame] | None) -> list[pd.DataFrame]:
    """Return snapshots as a list, empty for ``None``.

    Raise `FrameTypeError` if they are no list of frames, and `ValueError` if one does not say when it was read.
    """
    if isinstance(snapshots, pd.DataFrame):
        raise FrameTypeError("snapshots must be a list of frames, as load_snapshots returns it, not one frame")
    given = [] if snapshots is None else list(snapshots) if isinstance(snapshots, Iterable) else [snapshots]
    if not all(isinstance(frame, pd.DataFrame) for frame in given):
        raise FrameTypeError("snapshots must be a list of frames, as load_snapshots returns it")
    if any(frame.attrs.get("fetched_at") is None for frame in given):
        raise ValueError("a snapshot has no attrs['fetched_at']; pass the frames that load_snapshots returns")
    return given


def require_unique_deployments(df: pd.DataFrame) -> None:
    """Raise `ValueError` if an id is in a deployments frame more than once."""
    if not df["id"].is_unique:
        raise ValueError("an id is in the deployments frame twice; drop one of its rows")


def warn_of_repeats(frame: pd.DataFrame, keys: Collection[str] = (), *, what: str) -> None:
    """Warn if several rows have the same ``id``, in the same group if there are `keys`: each of them counts."""
    frame = without_repeated_columns(frame)
    if "id" not in frame or frame["id"].is_unique:
        return
    rows = frame.loc[frame["id"].notna(), [*dict.fromkeys(["id", *keys])]]
    if count := int(rows.duplicated().sum()):
        have = "has" if count == 1 else "have"
        warn(
            f"{counted(count, 'row')} of the {what} frame {have} an id that an earlier row has, as in overlapping "
            "frames that were concatenated; each row is counted. Keep one of each: "
            f"{what}.drop_duplicates('id', keep='last')",
            DataQualityWarning,
        )


def require_dtypes(schema: Mapping[str, nw.dtypes.DType], wanted: Collection[str], *, what: str) -> None:
    """Raise `FrameTypeError` if a wanted column of a frame of another library has the wrong dtype.

    Examples
    --------
    >>> require_dtypes({"status": nw.String()}, ["status"], what="runs")
    """
    for name in wanted:
        dtype, kind = schema[name], DTYPES.get(name)
        if kind is None or isinstance(dtype, nw.Unknown):
            continue
        if isinstance(dtype, nw.Datetime) and kind is Dtype.TIME and dtype.time_zone is None:
            raise _error(_lacks_zone_text(name, what), name, what)
        if not _fits(dtype, kind):
            raise _error(f"{_column_holds(name, what)} {dtype}, not {kind.description}; convert it", name, what)


def _fits(dtype: nw.dtypes.DType, kind: Dtype) -> bool:
    if kind is Dtype.TIME:
        return isinstance(dtype, nw.Datetime)
    if kind is Dtype.TEXT:
        return isinstance(dtype, nw.String | nw.Categorical | nw.Enum | nw.Object)
    if kind is Dtype.FLAG:
        return isinstance(dtype, nw.Boolean)
    return kind is Dtype.TIMES or dtype.is_numeric()


def _convert(column: pd.Series[Any], kind: Dtype, name: str, what: str) -> pd.Series[Any]:
    """Return the column itself if its dtype fits, a converted one if it is unambiguous."""
    if _has_dtype(column, kind):
        return column
    if kind in {Dtype.INTEGER, Dtype.NUMBER} and _is_number(column):
        return _converted_number(column, kind, name, what)
    if column.isna().all():
        return pd.Series(pd.array([None] * len(column), dtype=kind.pandas), index=column.index, name=name)
    if kind is Dtype.TEXT and _is_text(column):
        return column.astype(TEXT)
    if _is_arrow(column):
        return _convert(_from_arrow(column, kind), kind, name, what)
    raise _wrong_dtype(column, kind, name, what)


def _has_dtype(column: pd.Series[Any], kind: Dtype) -> bool:
    dtype = column.dtype
    if kind is Dtype.TIME:
        return isinstance(dtype, pd.DatetimeTZDtype)
    if kind is Dtype.TEXT:
        return dtype == TEXT
    if kind is Dtype.TIMES:
        return pd.api.types.is_object_dtype(dtype) and all(map(_may_be_times, column))
    if kind is Dtype.FLAG:
        return pd.api.types.is_bool_dtype(dtype)
    whole = kind is Dtype.NUMBER or pd.api.types.is_integer_dtype(dtype)
    return _is_number(column) and whole and not _is_arrow(column)


def _may_be_times(value: Any) -> bool:  # noqa: ANN401 - of a column of objects
    """Return whether a value is missing, or may be a list of times; numbers may not, as no unit is known."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "M":
        return True
    if isinstance(value, list | tuple | np.ndarray):
        return not any(isinstance(one, numbers.Number) for one in value)
    return bool(pd.isna(value))


def _converted_number(column: pd.Series[Any], kind: Dtype, name: str, what: str) -> pd.Series[Any]:
    if kind is Dtype.NUMBER:
        return column.astype("Float64").astype("float64")
    if not pd.api.types.is_integer_dtype(column.dtype):
        known = column.dropna().astype("float64")
        if not (known % 1 == 0).all() or (known.abs() >= _INT64_END).any():
            raise _error(f"{_column_holds(name, what)} numbers that are not whole; round them", name, what)
    return column.astype("Int64")


def _from_arrow(column: pd.Series[Any], kind: Dtype) -> pd.Series[Any]:
    """Return a column of an Arrow dtype with the pandas dtype that holds the same values."""
    values = column.array.__arrow_array__()
    plain = values.to_pandas() if kind is not Dtype.TIMES else values.to_numpy(zero_copy_only=False)
    return pd.Series(plain.array if isinstance(plain, pd.Series) else plain, index=column.index, name=column.name)


def _wrong_dtype(column: pd.Series[Any], kind: Dtype, name: str, what: str) -> FrameTypeError:
    holds, own, dtype = _column_holds(name, what), f"{what}[{name!r}]", column.dtype
    is_object = pd.api.types.is_object_dtype(dtype)
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    is_text = inferred == "string"
    is_local = inferred == "datetime64" or (inferred == "datetime" and not _has_zones(column))
    if kind is Dtype.TIME and (is_local or (is_text and _is_local(column))):
        times = f"pd.to_datetime({own}, format='ISO8601')" if is_object or is_text else own
        how = f"{own} = {times}.dt.tz_localize('UTC').dt.as_unit('us')"
        lacks = f"{holds} text without a time zone; {_ATTACH}" if is_text else _lacks_zone_text(name, what)
        return _error(f"{lacks}, such as {how}", name, what)
    found = "text" if is_text else f"Python objects ({inferred})" if is_object else f"values of dtype {dtype}"
    if kind is Dtype.TIMES:
        return _error(f"{holds} {found}, not lists of times, which CSV cannot hold; use Parquet", name, what)
    is_count = kind is Dtype.TIME and _is_number(column)
    conversion = kind.conversion
    if is_count:
        size = column.dropna().abs().astype("float64").max()
        conversion = _FROM_COUNT.format(unit=next((unit for unit, end in _UNITS.items() if size < end), "ns"))
    how = f"{own} = {conversion.format(column=own)}"
    return _error(f"{holds} {found}, not {kind.description}; convert it with {how}", name, what)


def _times_as_text(frame: pd.DataFrame, name: str) -> list[str]:
    """Return the columns of times with a zone that are text, if column `name` is one; none if it is not."""

    def is_text(column: pd.Series[Any]) -> bool:
        return _is_text(column) and not column.isna().all() and not _is_local(column)

    if not is_text(frame[name]):
        return []
    times = [name for name in frame.columns if DTYPES.get(name) is Dtype.TIME]
    return [name for name in times if is_text(frame[name])]


def _times_error(texts: list[str], name: str, what: str) -> FrameTypeError:
    """Return the error for several columns of times that are text, as in a frame that was read from CSV."""
    how = f"{what}[columns] = {what}[columns].apply(pd.to_datetime, utc=True, format='ISO8601')"
    holds = f"{_column_holds(name, what)} text, not times with a zone"
    return _error(f"{holds}; so do others: convert all with columns = {texts}; {how}", name, what)


def _error(message: str, name: str, what: str) -> FrameTypeError:
    hint = frame_hint(what, start=" (or")
    error = FrameTypeError(f"{message}{hint})" if hint else message)
    error.column = name
    return error


def _column_holds(name: str, what: str) -> str:
    return f"column {name!r} of the {what} frame holds"


def _lacks_zone_text(name: str, what: str) -> str:
    return f"column {name!r} of the {what} frame has no time zone; {_ATTACH}"


def _is_number(column: pd.Series[Any]) -> bool:
    kinds = pd.api.types
    dtype = column.dtype
    return kinds.is_numeric_dtype(dtype) and not (kinds.is_bool_dtype(dtype) or kinds.is_complex_dtype(dtype))


def _is_text(column: pd.Series[Any]) -> bool:
    if isinstance(column.dtype, pd.StringDtype):
        return True
    if isinstance(column.dtype, pd.CategoricalDtype):
        return pd.api.types.is_string_dtype(column.dtype.categories.dtype)
    if isinstance(column.dtype, pd.ArrowDtype):
        kind = column.dtype.pyarrow_dtype
        return pd.api.types.is_string_dtype(
            pd.ArrowDtype(kind.value_type) if pa.types.is_dictionary(kind) else column.dtype
        )
    return column.dtype.kind == "O" and pd.api.types.infer_dtype(column, skipna=True) == "string"


def _is_local(column: pd.Series[Any]) -> bool:
    return bool(column.dropna().astype(str).str.fullmatch(_LOCAL_TIME).any())


def _has_zones(column: pd.Series[Any]) -> bool:
    return all(value.tzinfo is not None for value in column.dropna())


def _is_arrow(column: pd.Series[Any]) -> bool:
    return isinstance(column.dtype, pd.ArrowDtype)
