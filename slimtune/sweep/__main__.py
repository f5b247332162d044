"""`python -m slimtune.sweep COMMAND [DATA]`: the worker that trains and scores. COMMAND is what started the study."""

import sys
from pathlib import Path

from slimtune.sweep.cell import Cells
from slimtune.sweep.worker import work

work(Cells(Path(sys.argv[2]) if len(sys.argv) > 2 else None, sys.argv[1]))
