"""Return the linked chart of runs, and write it as one HTML page."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from qoderdata import files
from qoderdata.arguments import parse_zone
from qoderdata.explore.chart_tables import make_tables, to_json

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from qoderdata.explore.linked_views import LinkedChart

_LIBRARIES = {"altair": "Altair", "vl_convert": "vl-convert-python"}


def explore(
    df: pd.DataFrame, runs: pd.DataFrame, path: str | Path | None = None, *, tz: str = "UTC"
) -> LinkedChart:
    """Show runs in one linked chart: failure rates, a timeline and a calendar that follow the mouse.

    A click on an agent shows its deployments and its runs; a click on a deployment shows its runs. A drag over the
    bars at the top zooms in time, and a double-click shows all again. Pointing at a mark shows its name, outcome,
    duration and error. A text field searches names. If there are more than the 30 deployments that are shown at
    once, a slider moves through them.

    Failure rates are those of `run_failure_rates` over all runs given, also after a zoom, with 95 % intervals,
    worst first. Agents are shown by name if `with_names` has added ``agent_name`` to either frame.

    Parameters
    ----------
    df
        A deployments frame: the names, and the agent of runs that name none.
    runs
        A runs frame of any edition. If there are more than 50,000 runs, a mark counts those of one deployment,
        agent and outcome in a window of time, and the chart says so. The window is the shortest of 1, 3, 6 or 12
        hours and 1, 7 or 28 days that gives 50,000 marks at most.
    path
        An HTML file to write as well, ``.html`` or ``.htm``: one page with the chart and all that draws it, which
        works offline. An old one is replaced when the new one is complete. ``None`` writes nothing.
    tz
        The IANA zone of the times shown. When its clocks go back, the runs of the repeated hour are drawn over
        those of the hour before.

    Returns
    -------
    altair.VConcatChart
        The chart, which JupyterLab shows without asking another host, with a picture of it for programs that
        run no script. Its data are texts of JSON in ``chart.datasets``. If there are no runs, it is a sentence
        that says so.

    Raises
    ------
    ImportError
        Altair or vl-convert is not installed; the message names the extra.
    FrameTypeError
        An argument is no frame, or a column has lost its dtype.
    MissingColumnError
        A frame is not one of deployments, or of runs.
    ValueError
        `tz` is not a zone, the file's name ends in another format, or times span more than 100 years.
    OSError
        The folder is not there or cannot be written.

    Notes
    -----
    Texts of the service are data of the chart, never part of its expressions, and the page's policy lets nothing
    but its own script run. Frames' ``extra``, and so ``environment_variables``, is not in it.

    Examples
    --------
    >>> import json
    >>> import qoderdata as qd
    >>> df = qd.flatten_deployments([{"id": "dep_1", "name": "nightly", "agent": {"id": "agent_1"}}])
    >>> runs = qd.flatten_runs([
    ...     {"id": "1", "deployment_id": "dep_1", "status": "failed", "triggered_at": "2026-06-15T01:00:00Z"},
    ...     {"id": "2", "deployment_id": "dep_1", "status": "completed", "triggered_at": "2026-06-14T01:00:00Z"},
    ... ])
    >>> chart = qd.explore(df, runs, tz="Asia/Shanghai")
    >>> [(row["label"], row["share"], row["runs"]) for row in json.loads(chart.datasets["deployments"])]
    [('nightly', '50.0 %', 2)]
    """
    if path is not None:
        files.check_ending(path, (".html", ".htm"), what="the interactive page is an HTML page")
    tables = make_tables(df, runs, parse_zone(tz))
    try:
        from qoderdata.explore.linked_views import make_chart  # noqa: PLC0415 - needs the extra
    except ImportError as error:
        name = _LIBRARIES.get(str(error.name), error.name)
        raise ImportError(f"{name} is not installed: pip install 'qoderdata[interactive]'") from error
    chart = make_chart(tables)
    if path is not None:
        html = _render(chart.to_dict(), tables.notes)
        files.replace(path, lambda sink: sink.write(html.encode()))
    return chart


def _render(spec: dict[str, Any], notes: list[str]) -> str:
    """Make the page; title and sentences are text of the page, not of the picture."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only for a page
    from jinja2.utils import htmlsafe_json_dumps  # noqa: PLC0415 - as above

    title = spec.pop("title")
    spec["datasets"] = {name: json.loads(rows) for name, rows in spec["datasets"].items()}
    css, script = _resource("explore.css"), _script()
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string(_resource("explore.html.j2")).render(
        title=title["text"],
        notes=notes,
        hint=title["subtitle"][-1] if title["subtitle"] else "",
        label=spec["description"],
        css=Markup(css),  # noqa: S704 - our own file
        style_digest=files.policy_digest(css),
        script=Markup(script),  # noqa: S704 - our own file and the libraries
        script_digest=files.policy_digest(script),
        spec=htmlsafe_json_dumps(spec, to_json),
    )


@cache
def _script() -> str:
    """Return Vega, Vega-Lite, their embedding and what starts the page, as one script."""
    import vl_convert  # noqa: PLC0415 - an extra

    return vl_convert.javascript_bundle(_resource("explore.js")).strip()


def _resource(name: str) -> str:
    return resources.files(__package__ or "").joinpath(name).read_text(encoding="utf-8")
