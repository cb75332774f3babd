"""One try of one request: what came back, or why nothing did. Whether it is tried again is not decided here.

Nothing that `requests` or the layers below raise leaves this module: the frames in their tracebacks hold the
request's headers, and a traceback that shows local variables would show the token.
"""

from __future__ import annotations

from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING

import requests
import urllib3

from qoderdata.client.answers import Answer, Broken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qoderdata.client.pace import Clock
    from qoderdata.client.token import Token

_CHUNK = 1 << 20
_TOTAL = 5


class _Session(requests.Session):
    """A session that takes a redirect for an answer like any other."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Say that there is nothing to follow; requests would prepare the next request without being told to."""
        del resp
        return None


class Transport:
    """Send requests to one service.

    Parameters
    ----------
    base_url
        The service, without a slash at its end.
    token
        What authorizes the requests.
    headers
        Headers of every request.
    timeout
        Seconds to wait for a connection, and for the next bytes of an answer. A whole answer may take five times
        the latter.
    clock
        What tells the time.
    """

    def __init__(
        self,
        base_url: str,
        token: Token,
        *,
        headers: Mapping[str, str],
        timeout: tuple[float, float],
        clock: Clock,
    ) -> None:
        self._base_url = base_url
        self._token = token
        self._timeout = timeout
        self._clock = clock
        self._session = _Session()
        self._session.headers.update(headers)
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        # Plain http goes to this machine alone; a proxy from the environment would be handed the token to read.
        self._session.trust_env = base_url.startswith("https:")
        # Each request is a copy with another URL: to prepare one anew takes as long as all the rest of sending it.
        # That it seems to authorize itself keeps requests from reading ~/.netrc.
        unauthorized = requests.Request("GET", base_url, auth=lambda request: request)
        self._template = self._session.prepare_request(unauthorized)

    def get(self, path: str, params: Mapping[str, str]) -> Answer | Broken:
        """Send one GET request and read all of the answer.

        Parameters
        ----------
        path
            The path below the base URL, quoted, with the slash before it.
        params
            The query.

        Returns
        -------
        Answer or Broken
            Whatever happened, as a value.
        """
        interruption: BaseException
        try:
            request = self._template.copy()
            request.prepare_url(self._base_url + path, params)
            settings = self._session.merge_environment_settings(
                request.url, proxies={}, stream=True, verify=None, cert=None
            )
            with self._session.send(
                self._token(request), timeout=self._timeout, allow_redirects=False, **settings
            ) as response:
                return Answer(response.status_code, response.headers, self._read(response.raw))
        except (OSError, urllib3.exceptions.HTTPError) as error:
            return _explain(error)
        except BaseException as error:  # noqa: BLE001 - raised on below: Ctrl-C, without the frames beneath this one
            interruption = error
        interruption.__cause__ = interruption.__context__ = None
        raise interruption.with_traceback(None)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _read(self, raw: urllib3.BaseHTTPResponse) -> bytes:
        deadline = self._clock.monotonic() + _TOTAL * self._timeout[1]
        chunks = []
        encoded = "Content-Encoding" in raw.headers
        # read1 gives what is there, so that a service which sends a byte now and then meets the deadline.
        while chunk := raw.read1(_CHUNK, decode_content=encoded):
            chunks.append(chunk)
            if self._clock.monotonic() > deadline:
                raise requests.ReadTimeout
        return b"".join(chunks)


def _explain(error: Exception) -> Broken:
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        connecting = isinstance(error, requests.ConnectTimeout)
        return Broken(
            "no connection in time" if connecting else "no whole answer in time",
            "Check the network, or allow more time: Client(timeout=(connect, read))",
            timed_out=True,
        )
    root = _root(error)
    if "CERTIFICATE_VERIFY_FAILED" in str(root):
        return Broken(
            "the service's certificate is not trusted here",
            "Behind a proxy that inspects TLS, set REQUESTS_CA_BUNDLE to its certificate authority's file",
            passing=False,
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return Broken(f"the proxy failed ({root})", "Check HTTPS_PROXY and NO_PROXY")
    if isinstance(error, ValueError):
        # Not quoted: a proxy's URL may hold a password.
        return Broken(
            f"no request could be made ({type(error).__name__})",
            "Check the base URL, and HTTPS_PROXY",
            passing=False,
        )
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
        reason = root if isinstance(root, OSError | HTTPException) else "the answer is cut short or garbled"
        return Broken(f"the connection failed or broke ({reason})", "Check the network and the base URL")
    return Broken(f"no request could be made ({root})", "Check REQUESTS_CA_BUNDLE", passing=False)


def _root(error: BaseException) -> BaseException:
    below = error.__cause__ or error.__context__
    return error if below is None else _root(below)
