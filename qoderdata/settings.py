"""Resolve token, base URL, workspace, account and cache folder: argument, environment, default."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from pathlib import Path
from typing import NoReturn, TypedDict
from urllib.parse import urlsplit, urlunsplit

import platformdirs

from qoderdata.errors import CacheWarning, CredentialError, warn

#: The international service; the one in China is ``https://api.qoder.com.cn/api/v1/cloud``.
DEFAULT_BASE_URL = "https://api.qoder.com/api/v1/cloud"

ACCESS_TOKEN_VARIABLE = "QODER_ACCESS_TOKEN"  # noqa: S105 - the name of a variable
PAT_VARIABLE = "QODER_PAT"
BASE_URL_VARIABLE = "QODER_MANAGED_BASE_URL"
#: The variable that the service's SDKs for Go and TypeScript use.
OTHER_BASE_URL_VARIABLE = "QODER_BASE_URL"
CACHE_DIR_VARIABLE = "QODERDATA_CACHE_DIR"
ACCOUNT_VARIABLE = "QODERDATA_ACCOUNT"

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_PAT = re.compile(r"\bpt-", re.IGNORECASE)
_LONGEST_NAME = 40
#: A URL whose ``//`` `pathlib.Path` has collapsed.
_BROKEN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\]")


class Account(TypedDict):
    """The facts that identify an account: its service, its workspace, and its name or a digest of its token."""

    base_url: str
    workspace_id: str | None
    account: str


class Secret:
    """A value that is shown as a mask in a repr, a log, a debugger and a traceback with local variables.

    It is not a string, so that no string operation returns the plain text, and it cannot be copied or pickled.

    Examples
    --------
    >>> secret = Secret("pt-example")
    >>> secret, f"{secret}", secret.reveal()
    (Secret('***'), "Secret('***')", 'pt-example')
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be copied or pickled")

    def encode(self, encoding: str = "utf-8") -> bytes:
        """Return the text as bytes, as `http.client` asks of the value of a header."""
        return self.reveal().encode(encoding)

    def reveal(self) -> str:
        """Return the plain text; do not keep it in a local variable."""
        if not isinstance(self._value, str):
            raise TypeError(f"the access token must be a str, not {type(self._value).__name__}")
        return self._value


def resolve_token(pat: str | Secret | None = None) -> Secret:
    """Return the access token without white space around it.

    ``None`` takes ``QODER_ACCESS_TOKEN``, else ``QODER_PAT``. Raise `CredentialError` if there is none, or it
    has characters that a header cannot carry; the message never shows it.

    Examples
    --------
    >>> resolve_token("  pt-example ").reveal()
    'pt-example'
    """
    given = pat if pat is None or isinstance(pat, Secret) else Secret(pat)
    del pat  # do not show it in a traceback with local variables
    source, token = _find_token(given)
    if not token.reveal():
        missing = "is empty" if source == "the argument pat" else "is set"
        raise CredentialError(
            f"no access token: {source} {missing}. Set {ACCESS_TOKEN_VARIABLE} or {PAT_VARIABLE} to a personal "
            "access token (pt-…) or a service-account token of Qoder Cloud, or try the toolkit without an account "
            "on the sandbox: `qoderdata sandbox`, or `from qoderdata.sandbox import Sandbox`"
        )
    if not _PRINTABLE.fullmatch(token.reveal()):
        raise CredentialError(
            f"the access token in {source} has a space, a line break or another character that a header cannot "
            f"carry. Copy it again from Qoder Cloud and set {ACCESS_TOKEN_VARIABLE} or {PAT_VARIABLE}"
        )
    return token


def has_token() -> bool:
    """Return whether the environment has an access token that is more than white space."""
    return _first_set(ACCESS_TOKEN_VARIABLE, PAT_VARIABLE) is not None


def _first_set(*variables: str) -> str | None:
    """Return the name of the first environment variable with more than white space, if there is one."""
    return next((variable for variable in variables if os.environ.get(variable, "").strip()), None)


def _find_token(given: Secret | None) -> tuple[str, Secret]:
    """Return the name of the token's source, and the token without white space around it."""
    if given is not None:
        return "the argument pat", Secret(given.reveal().strip())
    variable = _first_set(ACCESS_TOKEN_VARIABLE, PAT_VARIABLE)
    if variable is None:
        return f"neither {ACCESS_TOKEN_VARIABLE} nor {PAT_VARIABLE}", Secret("")
    return variable, Secret(os.environ[variable].strip())


