"""Write a report as one HTML file: read the frames, make the parts, say what limits them, fill the template."""

from __future__ import annotations

import io
import re
import warnings
from functools import cache
from gettext import GNUTranslations, NullTranslations
from importlib import resources
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup, escape

from qoderdata import arguments, files
from qoderdata.errors import DataQualityWarning, UnknownOutcomesWarning, warn
from qoderdata.formatting import format_count, format_duration, format_time, one_line
from qoderdata.frames import STALE, fetched_at
from qoderdata.report.data import WEEK, ReportData, span_text
from qoderdata.report.figures import headline, tiles
from qoderdata.report.folded_sections import about_data, make_folded_sections
from qoderdata.report.layout import join_sentences
from qoderdata.report.sections import make_sections
from qoderdata.translation import gettext as _
from qoderdata.translation import ngettext, translated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jinja2 import Environment

#: The languages, each with the tag that a page of it has.
_TAGS = {"en": "en", "zh": "zh-CN"}
#: A day, and perhaps a time of it, as `format_time` writes them; a percentage; and an option of the command.
_UNBROKEN = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d (UTC|[+-]\d\d:\d\d))?|\d[\d.]*(–\d[\d.]*)? %|--[a-z]{2,15}\b")


def check_ending(path: str | Path) -> None:
    """Raise `ValueError` if the name of a report's file ends as another format does."""
    files.check_ending(path, (".html", ".htm"), what="a report is an HTML page")


def write_report(
    deployments: pd.DataFrame,
    path: str | Path,
    *,
    runs: pd.DataFrame | None = None,
    sessions: pd.DataFrame | None = None,
    all_runs: pd.DataFrame | None = None,
    snapshots: Sequence[pd.DataFrame] | None = None,
    by: str | None = None,
    start: arguments.Instant | None = None,
    horizon: arguments.Span = "24h",
    tz: str = "UTC",
    labels: Mapping[str, str] | None = None,
    lang: str = "en",
    title: str | None = None,
) -> None:
    """Write one self-contained HTML page: whether runs fail more than in the week before, and what to do.

    What a manager reads in a minute is at the top: a headline, six figures with their changes, a picture of the
    last 30 days, the worst findings of `check`, what changed, what it costs, and failure rates by team or agent.
    Everything else is folded. The last 7 days are compared with the 7 days before.

    The page is one file, with its pictures and without a script. It can be read on a phone, on paper (a folded
    part is printed if the reader has opened it) and in dark mode. Texts from the service are always shown as text.
    ``extra``, and so the values of ``environment_variables``, is not shown; the page only says that it changed.

    Parameters
    ----------
    deployments
        A deployments frame; give the archived ones too, so that they can be counted. If it has no counters, as
        in the newest edition, they are counted in `all_runs`, as `qoderdata.fill_counters` does. Agents are shown
        by name if `qoderdata.with_names` has added ``agent_name``.
    path
        The HTML file, ``.html`` or ``.htm``. An old one is replaced when the new one is complete.
    runs
        The runs of these deployments. Give all of a period, such as ``load_runs(since="30D")``: what
        was left out counts as missed. The changes need all of the last 14 days. ``None``: the page has the
        service's counters instead, and no changes.
    sessions
        Their sessions, for what they cost and what the next 30 days will cost, as `qoderdata.cost_forecast` says.
        ``None`` leaves this out.
    all_runs
        All runs of these deployments, for failures in a row and for counters; ``None``: `runs`.
    snapshots
        Earlier deployments frames with ``attrs["fetched_at"]``, as `load_snapshots` returns them. They show
        what changed in the last week, and make missed triggers certain. ``None``: the page says that there is no
        history.
    by
        What failure rates are shown by: ``"agent"``, ``"environment"``, a column, or a key of the deployments'
        metadata; ``"metadata_team"`` is the key ``team`` also if a column has that name.
        ``None``: the key ``team`` if a deployment has it, else the agent.
    start
        The time that the report is about, with its zone; ``None`` is now. Runs, sessions and deployments from
        then on do not count; names, states and the service's counters are those of the frames. The same frames and
        the same `start` give the same file, byte for byte.
    horizon
        How far ahead to show what fires: anything `pandas.Timedelta` takes. If more than two million triggers
        would have to be listed, the page shows a shorter time, and says so.
    tz
        The IANA zone that times are shown in.
    labels
        Names to show by id of deployment or agent, instead of the deployments' own.
    lang
        The language of the page: ``"en"``, or ``"zh"`` for simplified Chinese. Names and error messages stay as
        they are.
    title
        What the page is about, such as ``"Team data"``; ``None``: scheduled agents on Qoder Cloud.

    Raises
    ------
    FrameTypeError
        An argument is no frame, or a column has lost its dtype.
    MissingColumnError
        A frame is not one of deployments, of runs, or of sessions.
    TypeError
        `by` is not text.
    ValueError
        `by`, `start`, `horizon`, `tz` or `lang` is not one, the file's name ends in another format, `all_runs` are
        given without `runs`, or a snapshot does not say when it was read.
    OSError
        The folder is not there or cannot be written.

    Warns
    -----
    DataQualityWarning
        Some of the data cannot be used, such as a cron text; the page says so too.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import qoderdata as qd
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     qd.write_report(qd.flatten_deployments([]), f"{folder}/report.html", start="2026-06-15T00:00Z")
    ...     print(Path(f"{folder}/report.html").read_text().splitlines()[0])
    <!DOCTYPE html>
    """
    check_ending(path)
    at = pd.Timestamp.now("UTC").ceil("s") if start is None else arguments.parse_instant(start, name="start")
    with warnings.catch_warnings(record=True) as caught, translated(_translations(lang)):
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", UnknownOutcomesWarning)  # the page says it
        data = ReportData.read(
            deployments,
            runs,
            sessions,
            snapshots,
            all_runs=all_runs,
            by=by,
            start=at,
            horizon=arguments.parse_span(horizon, name="horizon"),
            tz=arguments.parse_zone(tz).key,
            labels=arguments.check_labels(labels),
        )
        html = _render(data, caught, lang, title)
    for message, category in dict.fromkeys((str(one.message), one.category) for one in caught):
        warn(message, category)
    files.replace(path, lambda sink: sink.write(html.encode()))


