"""Values that must not be shown: those of ``environment_variables``, which may hold secrets.

They are found wherever they can stand: under that key in JSON text (``extra``, as a whole or as a dotted path),
at any depth of a list or object, and in a column of that name. Keys stay, values become `MASK`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from qoderdata.errors import APIResponseValidationError
from qoderdata.frame import jsontext

#: What stands where a value was.
MASK = "***"
SECRET = "environment_variables"  # noqa: S105 - the name of the field, not a secret
#: Texts that may hold the key; an escape such as ``\\u0065`` could spell it.
PATTERN = rf"{SECRET}|\\u"
_MAY_HOLD = re.compile(PATTERN)
_ELEMENT = re.compile(rf"(?:\A|\.){SECRET}(?:\.|\Z)")


def is_secret(column: object) -> bool:
    """Tell whether a column holds such values by its name, also as a flattened path.

    Parameters
    ----------
    column
        The column's name.

    Returns
    -------
    bool
        Whether all its values are to be masked.

    Examples
    --------
    >>> is_secret("environment_variables"), is_secret("environment_variables_API_KEY"), is_secret("environment_id")
    (True, True, False)
    """
    return SECRET in str(column)


def mask_value(value: object, *, hide: bool = False) -> object:
    """Mask the secret values inside a list or object.

    Parameters
    ----------
    value
        What JSON, or a nested column, holds.
    hide
        Whether it is such a value already; then everything in it but keys and gaps is masked.

    Returns
    -------
    object
        The value, with new lists and objects.

    Examples
    --------
    >>> mask_value({"environment_variables": {"KEY": "s3cret", "OFF": None}, "environment_variables.A": 1, "b": 2})
    {'environment_variables': {'KEY': '***', 'OFF': None}, 'environment_variables.A': '***', 'b': 2}
    """
    if isinstance(value, Mapping):
        return {
            key: mask_value(item, hide=hide or _ELEMENT.search(str(key)) is not None)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask_value(item, hide=hide) for item in value]
    return MASK if hide and value is not None else value


def mask_text(text: str, *, hide: bool = False) -> str:
    """Mask the secret values in JSON text; any other text is left alone.

    Parameters
    ----------
    text
        JSON, or not.
    hide
        Whether the whole text is such a value; then text that is not a JSON list or object becomes `MASK`.

    Returns
    -------
    str
        The text; canonical JSON where something was masked.

    Examples
    --------
    >>> mask_text('{"environment_variables":{"KEY":"s3cret"}}'), mask_text("about environment_variables")
    ('{"environment_variables":{"KEY":"***"}}', 'about environment_variables')
    """
    if not hide and not _MAY_HOLD.search(text):
        return text
    try:
        value = jsontext.parse(text.encode())
    except (jsontext.NotJSONError, APIResponseValidationError):
        return MASK if hide else text
    masked = mask_value(value, hide=hide)
    return text if masked == value else jsontext.write(masked)
