"""Make names into labels: one safe line each, unique, short, and in a font that has their characters.

Names come from whoever made the deployments: any script, any length, line breaks, ``$``, marks that turn the
writing direction. What the caller's own font lacks is looked for among the installed fonts; what none has
becomes a box, with one warning for the plot. Nothing is set in matplotlib's settings: the fonts go to the
texts themselves. If the reader's browser draws the texts, `label_texts` makes them without looking for fonts.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from qoderdata.errors import warn
from qoderdata.formatting import make_distinct, one_line, truncate_middle
from qoderdata.frames import NAMES

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

_MOST_MARKS = 3
_BOX = "\N{WHITE SQUARE}"
_LEFT_TO_RIGHT_MARK = "\N{LEFT-TO-RIGHT MARK}"
_NAMED_IN_WARNING = 3
#: The column that names the ids of an index level.
_NAME_COLUMNS = {"id": "name", **NAMES}
#: What the ids of an index level are of.
_OBJECTS = {"id": "deployment", **{key: column.removesuffix("_name") for key, column in NAMES.items()}}
_MOST_GROUP_COLUMNS = 32
#: One or two characters of each script that names are written in; the font families must have all of them.
_SCRIPTS = "aЖΩ报報かカ한عשกदॐ☀✓→"
_NORMAL_WEIGHTS = frozenset({400, "normal", "regular", "book"})

# Tried in this order before all others, so that a picture looks the same wherever one of them is installed.
_PREFERRED_FONTS = (
    "DejaVu Sans",
    "WenQuanYi Micro Hei",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "PingFang SC",
    "Microsoft YaHei",
    "Noto Sans",
    "Noto Sans Arabic",
    "Noto Emoji",
    "Segoe UI Emoji",
)


class Labels(NamedTuple):
    """Texts that can be drawn, and the properties of `matplotlib.text.Text` to draw them with."""

    texts: list[str]
    properties: dict[str, Any]


def make_labels(
    ids: Sequence[str],
    names: Sequence[str | None],
    labels: Mapping[str, str] | None,
    *,
    columns: int,
    rows: int | None = None,
) -> Labels:
    """Make the labels of a picture: one text per id, followed by the end of the id if texts are equal.

    The caller's labels by id win over `names`; a name that is ``None`` or blank shows the id. `columns` is the
    widest label, in widths of a Latin letter. The first `rows` texts are told apart from each other, and so are
    the others; ``None``: all from all. Warn once if no installed font has some of the characters.
    """
    texts = _short_texts(ids, names, labels or {}, columns)
    families, lacking = _fonts_for("".join(texts))
    if lacking:
        box = _BOX if not _fonts_for(_BOX)[1] else "?"
        instead = {ord(char): "" if unicodedata.category(char) == "Cf" else box for char in lacking}
        texts = [text.translate(instead) for text in texts]
        # The Unicode name of a letter begins with its script.
        by_script = {unicodedata.name(char, "").partition(" ")[0]: char for char in sorted(lacking, reverse=True)}
        named = sorted(by_script.values())[:_NAMED_IN_WARNING]
        examples = ", ".join(f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip() for char in named)
        examples += ", …" if len(lacking) > len(named) else ""
        warn(
            f"no installed font has {len(lacking)} of the characters in the labels ({examples}); {box} replaces "
            f"each. Install a font that has them (Debian: fonts-wqy-microhei for Chinese, Japanese and Korean, "
            f"fonts-symbola for emoji, fonts-noto-core for other scripts) and restart Python, or give other names "
            f"by labels={{id: name}}",
            UserWarning,
        )
    rows = len(ids) if rows is None else rows
    texts = [*make_distinct(texts[:rows], ids[:rows]), *make_distinct(texts[rows:], ids[rows:])]
    return Labels(texts, {"fontfamily": families, "parse_math": False, "usetex": False})


def label_texts(ids: Sequence[str], names: Sequence[str | None], *, columns: int) -> list[str]:
    """Return the texts of labels for a browser, which has its own fonts; parameters as in `make_labels`."""
    return make_distinct(_short_texts(ids, names, {}, columns), ids)


def _short_texts(
    ids: Sequence[str], names: Sequence[str | None], labels: Mapping[str, str], columns: int
) -> list[str]:
    return [
        truncate_middle(
            _drop_stacked_marks(one_line(labels.get(identifier) or name or "") or one_line(identifier)), columns
        )
        for identifier, name in zip(ids, names, strict=True)
    ]


def _drop_stacked_marks(text: str) -> str:
    """Drop combining marks beyond those of any language; they would overlap the rows above."""
    kept = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in {"Mn", "Me"} else 0
        if marks <= _MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def keep_direction(text: str) -> str:
    """Return a name so that numbers beside it stay in order, also if it is written from right to left."""
    is_leftward = any(unicodedata.bidirectional(character) in {"R", "AL"} for character in text)
    return f"{_LEFT_TO_RIGHT_MARK}{text}{_LEFT_TO_RIGHT_MARK}" if is_leftward else text


def format_key(key: Hashable) -> str:
    """Format a key of a grouped frame: one value, or several in a tuple, any of them missing.

    Examples
    --------
    >>> format_key("agent_1"), format_key(("team-a", None))
    ('agent_1', 'team-a · (none)')
    """
    parts: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
    return " · ".join("(none)" if pd.isna(part) else str(part) for part in parts)


def keys_and_names(summary: pd.DataFrame) -> tuple[list[str], list[str | None]]:
    """Return the key of every row of a summary, and its name, ``None`` if the key has no other name.

    The index is the groups, and windows perhaps, which are no part of a key. The column ``name`` names the ids of
    its only id level; ``deployment_name`` and the like name those of a level each. A single row without keys is
    ``all``. Raise `ValueError` for an index without names and several rows or a column of ids, as after
    ``reset_index()``.

    Examples
    --------
    >>> index = pd.MultiIndex.from_tuples([("agent_1", "red"), ("agent_2", None)], names=["agent_id", "team"])
    >>> keys_and_names(pd.DataFrame({"name": ["Triage", None]}, index=index))
    (['agent_1 · red', 'agent_2 · (none)'], ['Triage · red', None])
    """
    index = summary.index
    levels = [number for number, name in enumerate(index.names) if name != "window"]
    if all(index.names[level] is None for level in levels):
        if levels and (len(summary) > 1 or not _NAME_COLUMNS.keys().isdisjoint(summary.columns)):
            raise ValueError(
                "the rows have no keys to be named by: the keys of a summary are its index; put them there, as in "
                "set_index('deployment_id')"
            )
        return ["all"] * len(summary), [None] * len(summary)
    parts = [index.get_level_values(level).astype("object") for level in levels]
    ids = [level for level in levels if index.names[level] in _NAME_COLUMNS]
    named = []
    for level, values in zip(levels, parts, strict=True):
        column = _NAME_COLUMNS.get(str(index.names[level]), "")
        if column not in summary and len(ids) == 1 and column:
            column = "name"
        known = summary[column].astype("object").to_numpy() if column in summary else values.to_numpy()
        named.append([value if pd.isna(name) else name for name, value in zip(known, values, strict=True)])
    keys = [format_key(key) for key in zip(*parts, strict=True)]
    names = [format_key(key) for key in zip(*named, strict=True)]
    return keys, [None if name == key else name for key, name in zip(keys, names, strict=True)]


def title_of_groups(title: str, summary: pd.DataFrame) -> tuple[str, dict[str, Any]]:
    """Return a title with what the rows of a summary are grouped by in place of `{by}`, and its text properties.

    Examples
    --------
    >>> index = pd.MultiIndex.from_tuples([("agent_1", "red")], names=["agent_id", "metadata_team"])
    >>> title_of_groups("Failure rate{by}, worst first", pd.DataFrame(index=index))[0]
    'Failure rate by agent and team, worst first'
    """
    levels = [str(name) for name in summary.index.names if name is not None and name != "window"]
    words = [_OBJECTS.get(level, level.removeprefix("metadata_")) for level in levels]
    groups = make_labels(levels, words, None, columns=_MOST_GROUP_COLUMNS)
    return title.replace("{by}", f" by {' and '.join(groups.texts)}" if levels else ""), groups.properties


def font_families() -> list[str]:
    """Return the caller's font families, and behind them installed ones that have the scripts of most names."""
    return _fonts_for(_SCRIPTS)[0]


