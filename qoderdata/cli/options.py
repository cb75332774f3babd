"""Options that several commands share, and what a command does with them.

A decorator here adds a group of options to a command and gives their values to it as one argument.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import re
import shlex
import signal
import stat
import zoneinfo
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import qoderdata as qd
from qoderdata import arguments
from qoderdata.cli import output
from qoderdata.cli.output import Output
from qoderdata.formatting import format_duration, format_time, is_or_are, one_line
from qoderdata.time_math import DAY_MICROS, MICROSECOND, earlier, from_micros, list_windows, to_micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pandas as pd

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_ENDINGS = (".csv", ".csv.gz", ".parquet")
#: The name of a file or folder. The shell completes it; other code checks whether it can be used.
PATH = click.Path(readable=False)
#: The most characters of a command's first sentence in the list of commands, which is wrapped.
_LONGEST_SENTENCE = 100
#: How many months `--freq 1M` shows without `--since`.
_DEFAULT_MONTHS = 6
#: The exit code of a command that found what it was asked to look for.
FOUND = 1
#: Parts of messages that are written for callers in Python, and what a command says instead.
_COMMAND_TEXTS = {
    "refresh='all'": "--refresh-all",
    "refresh=True": "--refresh",
    "offline=True": "--offline",
    "without offline": "without --offline",
    ", set QODER_ACCESS_TOKEN": " and set QODER_ACCESS_TOKEN",
    " and make a new Client": "",
    ", or give Client a larger min_interval": "",
    "check workspace_id": "check --workspace",
    "the argument base_url": "--base-url",
    "or cache_dir to": "or --cache-dir to",
    "another cache_dir": "another --cache-dir",
    "the base URL (QODER": "the base URL (--base-url, else QODER",
    "; rename the column to group by it": " and cannot be a group",
    ", or `from qoderdata.sandbox import Sandbox`": "",
    " and restart Python, or give other names by labels={id: name}": "",
}
#: What `use_option_names` looks for: quoted text, which is not changed; the texts above; a call of `load_runs`; an
#: exact time; and a parameter.
_PYTHON = re.compile(
    "|".join(
        [
            r"""(?<!\w)(?:'[^']*'|"[^"]*")""",
            *map(re.escape, _COMMAND_TEXTS),
            r"load_runs\(outcomes='(?P<outcomes>\w+)'\)",
            r"(?<=was triggered at )\S+",
            r"(?<![\w/?&-])(?P<parameter>[a-z_]+)=",
        ]
    )
)
#: The library's name of a parameter, where the command has another name for it.
_ALIASES = {
    "load": "freq", "since": "as_of", "workspace": "workspace_id", "id": "run_id", "agent": "agent_id",
}  # fmt: skip


class Command(click.Command):
    """A command whose help has its options in groups and ends with an example."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:  # noqa: ANN401 - as click has it
        super().__init__(*args, **kwargs)
        self.example = example
        self.params.append(verbose_option())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words after the command; click forgets which command an error is about, so add it."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of each group below its title."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and record[1]:
                groups.setdefault(getattr(param, "group", "Options"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example, unwrapped, so that it can be pasted."""
        formatter.write(f"\nExample:\n  {self.example}\n")


class CommandGroup(click.Group):
    """A group of commands in the order in which they were added, with `--verbose`."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as click has it
        super().__init__(*args, **kwargs)
        self.params.append(verbose_option())

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, each with the whole first sentence of its help; click would cut it."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, one.get_short_help_str(_LONGEST_SENTENCE)) for name, one in self.commands.items()]
            )


def verbose_option() -> click.Option:
    """Return the option `--verbose`, which may be given before or after the command."""

    def be_verbose(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's way
        if value:
            logging.getLogger("qoderdata").setLevel(logging.INFO)

    return click.Option(
        ["--verbose"], is_flag=True, expose_value=False, callback=be_verbose, help="Log each pull and retry."
    )


def command(name: str, *, example: str) -> Callable[[Callable[..., Any]], Command]:
    """Return the decorator that makes a function a command; its docstring is the help."""
    return click.command(name, cls=Command, example=example)


def gather(argument: str, make: Callable[..., Any], *options: Decorator, group: str) -> Decorator:
    """Return the decorator that adds options to a command, and passes `make` of their values as one argument."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def gathered(**values: Any) -> Any:  # noqa: ANN401 - the command's own result
            given = {name: values.pop(name) for name in names}
            return function(**values, **{argument: make(**given)})

        # Click lists the options that were added last first.
        names = [_add(option, gathered, group) for option in reversed(options)][::-1]
        return gathered

    return decorate


