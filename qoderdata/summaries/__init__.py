"""Failure rates and their kin: frame in, frame out."""

from qoderdata.summaries.rates import failure_rates
from qoderdata.summaries.run_rates import run_failure_rates

__all__ = ["failure_rates", "run_failure_rates"]
