"""One request to the service: auth to one host, pace, retries, the error envelope. Pages are `paging`'s."""
