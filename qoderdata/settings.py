"""Where the token, the base URL, the workspace and the cache folder come from, and which of them cannot be.

The order is: argument, then environment, then default. Only the workspace has no variable: no tool of the service
has one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import platformdirs

from qoderdata.errors import CredentialError

#: The international service; the one in China is ``https://api.qoder.com.cn/api/v1/cloud``.
DEFAULT_BASE_URL = "https://api.qoder.com/api/v1/cloud"

PAT_VARIABLE = "QODER_PAT"
BASE_URL_VARIABLE = "QODER_MANAGED_BASE_URL"
CACHE_DIR_VARIABLE = "QODERDATA_CACHE_DIR"

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


def resolve_pat(pat: str | None = None) -> str:
    """Find the access token.

    Parameters
    ----------
    pat
        The token; ``None`` takes the environment variable ``QODER_PAT``.

    Returns
    -------
    str
        The token, without white space around it.

    Raises
    ------
    CredentialError
        There is none, or it has characters that no header can carry. The message never shows it.

    Examples
    --------
    >>> resolve_pat("  pt-example ")
    'pt-example'
    """
    source = "the argument pat" if pat is not None else PAT_VARIABLE
    token = (pat if pat is not None else os.environ.get(PAT_VARIABLE, "")).strip()
    if not token:
        raise CredentialError(
            f"no token: {source} is empty or not set. Set {PAT_VARIABLE} to a personal access token (pt-…) of "
            "Qoder Cloud, or try the toolkit without an account on the sandbox: `qoderdata sandbox`, or "
            "`from qoderdata.sandbox import Sandbox`"
        )
    if not _PRINTABLE.fullmatch(token):
        del pat, token  # a traceback that shows local variables must not show these
        raise CredentialError(
            f"the token in {source} has a space, a line break or another character that a header cannot "
            f"carry. Copy it again from Qoder Cloud and set {PAT_VARIABLE}"
        )
    return token


def resolve_base_url(base_url: str | None = None) -> str:
    """Find the service's base URL.

    Parameters
    ----------
    base_url
        The URL; ``None`` takes ``QODER_MANAGED_BASE_URL``, else `DEFAULT_BASE_URL`.

    Returns
    -------
    str
        The URL, without a slash at its end.

    Raises
    ------
    ValueError
        It is not an absolute http(s) URL, carries a user, query or fragment, or is plain ``http`` to a host
        that is not this machine: the token would cross the network unencrypted.

    Examples
    --------
    >>> resolve_base_url("http://127.0.0.1:8000/api/v1/cloud/")
    'http://127.0.0.1:8000/api/v1/cloud'
    """
    text = (base_url or os.environ.get(BASE_URL_VARIABLE, "").strip() or DEFAULT_BASE_URL).strip()
    try:
        url = urlsplit(text)
        host, _ = (url.hostname or "").lower(), url.port
    except ValueError as error:
        raise ValueError(f"the base URL is not a URL; write one like {DEFAULT_BASE_URL}") from error
    if "@" in url.netloc or url.query or url.fragment:
        raise ValueError(
            f"the base URL may not carry a user, a query or a fragment; write one like {DEFAULT_BASE_URL}"
        )
    if url.scheme not in {"http", "https"} or not host:
        raise ValueError(
            f"the base URL {text!r} is not an absolute http(s) URL; write one like {DEFAULT_BASE_URL}"
        )
    if url.scheme == "http" and host not in _LOOPBACK:
        raise ValueError(
            f"plain http to {host!r} would send the token unencrypted; write https://, or use a loopback address"
        )
    return urlunsplit((url.scheme, url.netloc.lower(), url.path.rstrip("/"), "", ""))


def resolve_workspace_id(workspace_id: str | None = None) -> str | None:
    """Check the workspace that requests are made in.

    Parameters
    ----------
    workspace_id
        Its id; ``None`` or an empty text leaves the choice to the service.

    Returns
    -------
    str or None
        The id, without white space around it.

    Raises
    ------
    ValueError
        It has characters that no header can carry.

    Examples
    --------
    >>> resolve_workspace_id(" ws_1 "), resolve_workspace_id("")
    ('ws_1', None)
    """
    text = (workspace_id or "").strip()
    if text and not _PRINTABLE.fullmatch(text):
        raise ValueError(f"workspace_id={workspace_id!r} has characters that a header cannot carry; copy it again")
    return text or None


def resolve_cache_dir(cache_dir: str | Path | None = None) -> str:
    """Find the folder that cached answers and runs are kept in; nothing is created.

    Parameters
    ----------
    cache_dir
        A folder, or a URL of one (``s3://bucket/folder``); ``None`` takes ``QODERDATA_CACHE_DIR``, else the
        platform's user cache folder.

    Returns
    -------
    str
        The folder's absolute path, or the URL.

    Examples
    --------
    >>> resolve_cache_dir("s3://bucket/qoderdata")
    's3://bucket/qoderdata'
    """
    text = str(
        cache_dir or os.environ.get(CACHE_DIR_VARIABLE, "").strip() or platformdirs.user_cache_dir("qoderdata")
    )
    return text if "://" in text else str(Path(text).expanduser().absolute())
