"""Tests of the report in Chinese: the catalogue has every message, and the page has no English text."""

from __future__ import annotations

import io
import re
from collections import Counter
from html.parser import HTMLParser
from importlib import resources
from itertools import permutations
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from babel.messages import extract, pofile

import qoderdata as qd
from qoderdata.errors import DataQualityWarning
from qoderdata.frames import flatten_deployments, flatten_runs, flatten_sessions
from qoderdata.report.page import _translations, cautions, write_report
from qoderdata.sandbox import Sandbox
from qoderdata.summaries.deployment_changes import describe_change
from qoderdata.translation import translated
from tests.test_report import data_of

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

PACKAGE = Path(qd.__file__).parent
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "mark": None}
START = pd.Timestamp("2026-06-15T01:30:00Z")
#: Words that are not translated.
NOT_TRANSLATED = {"Credits", "IANA", "ID", "Newcombe", "Qoder", "Cloud", "UTC", "Wilson", "cron", "qoderdata"}
#: Matches addresses, time zones, commands, calls, names with an underscore, cron expressions and options.
DATA = (
    r"https?://\S+|[A-Z][a-z]+(?:/[\w+-]+)+|qoderdata [A-Za-z0-9: -]+|[a-z_]+[(].*?[)]+|\w*_\w*|"
    r"(?:[*\d] )+[A-Z-]+\b|--[a-z]+ [a-z]+"
)


def catalogue() -> Catalog:
    text = resources.files("qoderdata.report").joinpath("zh.po").read_text(encoding="utf-8")
    return pofile.read_po(io.StringIO(text), locale="zh", abort_invalid=True)


def source_messages() -> set[str | tuple[str, ...]]:
    """Return the messages of all sources and of the template; a pair if a number selects the form."""
    found: set[str | tuple[str, ...]] = set()
    for path in [*PACKAGE.rglob("*.py"), PACKAGE / "report" / "report.html.j2"]:
        method = "python" if path.suffix == ".py" else "jinja2.ext:babel_extract"
        with path.open("rb") as file:
            found.update(message for _, message, _, _ in extract.extract(method, file, KEYWORDS))
    return found


