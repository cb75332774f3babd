"""The access token: in one header of requests to one host, and nowhere else.

Whatever shows an object (``repr``, a traceback with local variables, a debugger) shows a mask.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from requests.models import PreparedRequest

_MASK = "***"
_SALT = b"qoderdata account digest v1\0"
_DIGEST_LENGTH = 16


class MaskedText(str):
    """Text that is sent as it is and shown as a mask; of a header's value, requests wants a real ``str``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{_MASK}'"


class Token:
    """Put the token into the ``Authorization`` header of requests to one origin.

    Being the request's own `auth`, it also keeps requests from taking a password out of ``~/.netrc`` instead.

    Parameters
    ----------
    value
        The token.
    base_url
        The service; a request to another scheme, host or port gets no token.

    Attributes
    ----------
    account : str
        A digest that tells accounts apart and does not give the token away.
    """

    def __init__(self, value: str, *, base_url: str) -> None:
        # First of all, so that a traceback from here that shows local variables does not show this one.
        value = MaskedText(value)
        self._value = value
        import requests  # noqa: PLC0415 - takes as long as half of this package, and analysis needs no client

        # Prepared as every request will be, so that a host outside ASCII compares equal.
        self._origin = _origin(requests.Request("GET", base_url).prepare().url)
        self.account = hashlib.sha256(_SALT + value.encode()).hexdigest()[:_DIGEST_LENGTH]

    def __repr__(self) -> str:
        return f"Token('{_MASK}')"

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Authorize a request, as requests has it."""
        if _origin(request.url) == self._origin:
            request.headers["Authorization"] = MaskedText(f"Bearer {self._value}")
        return request

    def mask(self, text: str) -> str:
        """Put a mask where a text from elsewhere, such as the service's own words, has the token in it."""
        return text.replace(str(self._value), _MASK)


def _origin(url: str | None) -> tuple[str, str]:
    parts = urlsplit(url or "")
    return parts.scheme, parts.netloc
