"""What two readers are to look for in a page: msgspec and pyarrow.json.

Both descriptions come from the schema's tree. The first has what stays JSON text, the constants, and the fields
that were learned: known by name, without a column. The second has the typed values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pyarrow as pa

from qoderdata.schema import Branch, Column, Kind, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: Stands where a field is absent.
NULL = msgspec.Raw(b"null")

#: Fields that are learned at most, so that no answer can make the description grow without end.
MOST_LEARNED = 64

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+")

Path = tuple[str, ...]


class Refused(Exception):  # noqa: N818 - no error: the exact way takes over
    """A page may hold something that only the exact way can judge."""


@dataclass(frozen=True)
class Level:
    """One JSON object, as msgspec sees it.

    Parameters
    ----------
    struct
        The `msgspec.Struct` with one attribute a key; it passes over any other key.
    attributes
        The attribute's name by key.
    below
        The levels of the objects in it, by key.
    """

    struct: Any
    attributes: dict[str, str]
    below: dict[str, Level]

    def raws(self, values: Sequence[Any], path: Path) -> list[msgspec.Raw]:
        """List the JSON texts of one field, below this level, of many objects."""
        attribute = self.attributes[path[0]]
        if len(path) > 1:
            inner = [None if value is None else getattr(value, attribute) for value in values]
            return self.below[path[0]].raws(inner, path[1:])
        return [NULL if value is None else getattr(value, attribute) for value in values]


class Shape:
    """A page as both readers see it.

    Parameters
    ----------
    schema
        The columns.
    learned
        Paths of fields without a column.

    Attributes
    ----------
    page : msgspec.json.Decoder
        Reads what stays JSON text; typed values are passed over.
    open : dict of Open
        By key, the objects that also have keys of the callers'.
    lists : list of Column
        The columns that are lists, as JSON text.
    arrow : pyarrow.Schema
        The page with its typed values, for pyarrow.json.
    """

    def __init__(self, schema: Schema, learned: Iterable[Path] = ()) -> None:
        self.schema = schema
        self.learned = sorted(learned)
        self._root = _level(schema.tree, (), self.learned)
        envelope: list[tuple[str, Any] | tuple[str, Any, Any]] = [
            ("data", list[self._root.struct]),  # type: ignore[name-defined]  # the class is made above
            ("has_more", bool),
            ("first_id", str | None, None),
            ("last_id", str | None, None),
            ("next_page", str | None, None),
        ]
        self.page: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct("Envelope", envelope, gc=False)
        )
        self.open = {
            key: Open(key, branch, self.learned)
            for key, branch in schema.tree.keys.items()
            if isinstance(branch, Branch) and branch.rest is not None
        }
        self.lists = [column for column in schema.columns if column.kind is Kind.JSON_LIST]
        records = pa.list_(pa.struct(list(_fields(schema.tree))))
        cursors = [(name, pa.large_string()) for name in ("first_id", "last_id", "next_page")]
        self.arrow = pa.schema([("data", records), ("has_more", pa.bool_()), *cursors])

    def learn(self, unknown: Iterable[Path]) -> Shape:
        """Give the shape that also knows these fields, as far as there is room for them.

        Parameters
        ----------
        unknown
            Paths of fields without a column. Only plain names are learned.

        Returns
        -------
        Shape
            A new shape, or this one if there is nothing to learn.
        """
        new = sorted(path for path in set(unknown) - set(self.learned) if _PLAIN_NAME.fullmatch(path[-1]))
        room = MOST_LEARNED - len(self.learned)
        return Shape(self.schema, [*self.learned, *new[:room]]) if new and room > 0 else self

    def raws(self, records: Sequence[Any], path: Path) -> list[msgspec.Raw]:
        """List the values of one field of the page's records as their JSON text.

        Parameters
        ----------
        records
            The page's records.
        path
            The field.

        Returns
        -------
        list of msgspec.Raw
            One text a record; `NULL` itself where the field is absent.
        """
        return self._root.raws(records, path)


class Open:
    """An object that has keys of the callers' and one that belongs to columns, such as ``metadata``.

    Parameters
    ----------
    key
        Where it stands in a record.
    branch
        What belongs to it; one key.
    learned
        Paths of fields without a column.
    """

    def __init__(self, key: str, branch: Branch, learned: Sequence[Path]) -> None:
        ((self.inner, known),) = branch.keys.items()
        if branch.rest is None or not isinstance(known, Branch):
            raise TypeError(f"{key}.{self.inner} is not an object in an open one")
        self.column = branch.rest
        self.path = (key, self.inner)
        self.level = _level(known, self.path, learned)
        self.learned = [path for path in learned if path[:2] == self.path]
        self.members = msgspec.json.Decoder(list[dict[str, msgspec.Raw] | None])
        self.inners: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            list[self.level.struct | None]  # type: ignore[name-defined]
        )


def _level(branch: Branch, path: Path, learned: Sequence[Path]) -> Level:
    attributes: dict[str, str] = {}
    below: dict[str, Level] = {}
    fields: list[tuple[str, Any, Any]] = []

    def add(key: str, kind: Any, default: Any = None) -> None:  # noqa: ANN401 - any type that msgspec reads
        attributes[key] = f"field{len(attributes)}"
        fields.append((attributes[key], kind, default))

    for key, known in branch.keys.items():
        if isinstance(known, str):
            add(key, Literal[known] | None)
        elif isinstance(known, Column):
            if known.kind is Kind.JSON_LIST:
                add(key, msgspec.Raw, NULL)
        elif known.rest is not None:
            add(key, msgspec.Raw, NULL)
        else:
            level = _level(known, (*path, key), learned)
            if level.attributes:
                below[key] = level
                add(key, level.struct | None)
    for known_path in learned:
        if known_path[:-1] == path:
            add(known_path[-1], msgspec.Raw, NULL)
    struct = msgspec.defstruct(
        "Level", fields, rename={attribute: key for key, attribute in attributes.items()}, gc=False
    )
    return Level(struct, attributes, below)


#: Times are read as text, since their digits are cut first. Of JSON lists only the number of objects is read.
_READ_AS: dict[Kind, pa.DataType] = {
    Kind.TEXT: pa.large_string(),
    Kind.INTEGER: pa.int64(),
    Kind.TIME: pa.large_string(),
    Kind.TEXTS: pa.list_(pa.string()),
    Kind.TIMES: pa.list_(pa.large_string()),
    Kind.JSON_LIST: pa.list_(pa.struct([])),
}


def _fields(branch: Branch) -> Iterator[pa.Field[Any]]:
    for key, known in branch.keys.items():
        if isinstance(known, Branch):
            yield pa.field(key, pa.struct(list(_fields(known))))
        else:
            yield pa.field(key, pa.large_string() if isinstance(known, str) else _READ_AS[known.kind])
