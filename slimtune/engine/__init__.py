"""Training and generation: the only room that imports torch, unsloth, trl, peft, transformers and bitsandbytes.

Importing it sets the environment those libraries read at their own import: no statistics calls, no self-installing,
compiled kernels in the cache. One model a process (Unsloth keeps state in the process).
"""

import os

from slimtune.files import cache_folder

_ENVIRONMENT = {
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "UNSLOTH_AUTO_INSTALL": "0",
    "UNSLOTH_COMPILE_LOCATION": str(cache_folder() / "compiled"),
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