def resolve_base_url(base_url: str | None = None) -> str:
    """Return the base URL of the service, without a slash at its end.

    ``None`` takes ``QODER_MANAGED_BASE_URL``, else ``QODER_BASE_URL``, else `DEFAULT_BASE_URL`. Raise `ValueError`
    if it is no absolute http(s) URL, carries a user, query or fragment, or is plain ``http`` to a host that is
    not this machine: the token would cross the network unencrypted.

    Examples
    --------
    >>> resolve_base_url("http://127.0.0.1:8000/api/v1/cloud/")
    'http://127.0.0.1:8000/api/v1/cloud'
    """
    _check_text(base_url, name="base_url")
    source, text = _find_base_url(base_url)
    what = f"the base URL in {source}"  # not quoted: somebody may have put the token there
    try:
        url = urlsplit(text)
        host, _ = (url.hostname or "").lower(), url.port
    except ValueError:
        # Without its cause, which quotes a part of the URL.
        raise ValueError(f"{what} is not a URL; write one like {DEFAULT_BASE_URL}") from None
    if "@" in url.netloc or url.query or url.fragment:
        raise ValueError(f"{what} may not carry a user, a query or a fragment; write one like {DEFAULT_BASE_URL}")
    if url.scheme not in {"http", "https"} or not host or " " in host:
        raise ValueError(f"{what} is not an absolute http(s) URL; write one like {DEFAULT_BASE_URL}")
    if url.scheme == "http" and host not in _LOOPBACK:
        raise ValueError(
            f"{what} is plain http to {host!r}, which would send the token unencrypted; write https://, or use a "
            "loopback address"
        )
    return urlunsplit((url.scheme, url.netloc.lower(), url.path.rstrip("/"), "", ""))


def _find_base_url(base_url: str | None) -> tuple[str, str]:
    """Return the name of the base URL's source, and the text without white space around it."""
    if base_url:
        return "the argument base_url", base_url.strip()
    variable = _first_set(BASE_URL_VARIABLE, OTHER_BASE_URL_VARIABLE)
    if variable is None:
        return "the package", DEFAULT_BASE_URL
    return variable, os.environ[variable].strip()


def resolve_workspace_id(workspace_id: str | None = None) -> str | None:
    """Return the workspace that requests are made in; ``None`` leaves the choice to the service.

    Raise `ValueError` if it is not text, or has characters that no header can carry.

    Examples
    --------
    >>> resolve_workspace_id(" ws_1 "), resolve_workspace_id("")
    ('ws_1', None)
    """
    _check_text(workspace_id, name="workspace_id")
    text = (workspace_id or "").strip()
    if text and not _PRINTABLE.fullmatch(text):
        raise ValueError(f"workspace_id={workspace_id!r} has characters that a header cannot carry; copy it again")
    return text or None


def resolve_account(
    account: str | None = None, *, token: Secret | None = None, environment: bool = True
) -> str | None:
    """Return the name under which an account's data is stored; ``None`` if it has no name.

    ``None`` takes ``QODERDATA_ACCOUNT``; `environment`: whether that names the account of the token. Raise
    `ValueError` if it is too long, has a character that cannot be printed, or has a token in it; the message
    does not show it.

    Examples
    --------
    >>> resolve_account(" production "), resolve_account("")
    ('production', None)
    """
    _check_text(account, name="account")
    given = (account or "").strip()
    text = given or (os.environ.get(ACCOUNT_VARIABLE, "").strip() if environment else "")
    name = unicodedata.normalize("NFC", text)
    is_secret = _PAT.search(name) is not None or (token is not None and token.reveal() in name)
    if is_secret or len(name) > _LONGEST_NAME or not name.isprintable():
        source = "the argument account" if given else ACCOUNT_VARIABLE
        raise ValueError(
            f"{source} must be a name of your choice: at most {_LONGEST_NAME} characters that can be printed, and "
            "no access token"
        )
    return name or None


def resolve_cache_dir(cache_dir: str | Path | None = None) -> str:
    """Return the folder of the cache and the stores, a path or a URL, without creating it.

    ``None`` takes ``QODERDATA_CACHE_DIR``, else the platform's user cache folder. Raise `ValueError` for what is
    no path, and for a URL that a `pathlib.Path` has changed; a `CacheWarning` says so if the folder belongs to
    another user, and others may write into it.

    Examples
    --------
    >>> resolve_cache_dir("s3://bucket/qoderdata")
    's3://bucket/qoderdata'
    """
    if not isinstance(cache_dir, str | os.PathLike | None):
        raise ValueError(f"cache_dir must be a path, a URL or None, not {cache_dir!r}")  # noqa: TRY004 - as any other
    text = str(
        cache_dir or os.environ.get(CACHE_DIR_VARIABLE, "").strip() or platformdirs.user_cache_dir("qoderdata")
    )
    if "://" in text:
        return text
    if _BROKEN_URL.match(text):
        raise ValueError(f"cache_dir={text!r} was a URL before a Path changed it; give a URL as text")
    try:
        folder = Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"cache_dir={text!r} is below the home folder of a user who is not known") from None
    if _is_open_to_others(folder):
        warn(
            f"the cache folder {folder} belongs to another user, and others may write into it: what is read from "
            "it may be theirs. Set QODERDATA_CACHE_DIR or cache_dir to a folder of your own",
            CacheWarning,
        )
    return str(folder)


def _check_text(value: object, *, name: str) -> None:
    if not isinstance(value, str | None):
        raise ValueError(f"{name} must be a str or None, not {type(value).__name__}")  # noqa: TRY004 - as any other


def _is_open_to_others(folder: Path) -> bool:
    """Return whether a folder is another user's, and its group or everyone may write into it."""
    try:
        status = folder.stat()
    except OSError:
        return False
    own = os.geteuid() if hasattr(os, "geteuid") else status.st_uid
    return status.st_uid != own and bool(status.st_mode & _OTHERS_WRITE)
