"""Mask the values of ``environment_variables``, which may hold secrets.

Deployments have one text there (``KEY=VALUE`` lines), sessions an object. Both are masked wherever they can
stand: under that key in JSON text (``extra``, as a whole or as a dotted path), at any depth of a list or object,
and in a column of that name. The keys of an object stay; a text becomes `MASK` as a whole, since a value may hold
what looks like the next line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from qoderdata.decode import jsontext
from qoderdata.errors import APIResponseValidationError

#: Stands where a value was.
MASK = "***"
SECRET = "environment_variables"  # noqa: S105 - the name of the field, not a secret
#: Texts that may hold the key; an escape such as ``\\u0065`` could spell it.
PATTERN = rf"{SECRET}|\\u"
_MAY_HOLD = re.compile(PATTERN)


def is_secret(name: object) -> bool:
    """Tell whether a column or key names such values, also as a part of a path.

    Parameters
    ----------
    name
        The name of a column, or the key of an object.

    Returns
    -------
    bool
        Whether all that it holds is to be masked.

    Examples
    --------
    >>> is_secret("environment_variables"), is_secret("environment_variables_API_KEY"), is_secret("environment_id")
    (True, True, False)
    """
    return SECRET in str(name)


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
        return {key: mask_value(item, hide=hide or is_secret(key)) for key, item in value.items()}
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
    >>> mask_text('{"environment_variables":{"KEY":"s3cret"}}')
    '{"environment_variables":{"KEY":"***"}}'
    >>> mask_text('{"environment_variables":"KEY=s3cret"}')
    '{"environment_variables":"***"}'
    >>> mask_text("about environment_variables")
    'about environment_variables'
    """
    if not hide and not _MAY_HOLD.search(text):
        return text
    try:
        value = jsontext.parse(text.encode())
    except (jsontext.NotJSONError, APIResponseValidationError):
        return MASK if hide else text
    masked = mask_value(value, hide=hide)
    return text if masked == value else jsontext.write(masked)
