"""Return a client and the current time in one call, with an account or without one."""

from __future__ import annotations

import atexit
from typing import Any

import pandas as pd

from qoderdata.client import Client
from qoderdata.errors import warn
from qoderdata.sandbox import Sandbox
from qoderdata.settings import ACCESS_TOKEN_VARIABLE, PAT_VARIABLE, has_token

#: The running sandboxes by their arguments: a notebook cell that runs again gets the same account.
_SERVING: dict[str, Sandbox] = {}


def connect(**sandbox: Any) -> tuple[Client, pd.Timestamp]:  # noqa: ANN401 - the arguments of another class
    """Return a client and the present: of the environment's account, or of a sandbox if there is no token.

    Parameters
    ----------
    **sandbox
        Arguments of `qoderdata.sandbox.Sandbox`, such as ``deployments=60`` or ``edition="D"``. They have no
        effect if the environment has a token.

    Returns
    -------
    client : Client
        The account of the token in ``QODER_ACCESS_TOKEN`` or ``QODER_PAT``. Without a token, that of a sandbox
        on this machine, which ends with the process; the same arguments give the same sandbox again.
    now : pandas.Timestamp
        The current time, in UTC; for a sandbox its clock, which does not advance. Ages count back from the
        clock of this machine: with a sandbox, give ``since=now - pd.Timedelta("30D")`` instead of ``"30D"``.

    Raises
    ------
    CredentialError
        The environment's token cannot be sent.
    TypeError
        `Sandbox` does not have such an argument.
    ValueError
        The environment's base URL, or the value of an argument, is not valid.

    Warns
    -----
    UserWarning
        It is a sandbox.

    Examples
    --------
    >>> import warnings
    >>> import qoderdata as qd
    >>> with warnings.catch_warnings(action="ignore"):
    ...     client, now = qd.connect(deployments=30)
    >>> df = qd.load_deployments(client=client, include_archived=True)
    >>> triggers = qd.next_triggers(df, "24h", start=now)
    >>> len(df), now.isoformat()
    (30, '2026-06-15T01:30:20+00:00')
    """
    if has_token():
        return Client(), pd.Timestamp.now("UTC")
    key = repr(sorted(sandbox.items()))
    served = _SERVING.get(key)
    if served is None:
        served = _SERVING[key] = Sandbox(**sandbox).start()
        atexit.register(served.stop)
    now = pd.Timestamp(served.now)
    warn(
        f"this is a sandbox: an invented account on this machine, whose clock always shows {now.isoformat()}. "
        f"For your own account set {ACCESS_TOKEN_VARIABLE} or {PAT_VARIABLE}",
        UserWarning,
    )
    # A service wants a pause between two requests; a sandbox does not.
    return Client(pat=served.pat, base_url=served.base_url, min_interval=0), now