def _fonts_for(text: str) -> tuple[list[str], set[str]]:
    """Return the caller's font families with others that have a text's characters, and those that none has."""
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415 - heavy, and needed only when drawing

    families = list(FontProperties().get_family())
    lacking = set(map(ord, text)).difference(*map(glyphs, families))
    for family in _other_fonts():
        if not lacking:
            break
        if not lacking.isdisjoint(glyphs(family)):
            families.append(family)
            lacking -= glyphs(family)
    return families, set(map(chr, lacking))


def _other_fonts() -> Iterator[str]:
    """Yield the names of the installed fonts, the preferred ones first."""
    known = _upright_families()
    yield from (name for name in _PREFERRED_FONTS if name in known)
    _add_new_fonts()
    yield from sorted(_upright_families() - set(_PREFERRED_FONTS))


def _upright_families() -> set[str]:
    """Return the families that have an upright face of normal weight; for others matplotlib logs a warning."""
    from matplotlib.font_manager import fontManager  # noqa: PLC0415 - as above

    # The Last Resort font has only a box for every character.
    return {
        entry.name
        for entry in fontManager.ttflist
        if entry.style == "normal" and entry.weight in _NORMAL_WEIGHTS and not entry.name.startswith("Last Resort")
    }


@cache
def _add_new_fonts() -> None:
    """Add to matplotlib's list the fonts that were installed after it was made, once a process."""
    from matplotlib.font_manager import findSystemFonts, fontManager  # noqa: PLC0415 - as above

    listed = {entry.fname for entry in fontManager.ttflist}
    for path in sorted(set(findSystemFonts()) - listed):
        try:
            fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # a bitmap font, a broken file: of no use to us
            continue


@cache
def glyphs(family: str) -> frozenset[int]:
    """Return the code points that a font family has."""
    from matplotlib.font_manager import FontProperties, findfont, get_font  # noqa: PLC0415 - as above

    try:
        path = findfont(FontProperties(family=[family]), fallback_to_default=False, rebuild_if_missing=False)
        font = get_font(path)
    except (OSError, RuntimeError, ValueError):  # not installed, not there any more, or not readable
        return frozenset()
    return frozenset(font.get_charmap())
