"""Draw the linked views with Altair; imported when a chart is made, since Altair is an extra.

A click on an agent or a deployment, the text to find, the first row and the stretch of time that is zoomed to are
parameters of the chart. Each view filters its rows by them. No text from the service is part of an expression:
expressions compare numbers, and look for what the reader types.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import altair as alt
import pandas as pd
import vl_convert
from PIL import Image

from qoderdata.explore.chart_tables import DAY_MS, OUTCOMES, first_window, to_json
from qoderdata.formatting import MISSING
from qoderdata.plots.axes import BLUE, GREY, ORANGE, PALE, PURPLE, SKY, VERMILLION
from qoderdata.plots.timeline_plots import OUTCOME_WORDS

if TYPE_CHECKING:
    from qoderdata.explore.chart_tables import ChartTables

#: What JupyterLab 4 and VS Code show by themselves, without asking another host.
_MIME = "application/vnd.vega.v5+json"
_LITE_OF_VEGA_5 = "5.21"
_EMBED_OPTIONS = {"actions": {"export": True, "source": False, "compiled": False, "editor": False}}

#: The style of axis labels, which names share.
_NAME_STYLE = "guide-label"

_HOUR_MS = 3_600_000
#: The most days for which a bar of the overview is an hour, and for which it is a day; beyond, it is a week.
_HOURLY_DAYS, _DAILY_DAYS = 4, 400
_ROWS, _AGENT_ROWS, _ROW_HEIGHT = 30, 12, 17
_LEFT, _RIGHT, _RATES_FROM = 320, 520, 190
_OVERVIEW_HEIGHT, _CALENDAR_HEIGHT = 56, 118
#: The room for the labels of an axis, the same in all views that stand below one another.
_EXTENT: dict[str, Any] = {"minExtent": 36, "maxExtent": 36}
#: About how many marks a time axis has. Of more, Vega leaves out every second label, often all those with a date.
_TICKS = 8
#: How a time axis writes the first instant of a year, a month and so on.
_TIME_FORMAT = {
    "year": "%Y", "quarter": "%b", "month": "%b", "week": "%-d %b", "date": "%-d %b", "hours": "%H:%M",
    "minutes": "%H:%M", "seconds": "%H:%M:%S",
}  # fmt: skip
_TIME_AXIS: dict[str, Any] = {"tickCount": _TICKS, "format": _TIME_FORMAT}

#: Color and shape of each outcome, in the order of `OUTCOMES`.
_LOOKS = {
    "completed": (PALE, "circle"),
    "assumed": (GREY, "square"),
    "skipped": (GREY, "cross"),
    "cancelled": (PURPLE, "square"),
    "unknown": ("#777777", "triangle-down"),
    "running": (SKY, "triangle-right"),
    "waiting": (ORANGE, "triangle-up"),
    "failed": (VERMILLION, "diamond"),
}
_COUNT_WORDS = {"assumed": "of these assumed"}
#: Scales that each view has for itself.
_APART: dict[str, Any] = {"color": "independent", "shape": "independent", "opacity": "independent"}
_HINT = (
    "Click an agent or a deployment to see its runs only; drag over the bars to zoom in time; double-click to see "
    "all again. Point at a mark for its details."
)
_MINUTES, _SECONDS = "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"


def _words(outcome: str) -> str:
    return OUTCOME_WORDS.get(outcome, outcome)


_OUTCOME = f"{[_words(outcome) for outcome in OUTCOMES]}[datum.o]"
_MATCHES_AGENT = "(!agent.a || datum.a == agent.a[0])"
_MATCHES_DEPLOYMENT = "(!deployment.d || datum.d == deployment.d[0])"
_MATCHES_SEARCH = "(!search || indexof(datum.find, lower(search)) >= 0)"
_FINDS_NOTHING = "search && indexof(join(pluck(data('deployments'), 'find'), '\\n'), lower(search)) < 0"
_IN_ZOOM = "(!zoom.begin || (datum.t >= zoom.begin[0] && datum.t <= zoom.begin[1]))"
_ON_PAGE = f"datum.row >= first_row && datum.row < first_row + {_ROWS}"
_DURATION = (
    f"!isValid(datum.ms) ? '{MISSING}' : datum.ms < 1000 ? datum.ms + ' ms'"
    " : datum.ms < 60000 ? format(datum.ms / 1000, '.1f') + ' s'"
    " : datum.ms < 3600000 ? floor(datum.ms / 60000) + ' min ' + floor(datum.ms % 60000 / 1000) + ' s'"
    " : format(floor(datum.ms / 3600000), ',') + ' h ' + floor(datum.ms % 3600000 / 60000) + ' min'"
)


class LinkedChart(alt.VConcatChart):  # type: ignore[misc,unused-ignore]
    """An Altair chart that a notebook shows without asking another host."""

    def _repr_mimebundle_(self, *_: object, **__: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return Vega for JupyterLab, and a picture for what runs no script, such as GitHub."""
        spec = self.to_dict()
        vega = _with_theme_colors(vl_convert.vegalite_to_vega(spec, vl_version=_LITE_OF_VEGA_5))
        data = {_MIME: vega, "image/png": to_png(spec), "text/plain": "LinkedChart(...)"}
        return data, {_MIME: {"embed_options": _EMBED_OPTIONS}}


