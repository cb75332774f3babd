"""Tests of the distributions, the stated versions, the conda recipe, Python in a browser, and marimo."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml  # type: ignore[import-untyped] # comes with Dask, without types
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

import qoderdata

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Names on conda-forge of packages that have another name on PyPI.
CONDA_NAMES = {"matplotlib": "matplotlib-base", "tzdata": "python-tzdata"}


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Run a program outside the checkout, and return what it prints."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lower_bounds(requirements: list[str]) -> dict[NormalizedName, Version]:
    """Return the lower bound of each requirement; assert that it has no other bound."""
    found = {}
    for text in requirements:
        requirement = Requirement(text)
        (specifier,) = requirement.specifier
        assert specifier.operator == ">=", text
        found[canonicalize_name(requirement.name)] = Version(specifier.version)
    return found


def pinned_versions(file: str) -> dict[NormalizedName, str]:
    """Return the exact versions in a file of constraints."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in found}


def python_classifiers() -> list[str]:
    return [one.rsplit(" ", 1)[-1] for one in PROJECT["classifiers"] if "Python :: 3." in one]


LOWER_BOUNDS = lower_bounds(PROJECT["dependencies"])


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build a wheel and a source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


@pytest.fixture(scope="module")
def environment(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new environment that can import the other packages of this one.

    Programs run there with an empty PYTHONPATH: it could name this checkout.
    """
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is searched last, and .pth files there, such as that of this checkout, are not read.
    (site / "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    run(*install, "--ignore-installed", "--disable-pip-version-check", distributions[0], cwd=folder)
    return folder


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_wheel_has_exactly_the_files_of_the_package(distributions: tuple[Path, Path]) -> None:
    files = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / "qoderdata").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = contents(distributions[0])
    assert {name: data for name, data in packed.items() if ".dist-info/" not in name} == files
    assert {Path(name).suffix for name in files} >= {".py", ".pyi", ".css", ".j2"}
    assert {
        "qoderdata/py.typed",
        "qoderdata/__init__.pyi",
        "qoderdata/report/report.html.j2",
        "qoderdata/report/zh.po",
        "qoderdata/sandbox/sample_texts.toml",
    } <= set(packed)


def test_source_distribution_builds_the_same_wheel(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, source = distributions
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (folder,) = (tmp_path / "source").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=folder)
    (again,) = tmp_path.glob("*.whl")
    assert contents(again) == contents(wheel)
    assert {"CHANGELOG.md", "LICENSE", "README.md", "tests", "packaging"} <= {one.name for one in folder.iterdir()}


def test_twine_check_passes_for_wheel_and_source_distribution(
    distributions: tuple[Path, Path], tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *distributions]
    checked = run(*words, cwd=tmp_path, COLUMNS="1000")
    assert [line.rsplit(" ", 1)[-1] for line in checked.split("\n") if line] == ["PASSED", "PASSED"]


def test_command_works_in_a_fresh_environment(environment: Path, tmp_path: Path) -> None:
    """The command has the name of the distribution, as `pipx run` requires."""
    (script,) = PROJECT["scripts"]
    assert script == PROJECT["name"]
    command = environment / "bin" / script
    assert run(command, "--version", cwd=tmp_path, PYTHONPATH="").split() == ["qoderdata", qoderdata.__version__]
    demo = [command, "demo", "--deployments", "20", "--out", tmp_path / "demo"]
    printed = run(*demo, cwd=tmp_path, QODERDATA_CACHE_DIR=str(tmp_path), PYTHONPATH="")
    written = {Path(line.strip()) for line in printed.split("Written:\n")[1].splitlines() if line[:2] == "  "}
    assert written == {path for path in (tmp_path / "demo").iterdir() if path.is_file()}
    assert {path.suffix for path in written} == {".csv", ".html", ".parquet", ".png"}
    assert all(path.stat().st_size > 0 for path in written)
    assert "events" in set(pd.read_parquet(tmp_path / "demo" / "runs.parquet")["status_from"])


def test_pull_and_report_work_in_a_fresh_environment(environment: Path, tmp_path: Path) -> None:
    code = (
        "import qoderdata as qd; from qoderdata.sandbox import Sandbox; print(qd.__file__, qd.__version__)\n"
        "with Sandbox(deployments=20) as sandbox:\n"
        "    client = qd.Client(pat=sandbox.pat, base_url=sandbox.base_url)\n"
        "    df = qd.load_deployments(client=client, include_archived=True)\n"
        "qd.write_report(df, 'report.html', start=sandbox.now, lang='zh')\n"
        "print(len(df))\n"
    )
    python = environment / "bin" / "python"
    variables = {"QODERDATA_CACHE_DIR": str(tmp_path), "PYTHONPATH": ""}
    printed = run(python, "-W", "ignore", "-c", code, cwd=tmp_path, **variables).split()
    assert Path(printed[0]).is_relative_to(environment)
    assert printed[1:] == [qoderdata.__version__, "20"]
    assert "</html>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_version_equals_the_newest_in_the_changelog() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == qoderdata.__version__


def test_lower_bounds_equal_the_oldest_tested_versions() -> None:
    tested, extras = pinned_versions("constraints-oldest.txt"), PROJECT["optional-dependencies"]
    allowed = LOWER_BOUNDS | lower_bounds([*extras["duckdb"], *extras["polars"], *extras["dask"]])
    assert {name: Version(tested[name]) for name in allowed} == allowed


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_readme_names_the_tested_versions(readme: str) -> None:
    oldest, newest = pinned_versions("constraints-oldest.txt"), pinned_versions("constraints.txt")
    text = (ROOT / readme).read_text(encoding="utf-8")
    for name in ("pandas", "pyarrow", "NumPy"):
        key = canonicalize_name(name)
        assert f"| {name} | {oldest[key]} | {newest[key]} |" in text
    assert f"| Python | {' | '.join(python_classifiers())} |" in text


def test_python_classifiers_equal_the_tested_versions() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    tested = re.findall(r"^(?:OLDEST|NEWEST)_PYTHON \?= python(\S+)$", makefile, re.MULTILINE)
    assert python_classifiers() == tested
    assert PROJECT["requires-python"] == f">={tested[0]}"


def test_conda_recipe_equals_the_project_metadata() -> None:
    recipe = yaml.safe_load((ROOT / "packaging" / "recipe.yaml").read_text(encoding="utf-8"))
    python, *needed = recipe["requirements"]["run"]
    assert dict(line.split(" >=") for line in needed) == {
        CONDA_NAMES.get(name, name): requirement.split(">=")[1]
        for name, requirement in zip(LOWER_BOUNDS, PROJECT["dependencies"], strict=True)
    }
    assert python == "python >=${{ python_min }}"
    assert f">={recipe['context']['python_min']}" == PROJECT["requires-python"]
    assert recipe["context"]["version"] == qoderdata.__version__
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["build"]["python"]["entry_points"] == [
        f"{name} = {target}" for name, target in PROJECT["scripts"].items()
    ]


#: Removes what Pyodide lacks: processes, threads, file locks, TLS and network libraries.
BROWSER_LIMITS = """
import sys, threading
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {
            "requests", "urllib3", "filelock", "ssl", "_ssl", "multiprocessing", "_multiprocessing",
            "fcntl", "termios", "resource", "pwd", "grp",
        }:
            raise ModuleNotFoundError(f"a browser has no {name}", name=name)

def refuse(self):
    raise RuntimeError("can't start new thread")

sys.meta_path.insert(0, Absent())
threading.Thread.start = refuse
"""
ANALYSIS = """
import json
import qoderdata as qd

now = "2026-06-13T00:00Z"
page = json.load(open(sys.argv[1], encoding="utf-8"))
df, runs = qd.flatten_deployments(page["deployments"]), qd.flatten_runs(page["runs"])
sessions, events = qd.flatten_sessions([]), qd.flatten_events([], "sess_1")
rates = qd.failure_rates(df)
triggers = qd.next_triggers(df, "24h", start=now)
frames = [
    df, runs, sessions, events, rates, triggers,
    qd.upcoming_runs(df), qd.expand_metadata(df), qd.with_names(runs, df),
    qd.resolve_outcomes(runs), qd.fill_counters(df, runs), qd.run_failure_rates(runs, freq="1D"),
    qd.compare_periods(runs), qd.failure_streaks(runs), qd.error_breakdown(runs), qd.error_groups(runs),
    qd.duration_regressions(runs), qd.unusual_runs(runs, df), qd.start_delays(runs), qd.consistency(df, runs),
    qd.error_budget(runs), qd.session_costs(sessions), qd.cost_forecast(df, sessions, start=now),
    qd.compare_costs(sessions),
    qd.trigger_load(triggers), qd.schedule_lints(df, start=now), qd.check(df, runs, now=now),
    qd.missed_triggers(df, runs, since="2026-06-10T00:00Z", until=now), qd.changes(df, df),
]
qd.plot_failure_rates(rates).figure.savefig("rates.png")
qd.plot_next_triggers(triggers)
print(len(frames), rates["total_failures"].sum(), len(triggers))
"""


def test_analysis_and_plots_run_within_the_limits_of_a_browser(tmp_path: Path) -> None:
    """The records come from a file, as pulls, stores, reports and exports do not work there."""
    deployment = {
        "id": "dep_1", "name": "nightly", "status": "active", "created_at": "2026-06-01T00:00:00Z",
        "schedule": {"type": "cron", "expression": "0 */6 * * *", "timezone": "Europe/Berlin"},
        "metadata": {
            "team": "data",
            "cas_config": {"stats": {"total_runs": 9, "total_failures": 3, "consecutive_failures": 1}},
        },
    }  # fmt: skip
    runs = [
        {
            "id": f"drun_{day}", "deployment_id": "dep_1", "status": status, "trigger_type": "schedule",
            "triggered_at": f"2026-06-{day}T00:00:00Z", "created_at": f"2026-06-{day}T00:00:01Z",
            "error": {"type": "timeout", "message": "gave up"} if status == "failed" else None,
        }
        for day, status in ((10, "completed"), (11, "failed"), (12, "completed"))
    ]  # fmt: skip
    records = tmp_path / "records.json"
    records.write_text(json.dumps({"deployments": [deployment], "runs": runs}), encoding="utf-8")
    program = tmp_path / "browser.py"
    program.write_text(BROWSER_LIMITS + ANALYSIS, encoding="utf-8")
    printed = run(sys.executable, "-W", "ignore", program, records, cwd=tmp_path, MPLBACKEND="agg")
    assert printed.split() == ["29", "3", "4"]
    assert (tmp_path / "rates.png").stat().st_size > 0


def test_pull_fails_within_the_limits_of_a_browser(tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    program = tmp_path / "browser.py"
    program.write_text(BROWSER_LIMITS + "import qoderdata as qd\nqd.load_deployments\n", encoding="utf-8")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "a browser has no " in done.stderr


def test_notebook_runs_in_marimo(tmp_path: Path) -> None:
    """Marimo orders cells by the names that they use, and refuses a name that two cells define."""
    environment_variables = {
        name: str(tmp_path / name) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")
    }
    notebook, page = tmp_path / "notebooks" / "book.py", tmp_path / "book.html"
    notebook.parent.mkdir()
    marimo = [sys.executable, "-m", "marimo", "--quiet", "--yes"]
    run(
        *marimo,
        "convert",
        ROOT / "notebooks" / "02-failure-rates.ipynb",
        "--output",
        notebook,
        cwd=tmp_path,
        **environment_variables,
    )
    run(
        *marimo,
        "export",
        "html",
        notebook,
        "--output",
        page,
        "--no-include-code",
        cwd=notebook.parent,
        **environment_variables,
    )
    shown = page.read_text(encoding="utf-8")
    assert "ci_low" in shown
    assert "Traceback" not in shown
