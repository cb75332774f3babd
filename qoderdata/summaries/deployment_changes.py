"""What changed between two deployments frames?"""

from __future__ import annotations

import json
import re
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import pandas as pd

from qoderdata.decode.jsontext import NotJSONError, parse, write
from qoderdata.errors import APIResponseValidationError
from qoderdata.formatting import MISSING, display_width, one_line, truncate_middle
from qoderdata.frame_checks import TEXT, require_frame, require_unique_deployments, without_repeated_columns
from qoderdata.frames import is_in
from qoderdata.masking import MASK, is_secret, mask_text
from qoderdata.schema import DEPLOYMENTS
from qoderdata.translation import gettext as _

if TYPE_CHECKING:
    from collections.abc import Iterator

_COLUMNS = (
    "id", "name", "status", "archived_at", "paused_reason_type", "paused_reason_error_type", "schedule_expression",
    "schedule_timezone",
)  # fmt: skip
#: Columns that change by themselves, and columns that follow from another one.
_NO_CHANGE = frozenset({
    "id", "updated_at", "schedule_last_run_at", "schedule_upcoming_runs_at", "stats_total_runs",
    "stats_total_failures", "stats_consecutive_failures", "stats_next_trigger_at", "stats_last_triggered_at",
})  # fmt: skip
#: What is no change in `extra` either: counters without a column, and values that do not fit such a column.
_NO_CHANGE_IN_EXTRA = (
    "extra.metadata.cas_config.stats.", "extra.updated_at.", "extra.schedule.last_run_at.",
    "extra.schedule.upcoming_runs_at.",
)  # fmt: skip
#: Columns whose changes make one row, by the kind of change.
_PAIRED_COLUMNS = {
    "schedule": ("schedule_expression", "schedule_timezone"),
    "agent": ("agent_id", "agent_version"),
}
_STATE = ("status", "archived_at", "paused_reason_type", "paused_reason_error_type")
_CONFIG = ("session_strategy", "config_max_concurrent", "config_max_retries", "config_timeout_ms")
_KINDS = {
    "environment_id": "environment", "schedule_type": "schedule", "budget_max_credit_cost": "config",
    **dict.fromkeys(_CONFIG, "config"),
}  # fmt: skip
_JSON_COLUMNS = {"metadata": "metadata", "extra": "other"}
_LISTS = frozenset({"initial_events", "resources", "vault_ids"})
#: What the service adds to the name of an archived deployment.
ARCHIVED_SUFFIX = r"_archived_\d+$"
_Difference = tuple[str, str, str, str | None, str | None]
#: The widest value, in terminal columns; longer ones, such as prompts, are shortened.
_VALUE = 60
#: How many characters before the first difference of two longer values are shown.
_CONTEXT = 15
_RESULT = ("deployment_id", "name", "change", "field", "before", "after")


def changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Return what changed between two deployments frames, such as two snapshots.

    Counters, next triggers and ``updated_at`` do not count as changes. A change that was undone between the two is
    not found. In JSON objects (``metadata``, ``extra``), a key with ``null``, ``""``, ``{}`` or ``[]`` that is in
    one frame only is no change; ``false`` and ``0`` are values, and ``1`` is not ``true``. Another order of keys
    is no change, and neither is an empty list instead of a missing one (``initial_events``, ``resources``,
    ``vault_ids``).

    Parameters
    ----------
    before, after
        Deployments frames, both with archived deployments or both without. In the second case, a deployment that
        was archived is ``removed``.

    Returns
    -------
    pandas.DataFrame
        One row per difference, deployments in the order of ``after``, then those that are gone. No differences: no
        rows, same columns and dtypes (all ``str``).

        ================= ======================================================================================
        ``deployment_id`` the deployment
        ``name``          its name in ``after``, or in ``before`` if it is gone
        ``change``        ``created``, ``archived``, ``removed``, ``paused`` (also for another reason),
                          ``resumed``, ``schedule``, ``agent``, ``environment``, ``config``, ``metadata`` or
                          ``other``
        ``field``         the column; ``metadata.<key>`` or ``extra.<path>`` for a part of one; ``schedule`` and
                          ``agent`` if both columns changed; ``""`` for ``created`` and ``removed``
        ``before``        the value before as text; missing if there was none
        ``after``         the value after as text; for ``paused`` also why, such as
                          ``"paused by error: vault_not_found_error"``
        ================= ======================================================================================

        Environment variables may hold secrets: the result shows that they changed, not how. Values that a CSV file
        masks are not known, and are not compared. The settings of runs (``session_strategy`` and ``config_…``) are
        not compared if no deployment in one of the frames has any, as in the newest edition. A column that one of
        the frames lacks, as in a frame that an earlier version saved, is not compared, nor is its value in
        ``extra``. The content of an initial event is compared as a list of blocks, whether the service gives a
        list or a text.

    Raises
    ------
    ValueError
        An id is in a frame twice, or ``metadata`` or ``extra`` is not a JSON object.
    FrameTypeError
        Not a pandas frame, or a column that has lost its dtype; the message says how to convert it.
    MissingColumnError
        A column is not there; the message lists those that are.

    Examples
    --------
    >>> import qoderdata as qd
    >>> record = {"id": "dep_1", "name": "report", "schedule": {"expression": "0 9 * * *", "timezone": "UTC"}}
    >>> before = qd.flatten_deployments([record])
    >>> record["schedule"]["expression"] = "0 8 * * *"
    >>> qd.changes(before, qd.flatten_deployments([record]))[["name", "change", "before", "after"]]
         name    change     before      after
    0  report  schedule  0 9 * * *  0 8 * * *
    """
    typed = [column.name for column in DEPLOYMENTS.columns if column.name not in _NO_CHANGE]
    frames = [require_frame(one, _COLUMNS, what="deployments", optional=typed) for one in (before, after)]
    for frame in frames:
        require_unique_deployments(frame)
    old, new = (without_repeated_columns(one).set_index("id", drop=False) for one in frames)
    both = new.index[is_in(new.index, old.index)]
    found: dict[str, list[tuple[str | None, ...]]] = {id_: [] for id_ in new.index}
    for id_ in new.index.difference(old.index, sort=False):
        found[id_].append(("created", "", None, None))
    ignored = _settings_to_ignore(old, new)
    for id_, kind, field, *values in _differences(old.loc[both], new.loc[both], ignored):
        hide = is_secret(field)
        masked = [value and mask_text(value, hide=hide) for value in values]
        is_from_csv = not hide and any(MASK in (value or "") for value in values)
        if not is_from_csv or masked[0] != masked[1]:
            found[id_].append((kind, field, *masked))
    gone = old.index.difference(new.index, sort=False)
    names = old["name"].to_dict() | new["name"].to_dict()
    rows = [(id_, names[id_], *difference) for id_, differences in found.items() for difference in differences]
    rows += [(id_, names[id_], "removed", "", None, None) for id_ in gone]
    return pd.DataFrame(rows, columns=list(_RESULT)).astype(TEXT)


def without_unlisted(before: pd.DataFrame, after: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two lists without the archived deployments that one of them leaves out: these are no changes."""
    if before["archived_at"].isna().all():
        after = after[after["archived_at"].isna() | is_in(after["id"], before["id"])]
    if after["archived_at"].isna().all():
        before = before[before["archived_at"].isna()]
    return before, after


def describe_change(row: Any) -> str:  # noqa: ANN401 - a row as a named tuple
    """Format one row of `changes` as text, without the deployment's name."""
    words = {"created": _("created"), "removed": _("removed"), "archived": _("archived")}
    if row.change in words:
        return words[row.change]
    before, after = row.before, row.after
    if row.field == "initial_events" and _prompt(before) != _prompt(after):
        before, after = _prompt(before), _prompt(after)
    before, after = _shorten(_state_in_words(one_line(before)), _state_in_words(one_line(after)))
    if row.change == "paused":
        return after
    if row.change == "resumed":
        return _("resumed (was {before})", before=before)
    fields = {
        "schedule": _("schedule"),
        "schedule_expression": _("schedule"),
        "schedule_timezone": _("time zone"),
        "initial_events": _("prompt"),
    }
    field = fields.get(row.field) or one_line(row.field)
    none = _("none")
    before, after = (none if value == MISSING else value for value in (before, after))
    return f"{field} {before} → {after}"


def _prompt(value: object) -> object:
    """Return the text of initial events, without their JSON; another value as it is."""
    if not isinstance(value, str):
        return value
    try:
        events = _items(value, "initial_events")
        return " ".join(block["text"] for event in events for block in event["content"]) or None
    except (TypeError, KeyError):
        return value