def _with_theme_colors(vega: Any) -> Any:  # noqa: ANN401 - JSON
    """Remove the color of names, so that they get that of axis labels: light if JupyterLab is dark."""
    if isinstance(vega, list):
        return [_with_theme_colors(part) for part in vega]
    if not isinstance(vega, dict):
        return vega
    if vega.get("type") == "text" and _NAME_STYLE in vega.get("style", []):
        vega["encode"]["update"].pop("fill")
    return {key: value if key == "data" else _with_theme_colors(value) for key, value in vega.items()}


def to_png(spec: dict[str, Any]) -> bytes:
    """Return a chart as PNG on white, scaled by 1.5; with a palette, the file is about seven times smaller."""
    title = spec["title"] | {"subtitle": [line for line in spec["title"]["subtitle"] if line != _HINT]}
    drawn = io.BytesIO(vl_convert.vegalite_to_png(spec | {"background": "white", "title": title}, scale=1.5))
    picture = io.BytesIO()
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(128).save(picture, "png", optimize=True)
    return picture.getvalue()


def make_chart(tables: ChartTables) -> LinkedChart:
    """Make the chart of some tables; a sentence if there are no runs."""
    if not tables.deployments:
        message = alt.Chart(_data("notes")).mark_text(style=_NAME_STYLE, fontSize=14).encode(text="text:N")
        return _finish([message.properties(width=_LEFT + _RIGHT, height=80)], tables)
    views = _Views(tables)
    over_time = alt.vconcat(views.overview(), views.calendar(), spacing=14).resolve_scale(**_APART)
    lanes = alt.hconcat(views.deployments(), views.timeline(), spacing=16).resolve_scale(y="shared", **_APART)
    return _finish([alt.hconcat(views.agents(), over_time, spacing=16), lanes], tables)


def _finish(views: list[Any], tables: ChartTables) -> LinkedChart:
    """Put the views below one another, with their data and one style."""
    datasets = {
        "agents": tables.agents,
        "deployments": tables.deployments,
        "errors": tables.errors or [{"e": -1, "error": ""}],
        "runs": tables.runs,
        "notes": [{"text": note} for note in tables.notes],
    }
    is_empty = not tables.deployments
    # As texts of JSON: Altair would check every row against its schema, which takes half a minute for 50,000.
    texts = {name: to_json(rows) for name, rows in datasets.items() if not is_empty or name == "notes"}
    subtitle = [] if is_empty else [*tables.notes, _HINT]
    chart = LinkedChart(
        vconcat=views,
        datasets=texts,
        spacing=22,
        background="transparent",
        description=" ".join(["Runs of scheduled agents.", *tables.notes]),
        title=alt.Title("Runs of scheduled agents", subtitle=subtitle, anchor="start", offset=14),
        usermeta={"embedOptions": _EMBED_OPTIONS},
    )
    styled: LinkedChart = chart.resolve_scale(**_APART).configure(
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(gridOpacity=0.25, domainOpacity=0.4, tickOpacity=0.4, titleFontWeight="normal"),
        axisX=alt.AxisConfig(labelSeparation=8),  # days of two words do not read as one
        title=alt.TitleConfig(anchor="start", fontSize=13, subtitleFontSize=12, subtitlePadding=6),
    )
    return styled