def in_group(title: str, option: Decorator) -> Decorator:
    """Return the decorator that adds an option to this group of the help; `gather` does not change the group."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        _add(option, function, title)
        return function

    return decorate


def _add(option: Decorator, function: Any, group: str) -> str:  # noqa: ANN401 - click adds an attribute
    """Add an option, to a group of the help unless it is in one, and return the name of its value."""
    option(function)
    param = function.__click_params__[-1]
    vars(param).setdefault("group", group)
    return str(param.name)


def use_option_names(text: str, command: click.Command | None = None, words: Sequence[str] | None = None) -> str:
    """Return a message of the library in the words of a command: its options instead of Python's parameters.

    `command`: ``None`` is the command that runs.
    `words` is the command line; with it, the message says which values are defaults.
    """
    command = command or click.get_current_context().command
    params = {param.name or "": param for param in command.params}
    params = {_ALIASES[name]: param for name, param in params.items() if name in _ALIASES} | params

    def spell(match: re.Match[str]) -> str:
        found = match[0]
        if match["outcomes"]:
            return f"--outcomes {match['outcomes']}"
        if match["parameter"] in params:
            param = params[match["parameter"]]
            option = param.opts[0] if isinstance(param, click.Option) else str(param.metavar).strip("[]")
            is_default = words is not None and not any(word.partition("=")[0] == option for word in words)
            is_default = is_default and text.startswith(repr(param.default), match.end())
            return f"the default {option} " if is_default else f"{option} "
        if found[0].isdigit():
            return format_time(datetime.fromisoformat(found))
        return _COMMAND_TEXTS.get(found, found)

    return _PYTHON.sub(spell, text)


def use_option_names_in_findings(findings: pd.DataFrame, command: click.Command | None = None) -> pd.DataFrame:
    """Return what `check` finds, with the advice in the words of a command, as `use_option_names` returns it."""
    details = findings["detail"]
    has_advice = findings["kind"] == "incomplete_data"  # the others have names, which stay as they are
    advice = details.map(lambda text: use_option_names(text, command))
    return findings.assign(detail=details.where(~has_advice, advice))


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """End the command by SIGTERM as by Ctrl-C; by SIGINT also in a background job, where a shell ignores it."""
    ending = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(one, signal.default_int_handler) for one in ending]
    try:
        yield
    finally:
        for one, handler in zip(ending, before, strict=True):
            signal.signal(one, handler or signal.SIG_DFL)


# -- filters -----------------------------------------------------------------------------------------------------


def deployment_filters(*, archived: bool = True) -> Decorator:
    """Add the filters of deployments, as `filters`; `archived`: with `--include-archived`."""
    options = [
        *deployment_options(""),
        click.option(
            "--status", type=click.Choice(["active", "paused"]), help="Only deployments with this status."
        ),
        click.option("--agent", metavar="ID|NAME", help="Only deployments that start this agent."),
        click.option(
            "--created-since",
            metavar="TIME|AGE",
            help="Only those created then or later, such as 2026-06-01T00:00Z.",
        ),
        click.option("--created-until", metavar="TIME|AGE", help="Only those created before then."),
    ]
    if archived:
        options.append(click.option("--include-archived", is_flag=True, help="Include archived deployments."))

    def filters(agent: str | None, *, include_archived: bool = True, **values: str | None) -> dict[str, Any]:
        return {"agent_id": agent, "include_archived": include_archived, **values}

    return gather("filters", filters, *options, group="Which deployments")


def filters_given(filters: dict[str, Any]) -> dict[str, Any]:
    """Return the filters that were given; `include_archived` excludes no rows."""
    return {name: value for name, value in filters.items() if name != "include_archived" and value is not None}


def filter_texts(filters: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the option, without its hyphens, and the text of each filter that was given."""
    return [
        (name.removesuffix("_id").replace("_", "-"), text)
        for name, value in filters_given(filters).items()
        for text in (value if isinstance(value, tuple) else [value])
    ]


def filter_words(filters: dict[str, Any]) -> str:
    """Return the filters that were given, as in a command line; an empty text if there are none."""
    return " ".join(f"--{option} {shlex.quote(text)}" for option, text in filter_texts(filters))