@cache
def _translations(lang: str) -> NullTranslations:
    """Read the catalogue of a language; English needs none."""
    if lang not in _TAGS:
        raise ValueError(f"lang={lang!r}: there is no such language; there are {' and '.join(map(repr, _TAGS))}")
    if lang == "en":
        return NullTranslations()
    from babel.messages import mofile, pofile  # noqa: PLC0415 - only for a page in another language

    compiled = io.BytesIO()
    mofile.write_mo(compiled, pofile.read_po(io.StringIO(_resource(f"{lang}.po"))))
    compiled.seek(0)
    return GNUTranslations(compiled)


def default_title(lang: str, filters: str = "") -> str:
    """Return the title of a page that was given none; it names the filters, if there are any."""
    with translated(_translations(lang)):
        title = _("Scheduled agents on Qoder Cloud")
        return f"{title}{_(': ')}{filters}" if filters else title


def _render(data: ReportData, caught: list[warnings.WarningMessage], lang: str, title: str | None) -> str:
    css = _resource("report.css")
    details = make_folded_sections(data)
    first = headline(data)
    values = {
        "lang": _TAGS[lang],
        "title": (title or "").strip() or default_title(lang),
        "css": Markup(css),  # noqa: S704 - our own file
        "css_digest": files.policy_digest(css),
        "start": data.start,
        "tz": data.tz,
        "cautions": cautions(data),
        "headline": first,
        "about": join_sentences(first.about, _age(data)),
        "tiles": tiles(data),
        "sections": make_sections(data),
    }
    found = [str(warning.message) for warning in caught if issubclass(warning.category, DataQualityWarning)]
    details.append(about_data(data, list(dict.fromkeys(found))))
    return environment().get_template("report.html.j2").render(values, details=details).lstrip() + "\n"


def _age(data: ReportData) -> str:
    age = data.age_of(data.deployments)
    return _("The data was {age}.", age=age) if age else _("When the data was fetched is not known.")


def cautions(data: ReportData) -> list[str]:
    """Return warnings about old, incomplete or assumed data."""
    found = []
    names = {"deployments": _("deployments"), "runs": _("runs"), "sessions": _("sessions")}
    for name, frame in data.frames.items():
        if frame.attrs.get("complete") is False:
            found.append(_("The {rows} are not complete. Numbers here can be too small.", rows=names[name]))
        at = fetched_at(frame)
        if at is not None and data.start - at > STALE:
            found.append(_("The {rows} are {age} old.", rows=names[name], age=format_duration(data.start - at)))
    if data.longest_span < max(data.horizon, WEEK):
        found.append(
            _(
                "The schedules fire up to {count} times a day, too often to list. This page looks {span} ahead "
                "and, for missed triggers, as far back.",
                count=f"{data.triggers_a_day:,}",
                span=span_text(data.longest_span),
            )
        )
    if data.assumed and data.runs is not None:
        facts = {"runs": format_count(len(data.runs)), "since": data.time_text(data.runs["triggered_at"].min())}
        if data.runs.attrs.get("outcomes") == "events":
            caution = ngettext(
                "Of all runs given ({runs}, since {since}), {count} counts as completed because its session is "
                "idle or archived; its events show no end.",
                "Of all runs given ({runs}, since {since}), {count} count as completed because their sessions are "
                "idle or archived; their events show no end.",
                data.assumed,
                **facts,
            )
        else:
            caution = ngettext(
                "Of all runs given ({runs}, since {since}), {count} counts as completed because its session is "
                "idle or archived. Failures inside sessions may be among them; load_runs(outcomes='events') or "
                "--outcomes events tells which.",
                "Of all runs given ({runs}, since {since}), {count} count as completed because their sessions are "
                "idle or archived. Failures inside sessions may be among them; load_runs(outcomes='events') or "
                "--outcomes events tells which.",
                data.assumed,
                **facts,
            )
        found.append(caution)
    return found


def _resource(name: str) -> str:
    return resources.files(__package__ or "").joinpath(name).read_text(encoding="utf-8")


@cache
def environment() -> Environment:
    """Return the template environment: each value is cleaned, then escaped; a name without a value is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - only for a report

    def clean(value: Any) -> str:  # noqa: ANN401 - a text or a number; what is undefined raises here
        return value if isinstance(value, Markup) else one_line(value)

    made = Environment(
        loader=PackageLoader("qoderdata", "report"), autoescape=True, undefined=StrictUndefined, finalize=clean,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    # Markup, so that separators among the messages keep their blanks; the messages are our own, and have no
    # fields.
    made.globals["_"] = lambda message: Markup(_(message))  # noqa: S704
    made.globals["join_sentences"] = lambda *parts: Markup(join_sentences(*map(escape, parts)))  # noqa: S704 - escaped
    made.filters.update(keep_unbroken=_keep_unbroken, format_time=format_time)
    return made


def _keep_unbroken(text: str) -> Markup:
    """Clean and escape a text, and keep each of its times, percentages and options in one line."""
    return Markup(_UNBROKEN.sub(r'<span class="unbroken">\g<0></span>', str(escape(one_line(text)))))  # noqa: S704 - escaped
