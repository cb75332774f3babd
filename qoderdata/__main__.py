"""``python -m qoderdata`` is the command ``qoderdata``."""

import sys

from qoderdata.cli import main

sys.exit(main())
