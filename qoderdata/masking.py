"""Which values may be secrets, and how are they masked where a frame is shown or exported as text?

The values of ``environment_variables`` may be secrets. Deployments have one text there (``KEY=VALUE`` lines),
sessions an object. Where a frame is exported as text or printed by the command, both are masked wherever they can
stand: under that key in JSON text (``extra``, as a whole or as a dotted path), at any depth of a list or object,
and in a column of that name. A frame that pandas shows masks them in the column ``extra`` alone. The keys of an
object stay; a text becomes `MASK` as a whole, since a value may hold what looks like the next line. The access
token is masked elsewhere: by `Token` in `qoderdata.client.transport`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from qoderdata.decode.jsontext import NotJSONError, parse, write
from qoderdata.errors import APIResponseValidationError

#: Replaces a secret value.
MASK = "***"
SECRET = "environment_variables"  # noqa: S105 - the name of the field, not a secret
#: Matches texts that may contain the key, also with escapes such as ``\\u0065``.
SECRET_PATTERN = rf"{SECRET}|\\u"


def is_secret(name: object) -> bool:
    """Return whether everything in a column or key of this name is to be masked; the name may be a dotted path.

    Examples
    --------
    >>> is_secret("environment_variables"), is_secret("environment_variables_API_KEY"), is_secret("environment_id")
    (True, True, False)
    """
    return SECRET in str(name)


def mask_value(value: object, *, hide: bool = False) -> object:
    """Mask the secret values in a cell: in JSON text as `mask_text` does, or inside a list or object, in a copy.

    `hide`: the value itself is secret, so that everything in it but keys and missing values is masked.

    Examples
    --------
    >>> mask_value({"environment_variables": {"KEY": "s3cret", "OFF": None}, "environment_variables.A": 1, "b": 2})
    {'environment_variables': {'KEY': '***', 'OFF': None}, 'environment_variables.A': '***', 'b': 2}
    """
    return mask_text(value, hide=hide) if isinstance(value, str) else _masked(value, hide=hide)


def _masked(value: object, *, hide: bool) -> object:
    if isinstance(value, Mapping):
        return {key: _masked(item, hide=hide or is_secret(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item, hide=hide) for item in value]
    if isinstance(value, str) and not hide:
        return mask_text(value)
    return MASK if hide and value is not None else value


def mask_text(text: str, *, hide: bool = False) -> str:
    """Mask the secret values in JSON text; other text is left alone, unless it looks like an object cut short.

    `hide`: the whole text is secret; text that is not a JSON list or object becomes `MASK`.

    Examples
    --------
    >>> mask_text('{"environment_variables":{"KEY":"s3cret"}}')
    '{"environment_variables":{"KEY":"***"}}'
    >>> mask_text('{"environment_variables":"KEY=s3cret"}')
    '{"environment_variables":"***"}'
    >>> mask_text('{"environment_variables":"KEY=s3'), mask_text("about environment_variables")
    ('***', 'about environment_variables')
    """
    if not hide and not re.search(SECRET_PATTERN, text):
        return text
    try:
        value = parse(text.encode())
    except (NotJSONError, APIResponseValidationError):
        return MASK if hide or text.lstrip().startswith("{") else text
    if hide and not isinstance(value, Mapping | list):
        return MASK
    masked = _masked(value, hide=hide)
    return text if masked == value else write(masked)
