"""The worker: `python -m slimtune.tryout RUN_FOLDER|MODEL [PARENT_PID]`. It ends with that parent, or its own."""

import os
import sys

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("python -m slimtune.tryout RUN_FOLDER|MODEL [PARENT_PID]")
    parent = int(sys.argv[2]) if len(sys.argv) == 3 else os.getppid()  # asked before the imports: they take a while
    from slimtune.tryout.worker import work

    sys.exit(work(sys.argv[1], parent=parent))
