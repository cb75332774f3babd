"""What is handed out: a wheel that works outside the checkout, and names that explain themselves."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from numpydoc.validate import validate

import qoderdata
from qoderdata import errors

ROOT = Path(__file__).parents[1]
FUNCTIONS = [name for name in qoderdata.__all__ if callable(getattr(qoderdata, name))]
#: An extended summary, "See Also" and the like are welcome, not owed; types stand in the annotations.
NOT_OWED = {
    "ES01",
    "SA01",
    "EX01",
    "GL01",
    "RT02",
    "PR04",
    "SS05",
    "SS06",
    "YD01",
    "RT03",
    "RT05",  # a table of columns ends it
    "PR06",
    "PR08",
    "PR09",
    "GL08",
}


def test_the_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    built = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*built, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("qoderdata-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {
        "qoderdata/py.typed",
        "qoderdata/report/report.css",
        "qoderdata/report/report.html.j2",
        "qoderdata/report/zh.po",
    } <= names
    assert all(name.startswith(("qoderdata/", "qoderdata-")) for name in names)
    code = (
        "import qoderdata as qd; from qoderdata.sandbox import Sandbox; print(qd.__file__, qd.__version__)\n"
        "with Sandbox(deployments=20) as sandbox:\n"
        "    df = qd.load_deployments(client=qd.Client(pat=sandbox.pat, base_url=sandbox.base_url))\n"
        "qd.write_report(df, 'report.html', start=sandbox.now, lang='zh')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "site" / "qoderdata" / "__init__.py"), qoderdata.__version__]
    assert (tmp_path / "report.html").stat().st_size > 0
    assert f"Version: {qoderdata.__version__}\n" in next(
        (tmp_path / "site").glob("*.dist-info/METADATA")
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_docstring_is_complete(name: str) -> None:
    found = validate(f"qoderdata.{name}")
    assert [(code, text) for code, text in found["errors"] if code not in NOT_OWED] == []
    documentation = inspect.getdoc(getattr(qoderdata, name)) or ""
    assert ">>>" in documentation, "an example that runs"


def test_a_name_is_imported_when_it_is_used() -> None:
    """A pull needs neither plots nor summaries, and begins before pandas is there, which is long in coming."""
    code = (
        "import sys, qoderdata\n"
        "print(sorted(dir(qoderdata)) == sorted(qoderdata.__all__), 'pandas' in sys.modules)\n"
        "qoderdata.errors.CacheWarning\n"
        "qoderdata.load_deployments\n"
        "print('pandas' in sys.modules, 'narwhals' in sys.modules, 'qoderdata.store' in sys.modules)\n"
        "from qoderdata import *\n"
        "print(all(name in globals() for name in qoderdata.__all__), 'matplotlib' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True False", "False False False", "True False"]


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="load_deployment"):
        _ = qoderdata.load_deployment  # type: ignore[attr-defined]


KINDS = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, Exception)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_says_what_it_means(kind: type[Exception]) -> None:
    assert kind.__doc__


def test_constraints_are_exact_and_carry_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    names = {line.split("==")[0].lower().replace("_", "-") for line in pins}
    assert {"pandas", "pyarrow", "requests", "matplotlib", "jupyterlab", "pytest", "narwhals", "ruff"} <= names
