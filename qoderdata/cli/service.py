"""The service that a command asks, the cache that it keeps, and what commands load from them.

A decorator here adds the options that choose both, and gives them to a command as one `Service`.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import click

import qoderdata as qd
from qoderdata.arguments import ID_PREFIXES
from qoderdata.cli import output
from qoderdata.cli.options import PATH, filter_words, filters_given, gather, in_group, use_option_names
from qoderdata.errors import CacheError, NotFoundError, PermissionDeniedError, UnknownOutcomesWarning
from qoderdata.formatting import first_few, format_duration, format_time
from qoderdata.pages import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

_KEPT = (
    "interrupted; runs, sessions and events that were read so far are stored, and are not read again, unless a "
    "warning says that they are not kept"
)
#: Errors of loading a list of names after which a command can continue without names.
NAME_ERRORS = (CacheError, NotFoundError, PermissionDeniedError)
#: The commands that list objects.
_LISTS = {"deployment": "deployments", "agent": "deployments --by agent"}
#: The columns that `missed_triggers` takes from snapshots.
_SCHEDULES = ["id", "status", "updated_at", "schedule_expression", "schedule_timezone"]


@dataclass(frozen=True)
class Service:
    """The service that is asked, and how old a stored answer may be."""

    base_url: str | None
    workspace: str | None
    cache_dir: str | None = None
    max_age: str | None = None
    refresh: bool = False
    refresh_all: bool = False
    offline: bool = False
    #: The argument `outcomes` of `load_runs`.
    outcomes: Literal["auto", "runs", "sessions", "events"] = "auto"
    #: Whether the command itself says how old the data are.
    shows_age: bool = False
    #: The notes that were printed.
    _notes: set[str] = field(default_factory=set, init=False, compare=False)

    def __post_init__(self) -> None:
        refresh = "--refresh" if self.refresh else "--refresh-all" if self.refresh_all else ""
        if self.offline and refresh:
            raise click.UsageError(f"{refresh} asks the service and --offline never does; give one of them")
        if self.max_age is not None and (self.offline or refresh):
            raise click.UsageError(f"--max-age has no effect with {refresh or '--offline'}")

    def client(self, **settings: Any) -> qd.Client:  # noqa: ANN401 - those of the class
        """Make the client that the options describe."""
        return qd.Client(base_url=self.base_url, workspace_id=self.workspace, **settings)

    @functools.cached_property
    def account(self) -> dict[str, Any]:
        """The client and the cache, as arguments of a loader; the client remembers the greatest page size."""
        return {"client": self.client(), "cache_dir": self.cache_dir}

    def load(self, load: Callable[..., pd.DataFrame], **filters: Any) -> pd.DataFrame:  # noqa: ANN401 - the loader's own
        """Call a loader of the library with its filters and these options."""
        given = {**self.account, "offline": self.offline, "refresh": self.refresh or self.refresh_all}
        if self.refresh_all and load in (qd.load_runs, qd.load_sessions):  # other lists are always read whole
            given["refresh"] = "all"
        if self.max_age is not None:
            given["max_age"] = self.max_age
        try:
            found = load(**given | filters)
        except KeyboardInterrupt as error:
            if not self.offline:
                error.add_note(_KEPT)
            raise
        what = {qd.load_deployments: "deployments", qd.load_runs: "runs", qd.load_sessions: "sessions"}.get(load)
        if self.offline and not self.shows_age and what is not None:
            self._note_if_old(what, found)
        return found

    def _note_if_old(self, what: str, stored: pd.DataFrame) -> None:
        from qoderdata.frames import STALE, fetched_at  # noqa: PLC0415 - imports pandas

        at = fetched_at(stored)
        if at is not None and (age := datetime.now(UTC) - at) > STALE:
            self.note_once(f"the stored {what} are of {format_time(at)}, {format_duration(age)} ago")

    def load_filtered(
        self, load: Callable[..., pd.DataFrame], filters: dict[str, Any], *, what: str
    ) -> pd.DataFrame:
        """Load a list, and print a note where nothing passes the filters; an agent may be given by its name."""
        agent, given = filters.get("agent_id"), filters_given(filters)
        name = None if agent is None or agent.startswith(ID_PREFIXES["agent_id"]) else agent
        ids = None if name is None else self._agent_ids(name, load)
        found = self.load_of(load, filters if name is None else filters | {"agent_id": None})
        if ids is not None:
            found = found[found["agent_id"].isin(ids)].reset_index(drop=True)
        elif agent is not None and found.empty:
            self._agent_ids(agent, load)
        if found.empty and given:
            may_be_hidden = not given.keys().isdisjoint({"deployment", "where", "agent_id"})
            is_hidden = may_be_hidden and not filters.get("include_archived", True)
            hint = "; archived deployments are left out" if is_hidden else ""
            _note_none_passes(what, filters, hint)
        return found

    def _agent_ids(self, agent: str, load: Callable[..., pd.DataFrame]) -> list[str]:
        """Return the ids of the agents with this id or name; raise `click.UsageError` if there is none."""
        may_be_removed = load is not qd.load_deployments
        ids = self._ids_named("agent", agent, lambda: self.load(qd.load_agents), may_be_removed=may_be_removed)
        self._note_equal_names("agent", agent, len(ids))
        return ids

    def load_of(self, load: Callable[..., pd.DataFrame], filters: dict[str, Any]) -> pd.DataFrame:
        """Load a list with filters; `deployment` may be an id or a name, `where` has texts like ``team!=data``."""
        others = {name: value for name, value in filters.items() if name not in {"deployment", "where"}}
        word, where = filters.get("deployment"), filters.get("where")
        if word is None and where is None:
            return self.load(load, **others)
        if load is qd.load_deployments:
            listed = self.load(load, **others)
            found = listed[listed["id"].isin(self._ids_in([listed], word, where))].reset_index(drop=True)
            self._note_equal_names("deployment", word, len(found))
            return found
        ids = self._ids_of(word, where, may_be_removed=True)
        self._note_equal_names("deployment", word, len(ids))
        if len(ids) == 1:
            others["deployment_id"] = next(iter(ids))
        found = self.load(load, **others)
        return found[found["deployment_id"].isin(ids)].reset_index(drop=True)

    def ids_in(self, lists: Sequence[pd.DataFrame], filters: dict[str, Any]) -> set[str]:
        """Return the ids of deployments with this name and metadata in one of some lists; a note says if none has.

        Raise `click.UsageError` as `_ids_of` does.
        """
        found = self._ids_in(lists, filters["deployment"], filters["where"])
        if not found:
            _note_none_passes("deployment", filters)
        return found

    def _ids_in(self, lists: Sequence[pd.DataFrame], word: str | None, where: Sequence[str] | None) -> set[str]:
        """Return what `ids_in` does, without its note."""
        found = set().union(*(_matching_ids(listed, word, where) for listed in lists))
        if not found or any(_why_none_has(lists, condition) for condition in where or ()):
            return self._ids_of(word, where)
        return found

    def _ids_of(self, word: str | None, where: Sequence[str] | None, *, may_be_removed: bool = False) -> set[str]:
        """Return the ids of the deployments with this name and metadata.

        Raise `click.UsageError` if none has the name, a key or its value; `may_be_removed` as in `_ids_named`.
        """
        if word is not None:
            named = self._ids_named("deployment", word, self.deployments, may_be_removed=may_be_removed)
            if where is None:
                return set(named)
        deployments = self.deployments()
        for condition in where or ():
            if reason := _why_none_has([deployments], condition):
                raise click.UsageError(f"--where {condition!r}: {reason}")
        return _matching_ids(deployments, word, where)

    def _ids_named(
        self, what: str, word: str, load: Callable[[], pd.DataFrame], *, may_be_removed: bool
    ) -> list[str]:
        """Return the ids of the objects with this id or name; raise `click.UsageError` if there is none.

        An unknown id is accepted if the list cannot be read, or if the object `may_be_removed`.
        """
        is_id = word.startswith(ID_PREFIXES[f"{what}_id"])
        try:
            listed = load()
        except NAME_ERRORS:
            if is_id:
                return [word]
            raise
        ids = listed["id"][listed["id"].eq(word) | listed["name"].eq(word)].tolist()
        if ids:
            return ids
        if is_id and may_be_removed:
            self.note_once(f"--{what} {word}: no {what} that is listed has this id; it may have been removed")
            return [word]
        near = _similar(word, listed["name"].dropna().unique().tolist())
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?" if near else f"`qoderdata {_LISTS[what]}` lists them"
        )
        raise click.UsageError(f"--{what} {word!r}: no {what} has this id or name; {hint}")

    def _note_equal_names(self, what: str, name: str | None, count: int) -> None:
        if name is not None and count > 1:
            self.note_once(f"--{what} {name}: {count:,} {what}s with this id or name are included")

    def note_once(self, text: str) -> None:
        """Print a note, unless it was printed before."""
        if text not in self._notes:
            self._notes.add(text)
            output.note(text)

    def deployments(self, filters: dict[str, Any] | None = None) -> pd.DataFrame:
        """Load deployments that pass filters, by default all, archived ones too."""
        filters = {"include_archived": True} if filters is None else filters
        with advice_on_archived(filters):
            return self.load_filtered(qd.load_deployments, filters, what="deployment")

    def runs(self, filters: dict[str, Any]) -> pd.DataFrame:
        """Load runs; where the time asked for has none, a warning says when the newest was."""
        return self.load_of(qd.load_runs, {"outcomes": self.outcomes, **filters})

    def snapshots(self, since: str | datetime) -> list[pd.DataFrame]:
        """Return the stored pauses and schedules, from the last snapshot before a time on."""
        account = {**self.account, "include_archived": True}
        found = []
        with contextlib.suppress(CacheError):
            found.append(qd.load_deployments(as_of=since, **account)[_SCHEDULES])
        try:
            return found + qd.load_snapshots(since, columns=_SCHEDULES, **account)
        except CacheError as error:
            output.note(f"warning: pauses and earlier schedules are not known: {use_option_names(str(error))}")
            return []

    def counted_deployments(self, filters: dict[str, Any], *, until: str | None = None) -> pd.DataFrame:
        """Load deployments; where the service gives no counters at all, count their runs before a time."""
        deployments = self.deployments(filters)
        if not lacks_counters(deployments):
            return deployments
        return fill_counters(deployments, self.runs({"until": until}))

    def runs_for_streaks(
        self, deployments: pd.DataFrame, runs: pd.DataFrame, *, until: str | None = None, streak: int = 3
    ) -> pd.DataFrame | None:
        """Return all runs before a time, as a streak may be older than the runs just loaded, which are `runs`.

        Return ``None`` if the service counts the failures of all deployments that are not archived. New runs are
        not requested again. The rows of `runs` stay as they are: `with_ends_of_stuck` may have found ends that are
        not stored. With `--outcomes events`, events are read only of deployments with fewer failures in a row than
        `streak` (or none) after a run that is assumed to have completed. There is no warning about unknown
        outcomes, since no rate is shown.
        """
        live = deployments[deployments["archived_at"].isna()]
        if live["stats_consecutive_failures"].notna().all():
            return None
        level = "runs" if self.outcomes == "runs" else "sessions"
        filters = {"outcomes": level, "refresh": False, "until": until}
        with warnings.catch_warnings(action="ignore", category=UnknownOutcomesWarning):
            found = self._runs_updated(filters, runs)
            may_read = self.outcomes == "events" and not self.offline
            doubtful = _ids_with_doubtful_streaks(deployments, found, streak) if may_read else []
            for id_ in doubtful:
                self.runs({**filters, "outcomes": "events", "deployment_id": id_})
            return self._runs_updated(filters, runs) if doubtful else found

    def _runs_updated(self, filters: dict[str, Any], updates: pd.DataFrame) -> pd.DataFrame:
        """Load runs, and take the rows of those that are in `updates` from there."""
        import pandas as pd  # noqa: PLC0415 - slow to import

        from qoderdata.frames import is_in  # noqa: PLC0415 - imports pandas

        runs = self.runs(filters)
        updates = updates[is_in(updates["id"], runs["id"])]
        return pd.concat([updates, runs[~is_in(runs["id"], updates["id"])]], ignore_index=True)

    def with_ends_of_stuck(
        self, runs: pd.DataFrame, deployments: pd.DataFrame | None, *, now: datetime | None = None
    ) -> pd.DataFrame:
        """Return the runs, after reading the events of those that are stuck according to their sessions.

        Such a run may have ended: its session runs again while a person continues it.
        """
        is_open = runs["status"].eq("running") & runs["status_from"].eq("session")
        if self.offline or self.outcomes not in {"auto", "events"} or not is_open.any():
            return runs
        import pandas as pd  # noqa: PLC0415 - slow to import

        from qoderdata.load.refresh import SingleReads  # noqa: PLC0415 - imports pyarrow
        from qoderdata.load.run_outcomes import OUTCOME_TYPES  # noqa: PLC0415 - likewise

        unusual = qd.unusual_runs(runs, deployments, now=now)
        stuck = runs[is_open & runs["id"].isin(unusual["run_id"][unusual["kind"].eq("stuck")])]
        read = functools.partial(qd.load_events, types=OUTCOME_TYPES, client=self.account["client"])
        found, singles = [], SingleReads()
        with progress_bar("sessions", of="events", progress=None) as bar:
            bar.total = len(stuck)
            for _, events in singles.each(stuck["session_id"], read):
                found += [] if events is None else [events]
                bar.update()
        singles.warn("session", "of runs that seem to be stuck could not be read")
        if not found:
            return runs
        events = pd.concat(found)
        stuck = stuck[stuck["session_id"].isin(events["session_id"])]
        resolved = qd.resolve_outcomes(stuck, events=events)
        ended = resolved[resolved["status_from"].eq("events")]
        with_ends = runs.copy()
        with_ends.loc[stuck.index, "status_from"] = "events"
        with_ends = pd.concat([with_ends.drop(ended.index), ended]).loc[runs.index]
        with_ends.attrs = runs.attrs
        return with_ends


def _ids_with_doubtful_streaks(deployments: pd.DataFrame, runs: pd.DataFrame, streak: int) -> list[str]:
    """Return the ids of active deployments whose streak may be `streak` long, if an assumed success is none."""
    active = deployments[deployments["status"].ne("paused") & deployments["archived_at"].isna()]
    runs = runs[runs["deployment_id"].isin(active["id"]) & runs["triggered_at"].notna()]
    successes = runs[runs["status"].eq("completed")].sort_values("triggered_at")
    last = successes.drop_duplicates("deployment_id", keep="last")
    assumed = last.loc[last["status_from"].eq("session"), "deployment_id"]
    is_short = qd.failure_streaks(runs)["current_streak"].reindex(assumed).between(0, streak - 1)
    return is_short.index[is_short].tolist()


def _similar(word: str, known: Sequence[str]) -> list[str]:
    """Return up to three texts that contain a word, else that are like it."""
    found = [text for text in known if word and word.casefold() in text.casefold()]
    return found[:3] or difflib.get_close_matches(word, known, n=3)


def _note_none_passes(what: str, filters: dict[str, Any], hint: str = "") -> None:
    output.note(f"no {what} passes the filters: {filter_words(filters)}{hint}")


def _matching_ids(deployments: pd.DataFrame, word: str | None, where: Sequence[str] | None) -> set[str]:
    """Return the ids of the deployments of a frame with this id or name, and these values of metadata."""
    chosen = deployments
    if word is not None:
        chosen = chosen[chosen["id"].eq(word) | chosen["name"].eq(word)]
    for condition in where or ():
        key, is_equal, value = _parse_condition(condition)
        chosen = chosen[_metadata_values(chosen, key).eq(value).eq(is_equal)]
    return set(chosen["id"])


def _why_none_has(lists: Sequence[pd.DataFrame], condition: str) -> str:
    """Return why no deployment of some lists has the key or the value of a condition; an empty text if one has."""
    key, _, value = _parse_condition(condition)
    keys = dict.fromkeys(name for listed in lists for name in metadata_keys(listed))
    if key not in keys:
        return f"no deployment has the key {key!r} in its metadata; there are: {', '.join(keys) or 'none'}"
    values = dict.fromkeys(text for listed in lists for text in _metadata_values(listed, key))
    if not value or value in values:
        return ""
    near = _similar(value, list(values))
    others = f"there are: {first_few(sorted(filter(None, values)))}"
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else others
    return f"no deployment has this value of {key!r}; {hint}"


def _parse_condition(text: str) -> tuple[str, bool, str]:
    """Parse ``key=value`` or ``key!=value``: the key, whether the value must be equal, and the value."""
    key, _, value = text.partition("=")
    return key.removesuffix("!"), not key.endswith("!"), value


def _metadata_values(deployments: pd.DataFrame, key: str) -> pd.Series[str]:
    """Return the value of a key of metadata of each deployment; empty for those without the key."""
    return qd.expand_metadata(deployments[["metadata"]], [key])[f"metadata_{key}"].fillna("")


def metadata_keys(deployments: pd.DataFrame) -> list[str]:
    """Return the keys of deployments' metadata."""
    expanded = qd.expand_metadata(deployments[["metadata"]])
    return [str(name).removeprefix("metadata_") for name in expanded.columns if name != "metadata"]


