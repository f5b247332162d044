"""The cards people have or rent, and the one in this machine.

`GPUS` is data sheet facts, one line a card. `detect_gpu()` asks the driver through NVML, never torch, so that a plan is
made in milliseconds and a CPU-only torch does not hide a card.

Sources: NVIDIA's data sheets for bandwidth and dense half-precision tensor TFLOP/s with 32-bit accumulation (no
sparsity). `total_gib` is what CUDA offers in all (torch's `total_memory`): `nvidia-smi` adds the driver's share.
T4 and H100 are measured; the others are what CUDA's error messages on those cards print.
Prices are the lowest tier of one large provider (RunPod) as surveyed on PRICES_AS_OF; None: not in that survey.
"""

import os
from dataclasses import dataclass

import pynvml

from slimtune.errors import UserError, unknown_name

PRICES_AS_OF = "2026-03-10"
GIB = 2**30


@dataclass(frozen=True)
class GpuSpec:
    """One model of card."""

    name: str
    total_gib: float  # what CUDA offers, the driver's own share left out
    capability: tuple[int, int]  # CUDA compute capability
    bandwidth_gb_s: float
    half_tflops: float  # dense fp16/bf16 on tensor cores, fp32 accumulation
    hourly_usd: float | None = None
    context_gib: float = 0.5  # what a CUDA context takes before the first tensor: measured on T4 and H100
    aliases: tuple[str, ...] = ()

    @property
    def spec(self) -> "GpuSpec":
        """Itself: a card that is detected names its data sheet so."""
        return self

    @property
    def bf16(self) -> bool:
        return self.capability >= (8, 0)

    @property
    def usable_gib(self) -> float:
        """What one training process can fill on an otherwise idle card."""
        return self.total_gib - self.context_gib


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of the card. `used_gib` is None where the driver does not tell."""

    pid: int
    used_gib: float | None


@dataclass(frozen=True)
class DetectedGpu:
    """The card that CUDA would use first, as the driver describes it now."""

    name: str
    total_gib: float
    free_gib: float
    capability: tuple[int, int]
    driver: str
    processes: tuple[GpuProcess, ...] = ()

    @property
    def bf16(self) -> bool:
        return self.capability >= (8, 0)

    @property
    def spec(self) -> GpuSpec | None:
        """The table's line for this card, if it has one."""
        return find_gpu(self.name)

    @property
    def context_gib(self) -> float:
        return self.spec.context_gib if self.spec else GpuSpec.context_gib

    @property
    def usable_gib(self) -> float:
        """What one more training process can fill now, beside what is there already."""
        return self.free_gib - self.context_gib


