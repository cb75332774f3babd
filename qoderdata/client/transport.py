"""Send one HTTP request to one host and read the response within limits of time and size.

No exception of `requests` or of the layers below leaves this module: the frames of their tracebacks hold the
request's headers, and so the access token.
"""

from __future__ import annotations

import hashlib
import http.client
import io
from dataclasses import dataclass
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.utils import prepend_scheme_if_needed, select_proxy

from qoderdata import errors
from qoderdata.client.responses import Response, TransportFailure
from qoderdata.settings import Secret

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from _typeshed import WriteableBuffer
    from requests.models import PreparedRequest

    from qoderdata.client.retries import SystemClock

_MASK = "***"
_SALT = b"qoderdata account digest v1\0"
_DIGEST_LENGTH = 16
#: How many bytes of a body are read at once; fewer of a compressed one, which may become a thousand times as long.
_PIECE = 1 << 23
_COMPRESSED_PIECE = 1 << 20
#: The time limit of a whole response, as a multiple of the limit for its next bytes.
_WHOLE_RESPONSE = 5
#: Bytes beyond the body that a response may have: status line, headers, chunk sizes, trailers.
_OVERHEAD = 1 << 20


class Token:
    """Add the access token to requests to one origin; a request to another scheme, host or port gets none.

    `account` is a digest of the token; the token cannot be computed from it.
    """

    def __init__(self, secret: Secret, *, base_url: str) -> None:
        self._secret = secret
        # Prepared like every request, so that a host name with non-ASCII letters compares equal.
        try:
            self._origin = _origin(requests.Request("GET", base_url).prepare().url)
        except requests.exceptions.RequestException:
            raise ValueError("the base URL has a host that is not valid") from None
        self.account = hashlib.sha256(_SALT + secret.encode()).hexdigest()[:_DIGEST_LENGTH]

    def __repr__(self) -> str:
        return f"Token('{_MASK}')"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an access token cannot be copied or pickled; make a new Client where it is needed")

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the ``Authorization`` header to a request to the service."""
        if _origin(request.url) == self._origin:
            # http.client only calls `encode` on the value of a header.
            request.headers["Authorization"] = cast("str", Secret("Bearer " + self._secret.reveal()))
        return request

    def mask(self, text: str) -> str:
        """Replace the token in a text with a mask."""
        return text.replace(self._secret.reveal(), _MASK)


class Transport:
    """Send requests to one service.

    `timeout`: seconds to wait for a connection, and for the next bytes of a response; a whole response may take
    five times the latter. `max_response_bytes` is counted after decompression.
    """

    def __init__(
        self,
        base_url: str,
        token: Token,
        *,
        headers: Mapping[str, str],
        timeout: tuple[float, float],
        max_response_bytes: int,
        clock: SystemClock,
    ) -> None:
        self._base_url = base_url
        self._token = token
        self._timeout = timeout
        self._max_response_bytes = max_response_bytes
        self._session = _Session()
        self._session.mount("https://", _Adapter(_Limits(clock, timeout[1], max_response_bytes)))
        self._session.mount("http://", self._session.get_adapter("https://"))
        self._session.headers.update(headers)
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        # Plain http goes to this machine only; a proxy from the environment could read the token.
        self._session.trust_env = base_url.startswith("https:")
        # Each request is a copy with another URL: to prepare a new one takes as long as to send it.
        # Its own `auth` prevents requests from reading ~/.netrc.
        unauthorized = requests.Request("GET", base_url, auth=lambda request: request)
        self._template = self._session.prepare_request(unauthorized)

    def get(self, path: str, params: Mapping[str, str | Sequence[str]]) -> Response | TransportFailure:
        """Send one GET request and read the whole response, of any status; a list gives one parameter per item."""
        interruption: BaseException
        try:
            request = self._template.copy()
            request.prepare_url(self._base_url + path, params)
            settings = self._session.merge_environment_settings(
                request.url, proxies={}, stream=True, verify=None, cert=None
            )
            if not _is_proxy_valid(request.url or "", settings["proxies"]):
                return _no_request("the setting of the proxy is not a URL")
            with self._session.send(
                self._token(request), timeout=self._timeout, allow_redirects=False, **settings
            ) as response:
                return Response(response.status_code, response.headers, self._read(response.raw))
        except (OSError, urllib3.exceptions.HTTPError) as error:
            return self._explain(error)
        except BaseException as error:  # noqa: BLE001 - raised again below: Ctrl-C, without the frames of the calls made here
            interruption = error
        interruption.__cause__ = interruption.__context__ = None
        raise interruption.with_traceback(None)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _read(self, raw: urllib3.BaseHTTPResponse) -> bytes:
        pieces = []
        size = 0
        is_encoded = "Content-Encoding" in raw.headers
        # `read` gives fewer pieces to join, but does not refuse chunks of a negative size.
        read = raw.read1 if is_encoded or raw.chunked else raw.read
        amount = _COMPRESSED_PIECE if is_encoded else _PIECE
        while piece := read(amount, decode_content=is_encoded):
            size += len(piece)
            if size > self._max_response_bytes:
                raise _ResponseTooLargeError
            pieces.append(piece)
        return b"".join(pieces)

    def _explain(self, error: Exception) -> TransportFailure:
        """Convert an exception of requests, urllib3 or the system to a failure."""
        root = _root_cause(error)
        if isinstance(root, _ResponseTooLargeError):
            return TransportFailure(
                f"the response has more than {self._max_response_bytes} bytes, decompressed, and was not read to "
                "its end",
                "Where such a response is expected, allow more: Client(max_response_bytes=…)",
                errors.APIResponseValidationError,
                retryable=False,
            )
        if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
            connecting = isinstance(error, requests.ConnectTimeout)
            return TransportFailure(
                "no connection in time" if connecting else "no complete response in time",
                "Check the network, or allow more time: Client(timeout=(connect, read))",
                errors.APITimeoutError,
            )
        return _explain_connection(error, root)


def _explain_connection(error: Exception, root: BaseException) -> TransportFailure:
    """Convert an exception that is no time-out to a failure."""
    if "CERTIFICATE_VERIFY_FAILED" in str(root):
        return TransportFailure(
            "the service's certificate is not trusted here",
            "Behind a proxy that inspects TLS, set REQUESTS_CA_BUNDLE to its certificate authority's file",
            retryable=False,
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return TransportFailure(f"the proxy failed ({root})", "Check HTTPS_PROXY and NO_PROXY")
    if isinstance(error, ValueError) and not isinstance(error, requests.exceptions.InvalidHeader):
        # Not quoted: the URL of a proxy may hold a password.
        return _no_request(f"no request could be made ({type(error).__name__})")
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
        is_named = isinstance(root, OSError | http.client.HTTPException)
        reason = root if is_named else "the response is incomplete or invalid"
        return TransportFailure(f"the connection failed or broke ({reason})", "Check the network and the base URL")
    return TransportFailure(f"no request could be made ({root})", "Check REQUESTS_CA_BUNDLE", retryable=False)


class _ResponseTooLargeError(OSError):
    """A response is larger than the limit."""


@dataclass(frozen=True)
class _Limits:
    """The limits of every response of a transport."""

    clock: SystemClock
    read_timeout: float
    max_body: int


class _LimitedReader(io.RawIOBase):
    """Read a socket up to a deadline and a number of bytes, which count in every part of a response."""

    def __init__(self, stream: io.RawIOBase, sock: socket.socket, limits: _Limits) -> None:
        self._stream = stream
        self._sock = sock
        self._limits = limits
        self._deadline = limits.clock.monotonic() + _WHOLE_RESPONSE * limits.read_timeout
        self._left = limits.max_body + _OVERHEAD

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        left = self._deadline - self._limits.clock.monotonic()
        if left <= 0:
            raise TimeoutError("the whole response took too long")
        self._sock.settimeout(min(left, self._limits.read_timeout))
        count = cast("int | None", cast("Any", self._stream).readinto(buffer))
        self._left -= count or 0
        if self._left < 0:
            raise _ResponseTooLargeError
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _LimitedResponse(http.client.HTTPResponse):
    """A response that `_LimitedReader` reads completely, from its status line to its trailers."""

    def __init__(self, sock: socket.socket, method: str | None = None, *, limits: _Limits) -> None:
        super().__init__(sock, method=method)
        self.fp = io.BufferedReader(_LimitedReader(self.fp.detach(), sock, limits))


class _Adapter(requests.adapters.HTTPAdapter):
    """An adapter that limits the responses of all connections, also of those through proxies."""

    def __init__(self, limits: _Limits) -> None:
        self._limits = limits
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        super().init_poolmanager(*args, **kwargs)
        self._limit(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> urllib3.ProxyManager:  # noqa: ANN401 - passed on
        is_new = proxy not in self.proxy_manager
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **kwargs)
        if is_new:
            self._limit(manager)
        return manager

    def _limit(self, manager: urllib3.PoolManager) -> None:
        """Make the connections of a pool manager use `_LimitedResponse`."""
        response_class = staticmethod(partial(_LimitedResponse, limits=self._limits))
        limited = {}
        for scheme, pool in cast("dict[str, Any]", manager.pool_classes_by_scheme).items():
            connection = type("Connection", (pool.ConnectionCls,), {"response_class": response_class})
            limited[scheme] = type("Pool", (pool,), {"ConnectionCls": connection})
        manager.pool_classes_by_scheme = limited


class _Session(requests.Session):
    """A session that follows no redirect."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return ``None``: requests would prepare the next request even if it does not follow the redirect."""
        del resp
        return None


def _is_proxy_valid(url: str, proxies: Mapping[str, str]) -> bool:
    """Return whether the proxy for a URL, if there is one, can be parsed."""
    proxy = select_proxy(url, proxies)
    if proxy is None:
        return True
    try:
        parsed = urllib3.util.parse_url(prepend_scheme_if_needed(proxy, "http"))  # type: ignore[no-untyped-call]
        return bool(parsed.host)
    except (ValueError, TypeError, urllib3.exceptions.HTTPError, requests.RequestException):
        return False


def _no_request(reason: str) -> TransportFailure:
    return TransportFailure(reason, "Check the base URL, and HTTPS_PROXY", retryable=False)


def _root_cause(error: BaseException) -> BaseException:
    below = error.__cause__ or error.__context__
    return error if below is None else _root_cause(below)


def _origin(url: str | None) -> tuple[str, str]:
    parts = urlsplit(url or "")
    return parts.scheme, parts.netloc
