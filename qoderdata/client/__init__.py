"""One request to the service: authorized, rate limited, retried, and its errors as exceptions.

===========  ================================================================================
file         question
===========  ================================================================================
`client`     Which calls are there, and how do the parts below make one request of them?
`retries`    When may a request start, which responses are retried, and after how long?
`responses`  Which exception does a response or a broken connection become, in which words?
`transport`  How is a request sent with the access token, and a response read within limits?
===========  ================================================================================
"""

from __future__ import annotations

from qoderdata.client.client import Client, given_client

__all__ = ["Client", "given_client"]