def fields(text: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


class TestCatalogue:
    def test_catalogue_has_exactly_the_messages_of_the_sources(self) -> None:
        listed = {message.id for message in catalogue() if message.id}
        assert len(listed) > 300
        assert listed == source_messages(), "left: remove from report/zh.po; right: add to it"

    def test_each_translation_has_the_fields_of_its_message(self) -> None:
        for message in catalogue():
            if not message.id:
                continue
            assert not message.fuzzy
            originals = [message.id] if isinstance(message.id, str) else list(message.id)
            translations = [message.string] if isinstance(message.string, str) else list(message.string or ())
            assert len(translations) == 1
            assert translations[0].strip()
            assert fields(translations[0]) == set.union(*map(fields, originals)), originals

    def test_catalogue_file_is_readable(self) -> None:
        """It has no obsolete entries, a header of several lines, and no very long lines."""
        text = resources.files("qoderdata.report").joinpath("zh.po").read_text(encoding="utf-8")
        assert "#~" not in text
        assert '\\n"\n' in text.partition("\n\n")[0]
        assert max(map(len, text.splitlines())) < 200


class Texts(HTMLParser):
    """Collects the texts that a reader sees or hears, except code and names."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        html = re.sub(r'<span class="unbroken">([^<]*)</span>', r"\1", html)  # part of the surrounding text
        self.texts: list[str] = []
        self._silent: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.texts += [str(value) for name, value in attrs if name in {"aria-label", "data-label", "title"}]
        if tag in {"style", "code", "bdi"}:
            self._silent.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._silent and self._silent[-1] == tag:
            self._silent.pop()

    def handle_data(self, data: str) -> None:
        if data.strip() and not self._silent:
            self.texts.append(data.strip())


def english_texts(texts: list[str]) -> list[str]:
    """Return the texts that contain English words."""
    return [
        text
        for text in texts
        if set(re.findall(r"[A-Za-z]{2,}", re.sub(DATA, " ", text, flags=re.ASCII))) - NOT_TRANSLATED
    ]


@pytest.fixture(scope="module")
def account() -> dict[str, pd.DataFrame]:
    """Return the frames of a sandbox, with the texts of its users in Chinese."""
    with Sandbox(deployments=60, seed=7) as sandbox:
        df, runs = flatten_deployments(sandbox.deployments), flatten_runs(sandbox.runs)
        sessions, now = flatten_sessions(sandbox.sessions), pd.Timestamp(sandbox.now)
    df["name"] = pd.Series([f"部署{number}" for number in range(len(df))], dtype="str")
    df["metadata"] = pd.Series(['{"team":"数据"}', "{}"] * (len(df) // 2), dtype="str")
    runs["error_message"] = runs["error_message"].where(runs["error_message"].isna(), "错误")
    runs["error_type"] = runs["error_type"].replace("cancelled", "session_cancelled")
    then = df.drop(index=range(0, 60, 20)).reset_index(drop=True)
    then.loc[::15, "schedule_expression"] = "59 23 31 12 *"
    then.loc[::17, "status"] = "paused"
    then.attrs = {"fetched_at": f"{now - pd.Timedelta('8D')}"}
    return {"df": df, "runs": runs, "sessions": sessions, "then": then, "now": pd.DataFrame({"now": [now]})}


def write_page(path: Path, df: pd.DataFrame, **options: Any) -> list[str]:  # noqa: ANN401 - write_report's
    """Write a page and return its texts."""
    write_report(df, path / "page.html", **{"start": START, "lang": "zh", **options})
    return Texts((path / "page.html").read_text(encoding="utf-8")).texts


def test_page_has_no_english_and_the_same_numbers_as_in_english(
    account: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    now = account["now"]["now"].iloc[0]
    whole = {
        "runs": account["runs"],
        "sessions": account["sessions"],
        "snapshots": [account["then"]],
        "start": now,
    }
    page = write_page(tmp_path, account["df"], **whole, tz="Asia/Shanghai")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<html lang="zh-CN">' in html
    assert english_texts(page) == []
    paragraphs = [re.sub("<[^>]*>", "", text) for text in re.findall('<p class="about">(.*?)</p>', html)]
    assert not re.findall("[\u3002\uff08\uff09] | [\u3002\uff08\uff09]", "\n".join(paragraphs))
    assert any("\u3002" in text for text in paragraphs)
    in_english = write_page(tmp_path, account["df"], **whole, tz="Asia/Shanghai", lang="en")
    assert len(english_texts(in_english)) > 100
    # Both pages contain the same numbers, equally often.
    numbers = [Counter(re.findall(r"\d[\d,.]*\d|\d", " ".join(texts))) for texts in (page, in_english)]
    dates = {str(number) for number in range(1, 32)}
    assert {k: v for k, v in numbers[0].items() if k not in dates} == {
        k: v for k, v in numbers[1].items() if k not in dates
    }


def test_page_without_runs_has_no_english(account: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    assert english_texts(write_page(tmp_path, account["df"], start=account["now"]["now"].iloc[0])) == []
    assert english_texts(write_page(tmp_path, flatten_deployments([]))) == []
    assert english_texts(write_page(tmp_path, flatten_deployments([]), runs=flatten_runs([]))) == []


ODD_SCHEDULES = [
    ("61 * * * *", "UTC"), ("0 9 * *", "UTC"), ("x y z a b", "UTC"), ("0/0 * * * *", "UTC"),
    ("5-1 * * * *", "UTC"),
    ("0 9 30 2 *", "UTC"), ("0 9 * * 1", "Mars/Base"), ("0 9 * * *", ""), ("30 2 8 3 *", "America/New_York"),
    ("30 1 * * *", "America/New_York"), ("*/2 1-2 * * *", "America/New_York"), ("0 9 13 * FRI", "UTC"),
    ("0 9 */2 * MON", "UTC"), ("0 9 1 6 MON", "UTC"), ("*/7 * * * *", "UTC"), ("0 9 */3 * *", "UTC"),
    ("0 9 29 2 *", "UTC"), ("0 9 31 * *", "UTC"), ("0 9 * * *", "Etc/GMT+8"), ("0 9 * * *", "Etc/GMT-1"),
    ("* * * * *", "UTC"), ("*/15 8-17 * * MON", "UTC"), ("0,20 8,11 * * *", "UTC"), ("0,7 * * * *", "UTC"),
    ("0 */6 * 1,6-8 *", "UTC"), ("5 8-17 * 6 *", "UTC"), ("*/15 8,10 1,15 * 1-5", "UTC"), ("*/15 8 * * *", "UTC"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::qoderdata.errors.DataQualityWarning")
def test_texts_about_odd_schedules_and_data_have_no_english(tmp_path: Path) -> None:
    stats = {"total_runs": 1, "total_failures": 2, "consecutive_failures": 4}
    records: list[dict[str, Any]] = [
        {
            "id": f"dep_{number}", "name": f"部署{number}", "status": "active",
            "schedule": {"type": "cron", "expression": expression, "timezone": zone},
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-06-14T05:00:00Z",
            "metadata": {"cas_config": {"stats": stats}},
        }
        for number, (expression, zone) in enumerate(ODD_SCHEDULES)
    ]  # fmt: skip
    for record, error in zip(records[:3], ({"type": "error"}, {"type": "manual"}, {"type": "error"}), strict=True):
        record.update(status="paused", paused_reason=error)
    records[2]["updated_at"] = None
    df = flatten_deployments(records)
    with translated(_translations("zh")):
        found = qd.schedule_lints(df, start=START)
        assert set(found["lint"]) == {
            "unreadable", "never_fires", "dst_gap", "dst_repeat", "both_day_fields", "uneven_step", "skips_months",
            "inverted_zone",
        }  # fmt: skip
        assert english_texts(found["detail"].tolist()) == []
        readable = df[
            ~df["id"].isin(found.loc[found["lint"].isin({"unreadable", "never_fires"}), "deployment_id"])
        ]
        assert len(readable) > 15
        pairs = zip(readable["schedule_expression"], readable["schedule_timezone"], strict=True)
        assert english_texts([qd.describe_schedule(*pair) for pair in pairs]) == []
    df.attrs = {"complete": False, "fetched_at": "2026-06-10T00:00:00+00:00", "from_cache": True}
    statuses = ["completed", "failed", "running", "skipped", None]
    runs = flatten_runs([
        {
            "id": f"drun_{number}", "deployment_id": f"dep_{20 + number % 8}", "status": statuses[number % 5],
            "triggered_at": f"2026-06-{11 + number % 4}T{number % 24:02}:00:00Z", "duration_ms": 1000,
            "trigger_context": {"type": "schedule"},
        }
        for number in range(120)
    ])  # fmt: skip
    runs["status_from"] = pd.Series("session", runs.index, dtype="str")
    runs.attrs = {"complete": False, "fetched_at": "2026-06-13T00:00:00+00:00"}
    sessions = flatten_sessions([{"id": "sess_1", "deployment_id": "dep_20", "status": "idle"}])
    assert english_texts(write_page(tmp_path, df)) == []
    assert english_texts(write_page(tmp_path, df, runs=runs, sessions=sessions, by="environment")) == []
    runs.attrs["outcomes"] = "events"
    data = data_of(df, runs)
    with translated(_translations("zh")):
        assert english_texts([*cautions(data), *data.findings["detail"]]) == []


def test_states_in_a_change_are_translated() -> None:
    states: list[dict[str, Any]] = [{"status": "active"}, {"status": "paused"}]
    states += [
        {"status": "paused", "paused_reason": reason}
        for reason in (
            {"type": "error"},
            {"type": "error", "error": {"type": "vault_not_found_error"}},
            {"type": "manual"},
        )
    ]
    frames = [flatten_deployments([{"id": "dep_1", **state}]) for state in states]
    with translated(_translations("zh")):
        words = [
            describe_change(row)
            for before, after in permutations(frames, 2)
            for row in qd.changes(before, after).itertuples()
        ]
    assert len(words) == 20
    assert english_texts(words) == []


def test_data_quality_warning_is_shown_on_the_page(tmp_path: Path) -> None:
    record = {"id": "dep_1", "name": "部署", "schedule": {"type": "cron", "expression": "x", "timezone": "UTC"}}
    with pytest.warns(DataQualityWarning) as caught:
        page = write_page(tmp_path, flatten_deployments([record]))
    assert str(caught[0].message) in page


@pytest.mark.parametrize("lang", ["de", "zh.po", "", "../zh"])
def test_unknown_language_raises_value_error(tmp_path: Path, lang: str) -> None:
    with pytest.raises(ValueError, match=rf"lang='{re.escape(lang)}'.*there are 'en' and 'zh'"):
        write_page(tmp_path, flatten_deployments([]), lang=lang)


def test_descriptions_stay_english_after_a_chinese_page(tmp_path: Path) -> None:
    write_page(tmp_path, flatten_deployments([]))
    assert qd.describe_schedule("0 9 * * 1-5", "Asia/Shanghai") == "at 09:00, Monday to Friday, Asia/Shanghai"
