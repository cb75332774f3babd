"""Tests of the chart of `explore` in JupyterLab in Chromium."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
import pytest
import requests
import vl_convert
from playwright.sync_api import Error, Page, Route

import qoderdata as qd
from qoderdata.sandbox import Sandbox
from tests.browser import page_of, running_browser
from tests.test_explore_browser import TIMEOUT_SECONDS, ZONE, Mark, tooltip, wait_until

if TYPE_CHECKING:
    from pathlib import Path

SCREEN = {"width": 1500, "height": 1200}
NOTEBOOK = f"""\
import pandas as pd
import qoderdata as qd

qd.explore(pd.read_parquet("df.parquet"), pd.read_parquet("runs.parquet"), tz="{ZONE}")
"""


class Lab:
    """Run a JupyterLab server on loopback, with its own settings, until the block ends."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.token = secrets.token_hex(8)
        self.address = f"http://127.0.0.1:{port}/"
        own = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR")
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
        command += [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"]
        command += [f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None"]
        environment = os.environ | {name: str(folder / ".jupyter" / name) for name in own}
        self.log = folder / "lab.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)

    def __enter__(self) -> Self:
        wait_until(self._answers, "JupyterLab")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(TIMEOUT_SECONDS)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return requests.get(f"{self.address}api/status?token={self.token}", timeout=5).ok
        return False


class LabChart:
    """The chart of a notebook's only cell; Vega computes the positions of its marks, not the browser."""

    def __init__(self, page: Page, vega: Any) -> None:  # noqa: ANN401 - JSON
        self.page, self.graph = page, vl_convert.vega_to_scenegraph(vega)
        canvas = page.locator(".jp-OutputArea-output canvas")
        canvas.wait_for(timeout=1000 * TIMEOUT_SECONDS)
        canvas.evaluate("canvas => canvas.scrollIntoView()")
        box = canvas.bounding_box()
        assert box is not None
        self.x, self.y = box["x"], box["y"]

    def marks(self, name: str) -> list[Mark]:
        """Return the initial marks of one name, with their positions on the screen."""
        found: list[Mark] = []

        def walk(mark: dict[str, Any], x: float, y: float) -> None:
            for item in mark.get("items", []):
                left, top = x + (item.get("x") or 0), y + (item.get("y") or 0)
                if mark.get("name") == name:
                    found.append(Mark({}, left + item.get("width", 0) / 2, top + item.get("height", 0) / 2))
                for child in item.get("items", []) if mark["marktype"] == "group" else []:
                    walk(child, left, top)

        left, top = self.graph["origin"]
        walk(self.graph["scenegraph"], self.x + left, self.y + top)
        return found

    def tooltip_of(self, mark: Mark) -> dict[str, str]:
        """Move the mouse to a mark, and return the rows of its tooltip, or ``{}`` where there is none."""
        self.page.mouse.move(self.x + 2, self.y + 2)
        try:
            self.page.locator("#vg-tooltip-element.visible").wait_for(state="detached", timeout=2000)
            self.page.mouse.move(mark.x, mark.y)
            return tooltip(self.page, seconds=2)
        except Error:
            return {}


@pytest.fixture(scope="module")
def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    with Sandbox(deployments=60, seed=7) as sandbox:
        return qd.flatten_deployments(sandbox.deployments), qd.flatten_runs(sandbox.runs)


def write_notebook(folder: Path, frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    folder.mkdir()
    for name, frame in zip(("df", "runs"), frames, strict=True):
        qd.export_parquet(frame, folder / f"{name}.parquet")
    cell: dict[str, Any] = {
        "cell_type": "code",
        "source": NOTEBOOK,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    (folder / "runs.ipynb").write_text(json.dumps(book), encoding="utf-8")


@pytest.mark.long
def test_chart_of_a_notebook_cell_shows_tooltips_selects_and_zooms(
    frames: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    """It works as on the page of `explore`, and sends no request to any other host."""
    folder, events = tmp_path / "lab", list[str]()
    write_notebook(folder, frames)
    vega = qd.explore(*frames, tz=ZONE)._repr_mimebundle_()[0]["application/vnd.vega.v5+json"]

    def request(route: Route) -> None:
        if route.request.url.startswith((lab.address, "data:", "blob:")):
            route.continue_()
        else:
            events.append(f"request: {route.request.url}")
            route.abort()

    with Lab(folder) as lab, running_browser() as browser, page_of(browser, viewport=SCREEN) as page:
        page.on("pageerror", lambda error: events.append(f"error: {error}"))
        page.context.route("**/*", request)
        page.goto(f"{lab.address}lab/tree/runs.ipynb?token={lab.token}")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=1000 * TIMEOUT_SECONDS)
        page.locator(".jp-Cell .cm-content").click()
        page.keyboard.press("Control+Enter")
        chart = LabChart(page, vega)
        check_hover_and_click(chart, *frames)
        check_zoom(chart, *frames)
        assert events == []


def check_hover_and_click(chart: LabChart, df: pd.DataFrame, runs: pd.DataFrame) -> None:
    """Check the tooltip of the worst deployment: of all agents, of a clicked agent, and of all again."""
    named = qd.with_names(runs, df)
    rates = qd.run_failure_rates(named)
    row, agent = chart.marks("deployment_rows_0_marks")[0], chart.marks("agent_rows_0_marks")[1]
    wait_until(lambda: chart.tooltip_of(row).get("name") == rates["name"].iloc[0], "the worst deployment")
    assert chart.tooltip_of(row)["failed"] == str(rates["failed"].iloc[0])
    second = qd.run_failure_rates(runs, by="agent_id").index[1]
    of_agent = rates[rates.index.isin(named.loc[named["agent_id"] == second, "deployment_id"])]
    assert of_agent["name"].iloc[0] != rates["name"].iloc[0]
    chart.page.mouse.click(agent.x, agent.y)
    wait_until(
        lambda: chart.tooltip_of(row).get("name") == of_agent["name"].iloc[0], "the worst deployment of an agent"
    )
    chart.page.mouse.dblclick(agent.x, agent.y)
    wait_until(lambda: chart.tooltip_of(row).get("name") == rates["name"].iloc[0], "the worst deployment of all")


def check_zoom(chart: LabChart, df: pd.DataFrame, runs: pd.DataFrame) -> None:
    """Zoom to a time range, and check the tooltip at the expected position of the newest failed run."""
    rates = qd.run_failure_rates(runs)
    bars = sorted(mark.x for mark in chart.marks("overview_marks"))
    local_times = runs["triggered_at"].dt.tz_convert(ZONE).dt.tz_localize(None)
    noon = pd.Timedelta("12h")  # a bar covers a day from midnight on
    first, last = local_times.min().normalize() + noon, local_times.max().normalize() + noon
    low, high = int(bars[-1]) - 40, int(bars[-1]) + 4
    begin, end = (first + (last - first) * ((x - bars[0]) / (bars[-1] - bars[0])) for x in (low, high))

    middle = chart.marks("overview_group")[0].y
    chart.page.mouse.move(low, middle)
    chart.page.mouse.down()
    chart.page.mouse.move(low + 20, middle, steps=3)
    chart.page.mouse.move(high, middle, steps=3)
    chart.page.mouse.up()

    shown = (
        runs["status"].eq("failed")
        & runs["deployment_id"].isin(rates.index[:30])
        & local_times.between(begin, end)
    )
    newest = runs[shown].sort_values("triggered_at").iloc[-1]
    lane = list(rates.index).index(newest["deployment_id"])
    left = chart.marks("timeline_group")[0].x - 520 / 2
    local = newest["triggered_at"].tz_convert(ZONE).tz_localize(None)
    mark = Mark({}, left + 520 * ((local - begin) / (end - begin)), chart.marks("deployment_rows_0_marks")[lane].y)
    name = df.set_index("id")["name"][newest["deployment_id"]]
    wait_until(lambda: chart.tooltip_of(mark).get("outcome") == "failed", "the newest failed run")
    rows = chart.tooltip_of(mark)
    assert (rows["name"], rows["time"]) == (" ".join(name.split()), f"{local:%Y-%m-%d %H:%M:%S}")
    assert rows["error"] == " ".join(f"{newest['error_type']}: {newest['error_message']}".split())
