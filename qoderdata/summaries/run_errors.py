"""Which errors make runs fail, by type, or by message without its variable parts?"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
import pandas as pd

from qoderdata.frame_checks import TEXT
from qoderdata.outcomes import STATUSES
from qoderdata.summaries.dataframe_engines import ALL, EngineExpr, add_column, flag, open_source
from qoderdata.summaries.run_rates import DOUBTFUL
from qoderdata.summaries.time_windows import EPOCH, instant, with_age
from qoderdata.time_math import DAY_MICROS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from narwhals.typing import IntoFrameT

_SEEN = dict.fromkeys(("first_seen", "last_seen"), "datetime64[us, UTC]")
_ERRORS = {"count": "Int64", "share": "float64", **_SEEN}
_NEW, _REACH = 7 * DAY_MICROS, 14 * DAY_MICROS
_GROUPS: dict[str, Any] = {
    "count": "Int64",
    "share": "float64",
    "deployments": "Int64",
    **_SEEN,
    "is_new": "bool",
    **dict.fromkeys(("example_run_id", "example_message"), TEXT),
}
_HEX = "[0-9a-fA-F]"
_NOT_IN_PATHS = r"""[^ \t\r\n"'`<>(),;:|{}\[\]]"""
_UNIT = "(ns|us|ms|s|m|h|d)"
#: The variable parts of messages, in the order in which they are replaced. Python, Rust, RE2 and Java must read
#: the patterns in the same way: ASCII classes, no look-around, no references; ``\b`` and ``\B`` are ASCII too.
_VARIABLE_PARTS = (
    (r'"[^"\n]*"', "<text>"),
    (r"`[^`\n]*`", "<text>"),
    (r"\B'[^'\n]*'\B", "<text>"),
    ("“[^”\n]*”", "<text>"),
    ("「[^」\n]*」", "<text>"),
    (r"\b[A-Za-z][A-Za-z0-9+.-]*://" + _NOT_IN_PATHS.replace(",;:|", "") + "+", "<url>"),
    (rf"\b[A-Za-z]:\\{_NOT_IN_PATHS}+", "<path>"),
    (rf"</{_NOT_IN_PATHS}+/{_NOT_IN_PATHS}+", "<<path>"),
    ("</", "<_/"),  # after the word character, "/h1>" is no path
    (rf"\B~?[.]?[.]?/{_NOT_IN_PATHS}+", "<path>"),
    ("<_/", "</"),
    (r"\b[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+[.][A-Za-z0-9]+\b", "<path>"),
    (rf"\b{_HEX}{{8}}-({_HEX}{{4}}-){{3}}{_HEX}{{12}}\b", "<id>"),
    (rf"\b0x{_HEX}+\b", "<id>"),
    (r"\b[A-Za-z][A-Za-z0-9]*_[A-Za-z0-9_]*[0-9][A-Za-z0-9_]*\b", "<id>"),
    (r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}[0-9:.,]*(Z|[+-][0-9]{2}:?[0-9]{2})?)?", "<number>"),
    (rf"\b[0-9]+([.,:][0-9]+)*({_UNIT}([0-9]+([.][0-9]+)?{_UNIT})*)?\b", "<number>"),
    (rf"\b{_HEX}{{8,}}\b", "<id>"),
    (r"\b[A-Za-z0-9]*[0-9][A-Za-z]+[0-9][A-Za-z0-9]*\b", "<id>"),
    (r"\b[0-9]+([.,:][0-9]+)*", "<number>"),
)


def error_breakdown(runs: IntoFrameT, by: str | Sequence[str] | None = None) -> IntoFrameT:
    """Count the error types of failed runs.

    Only runs with status ``failed`` count, so that the counts add up to ``failed`` of `run_failure_rates`.
    Cancelled and skipped runs do not count, whatever their error is. Failed runs without an error type have a row
    of their own, with a missing type.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows.
    by
        ``None`` for all runs together; or a column or a list of columns, to count the errors of each group.

    Returns
    -------
    frame
        One row per group and error type; in order of the keys, then the most frequent first, then by type. On
        pandas the keys and ``error_type`` are the index; on other engines they are the first columns, and lazy
        frames stay lazy. Names of the ids in `by` come first, as in `run_failure_rates`. Without failed runs
        there are no rows.

        =============== ==================== ==========================================
        ``count``       Int64                failed runs of this type
        ``share``       float64              of all failed runs of the group; never 0
        ``first_seen``  datetime64[us, UTC]  the earliest ``triggered_at``
        ``last_seen``   datetime64[us, UTC]  the latest
        =============== ==================== ==========================================

    Raises
    ------
    ValueError
        ``by`` is not valid.
    FrameTypeError
        Not a frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        A run's ``id`` is in a pandas frame more than once: each row counts.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> runs = pd.DataFrame({
    ...     "status": ["failed", "failed", "failed", "completed"],
    ...     "error_type": ["timeout", None, "timeout", None],
    ...     "triggered_at": pd.to_datetime(["2026-06-15T00:00Z"] * 4),
    ... })
    >>> qd.error_breakdown(runs)[["count", "share"]].round(3)
                count  share
    error_type
    timeout         2  0.667
    NaN             1  0.333
    """
    results, wanted = [*_ERRORS, "error_type"], ["status", "error_type", "triggered_at"]
    source = open_source(runs, by, results=results, wanted=wanted, what="runs")
    failed = source.frame.filter(nw.col("status").is_in(STATUSES["failed"]))
    failed = add_column(failed, "_at", EPOCH, "triggered_at").with_columns(nw.lit(1).alias("count"))
    first, last = nw.col("_at").min().alias("_first"), nw.col("_at").max().alias("_last")
    grouped = source.group(failed, first, last, sums=["count"], within=["error_type"])
    finish = functools.partial(_with_share, grouping=source.grouping)
    order = {**dict.fromkeys(source.keys, False), "count": True}
    return source.finalize(grouped, finish, within=["error_type"], dtypes=_ERRORS, order=order)


