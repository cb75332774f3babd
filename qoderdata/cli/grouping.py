"""What does `--by` mean, and how do the ids in a table get their names?

A word after `--by` is `deployment`, `agent` or `environment`, else a column, else a key of deployments' metadata.
`metadata_<key>` is always that key; `--where` reads metadata alone. Runs also have the column `agent_model`, and
sessions the `outcome` of their run.
"""

from __future__ import annotations

import contextlib
import difflib
import warnings
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import click

import qoderdata as qd
from qoderdata.cli.options import checked_option, use_option_names
from qoderdata.cli.output import MINOR, WINDOW, TableColumn, note
from qoderdata.cli.service import NAME_ERRORS, metadata_keys
from qoderdata.formatting import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from qoderdata.cli.options import Decorator
    from qoderdata.cli.service import Service

#: The words that mean a column of ids.
WORDS = {"deployment": "deployment_id", "agent": "agent_id", "environment": "environment_id"}
#: The column with the names of the ids in a column.
NAMES = {"id": "name", **{key: f"{word}_name" for word, key in WORDS.items()}}
#: The headings of the columns that say which deployment a row is about.
OWN_HEADINGS = {"id", "name", "deployment", "deployment_id"}
_METADATA = "metadata_"
_MODEL, _OUTCOME = "agent_model", "outcome"
#: The columns that a table does not have, and that are added for `--by`.
_ADDED = {"runs": [_MODEL], "sessions": [_OUTCOME]}


def by_option(table: str, meaning: str) -> Decorator:
    """Return the decorator that adds `--by`, which may be given several times; `table` names the columns."""

    def complete(_ctx: click.Context, _param: click.Parameter, start: str) -> list[str]:
        return [word for word in (*WORDS, *_columns_of(table)) if word.startswith(start)]

    def refuse_repeated(by: tuple[str, ...]) -> None:
        if len(set(_keys(by, table))) < len(by):
            raise click.UsageError(f"--by {' --by '.join(by)}: two of them are the same")

    added = "".join(f"{column}, " for column in _ADDED.get(table, []))
    words = f"deployment, agent, environment, {added}a column, or a key of metadata such as team"
    clash = "metadata_team if a column has that name"
    return checked_option(
        "--by", refuse_repeated, multiple=True, metavar="WHAT", shell_complete=complete,
        help=f"{meaning}: {words} ({clash}); may be given several times.",
    )  # fmt: skip