def lacks_counters(deployments: pd.DataFrame) -> bool:
    """Return whether the service gives no counters at all."""
    return not deployments.empty and not deployments["stats_total_runs"].notna().any()


def fill_counters(deployments: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Count runs as the library does, but let a run of unknown outcome end a streak, as in its `check`."""
    from qoderdata.check import failing_now  # noqa: PLC0415 - imports pandas

    counted = qd.fill_counters(deployments, runs)
    streaks = failing_now(runs, counted).set_index("deployment_id")["streak"].reindex(counted["id"], fill_value=0)
    column = counted["stats_consecutive_failures"]
    return counted.assign(stats_consecutive_failures=column.mask(column.notna(), streaks.array))


@contextlib.contextmanager
def advice_on_archived(filters: dict[str, Any]) -> Iterator[None]:
    """Add to a `CacheError` how to store the list with archived deployments, where that was asked for."""
    try:
        yield
    except CacheError as error:
        if filters["include_archived"] and not filters_given(filters):
            error.add_note("(with archived deployments: `qoderdata pull deployments`)")
        raise


_CONNECTION = (
    click.option(
        "--base-url",
        metavar="URL",
        help="Base URL of the service; else QODER_MANAGED_BASE_URL, else QODER_BASE_URL.",
    ),
    click.option("--workspace", metavar="ID", help="The workspace to read."),
)
_CACHE = (
    click.option(
        "--cache-dir",
        type=PATH,
        metavar="DIR",
        help="Folder where answers are stored; else QODERDATA_CACHE_DIR. QODERDATA_ACCOUNT names whose they are.",
    ),
    click.option(
        "--max-age",
        metavar="AGE",
        help="Maximum age of a stored answer (default 15min; agents and environments 1D).",
    ),
)
_OFFLINE = click.option("--offline", is_flag=True, help="Never ask the service: use what is stored, of any age.")
_REFRESH = (
    click.option("--refresh", is_flag=True, help="Always ask the service for what is new."),
    click.option(
        "--refresh-all",
        is_flag=True,
        help="Always read the list again, as far back as needed. What is older is read again when it is needed.",
    ),
)
_OUTCOMES = in_group(
    "Which runs",
    click.option(
        "--outcomes",
        type=click.Choice(["auto", "runs", "sessions", "events"]),
        default="auto",
        help="What shows how a run ended: its record, its session, or the session's events (default auto: records "
        "where they have a status, else sessions).",
    ),
)
_TOKEN = "token: QODER_ACCESS_TOKEN, else QODER_PAT"  # noqa: S105 - the names of variables
_STORED = f"Service and cache ({_TOKEN})"
#: Adds the service and the cache, as `service`.
service_options = gather("service", Service, *_CONNECTION, *_CACHE, _OFFLINE, *_REFRESH, group=_STORED)
#: Adds them with `--outcomes`, for a command that loads runs, as `service`.
run_service_options = gather(
    "service", Service, _OUTCOMES, *_CONNECTION, *_CACHE, _OFFLINE, *_REFRESH, group=_STORED
)
_dated_service = functools.partial(Service, shows_age=True)
#: Adds them with `--outcomes`, for a command that loads runs and says how old they are, as `service`.
dated_service_options = gather(
    "service", _dated_service, _OUTCOMES, *_CONNECTION, *_CACHE, _OFFLINE, *_REFRESH, group=_STORED
)
#: Adds them without `--offline`, for a command that always asks the service, as `service`.
online_service_options = gather("service", Service, _OUTCOMES, *_CONNECTION, *_CACHE, *_REFRESH, group=_STORED)
#: Adds them without `--refresh`, for a command that asks the service again and again, as `service`.
live_service_options = gather("service", _dated_service, _OUTCOMES, *_CONNECTION, *_CACHE, _OFFLINE, group=_STORED)
