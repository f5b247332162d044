"""One family's first ten optimizer steps, timed from the start of the process: KEY 4bit|16bit FOLDER."""

import json
import sys
import time
from pathlib import Path

BEGAN = time.monotonic()


def main(key: str, weights: str, folder: Path) -> None:
    import unsloth  # noqa: F401, I001  first: it patches what the others import
    import dataclasses

    from slimtune.engine.lora import adapter_modules
    from slimtune.engine.measure import load_hollow, measure_steps
    from slimtune.gpus import detect_gpu
    from slimtune.models import get_model
    from slimtune.plan import Setting, choose_precision
    from slimtune.plan.collation import possible_layouts

    imported, spec = time.monotonic() - BEGAN, get_model(key)
    precision = choose_precision(spec, detect_gpu())
    collation = possible_layouts(spec, asked="auto", precision=precision, cuda=True)[0]
    checkpointing = collation == "padded"  # frames are captured as graphs where they need none
    setting = Setting(weights, precision, checkpointing, 2, 512, 16, cuda=True, answer_tokens=64)
    loaded = load_hollow(spec, setting, folder / "model", window=512, skip=None)
    ready = time.monotonic() - BEGAN
    found = measure_steps(
        loaded, micro_batch=2, row_tokens=512, answer_tokens=64, optimizer="adamw_8bit", steps=10,
        prefix_tokens=256, collation=collation,
    )  # fmt: skip
    kinds = {type(module).__name__ for name, module in loaded.model.named_modules() if name.endswith(".base_layer")}
    seen = dataclasses.asdict(found) | {
        "key": key, "weights": weights, "collation": collation, "imported_s": imported, "ready_s": ready,
        "ten_steps_s": time.monotonic() - BEGAN, "adapters": adapter_modules(loaded.model),
        "expected": spec.expected_adapters(), "kinds": sorted(kinds),
    }  # fmt: skip
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