def _shorten(before: str, after: str) -> tuple[str, str]:
    """Shorten two values; if they are long, leave out most of their common beginning."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    if same > _CONTEXT and max(display_width(before), display_width(after)) > _VALUE:
        before, after = (f"…{value[same - _CONTEXT :]}" for value in (before, after))
    return truncate_middle(before, _VALUE), truncate_middle(after, _VALUE)


def _state_in_words(text: str) -> str:
    """Translate a text that `_state` returned."""
    if text.startswith("paused by error: "):
        return _("paused by error: {error}", error=text.removeprefix("paused by error: "))
    words = {
        "active": _("active"),
        "paused": _("paused"),
        "paused by error": _("paused by error"),
        "paused by hand": _("paused by hand"),
    }
    return words.get(text, text)


def _differences(old: pd.DataFrame, new: pd.DataFrame, ignored: set[str]) -> Iterator[_Difference]:
    """Yield id, kind, field, before and after of each difference of deployments that are in both frames.

    `ignored`: further columns that are not compared.
    """
    yield from _states(old, new)
    for kind, columns in _PAIRED_COLUMNS.items():
        yield from _paired(kind, columns, old, new)
    yield from _other_columns(old, new, ignored)
    for name, kind in _JSON_COLUMNS.items():
        yield from _json_parts(kind, name, old, new)


def _other_columns(old: pd.DataFrame, new: pd.DataFrame, ignored: set[str]) -> Iterator[_Difference]:
    """Yield the differences in columns that are compared by themselves, as text."""
    archived = set(new.index[old["archived_at"].isna() & new["archived_at"].notna()])
    taken = {*_NO_CHANGE, *_STATE, *_JSON_COLUMNS, *(name for names in _PAIRED_COLUMNS.values() for name in names)}
    taken |= ignored
    for name in [name for name in new.columns if name in old.columns and name not in taken]:
        for id_, before, after in _differing(old[name], new[name]):
            suffix = (after or "").removeprefix(before or "")
            is_archived = name == "name" and id_ in archived and re.fullmatch(ARCHIVED_SUFFIX, suffix)
            # A schedule that comes or goes has a row for its cron text.
            is_told = is_archived or (name == "schedule_type" and None in {before, after})
            is_same_list = name in _LISTS and _comparable(_items(before, name)) == _comparable(_items(after, name))
            if not is_told and not is_same_list:
                yield id_, _KINDS.get(name, "other"), name, before, after


def _settings_to_ignore(old: pd.DataFrame, new: pd.DataFrame) -> set[str]:
    """Return the columns of settings if one of the frames has none, as in the newest edition."""
    have_settings = (frame.reindex(columns=_CONFIG).notna().any(axis=None) for frame in (old, new))
    return set() if all(have_settings) else set(_CONFIG)


def _states(old: pd.DataFrame, new: pd.DataFrame) -> Iterator[_Difference]:
    """Yield the differences of deployments that were archived, paused or resumed."""
    for id_, before, after in _differing(old["archived_at"], new["archived_at"]):
        yield id_, "archived" if before is None else "other", "archived_at", before, after
    names = ["status", "paused_reason_type", "paused_reason_error_type"]
    states = (
        pd.Series([*map(_state, *(one[name] for name in names))], one.index, dtype=TEXT) for one in (old, new)
    )
    for id_, before, after in _differing(*states):
        was_paused, is_paused = ((state or "").startswith("paused") for state in (before, after))
        is_resumed = was_paused and after == "active"
        yield id_, "paused" if is_paused else "resumed" if is_resumed else "other", "status", before, after


def _state(status: Any, reason: Any, error: Any) -> Any:  # noqa: ANN401 - text or a missing value
    """Return a status in words, with the reason if it is paused."""
    if status != "paused" or pd.isna(reason):
        return status
    if reason == "error":
        return "paused by error" if pd.isna(error) else f"paused by error: {error}"
    return "paused by hand" if reason == "manual" else f"paused: {reason}"


def _paired(kind: str, columns: tuple[str, str], old: pd.DataFrame, new: pd.DataFrame) -> Iterator[_Difference]:
    """Yield one difference per deployment for two columns that belong together."""
    if not set(columns) <= set(old.columns) & set(new.columns):
        return
    sides = (zip(*(map(_text, one[name].tolist()) for name in columns), strict=True) for one in (old, new))
    for id_, before, after in zip(new.index, *sides, strict=True):
        changed = [index for index in range(len(columns)) if before[index] != after[index]]
        if len(changed) == 1:
            yield id_, kind, columns[changed[0]], before[changed[0]], after[changed[0]]
        elif changed:
            yield id_, kind, kind, *(" ".join(filter(None, side)) or None for side in (before, after))


def _text(value: Any) -> str | None:  # noqa: ANN401 - any cell
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist") or isinstance(value, list | tuple):
        # Compact, as `export_csv` writes lists, so that a frame from a file is equal.
        return json.dumps(list(value), ensure_ascii=False, separators=(",", ":"), default=str)
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.tz_convert("UTC").isoformat() if value.tzinfo else value.isoformat()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _items(text: str | None, name: str) -> list[Any]:
    """Return the items of a JSON list; of another text, the text.

    Content of an initial event that is a text becomes one block, as in the newest edition.
    """
    items = _parsed(text or "[]")
    if not isinstance(items, list):
        return [text]
    for item in items if name == "initial_events" else ():
        if isinstance(item, dict) and isinstance(content := item.get("content"), str):
            item["content"] = [{"type": "text", "text": content}]
    return items


def _parsed(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return what a JSON text holds; ``None`` if it is not JSON."""
    try:
        return parse(text.encode(), plain=True)
    except (NotJSONError, APIResponseValidationError):
        return None


