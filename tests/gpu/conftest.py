"""What the GPU tests need: a card, SmolLM2's weights as a folder, and random checkpoints in real shapes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session", autouse=True)
def card() -> str:
    from slimtune.gpus import detect_gpu

    gpu = detect_gpu()
    if gpu is None:
        pytest.skip("no NVIDIA GPU on this machine")
    return gpu.name


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct dequantised from its 4-bit GGUF: SLIMTUNE_SMOLLM2, else the embedded model."""
    source = os.environ.get("SLIMTUNE_SMOLLM2")
    if source is None:
        from slimtune.engine.embedded import embedded_folder

        source = str(embedded_folder())
    folder = tmp_path_factory.mktemp("models") / "SmolLM2-135M-Instruct (from 4-bit GGUF)"
    shutil.copytree(source, folder)
    (folder / "slimtune.json").write_text(json.dumps({"note": "weights dequantised from a 4-bit GGUF"}))
    return folder


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory):
    """A function that writes random weights in the shape of a model key, with SmolLM2's tokenizer."""
    tools = os.environ.get("SLIMTUNE_GPU_TOOLS")
    if tools is None:
        pytest.skip("SLIMTUNE_GPU_TOOLS names no folder with random_checkpoint.py and configs/")

    def write(key: str) -> Path:
        folder = tmp_path_factory.mktemp("random") / f"{key}-random"
        subprocess.run(
            [sys.executable, f"{tools}/random_checkpoint.py", f"{tools}/configs/{key}.json", str(folder)], check=True
        )
        (folder / "slimtune.json").write_text(json.dumps({"note": "random weights: memory and speed only, no quality"}))
        return folder

    return write
