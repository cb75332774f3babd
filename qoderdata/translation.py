"""In which language are sentences for people written: which translations are in use, and how is a message marked?

The sources have the English sentences. `gettext` and `ngettext` look them up in the translations of the block
`translated`; outside of one, a sentence stays as it is. ``report/zh.po`` is a catalogue of translations.
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
    """Write sentences in another language, that of a catalogue, within a ``with`` block.

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
    """Return an English message in the language of the block; its fields are filled as `str.format` does.

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
    """Return a message as it is: the catalogue then has it, and `gettext` translates it where it is shown.

    Examples
    --------
    >>> mark("Monday")
    'Monday'
    """
    return message