def _comparable(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return what is equal for equal JSON values, whatever the order of an object's keys; 1 is not true."""
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return type(value), value


def _differing(old: pd.Series[Any], new: pd.Series[Any]) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the id and both values, as text, of each deployment whose values differ."""
    if old.dtype == new.dtype and old.dtype != object:
        is_same = old.eq(new).fillna(value=False) | (old.isna() & new.isna())
        old, new = old[~is_same], new[~is_same]
    for id_, before, after in zip(new.index, map(_text, old.tolist()), map(_text, new.tolist()), strict=True):
        if before != after:
            yield id_, before, after


def _object(text: str | None, column: str, id_: str) -> dict[str, Any]:
    """Return the JSON object in a cell; raise `ValueError` if it holds something else."""
    value = _parsed(text or "{}")
    if isinstance(value, dict):
        return value
    raise ValueError(
        f"{column} of the deployment {id_!r} is not a JSON object: {truncate_middle(str(text), _VALUE)}"
    )


def _json_parts(kind: str, name: str, old: pd.DataFrame, new: pd.DataFrame) -> Iterator[_Difference]:
    """Yield the differences of each key in a column of JSON objects."""
    if name not in old.columns or name not in new.columns:
        return
    ignored = (*_NO_CHANGE_IN_EXTRA, *_fields_without_column(old, new))
    for id_, before, after in _differing(old[name], new[name]):
        for difference in _by_key(name, _object(before, name, id_), _object(after, name, id_)):
            if not f"{difference[0]}.".startswith(ignored):
                yield id_, kind, *difference


def _fields_without_column(old: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    """Return where `extra` has the fields of columns that one of the frames lacks, and constants beside them."""
    both = set(old.columns) & set(new.columns)
    paths = [column.path for column in DEPLOYMENTS.columns if column.path and column.name not in both]
    parents = {path[:-1] for path in paths}
    paths += [path for path, _value in DEPLOYMENTS.constants if path[:-1] in parents]
    return [f"extra.{'.'.join(path)}." for path in paths]


def _by_key(name: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the keys of two JSON objects whose values differ as JSON; ``""``, ``{}``, ``[]`` count as missing."""
    for key in old | new:
        one, other = old.get(key), new.get(key)
        if is_secret(key) and MASK in (one, other):
            continue  # from a CSV file, in which the value is masked
        is_given = not (_is_blank(one) and _is_blank(other)) or (key in old and key in new)
        if is_given and _comparable(one) != _comparable(other):
            if is_secret(key):
                one, other = (None if _is_blank(value) else MASK for value in (one, other))
            yield _encodable(f"{name}.{key}"), _json(one), _json(other)


def _is_blank(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return value in (None, "", {}, [])


def _json(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    return None if value is None else _encodable(value) if isinstance(value, str) else write(value)


def _encodable(text: str) -> str:
    """Return a text in which lone surrogates are escaped, as no frame can hold them."""
    return text.encode(errors="backslashreplace").decode()