def error_groups(runs: IntoFrameT, by: str | Sequence[str] | None = None) -> IntoFrameT:
    """Group the errors of failed runs by type, and by message without its variable parts.

    These parts of messages are replaced: ``<text>`` (in quotation marks), ``<url>``, ``<path>``, ``<id>`` (UUIDs,
    prefixed ids such as ``sess_0a1b``, long hexadecimal numbers, digits around letters such as ``7f3a``) and
    ``<number>`` (also times, durations and IPv4 addresses). HTML and XML tags stay. Only runs with status
    ``failed`` count, so that the counts add up to those of `error_breakdown`.

    Parameters
    ----------
    runs
        A runs frame, of pandas or any engine that narwhals knows, except Dask, which cannot sort within a group.
        Its column ``status_from``, if it is there, says which runs are assumed to have completed.
    by
        ``None`` for all runs together; or a column or a list of columns, to group each group's errors.

    Returns
    -------
    frame
        One row per group, error type and message; in order of the keys, then the most frequent first, then by type
        and message. On pandas the keys, ``error_type`` and ``message`` are the index; on other engines they are
        the first columns, and lazy frames stay lazy. If `by` is an id and the frame has the column of its names,
        the first column is ``name``. A missing type or message is a group of its own. Without failed runs there
        are no rows.

        =================== ==================== =============================================================
        ``count``           Int64                failed runs with this error
        ``share``           float64              of all failed runs of the group; never 0
        ``deployments``     Int64                the number of their deployments
        ``first_seen``      datetime64[us, UTC]  the earliest ``triggered_at``
        ``last_seen``       datetime64[us, UTC]  the latest
        ``is_new``          bool                 first seen in the last 7 days of the frame (up to the end of the
                                                 newest run's minute), if the frame goes back 14 days or more,
                                                 and the share of completed runs that are assumed is not larger
                                                 in the 7 days before, by more than 5 percentage points and by
                                                 more than chance; otherwise False, as nothing is known then
        ``example_run_id``  str                  the latest of these runs (then by ``id``)
        ``example_message`` str                  its complete message
        =================== ==================== =============================================================

    Raises
    ------
    NotImplementedError
        The frame is Dask's.
    ValueError
        ``by`` is not valid.
    FrameTypeError
        Not a frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Warns
    -----
    DataQualityWarning
        A run's ``id`` is in a pandas frame more than once: each row counts.

    Examples
    --------
    >>> import pandas as pd
    >>> import qoderdata as qd
    >>> runs = pd.DataFrame({
    ...     "id": ["drun_1", "drun_2"], "deployment_id": ["dep_1", "dep_2"], "status": "failed",
    ...     "error_type": "timeout", "error_message": ["no answer in 30 s", "no answer in 60 s"],
    ...     "triggered_at": pd.to_datetime(["2026-06-15T00:00Z", "2026-06-15T01:00Z"]),
    ... })
    >>> qd.error_groups(runs)[["count", "deployments", "example_run_id"]]
                                       count  deployments example_run_id
    error_type message
    timeout    no answer in <number> s     2            2         drun_2
    """
    shown = ["error_type", "message"]
    results = [*_GROUPS, *shown, "name"]
    wanted = ["id", "deployment_id", "status", "error_type", "error_message", "triggered_at"]
    source = open_source(runs, by, results=results, wanted=wanted, what="runs", optional=["status_from"])
    source.refuse_dask("error_groups", "runs in order of time within a group")

    rows = with_age(add_column(source.frame, "_at", EPOCH, "triggered_at"), None)
    rows = _with_reach(rows)
    rows = rows.filter(nw.col("status").is_in(STATUSES["failed"]))
    rows = add_column(rows, "message", _TEMPLATE, "error_message")
    rows = rows.with_columns(_later=nw.col(ALL).shift(-1).over(*source.grouping, *shown, order_by=["_at", "id"]))
    latest = nw.col("_later").is_null()
    rows = rows.with_columns(
        nw.when(latest).then(nw.col("id")).alias("example_run_id"),
        nw.when(latest).then(nw.col("error_message")).alias("example_message"),
        nw.lit(1).alias("count"),
        _first="_at",
        _last="_at",
        _deployment="deployment_id",
    )
    # Group twice to count deployments, since not every engine counts distinct values in a group.
    figures = nw.col("_first").min(), nw.col("_last", "_age", "_reach", "example_run_id", "example_message").max()
    of_deployments = source.group(rows, *figures, sums=["count"], within=[*shown, "_deployment"])
    of_deployments = of_deployments.with_columns(flag(~nw.col("_deployment").is_null()).alias("deployments"))
    grouped = source.group(of_deployments, *figures, sums=["count", "deployments"], within=shown)

    def finish(frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
        is_new = (nw.col("_age") <= _NEW) & (nw.col("_reach") >= _REACH)
        return _with_share(frame.with_columns(is_new=is_new.fill_null(value=False)), source.grouping)

    order = {**dict.fromkeys(source.keys, False), "count": True}
    return source.finalize(grouped, finish, within=shown, dtypes=_GROUPS, order=order)


def more_assumed_before(assumed: Any, completed: Any, assumed_before: Any, completed_before: Any) -> Any:  # noqa: ANN401 - numbers or expressions
    """Return whether more of the completed runs are assumed before, by more than 5 points and chance.

    The difference of the shares must be larger than twice its standard error. Both sides are multiplied by the
    counts, which may be 0.
    """
    more = assumed_before * completed - assumed * completed_before
    variance = assumed_before * (completed_before - assumed_before) * completed**3
    variance += assumed * (completed - assumed) * completed_before**3
    is_large = more > DOUBTFUL * completed * completed_before
    return is_large & (more**2 * completed * completed_before > 4 * variance)


def _with_reach(rows: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
    """Add ``_reach``, how far back the runs go; 0 if `more_assumed_before` in the 7 days before `_NEW`."""
    age, completed = nw.col("_age"), flag(nw.col("status").is_in(STATUSES["completed"]))
    assumed: Any = nw.lit(0)
    if "status_from" in rows.collect_schema():
        assumed = completed * flag(nw.col("status_from") == "session")
    is_recent, is_before = flag(age <= _NEW), flag((age > _NEW) & (age <= _REACH))
    counts = {
        "_assumed": is_recent * assumed,
        "_completed": is_recent * completed,
        "_assumed_before": is_before * assumed,
        "_completed_before": is_before * completed,
    }
    rows = rows.with_columns(*(count.alias(name) for name, count in counts.items()))
    sums = (nw.col(name).sum().cast(nw.Float64) for name in counts)
    rows = rows.with_columns(*sums, age.max().alias("_reach"))
    is_doubtful = more_assumed_before(*map(nw.col, counts))
    return rows.with_columns(nw.when(~is_doubtful).then("_reach").otherwise(0).alias("_reach"))


def _with_share(frame: nw.LazyFrame[Any], grouping: list[str]) -> nw.LazyFrame[Any]:
    """Add each error's share of its group, and the times of its first and last run."""
    all_ = nw.col("count").sum().over(*grouping).cast(nw.Float64)
    frame = frame.with_columns((nw.col("count") / all_).alias("share"))
    frame = add_column(frame, "first_seen", instant("UTC"), "_first")
    return add_column(frame, "last_seen", instant("UTC"), "_last")


def _template_pandas(messages: pd.Series[Any]) -> pd.Series[Any]:
    codes, unique = pd.factorize(messages)
    templates = np.array([*(_template(str(message)) for message in unique), None], dtype=object)
    return pd.Series(templates[codes], index=messages.index, dtype=TEXT)


def _template(message: str) -> str:
    for pattern, placeholder in _COMPILED:
        message = pattern.sub(placeholder, message)
    return message


def _template_polars(column: Any) -> Any:  # noqa: ANN401 an expression of Polars
    for pattern, placeholder in _VARIABLE_PARTS:
        ascii_only = pattern.replace(r"\b", r"(?-u:\b)")
        ascii_only = re.sub(r"^\\B", r"(?-u:\\b{start-half})", ascii_only)
        ascii_only = re.sub(r"\\B$", r"(?-u:\\b{end-half})", ascii_only)
        column = column.str.replace_all(ascii_only, placeholder)
    return column


def _template_sql(call: str, *, escape: bool) -> str:
    """Return nested SQL calls; double braces and quotes, and backslashes too if SQL strings have escapes."""
    sql = "{}"
    for pattern, placeholder in _VARIABLE_PARTS:
        text = pattern.replace("\\", "\\\\") if escape else pattern
        quoted = text.replace("'", "\\'" if escape else "''").replace("{", "{{").replace("}", "}}")
        sql = call.format(sql=sql, pattern=f"'{quoted}'", placeholder=f"'{placeholder}'")
    return sql


_COMPILED = tuple((re.compile(pattern, re.ASCII), placeholder) for pattern, placeholder in _VARIABLE_PARTS)
#: A message with its variable parts replaced.
_TEMPLATE = EngineExpr(
    pandas=_template_pandas,
    polars=_template_polars,
    duckdb=_template_sql("regexp_replace({sql}, {pattern}, {placeholder}, 'g')", escape=False),
    spark=_template_sql("regexp_replace({sql}, {pattern}, {placeholder})", escape=True),
)
