"""Translate sentences for people: which catalogue is in use, and how is a message marked for it?

The source code has English sentences. Within a ``with translated(…)`` block, `gettext` and `ngettext` look them up
in its catalogue; elsewhere a sentence stays as it is. ``report/zh.po`` is a catalogue.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from gettext import NullTranslations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_translations: ContextVar[NullTranslations] = ContextVar("translations", default=NullTranslations())  # noqa: B039 - it has no state


@contextmanager
def translated(translations: NullTranslations) -> Iterator[None]:
    """Translate sentences by a catalogue within a ``with`` block.

    Examples
    --------
    >>> class Shouting(NullTranslations):
    ...     def gettext(self, message: str) -> str:
    ...         return message.upper()
    >>> with translated(Shouting()):
    ...     print(gettext("every day"))
    EVERY DAY
    """
    token = _translations.set(translations)
    try:
        yield
    finally:
        _translations.reset(token)


def gettext(message: str, /, **values: object) -> str:
    """Return an English message, translated if a catalogue is in use, with its fields filled by `str.format`.

    Examples
    --------
    >>> gettext("{name} is paused", name="nightly report")
    'nightly report is paused'
    """
    return _translations.get().gettext(message).format(**values)


def ngettext(singular: str, plural: str, number: int, /, **values: object) -> str:
    """Return a message about a number of things; its field ``count`` is the number.

    Examples
    --------
    >>> ngettext("{count} run", "{count} runs", 1), ngettext("{count} run", "{count} runs", 2500)
    ('1 run', '2,500 runs')
    """
    return _translations.get().ngettext(singular, plural, int(number)).format(count=f"{number:,}", **values)


def mark(message: str) -> str:
    """Return a message unchanged, and mark it for the catalogue; `gettext` translates it where it is shown.

    Examples
    --------
    >>> mark("Monday")
    'Monday'
    """
    return message
