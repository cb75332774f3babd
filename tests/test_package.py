"""Tests of the package: public names, their docstrings and examples, lazy imports, and pinned versions."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from numpydoc.validate import validate

import qoderdata
from qoderdata import errors

ROOT = Path(__file__).parents[1]
FUNCTIONS = [name for name in dir(qoderdata) if callable(getattr(qoderdata, name))]
#: Not required: an extended summary, "See Also" and the like; and types, which are in the annotations.
NOT_REQUIRED = {
    "ES01", "SA01", "EX01", "GL01", "RT02", "PR04", "SS05", "SS06", "YD01", "RT03", "PR06", "PR08", "PR09", "GL08",
    "RT05",  # may end with a table of columns
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_docstring_is_complete(name: str) -> None:
    public = getattr(qoderdata, name)
    # The public name is not used, as it may also be the name of the module.
    found = validate(f"{public.__module__}.{public.__qualname__}")
    assert [(code, text) for code, text in found["errors"] if code not in NOT_REQUIRED] == []
    documentation = inspect.getdoc(public) or ""
    assert ">>>" in documentation, "the docstring has no example that runs"


def test_every_plot_and_table_is_in_the_gallery() -> None:
    """The documentation runs these files, and shows each of them."""
    examples = [path for kind in ("plot", "table") for path in (ROOT / "docs/examples").glob(f"*/{kind}_*.py")]
    shown = " ".join(path.read_text(encoding="utf-8") for path in examples)
    folders = ("plots", "summaries", "timelines", "check", "forecast")
    wanted = [name for name in FUNCTIONS if getattr(qoderdata, name).__module__.split(".")[1] in folders]
    assert len(wanted) > 25
    assert [name for name in wanted if f"qd.{name}(" not in shown] == [], "add an example to docs/examples"


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is chosen on Linux alone")
@pytest.mark.parametrize(("chosen", "used"), [(None, "system"), ("mimalloc", "mimalloc")])
def test_arrow_uses_the_allocator_of_the_system_unless_the_user_chooses_another(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, used: str
) -> None:
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL")
    if chosen is not None:
        monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", chosen)
    code = "import qoderdata, pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{used}\n"


def test_public_names_are_imported_on_first_use() -> None:
    """A pull imports neither plots nor summaries, and starts before the slow import of pandas."""
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


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="load_deployment"):
        _ = qoderdata.load_deployment  # type: ignore[attr-defined]


EXCEPTIONS = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, Exception)]


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_exception_has_a_docstring(kind: type[Exception]) -> None:
    assert kind.__doc__


def test_constraints_are_exact_versions_without_urls() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    names = {line.split("==")[0].lower().replace("_", "-") for line in pins}
    assert {"pandas", "pyarrow", "requests", "matplotlib", "jupyterlab", "pytest", "narwhals", "ruff"} <= names


def test_function_is_not_replaced_by_the_module_of_the_same_name() -> None:
    """Importing `qoderdata.check` sets an attribute of the package, which must stay the function."""
    code = (
        "import qoderdata, qoderdata.check, qoderdata.connect, qoderdata.explore\n"
        "print([type(getattr(qoderdata, name)).__name__ for name in ('check', 'connect', 'explore')])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(["function"] * 3)