class _Views:
    """The views of one chart, and the parameters that link them."""

    def __init__(self, tables: ChartTables) -> None:
        self.tables = tables
        self.agent = alt.selection_point(name="agent", fields=["a"], toggle=False, clear="dblclick")
        # A click on an agent also clears the deployment. The name in `clear` is that of the marks of the agents.
        self.deployment = alt.selection_point(
            name="deployment", fields=["d"], toggle=False, clear="dblclick, @agent_rows_0_marks:click"
        )
        self.zoom = alt.selection_interval(name="zoom", encodings=["x"], zoom=False)
        self.window_ms = 1 if tables.window is None else tables.window // pd.Timedelta("1ms")
        room = max((tables.last - tables.first) // 60, _HOUR_MS)
        self.times = (tables.first - room, tables.last + room)

    def agents(self) -> alt.LayerChart:
        """Draw a row per agent; those that do not run what is selected are pale."""
        base = alt.Chart(_data("agents")).transform_filter(_MATCHES_SEARCH)
        base = base.transform_window(row="row_number()", sort=[alt.SortField("a")])
        base = base.transform_filter(f"datum.row <= {_AGENT_ROWS}")
        count = len(self.tables.agents)
        some = f", the worst {_AGENT_ROWS} of {count:,}" if count > _AGENT_ROWS else ""
        faded = "deployment.d && indexof(datum.deployments, deployment.d[0]) < 0"
        rows = self._rates(base, "a", faded, selection=self.agent, name="agent_rows")
        nothing, title = "No agent or deployment has this in its name", f"Failure rate by agent{some}"
        return rows.properties(title=alt.Title(alt.ExprRef(f"{_FINDS_NOTHING} ? '{nothing}' : '{title}'")))

    def deployments(self) -> alt.LayerChart:
        """Draw a row per deployment of the selected agent."""
        base = alt.Chart(_data("deployments"))
        base = base.transform_filter("!agent.a || indexof(datum.agents, agent.a[0]) >= 0")
        base = base.transform_filter(_MATCHES_SEARCH)
        base = base.transform_window(row="row_number()", sort=[alt.SortField("d")])
        base = base.transform_filter(_ON_PAGE)
        faded = "deployment.d && deployment.d[0] != datum.d"
        rows = self._rates(base, "d", faded, selection=self.deployment, name="deployment_rows")
        return rows.properties(title="Failure rate by deployment, worst first").add_params(*self._inputs())

    def _inputs(self) -> list[alt.Parameter]:
        """Return what the reader types and slides."""
        count = len(self.tables.deployments)
        words = "name of an agent or deployment"
        search = alt.binding(input="search", placeholder=words, name="Find ", debounce=150)
        slider = alt.binding_range(min=1, max=count - _ROWS + 1, step=1, name=f"First row of {count:,} ")
        return [
            alt.param(name="search", value="", bind=search),
            alt.param(name="first_row", value=1, bind=slider if count > _ROWS else alt.Undefined),
        ]

    def _rates(
        self, base: alt.Chart, key: str, faded: str, *, selection: alt.Parameter, name: str
    ) -> alt.LayerChart:
        """Draw names, rates and their intervals; the whole row can be clicked."""
        counts = ("runs", "failed", "completed", "assumed", "skipped", "unfinished", "unknown")
        tooltip = [
            alt.Tooltip("full:N", title="name"),
            alt.Tooltip("id:N"),
            alt.Tooltip("share:N", title="failure rate"),
            alt.Tooltip("interval:N", title="95 % interval"),
            *(alt.Tooltip(f"{count}:Q", title=_COUNT_WORDS.get(count, count), format=",") for count in counts),
        ]
        opacity = alt.when(faded).then(alt.value(0.3)).otherwise(alt.value(1))
        shade = alt.when(selection, empty=False).then(alt.value(0.22)).otherwise(alt.value(0.001))
        axis = alt.Axis(values=[0, 0.5, 1], labelExpr="datum.value * 100 + ' %'", title=None)
        scale = alt.Scale(domain=[0, 1], range=[_RATES_FROM, _LEFT - 6])
        base = base.encode(y=alt.Y(f"{key}:O", axis=None), opacity=opacity, tooltip=tooltip)
        rows = base.mark_rect(color=GREY, cursor="pointer")
        rows = rows.encode(x=alt.value(0), x2=alt.value(_LEFT), opacity=shade)
        style: dict[str, Any] = {"style": _NAME_STYLE, "fontSize": 11, "limit": _RATES_FROM - 12}
        names = base.mark_text(align="left", baseline="middle", **style).encode(x=alt.value(2), text="label:N")
        intervals = base.mark_rule(color=BLUE, strokeWidth=2.5)
        intervals = intervals.encode(x=alt.X("low:Q", axis=axis, scale=scale), x2="high:Q")
        dots = base.mark_point(filled=True, size=44, color=BLUE)
        dots = dots.encode(x=alt.X("rate:Q", axis=axis, scale=scale))
        layers = alt.LayerChart(layer=[rows.add_params(selection).properties(name=name), names, intervals, dots])
        return layers.properties(width=_LEFT, height=alt.Step(_ROW_HEIGHT))

    def overview(self) -> alt.Chart:
        """Draw the number of runs over time, to drag over."""
        bar, words = self._bar()
        base = self._runs().transform_calculate(begin=_begin(bar), end=f"datum.begin + {bar}")
        base = base.transform_aggregate(runs="sum(n)", groupby=["begin", "end", "o", "outcome"])
        base = base.transform_stack(
            as_=["low", "high"], stack="runs", groupby=["begin"], sort=[alt.SortField("o")]
        )
        shift = first_window(bar)
        first, last = ((time - shift) // bar * bar + shift for time in self.times)
        scale = alt.Scale(type="utc", domain=_span(first, last + bar), nice=False)
        # Vega draws halves in spite of `tickMinStep`.
        label = "datum.value % 1 ? '' : datum.label"
        axis = alt.Axis(tickCount=3, tickMinStep=1, format=",d", labelExpr=label, **_EXTENT)
        chart: alt.Chart = base.mark_bar(binSpacing=0, clip=True).encode(
            x=alt.X("begin:T", scale=scale, title=None, axis=alt.Axis(**_TIME_AXIS)),
            x2="end:T",
            y=alt.Y("low:Q", title=None, axis=axis),
            y2="high:Q",
            color=self._color(legend=None),
            tooltip=[
                alt.Tooltip("begin:T", title="from", format=_MINUTES),
                alt.Tooltip("outcome:N"),
                alt.Tooltip("runs:Q", format=","),
            ],
        )
        title = f"Runs per {words}: drag to zoom"
        return chart.add_params(self.zoom).properties(
            name="overview", width=_RIGHT, height=_OVERVIEW_HEIGHT, title=title
        )

    def _bar(self) -> tuple[int, str]:
        """Return how many milliseconds a bar of the overview sums up, and that in words."""
        days = (self.times[1] - self.times[0]) / DAY_MS
        length, words = 7 * DAY_MS, "week"
        if days <= _HOURLY_DAYS:
            length, words = _HOUR_MS, "hour"
        elif days <= _DAILY_DAYS:
            length, words = DAY_MS, "day"
        return (length, words) if length >= self.window_ms else (self.window_ms, "window")

    def calendar(self) -> alt.Chart:
        """Draw the failures of each day and hour."""
        tall, wide = min(max(self.window_ms, _HOUR_MS), DAY_MS), max(self.window_ms, DAY_MS)
        base = self._runs().transform_filter(_IN_ZOOM)
        base = base.transform_calculate(
            day=_begin(wide),
            next_day=f"datum.day + {wide}",
            hour=f"floor((datum.t - floor(datum.t / {DAY_MS}) * {DAY_MS}) / {tall}) * {tall // _HOUR_MS}",
            next_hour=f"datum.hour + {tall // _HOUR_MS}",
            bad=f"datum.o == {OUTCOMES.index('failed')} ? datum.n : 0",
            good=f"datum.o <= {OUTCOMES.index('assumed')} ? datum.n : 0",
        )
        cell: list[Any] = ["day", "next_day", "hour", "next_hour"]
        base = base.transform_aggregate(runs="sum(n)", failed="sum(bad)", completed="sum(good)", groupby=cell)
        has_failed = alt.when("datum.failed > 0")
        strength = alt.Opacity("failed:Q", scale=alt.Scale(type="sqrt", range=[0.3, 1]), legend=None)
        hours = alt.Axis(
            values=[0, 6, 12, 18, 24], title=None, labelExpr="format(datum.value, '02') + ':00'", **_EXTENT
        )
        chart: alt.Chart = base.mark_rect(clip=True).encode(
            x=alt.X("day:T", scale=self._time_scale(), title=None, axis=alt.Axis(**_TIME_AXIS)),
            x2="next_day:T",
            y=alt.Y("hour:Q", scale=alt.Scale(domain=[24, 0], nice=False), axis=hours),
            y2="next_hour:Q",
            color=has_failed.then(alt.value(VERMILLION)).otherwise(alt.value(GREY)),
            opacity=has_failed.then(strength).otherwise(alt.value(0.3)),
            tooltip=[
                alt.Tooltip("day:T", format="%a %Y-%m-%d"),
                alt.Tooltip("hour:Q", title="from hour"),
                *(alt.Tooltip(f"{count}:Q", format=",") for count in ("failed", "completed", "runs")),
            ],
        )
        title = f"Failed runs by {self._cell_words(tall, wide)} (grey: none)"
        return chart.properties(name="calendar", width=_RIGHT, height=_CALENDAR_HEIGHT, title=title)

    @staticmethod
    def _cell_words(tall: int, wide: int) -> str:
        """Return in words what a cell of the calendar is."""
        if tall == DAY_MS:
            return "day" if wide == DAY_MS else f"{wide // DAY_MS} days"
        return "day and hour" if tall == _HOUR_MS else f"day and {tall // _HOUR_MS} hours"

    def timeline(self) -> alt.Chart:
        """Draw the runs of the deployments shown, in the same rows."""
        names = alt.LookupData(data=_data("deployments"), key="d", fields=["full", "find"])
        errors = alt.LookupData(data=_data("errors"), key="e", fields=["error"])
        base = alt.Chart(_data("runs")).transform_filter(_MATCHES_AGENT)
        base = base.transform_lookup(lookup="d", from_=names).transform_filter(_MATCHES_SEARCH)
        base = base.transform_window(row="dense_rank()", sort=[alt.SortField("d")])
        base = base.transform_filter(f"{_ON_PAGE} && {_MATCHES_DEPLOYMENT} && {_IN_ZOOM}")
        base = base.transform_lookup(lookup="e", from_=errors, default=MISSING)
        base = base.transform_calculate(outcome=_OUTCOME, duration=_DURATION)
        outcomes = self.tables.outcomes
        shapes = alt.Scale(domain=[_words(one) for one in outcomes], range=[_LOOKS[one][1] for one in outcomes])
        legend = alt.Legend(orient="top", title=None, direction="horizontal", columns=8, symbolSize=60)
        lanes = alt.Axis(labels=False, ticks=False, domain=False, title=None, grid=True, **_EXTENT)
        chart: alt.Chart = base.mark_point(filled=True, opacity=0.85, clip=True, size=34).encode(
            x=alt.X(
                "t:T",
                scale=self._time_scale(),
                axis=alt.Axis(title=f"time, {self.tables.zone}", grid=False, **_TIME_AXIS),
            ),
            y=alt.Y("d:O", axis=lanes),
            color=self._color(legend=legend),
            shape=alt.Shape("outcome:N", scale=shapes, legend=legend),
            tooltip=self._run_tooltip(),
        )
        if self.tables.window is not None:
            sizes = alt.Scale(type="sqrt", range=[18, 140])
            chart = chart.encode(size=alt.Size("n:Q", scale=sizes, legend=None))
        return chart.properties(name="timeline", width=_RIGHT, height=alt.Step(_ROW_HEIGHT))

    def _run_tooltip(self) -> list[alt.Tooltip]:
        if self.tables.window is None:
            time = alt.Tooltip("t:T", title="time", format=_SECONDS)
            rest = [time, alt.Tooltip("duration:N"), alt.Tooltip("error:N")]
        else:
            rest = [
                alt.Tooltip("t:T", title="from", format=_MINUTES),
                alt.Tooltip("n:Q", title="runs", format=","),
                alt.Tooltip("duration:N", title="median duration"),
                alt.Tooltip("error:N", title="most frequent error"),
            ]
        return [alt.Tooltip("full:N", title="name"), alt.Tooltip("outcome:N"), *rest]

    def _runs(self) -> alt.Chart:
        """Return the runs of what is selected."""
        base = alt.Chart(_data("runs")).transform_filter(f"{_MATCHES_AGENT} && {_MATCHES_DEPLOYMENT}")
        return base.transform_calculate(outcome=_OUTCOME)

    def _color(self, legend: alt.Legend | None) -> alt.Color:
        outcomes = self.tables.outcomes
        scale = alt.Scale(domain=[_words(one) for one in outcomes], range=[_LOOKS[one][0] for one in outcomes])
        return alt.Color("outcome:N", scale=scale, legend=legend)

    def _time_scale(self) -> alt.Scale:
        """Return the scale of time, from the first to the last run or over what is zoomed to."""
        return alt.Scale(type="utc", domain=_span(*self.times), domainRaw=alt.ExprRef("zoom.begin"), nice=False)


def _begin(step: int) -> str:
    """Return an expression of when the day, week or other window of a run begins."""
    return f"floor((datum.t - {first_window(step)}) / {step}) * {step} + {first_window(step)}"


def _span(first: int, last: int) -> alt.ExprRef:
    """Return a domain of times as Vega has them; Vega-Lite would make dates of numbers, and find two domains."""
    return alt.ExprRef(f"[{first}, {last}]")


def _data(name: str) -> alt.NamedData:
    return alt.NamedData(name, format=alt.JsonDataFormat(type="json"))
