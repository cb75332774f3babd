"""The progress bar of a pull: where somebody watches, once it takes more than a second."""

from __future__ import annotations

import sys
from typing import Any

#: Pulls shorter than this show no bar.
AFTER_SECONDS = 1.0


def bar(unit: str, *, progress: bool | None) -> Any:  # noqa: ANN401 - tqdm is loaded when it is needed
    """Make a progress bar.

    Parameters
    ----------
    unit
        What is counted, such as ``"runs"``.
    progress
        Whether there is one; ``None``: on a terminal or in a notebook, after `AFTER_SECONDS`.

    Returns
    -------
    tqdm.tqdm
        A bar on standard error; it is gone when it is closed.
    """
    from tqdm import tqdm  # noqa: PLC0415 - as above

    return tqdm(
        disable=not (_is_watched() if progress is None else progress),
        delay=AFTER_SECONDS if progress is None else 0,
        unit=f" {unit}",
        unit_scale=True,
        desc=f"Pulling {unit}",
        file=sys.stderr,
        leave=False,
    )


def _is_watched() -> bool:
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr is not None and sys.stderr.isatty()