def filter_notes(filters: dict[str, Any]) -> list[str]:
    """Return a note that says which deployments a table is about; none if it is about all."""
    words = filter_words(filters)
    return [f"only deployments that pass {one_line(words)}"] if words else []


def empty_table_text(empty: str, deployments: pd.DataFrame, filters: dict[str, Any]) -> str:
    """Return the text for an empty table; none where `Service` has noted that nothing passes the filters."""
    if deployments.empty:
        hint = "" if filters["include_archived"] else "; archived ones are left out (--include-archived)"
        return "" if filters_given(filters) else f"there are no deployments{hint}"
    return "; ".join([empty, *filter_notes(filters)])


def nothing_fires(
    period: str,
    deployments: pd.DataFrame,
    filters: dict[str, Any],
    *,
    include_paused: bool = False,
    advice: str = "",
) -> str:
    """Return the text for a table of triggers that is empty; `advice` follows if all deployments are paused."""
    active = deployments if include_paused else deployments[deployments["status"].ne("paused")]
    if len(deployments) and active.empty:
        return f"paused deployments do not fire{advice}"
    reason = "" if active["schedule_expression"].notna().any() else ": no active deployment has a schedule"
    return empty_table_text(f"nothing fires {period}{reason}", deployments, filters)


def window(
    *, since: str | None, what: str, may_be_all: bool = True, of: str | None = None, group: str = "Which time"
) -> Decorator:
    """Add `--since` and `--until`, as `window`; `what` is the verb of the help texts, such as ``"Created"``.

    `of`: also add `--deployment` and `--where`, for such a list as ``"runs"``.
    """
    kinds = "a time with its zone, an age, or all" if may_be_all else "a time with its zone, or an age"
    meaning = f"{what} then or later: {kinds} (default {since or 'all'})."
    return gather(
        "window",
        lambda since, **others: {"since": None if since == "all" else since, **others},
        *([] if of is None else deployment_options(f"{of} of ")),
        click.option("--since", default=since, metavar="TIME|AGE", help=meaning),
        click.option("--until", metavar="TIME|AGE", help=f"{what} before then (default: now)."),
        group=group,
    )


def deployment_options(rows: str) -> list[Decorator]:
    """Return the decorators that add `--deployment` and `--where`, as `Service` reads them.

    `rows`: what the command shows of deployments, such as ``"runs of "``.
    """
    values = (
        "deployments whose metadata has this value: team=data; has another or none: team!=data; has none: team= "
        "(may be given several times)"
    )
    return [
        click.option("--deployment", metavar="ID|NAME", help=f"Only {rows}this deployment."),
        click.option(
            "--where", metavar="KEY=VALUE", multiple=True, callback=_conditions, help=f"Only {rows}{values}."
        ),
    ]


