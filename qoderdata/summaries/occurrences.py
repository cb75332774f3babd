"""Which attempt speaks for a scheduled time: the last one.

The service names no occurrence, so it is told from the runs: a retry with attempt n continues the latest
earlier failed run of its deployment with attempt n - 1. What was skipped, completed or never ended is not
retried. A run is a retry when its trigger says so or its attempt is above 1; an attempt that is missing
counts as 1, that of a retry as 2. A retry whose first attempt is not in the frame stands for itself.
"""

from __future__ import annotations

from typing import Any

import narwhals as nw

#: What the rule needs to know of a run.
COLUMNS = ["id", "deployment_id", "status", "trigger_type", "attempt", "triggered_at"]


def last_attempts(runs: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
    """Leave out every run that a later attempt continues."""
    attempt = nw.col("attempt").cast(nw.Int64)
    columns = runs.collect_schema().names()
    retry = (nw.col("trigger_type") == "retry") | (attempt > 1)
    runs = runs.with_columns(
        nw.when(retry).then(nw.lit(1)).otherwise(nw.lit(0)).alias("_retry"),
        nw.when(nw.col("status") == "failed").then(nw.lit(1)).otherwise(nw.lit(0)).alias("_failed"),
    )
    least = nw.col("_retry") + 1
    runs = runs.with_columns(
        nw.when(attempt > least).then(attempt).otherwise(least).cast(nw.Int64).alias("_attempt")
    )
    # A failed run and the retries that could continue it form one chain in time; whatever fails and is followed
    # by a retry is not the last word. A failed retry stands in two chains: as a retry, and as what is retried.
    failed = runs.filter(nw.col("_failed") == 1).with_columns(
        nw.col("_attempt").alias("_chain"), nw.lit(0).alias("_continues")
    )
    retries = runs.filter(nw.col("_retry") == 1).with_columns(
        (nw.col("_attempt") - 1).alias("_chain"), nw.lit(1).alias("_continues")
    )
    chains = nw.concat([failed, retries]).with_columns(
        nw.col("_continues")
        .shift(-1)
        .over("deployment_id", "_chain", order_by=["triggered_at", "id"])
        .alias("_next")
    )
    last = chains.filter(nw.col("_continues") == 0, nw.col("_next").fill_null(0) == 0)
    return nw.concat([runs.filter(nw.col("_failed") == 0).select(*columns), last.select(*columns)])