class Groups:
    """What the words after `--by` mean in a table, with the names that are loaded for them.

    Raises `click.UsageError` if a word means nothing; the message lists what there is.
    """

    def __init__(
        self, by: Sequence[str], table: str, service: Service, *, deployments: pd.DataFrame | None = None
    ) -> None:
        columns = _columns_of(table)
        self._words, self._table = list(by), table
        #: The columns that the words mean.
        self.keys = _keys(by, table)
        self._named = NAMES if table == "deployments" else set(WORDS.values())
        self._service = service
        #: Keys of the deployments' metadata.
        self.metadata = [key.removeprefix(_METADATA) for key in self.keys if key.startswith(_METADATA)]
        if table != "deployments":
            if self.metadata or ("environment_id" in self.keys and "environment_id" not in columns):
                deployments = service.deployments()
            elif "deployment_id" in self.keys:
                deployments = load_or_none(service.deployments)
        if deployments is not None and self.metadata:
            _require(self.metadata, deployments, columns, service)
        lists = {"deployments": deployments}
        if "agent_id" in self.keys:
            lists["agents"] = load_or_none(lambda: service.load(qd.load_agents))
        if "environment_id" in self.keys:
            lists["environments"] = load_or_none(lambda: service.load(qd.load_environments))
        #: The frames that `with_names` takes the names from, by its arguments.
        self.lists = {name: frame for name, frame in lists.items() if frame is not None}
        #: Notes about the columns that `add_names` has added.
        self.notes: list[str] = []

    def add_names(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with all columns of the groups and their names; a note says which have no values."""
        named = self._with_names(frame)
        for word, key in zip(self._words, self.keys, strict=True):
            if len(named) and named[key].isna().all():
                self._service.note_once(f"--by {word}: no {self._table.removesuffix('s')} has a value")
        return named

    def _with_names(self, frame: pd.DataFrame) -> pd.DataFrame:
        if "environment_id" in self.keys and "environment_id" not in frame.columns:
            environments = self.lists["deployments"].drop_duplicates("id").set_index("id")["environment_id"]
            frame = frame.assign(environment_id=environments.reindex(frame["deployment_id"]).array)
        if "deployment_id" in self.keys and "deployment_id" not in frame.columns:
            frame = frame.assign(deployment_id=frame["id"])
        if _MODEL in self.keys and _MODEL not in frame.columns:
            frame = frame.assign(**{_MODEL: self._models(frame)})
        if _OUTCOME in self.keys and _OUTCOME not in frame.columns:
            runs = self._runs(frame)
            frame = qd.with_outcomes(frame, runs)
            self.notes = _assumed_note(frame, runs)
        if not self.lists:
            return frame
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "no deployment has the key")  # `add_names` says so
            named: pd.DataFrame = qd.with_names(frame, **self.lists, metadata=self.metadata)
        return named

    def _models(self, runs: pd.DataFrame) -> Any:  # noqa: ANN401 - an array of pandas
        """Return the model of each run's agent in its version, from the sessions of that time."""
        version = ["agent_id", "agent_version"]
        created_at = runs["created_at"].dropna()
        first = None if created_at.empty else (created_at.min() - timedelta(days=1)).isoformat()
        sessions = self._service.load(qd.load_sessions, since=first)
        models = sessions[[*version, _MODEL]].dropna().drop_duplicates(version)
        return runs[version].merge(models, on=version, how="left")[_MODEL].array

    def _runs(self, sessions: pd.DataFrame) -> pd.DataFrame:
        """Load the runs of sessions, from before the first one on."""
        created_at = sessions["created_at"].dropna()
        if created_at.empty:
            return qd.flatten_runs([])
        first = created_at.min() - timedelta(days=1)
        return self._service.runs({"since": first.isoformat()})

    def add_to(self, frame: pd.DataFrame, deployments: pd.DataFrame) -> tuple[pd.DataFrame, list[TableColumn]]:
        """Add to rows with a `deployment_id` what the words mean for their deployments, and return columns for it.

        These columns are for people, without those that say which deployment it is.
        """
        if not self.keys:
            return frame, []
        named = self.add_names(deployments).drop_duplicates("id")
        wanted = {*self.keys, *(NAMES.get(key) for key in self.keys)}
        added = [name for name in named if name in wanted - {*frame, "id", "deployment_name"}]
        found = frame.join(named.set_index("id")[added], on="deployment_id")
        return found, [column for column in self.columns(named) if column.heading not in OWN_HEADINGS]

    def columns(self, result: pd.DataFrame) -> list[TableColumn]:
        """Return the columns of the groups for people: names, ids if there is room, and windows of time."""
        present = {*result.index.names, *result.columns}
        ids = [key for key in self.keys if key in self._named]
        shown = []
        for word, key in zip(self._words, self.keys, strict=True):
            if key == "name" and not {"id", "deployment_id"}.isdisjoint(self.keys):
                continue  # the column of the deployment shows it
            name = NAMES.get(key, "name")
            # A summary by one id has its name here; in a list, it is the deployment's.
            has_the_name = key in {"id", "deployment_id"} if "id" in present else len(ids) == 1
            if name not in present and has_the_name:
                name = "name"
            if key in ids and name in present:
                heading = "name" if key == "id" else word.removesuffix("_id")
                shown.append(TableColumn(heading, _name_or_id(name, key)))
                shown.append(TableColumn(key, key, "id", optional=MINOR, follows_name=True))
            else:
                shown.append(TableColumn(word, key, _kind(key)))
        if "window" in result.index.names:
            shown.append(WINDOW)
        return shown


def _assumed_note(sessions: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """Return a note that says how many sessions count as completed by assumption; none if there are none."""
    from qoderdata.outcomes import is_assumed  # noqa: PLC0415 - imports pandas

    completed = sessions[sessions[_OUTCOME] == "completed"]
    assumed = int(completed["id"].isin(runs.loc[is_assumed(runs), "session_id"]).sum())
    if not assumed:
        return []
    advice = "" if runs.attrs.get("outcomes") == "events" else "; --outcomes events reads how they ended"
    return [f"completed by assumption: {assumed:,} of {counted(len(completed), 'session')}{advice}"]


def _kind(key: str) -> Literal["id", "time", "text"]:
    """Return how the values of a column are written."""
    if key.endswith("_at") and not key.startswith(_METADATA):
        return "time"
    return "id" if key == "id" or key.endswith("_id") else "text"


def _name_or_id(name: str, key: str) -> Callable[[Any], Any]:
    """Return a function of a row: what is in the column of names, else in the column of ids."""
    return lambda row: getattr(row, name) if isinstance(getattr(row, name), str) else getattr(row, key)


def _columns_of(table: str) -> list[str]:
    """Return the columns of a table, such as `"runs"`, that `--by` takes: all but those of lists."""
    from qoderdata import schema  # noqa: PLC0415 - `--help` needs none

    lists = {schema.Kind.TEXTS, schema.Kind.TIMES}
    names = [one.name for one in getattr(schema, table.upper()).columns if one.kind not in lists]
    return [*names, schema.EXTRA, *_ADDED.get(table, [])]


def _keys(by: Sequence[str], table: str) -> list[str]:
    """Return the columns that words mean in a table."""
    columns = {*_columns_of(table), *NAMES}
    keys = [WORDS.get(word, word) for word in by]
    if table == "deployments" and keys == ["deployment_id"]:
        return ["id"]
    return [key if key in columns else _METADATA + key.removeprefix(_METADATA) for key in keys]


def load_or_none(load: Callable[[], pd.DataFrame]) -> pd.DataFrame | None:
    """Load a list for its names; if that fails, warn that ids are shown, and return None."""
    try:
        return load()
    except NAME_ERRORS as error:
        note(f"warning: ids are shown, as names could not be loaded: {use_option_names(str(error))}")
        return None


def _require(words: Sequence[str], deployments: pd.DataFrame, columns: Sequence[str], service: Service) -> None:
    """Raise if a word is no key of any deployment's metadata; without deployments, no key is known."""
    there = set(metadata_keys(deployments))
    if deployments.empty or there.issuperset(words):
        return
    with contextlib.suppress(*NAME_ERRORS):  # a filter may have left out the deployments that have the key
        there.update(metadata_keys(service.deployments()))
    for word in sorted({*words} - there):
        near = difflib.get_close_matches(word, [*WORDS, *sorted(there), *columns], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise click.UsageError(
            f"--by {word}: no such column or key of metadata{hint} Names: {', '.join(WORDS)}. "
            f"Metadata: {', '.join(sorted(there)) or 'none'}. Columns: {', '.join(columns)}"
        )
