"""Tests of the READMEs: column tables, code blocks, names of functions, and links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import qoderdata
from qoderdata.schema import AGENTS, DEPLOYMENTS, ENVIRONMENTS, EVENTS, RUNS, SESSIONS, Kind, Schema

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
DTYPES = {
    Kind.TEXT: "str",
    Kind.TEXT_OR_ID: "str",
    Kind.INTEGER: "Int64",
    Kind.NUMBER: "float64",
    Kind.TIME: "datetime64[us, UTC]",
    Kind.TEXTS: "object: an array of str",
    Kind.TIMES: "object: an array of datetime64[us], UTC",
    Kind.JSON_OBJECT: "str: JSON text",
    Kind.JSON_LIST: "str: JSON text",
    Kind.SHARED_OBJECT: "category: JSON text",
}


def expected_table(schema: Schema) -> str:
    """Return the table of the columns of a schema, as the README should show it."""
    rows = [f"| `{column.name}` | {DTYPES[column.kind]} | {column.meaning} |" for column in schema.columns]
    rows.append("| `extra` | str: JSON text | everything else that the record had |")
    return "\n".join(["| column | dtype | meaning |", "|---|---|---|", *rows])


SCHEMAS = [DEPLOYMENTS, RUNS, SESSIONS, EVENTS, AGENTS, ENVIRONMENTS]


def column_table_in(text: str, schema: Schema) -> str:
    found = re.search(rf"<!-- columns of {schema.name} -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_column_table_equals_the_schema(schema: Schema) -> None:
    text = READMES[0].read_text(encoding="utf-8")
    assert column_table_in(text, schema) == expected_table(schema), "update the table in README.md"


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_chinese_column_table_has_the_same_columns(schema: Schema) -> None:
    rows = column_table_in(READMES[1].read_text(encoding="utf-8"), schema).splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    kinds = {column.name: DTYPES[column.kind].partition(":")[0] for column in schema.columns} | {"extra": "str"}
    found = {cell[0].strip("`"): cell[1].partition("\N{FULLWIDTH COLON}")[0] for cell in cells}
    assert found == kinds, "update the table in README.zh-CN.md"
    assert all(len(cell) == 3 and re.search("[\u4e00-\u9fff]|`", cell[2]) for cell in cells)


def code_blocks(path: Path) -> list[str]:
    return re.findall(r"^```\w+\n.*?^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_both_languages_have_the_same_code() -> None:
    """Comments may be translated; the code may not differ."""

    def without_comments(block: str) -> list[str]:
        return [re.sub(r"\s*#.*", "", line) for line in block.splitlines()]

    english, chinese = (list(map(without_comments, code_blocks(path))) for path in READMES)
    assert english
    assert english == chinese


def test_chinese_sentences_have_chinese_punctuation() -> None:
    """Code and the targets of links keep that of ASCII."""
    text = READMES[1].read_text(encoding="utf-8")
    words = re.sub(r"`[^`\n]*`|\]\([^)]*\)|\"[^\"\n]*\"", "", text)
    assert re.findall("[\u4e00-\u9fff][,;:?!()]|[,;:?!()][\u4e00-\u9fff]", words) == []


def test_both_languages_name_every_public_function() -> None:
    functions = [name for name in dir(qoderdata) if not name.startswith("__")]
    for path in READMES:
        text = path.read_text(encoding="utf-8")
        assert [name for name in functions if not re.search(rf"\b{name}\b", text)] == [], path.name


def test_targets_of_relative_links_exist() -> None:
    for path in READMES:
        targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8"))
        assert targets
        assert [target for target in targets if not (ROOT / target).exists()] == [], path.name
