"""JSON texts that come again and again, such as owners and repositories: each is proved once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import msgspec

#: More are not kept, however many different ones a pull has.
_MOST = 100_000


class Repeats:
    """What has been proved of the texts of some columns; may be used from several threads.

    A column in which most of a page's texts differ is left alone: to look them up would cost more than it saves.

    Examples
    --------
    >>> repeats = Repeats()
    >>> repeats.unproved("metadata", [b"{}", b'{"team":"a"}', b"{}", b"{}"]) == {b"{}", b'{"team":"a"}'}
    True
    >>> repeats.add([b"{}"])
    >>> repeats.unproved("metadata", [b"{}", b"{}"])
    set()
    """

    def __init__(self) -> None:
        self._proved: set[bytes] = set()
        self._various: set[str] = set()

    def unproved(self, column: str, texts: Collection[bytes | msgspec.Raw]) -> Collection[bytes | msgspec.Raw]:
        """Give those of a column's texts that are still to be proved, each at least once."""
        if column in self._various:
            return texts
        distinct = set(map(bytes, texts))
        if 2 * len(distinct) > len(texts):
            self._various.add(column)
            return texts
        return distinct - self._proved

    def add(self, texts: Iterable[bytes | msgspec.Raw]) -> None:
        """Keep what was proved, of the columns that repeat themselves."""
        if len(self._proved) < _MOST:
            self._proved.update(text for text in texts if isinstance(text, bytes))