def _conditions(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    """Check that each text has a key and a value."""
    for value in values:
        if not value.partition("=")[0].removesuffix("!") or "=" not in value:
            raise click.BadParameter(f"{value!r} has no key and value; write KEY=VALUE, such as team=data")
    return values or None


def run_window(*, since: str | None = "30D", of: str | None = "runs") -> Decorator:
    """Add the time in which runs were triggered, `--deployment` and `--where`, as `window`."""
    return window(since=since, what="Triggered", of=of, group="Which runs")


def with_default_months(window: dict[str, Any], freq: str | None, tz: str) -> dict[str, Any]:
    """Return `window` with whole months before its end, if `freq` is a month and `--since` was not given."""
    if freq is None or arguments.parse_window(freq) is not None or _is_given("--since"):
        return window
    now = datetime.now(UTC)
    end = min(parse_bounds(window, now)["until"] or now, now)
    with contextlib.suppress(ValueError, OverflowError):  # before the year 1
        last = earlier(end, MICROSECOND).astimezone(zoneinfo.ZoneInfo(tz))
        year, month = divmod(12 * last.year + last.month - _DEFAULT_MONTHS, 12)
        begin = datetime(year, month + 1, 1, tzinfo=last.tzinfo)
        return {**window, "since": begin.isoformat()}
    return window


def describe_window(window: dict[str, Any], what: str, tz: str) -> list[str]:
    """Return a note that says what a table is about; none if it is about all. `what`: ``"runs triggered"``.

    Call this before loading, which may take minutes: ages are counted back from the time of this call.
    """
    words = {"since": "since", "until": "before"}
    times = parse_bounds(window, datetime.now(UTC))
    bounds = [f"{words[name]} {format_time(time, tz)}" for name, time in times.items() if time is not None]
    which = [*filter(None, [window.get("deployment")]), *(window.get("where") or ())]
    if not bounds and not which:
        return []
    noun, _, verb = what.rpartition(" ")
    of = f" of {one_line(' and '.join(which))}" if which else ""
    when = f" {verb} {' and '.join(bounds)}" if bounds else ""
    return [f"{noun}{of}{when}"]


def bounds_of(window: dict[str, Any], rows: pd.DataFrame) -> tuple[datetime | None, datetime]:
    """Return the time from which `window` is, ``None`` for all, and that before which the loaded rows can be."""
    from qoderdata.frames import fetched_at  # noqa: PLC0415 - imports pandas

    now = datetime.now(UTC)
    times = parse_bounds(window, now)
    return times["since"], min(times["until"] or now, now, fetched_at(rows) or now)


def parse_bounds(window: dict[str, Any], now: datetime) -> dict[str, datetime | None]:
    """Return the bounds of a window as times; ``None`` for one that was not given."""
    return {
        name: None if window[name] is None else arguments.parse_bound(window[name], now=now, name=name)
        for name in ("since", "until")
    }


def cut_windows(frame: pd.DataFrame, freq: str | None, since: datetime | None, until: datetime) -> list[str]:
    """Return a note that says whether the first or the last window reaches beyond the time that was asked for."""
    if freq is None:
        return []
    windows = frame.reset_index()["window"].dropna()
    if windows.empty:
        return []
    is_cut = {
        "first": since is not None and windows.min() < since,
        "last": _end_of_window(windows.max(), freq) > until,
    }
    cut = [name for name, is_so in is_cut.items() if is_so]
    return [f"the {' and the '.join(cut)} window {is_or_are(len(cut))} not whole"] if cut else []


def _end_of_window(begin: pd.Timestamp, freq: str) -> datetime:
    """Return the end of the window that begins at this time; `list_windows` knows the changes of clocks."""
    length = arguments.parse_window(freq)
    is_by_wall_clock = length is None or length >= DAY_MICROS
    first = to_micros(begin.replace(tzinfo=UTC) if is_by_wall_clock else begin)
    last = first + (length or 31 * DAY_MICROS)
    try:
        return from_micros(list(list_windows(first, last, length, begin.tz or UTC, column="window"))[1])
    except ValueError:  # after the year 9999
        return datetime.max.replace(tzinfo=UTC)


def describe_horizon(horizon: str, start: str | None, tz: str) -> str:
    """Return words for the time ahead that a table is about, such as ``"within the next 24 h"``."""
    length = format_duration(arguments.parse_span(horizon, name="horizon"))
    if start is None:
        return f"within the next {length}"
    return f"within {length} after {format_time(arguments.parse_instant(start, name='start'), tz)}"


def nothing_in(period: Sequence[str], what: str) -> str:
    """Return the text for an empty table of a time that `describe_window` describes; `what` is like ``"runs"``."""
    return f"there are no {period[0] if period else what}"


# -- output ------------------------------------------------------------------------------------------------------


def _output(*, top: int | None, tz: str = "UTC", **forms: bool) -> Output:
    chosen = [form for form, is_given in forms.items() if is_given]
    if len(chosen) > 1:
        raise click.UsageError(f"give one of {' and '.join(f'--{form}' for form in chosen)}")
    return Output(chosen[0] if chosen else "text", top, tz)


def output_form(*, times: str | None = "of the times shown") -> Decorator:
    """Add the options of the output, as `result`; `times` is a part of the help of `--tz`, ``None``: no `--tz`."""
    return gather(
        "result",
        _output,
        *([] if times is None else [tz_option(times)]),
        number_option(
            "--top", f"Print at most N rows (default {output.DEFAULT_TOP}; --csv and --json: all).", least=1
        ),
        click.option("--csv", is_flag=True, help="Print as CSV."),
        click.option("--json", is_flag=True, help="Print as JSON."),
        click.option("--markdown", is_flag=True, help="Print as a Markdown table."),
        group="Output",
    )


def tz_option(times: str) -> Decorator:
    """Return the decorator that adds `--tz`; `times` says of which times it is the zone."""
    option = checked_option(
        "--tz",
        arguments.parse_zone,
        metavar="ZONE",
        default="UTC",
        help=f"The IANA zone {times} (default UTC).",
        shell_complete=lambda _ctx, _param, start: sorted(
            zone for zone in zoneinfo.available_timezones() if zone.startswith(start)
        ),
    )
    return in_group("Options", option)


def output_path(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Path | None:
    """Read the name of a file, and check that it can be written, before anything is loaded."""
    if value is None:
        return None
    if not arguments.is_unicode(value):
        raise click.BadParameter(f"{value!r} is no text in the encoding of this terminal; give another name")
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise click.BadParameter(f"{value!r} is below the home folder of a user who is not known") from None
    folder = Path(os.path.realpath(path)).parent
    if not path.parent.is_dir():
        raise click.BadParameter(f"there is no such folder: {str(path.parent)!r}")
    if path.is_dir():
        raise click.BadParameter(f"this is a folder: {value!r}; give the name of a file")
    if path.is_file() and not path.stat().st_mode & stat.S_IWUSR:
        raise click.BadParameter(f"the file {value!r} is read-only")
    # A file is replaced by a new one beside it; a device is written to.
    if (path.is_file() or not path.exists()) and not os.access(folder, os.W_OK):
        raise click.BadParameter(f"no file can be written to the folder {str(folder)!r}")
    return path


def table_path(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """Read the name of a file to write as `output_path` does; its ending chooses the format."""
    if value is not None and not value.lower().endswith(_ENDINGS):
        raise click.BadParameter(f"{value!r} must end with {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}")
    return output_path(ctx, param, value)


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame in the format that the file's ending names."""
    (qd.export_parquet if path.suffix.lower() == _ENDINGS[-1] else qd.export_csv)(frame, path)


def checked_option(name: str, check: Callable[[Any], object], **settings: Any) -> Decorator:  # noqa: ANN401 - click's
    """Return the decorator that adds an option whose value is checked before anything is loaded."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:  # noqa: ANN401 - as above
        if value is not None:
            check(value)
        return value

    return click.option(name, callback=callback, **settings)


def window_option(name: str, meaning: str) -> Decorator:
    """Return the decorator that adds an option with the length of windows of time."""
    return checked_option(name, arguments.parse_window, metavar="SPAN", help=meaning)


#: Adds `--freq`.
freq_option = window_option(
    "--freq",
    "Print one row for each window of time, such as 1D, 1W, or 1M for months (six without --since); of too many, "
    "the newest.",
)


def time_option(name: str, meaning: str) -> Decorator:
    """Return the decorator that adds an option with a time."""
    return checked_option(
        name, lambda text: arguments.parse_instant(text, name=parameter_of(name)), metavar="TIME", help=meaning
    )


class NumberRange(click.FloatRange):
    """A number in a range; nan is refused, which click accepts for every range."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Read a number."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class WholeNumberRange(click.IntRange):
    """A whole number in a range."""

    name = "whole number"


def fail_over_option(meaning: str) -> Decorator:
    """Return the decorator that adds `--fail-over`."""
    return click.option("--fail-over", type=NumberRange(0, 1), metavar="RATE", help=meaning)


def number_option(name: str, meaning: str, *, least: int, default: int | None = None) -> Decorator:
    """Return the decorator that adds an option with a whole number."""
    return click.option(name, type=WholeNumberRange(min=least), default=default, metavar="N", help=meaning)


def share_option(name: str, meaning: str, *, default: float, most: float | None = None) -> Decorator:
    """Return the decorator that adds an option with a share."""
    return click.option(name, type=NumberRange(0, most), default=default, metavar="SHARE", help=meaning)


def span_option(name: str, meaning: str, *, default: str | None = None, may_be_zero: bool = False) -> Decorator:
    """Return the decorator that adds an option with a length of time."""

    def check(text: str) -> None:
        if not arguments.parse_span(text, name=parameter_of(name)) and not may_be_zero:
            raise click.UsageError(f"{name} {text} must be longer than 0")

    return checked_option(name, check, default=default, metavar="SPAN", help=meaning)


def parameter_of(option: str) -> str:
    """Return the name of the parameter that has an option's value."""
    return option.lstrip("-").replace("-", "_")


def refuse_without_effect(names: Iterable[str], reason: str) -> None:
    """Refuse options that were given on the command line and have no effect there."""
    for name in names:
        if _is_given(name):
            raise click.UsageError(f"{name} has no effect {reason}")


def _is_given(option: str) -> bool:
    """Return whether an option is on the command line."""
    source = click.get_current_context().get_parameter_source(parameter_of(option))
    return source is click.core.ParameterSource.COMMANDLINE