# fmt: off
_TABLE = (
    #        name                 GiB    capability GB/s TFLOP/s USD/h context
    GpuSpec("T4",                14.56, (7, 5),   320,  65.0, None, 0.40, ("tesla t4",)),
    GpuSpec("V100-16GB",         15.77, (7, 0),   900, 125.0, None, 0.50, ("v100", "v100-sxm2-16gb")),
    GpuSpec("L4",                22.03, (8, 9),   300, 121.0, 0.44),
    GpuSpec("L40S",              44.39, (8, 9),   864, 362.0, 0.79),
    GpuSpec("RTX 3060 12GB",     11.75, (8, 6),   360,  25.6, None, 0.50, ("rtx 3060", "3060")),
    GpuSpec("RTX 3090",          23.57, (8, 6),   936,  71.0, 0.22, 0.50, ("3090",)),
    GpuSpec("RTX 4060 Ti 16GB",  15.57, (8, 9),   288,  44.1, None, 0.50, ("4060 ti 16gb",)),
    GpuSpec("RTX 4070",          11.71, (8, 9),   504,  58.3, None, 0.50, ("4070",)),
    GpuSpec("RTX 4090",          23.52, (8, 9),  1008, 165.2, 0.34, 0.50, ("4090",)),
    GpuSpec("RTX 5090",          31.36, (12, 0), 1792, 209.5, 0.69, 0.50, ("5090",)),
    GpuSpec("RTX A6000",         47.43, (8, 6),   768, 154.8, None, 0.50, ("a6000",)),
    GpuSpec("A10",               22.06, (8, 6),   600, 125.0, None, 0.50, ("a10g",)),
    GpuSpec("A100-40GB",         39.39, (8, 0),  1555, 312.0, None, 0.50,
            ("a100-sxm4-40gb", "a100-pcie-40gb", "a100 40gb")),
    GpuSpec("A100-80GB",         79.15, (8, 0),  2039, 312.0, 1.19, 0.50,
            ("a100", "a100-sxm4-80gb", "a100 80gb pcie", "a100-pcie-80gb", "a100 80gb")),
    GpuSpec("H100",              79.18, (9, 0),  3350, 989.0, 2.69, 0.70,
            ("h100-80gb", "h100 80gb", "h100-sxm", "h100 80gb hbm3")),
    GpuSpec("H100-PCIe",         79.18, (9, 0),  2039, 756.0, 1.99, 0.70, ("h100 pcie",)),
    GpuSpec("H200",             139.80, (9, 0),  4800, 989.0, 3.59, 0.70),
)
# fmt: on
GPUS = {spec.name: spec for spec in _TABLE}
_BY_NAME = {name.lower(): spec for spec in _TABLE for name in (spec.name, *spec.aliases)}


def find_gpu(name: str) -> GpuSpec | None:
    """The card that a person or the driver calls `name`, or None. Case and the words NVIDIA, GeForce do not count."""
    plain = name.lower().strip()
    for word in ("nvidia ", "geforce ", "tesla "):
        plain = plain.removeprefix(word)
    return _BY_NAME.get(plain)


def get_gpu(name: str) -> GpuSpec:
    """The card called `name` or one of its aliases. Raises UserError with the nearest known name."""
    spec = find_gpu(name)
    if spec is None:
        raise unknown_name("GPU", name, GPUS)
    return spec


def detect_gpu() -> DetectedGpu | None:
    """The first card that CUDA would see, or None without a driver, a card, or with CUDA_VISIBLE_DEVICES empty.

    Raises UserError where the driver is there and does not answer: training on the CPU instead would be a surprise.
    """
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return None
    except pynvml.NVMLError as error:
        raise UserError(f"The NVIDIA driver is there but does not answer: {error}. Try nvidia-smi.") from error
    try:
        handle = _first_visible()
        return None if handle is None else _describe(handle)
    except pynvml.NVMLError as error:
        raise UserError(f"The NVIDIA driver cannot describe the GPU: {error}. Try nvidia-smi.") from error
    finally:
        pynvml.nvmlShutdown()


def first_visible() -> str:
    """Which card CUDA calls device 0, as CUDA_VISIBLE_DEVICES says it: its index or UUID; "" where none is to be."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()


def _first_visible():
    """NVML's handle of the card CUDA would call device 0, or None. NVML itself ignores CUDA_VISIBLE_DEVICES."""
    first = first_visible()
    if first.startswith(("GPU-", "MIG-")):
        return pynvml.nvmlDeviceGetHandleByUUID(first)
    if not first.isdigit() or int(first) >= pynvml.nvmlDeviceGetCount():
        return None
    return pynvml.nvmlDeviceGetHandleByIndex(int(first))


def _describe(handle) -> DetectedGpu:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    return DetectedGpu(
        name=pynvml.nvmlDeviceGetName(handle),
        total_gib=(memory.total - memory.reserved) / GIB,
        free_gib=memory.free / GIB,
        capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
        driver=pynvml.nvmlSystemGetDriverVersion(),
        processes=tuple(
            GpuProcess(process.pid, process.usedGpuMemory / GIB if process.usedGpuMemory else None)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        ),
    )
