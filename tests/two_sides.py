"""One architecture asked on both sides of one loaded model, in a process of its own: KEY 4bit|16bit FOLDER TOKENIZER.

Two layers of random weights answer before they have an adapter; then they get one that changes much, and answer with it
switched off, on, and by evaluation's own way. What was said is printed, a JSON object on the last line.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

TOKENS, ROWS = 12, 3


def main(key: str, weights: str, folder: Path, tokenizer: Path) -> dict[str, Any]:
    import unsloth  # noqa: F401, I001  first: it patches what the others import
    import torch
    from families import original, write_model
    from samples import make_task

    from slimtune.engine import lora
    from slimtune.engine.generate import generate
    from slimtune.pipeline import find_target, loaded_target, open_target
    from slimtune.tasks import get_task

    write_model(original(key), folder / "model", tokenizer)
    rows = get_task(str(make_task(folder / "task"))).test[:ROWS]
    opened = open_target(find_target(str(folder / "model")))
    loaded = loaded_target(replace(opened, quantisation=weights), window=512)
    seen = {"key": key, "device": loaded.device.type, "alone": asked(loaded, rows, tuned=False)}
    prompt = torch.tensor([loaded.renderer.prompt_ids(rows[0])], device=loaded.device)
    logits = logits_of(loaded, prompt)
    loaded.model = lora.attach_lora(
        loaded.model, loaded.spec, r=8, alpha=16, dropout=0.0, seed=3, checkpointing=False, window=512
    )
    for name, weight in loaded.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=3.0)
    seen["evaluated"] = [one.text for row in rows for _, one in generate(loaded, [row], TOKENS)]
    seen |= {name: asked(loaded, rows, tuned=name != "base") for name in ("tuned", "base", "again")}
    with loaded.model.disable_adapter():
        apart = (logits_of(loaded, prompt) - logits).abs().max().item()
    return seen | {"apart": apart, "scale": logits.abs().max().item()}


def asked(loaded: Any, rows: Any, *, tuned: bool) -> list[str]:
    from slimtune.engine.stream import stream
    from slimtune.tryout.worker import _Said

    streams = [_Said(stream(loaded, row, tuned=tuned, max_new_tokens=TOKENS)) for row in rows]
    return ["".join(said) and said.completion.text for said in streams]


def logits_of(loaded: Any, prompt: Any) -> Any:
    import torch

    with torch.inference_mode():
        return loaded.model(input_ids=prompt).logits.float()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
