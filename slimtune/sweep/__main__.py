"""`python -m slimtune.sweep [DATA]`: the worker that trains and scores."""

import sys
from pathlib import Path

from slimtune.sweep.cell import Cells
from slimtune.sweep.worker import work

work(Cells(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
