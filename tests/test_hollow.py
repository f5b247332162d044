"""Hollow checkpoints: real shapes and random weights that take no disk, loaded through the engine like real ones."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("hollow")  # in one process: they share what takes long to make
CHILD = """
import json, sys
from dataclasses import replace
from pathlib import Path

from slimtune.engine.measure import load_hollow, measure_steps
from slimtune.engine import sft
from slimtune.engine.lora import adapter_modules
from slimtune.engine.render import Encoded
from slimtune.engine.schedule import Settings
from slimtune.errors import Interrupted
from slimtune.models import get_model
from slimtune.plan import Setting

folder, weights = Path(sys.argv[1]), sys.argv[2]
small = folder / "small"
small.mkdir()
config = get_model("qwen3-0.6b").config() | {
    "num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 41000,
}
(small / "config.json").write_text(json.dumps(config))
spec = get_model(str(small))
setting = Setting("16bit" if weights == "16bit" else "4bit", "fp32", False, 2, 32, 4, cuda=False)
skip = None if weights == "16bit" else ["layers.1.mlp.down_proj"]
loaded = load_hollow(spec, setting, folder / "hollow", window=64, skip=skip)
measured = measure_steps(loaded, micro_batch=2, row_tokens=32, answer_tokens=8, optimizer="adamw", steps=3)
seen_steps = []
rows = [Encoded(str(n), tuple(range(300 + n, 320 + n)), (400 + n, 401)) for n in range(8)]
settings = Settings(1, 1e-3, "linear", 0.0, 2, 2, "padded", 0.0, 1.0, 17, 1e6, 1, 2, "adamw")
def train(stop):
    return sft.train(loaded, rows, settings, folder / "checkpoints", on_step=lambda step: seen_steps.append(step.step),
                     should_stop=lambda: stop and len(seen_steps) == 2, say=lambda text: None)
try:
    train(stop=True)
except Interrupted:
    resumed = train(stop=False).resumed_at
kinds = {name: type(module).__name__ for name, module in loaded.model.named_modules() if name.endswith("base_layer")}
file = folder / "hollow" / "model.safetensors"
json.dump({
    "adapters": adapter_modules(loaded.model), "losses": [measured.first_loss, measured.last_loss],
    "grad_norm": measured.grad_norm, "kinds": kinds, "size": file.stat().st_size, "disk": file.stat().st_blocks * 512,
    "steps": seen_steps, "resumed": resumed, "expected": spec.expected_adapters(), "params": spec.params_total,
}, open(folder / "seen.json", "w"))
"""


@pytest.fixture(scope="module", params=["16bit", "dynamic"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("hollow")
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), request.param], capture_output=True, text=True, timeout=240
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return json.loads((folder / "seen.json").read_text()) | {"weights": request.param}


def test_a_hollow_model_gets_every_adapter_and_trains(seen: dict) -> None:
    assert seen["adapters"] == seen["expected"]
    assert all(5 < loss < 20 for loss in seen["losses"]) and seen["grad_norm"] > 0


def test_it_is_stopped_and_goes_on(seen: dict) -> None:
    assert seen["resumed"] == 3 and seen["steps"] == [1, 2, 3, 4]


def test_its_weights_have_the_real_size_and_take_next_to_no_disk(seen: dict) -> None:
    if seen["weights"] == "16bit":
        assert seen["size"] >= 2 * seen["params"]
    assert seen["disk"] < min(seen["size"], 400_000)


def test_the_dynamic_form_leaves_the_named_modules_in_16_bit(seen: dict) -> None:
    whole = {name for name, kind in seen["kinds"].items() if "4bit" not in kind}
    if seen["weights"] == "16bit":
        assert whole == set(seen["kinds"])
    else:
        assert {name.split("model.")[-1] for name in whole} == {"layers.1.mlp.down_proj.base_layer"}
