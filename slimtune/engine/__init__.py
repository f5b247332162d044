"""Training and generation: the only room that imports torch, unsloth, trl, peft, transformers and bitsandbytes.

Importing it sets the environment those libraries read at their own import: no statistics calls, no self-installing,
compiled kernels in the cache. One model a process (Unsloth keeps state in the process).
"""

import importlib.metadata
import importlib.util
import os

from packaging.version import Version

from slimtune.errors import UserError
from slimtune.files import cache_folder
from slimtune.gpus import detect_gpu
from slimtune.models.hub import QUIET_HUB

_ENVIRONMENT = {
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "UNSLOTH_AUTO_INSTALL": "0",
    "UNSLOTH_COMPILE_LOCATION": str(cache_folder() / "compiled"),
    **QUIET_HUB,
    "DO_NOT_TRACK": "1",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML counts, so that the card that is planned for is the one that trains
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin at a barrier halve the speed of a machine that is shared
    "TRANSFORMERS_VERBOSITY": "error",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

CPU_BACKEND_SINCE = Version("2026.10.9")


def require_training() -> None:
    """Raises UserError, with the command that helps, where what training needs is not installed."""
    if importlib.util.find_spec("unsloth") is None:
        raise UserError(
            "Training and generation need more than the light install. Run: pip install 'slimtune[train]', "
            "or `make install` in a clone."
        )
    version = importlib.metadata.version("unsloth")
    if detect_gpu() is None and Version(version) < CPU_BACKEND_SINCE:
        raise UserError(
            f"Unsloth {version} trains on GPUs only, and there is none here. Run: "
            "pip install --no-deps 'unsloth>=2026.10.9' 'unsloth_zoo>=2026.10.9'"
        )
