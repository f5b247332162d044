"""Whole training runs of real weights in fp32, by the trainer of real runs: FOLDER OUT.json [STEPS]. OUT.json gets the
losses of each way: rows padded; in frames; in frames, stopped halfway and gone on with; in frames, where memory runs
out once at the tenth step."""

import json
import sys
import tempfile
from pathlib import Path

BATCH, SHORT_AT = 16, 10


def main(folder: str, out: Path, steps: int) -> None:
    import unsloth  # noqa: F401, I001  first: it patches what the others import
    import torch

    from slimtune.engine import load, sft, source
    from slimtune.engine.lora import attach_lora
    from slimtune.engine.trainer import RowTrainer
    from slimtune.errors import Interrupted
    from slimtune.models import get_model
    from slimtune.tasks import get_task

    torch.set_float32_matmul_precision("highest")  # Unsloth lets fp32 products be rounded
    load._weights_dtype = lambda precision: torch.float32
    spec = get_model(folder)
    where = source.resolve_source(spec, quantisation="16bit", revision=None)

    def train(collation: str, kept: Path, *, stop_at: int = 0) -> dict:
        renderer = load.load_renderer(spec, where, thinking="off")
        loaded = load.load_model(spec, where, renderer, precision="fp32", quantisation="16bit", window=1024)
        loaded.model = attach_lora(
            loaded.model, spec, r=16, alpha=16, dropout=0.0, seed=3, checkpointing=False, window=1024
        )
        rows = [renderer.encode(example) for example in get_task("banking77").train[:320]]
        loaded.model._unsloth_forced_float32 = True  # asked for neither type, Unsloth's trainer takes bf16
        settings = sft.Settings(
            epochs=steps * BATCH / len(rows), lr=4e-4, schedule="linear", warmup=0.05, batch=BATCH, micro_batch=BATCH,
            collation=collation, weight_decay=0.0, max_grad_norm=1.0, seed=3, checkpoint_minutes=60.0,
            checkpoint_steps=None, keep_checkpoints=2, optimizer="adamw",
        )  # fmt: skip
        seen, said = [], []
        try:
            result = sft.train(
                loaded, rows, settings, kept, on_step=seen.append, say=said.append,
                should_stop=lambda: bool(stop_at) and len(seen) >= stop_at - 1,
            )  # fmt: skip
        except Interrupted:
            return {"losses": [step.loss for step in seen]}
        told = {"splits": result.oom_splits, "made_late": result.made_late, "resumed_at": result.resumed_at}
        tokens = sum(step.tokens for step in seen) / len(seen)
        return told | {"losses": [step.loss for step in seen], "tokens": tokens, "said": said}

    def short_once() -> None:
        slices, left = RowTrainer._slices, [1]

        def short(self, model, batch):
            if left[0] and self.state.global_step == SHORT_AT - 1:
                left[0] = 0
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
            return slices(self, model, batch)

        RowTrainer._slices = short

    ways, kept = {}, Path(tempfile.mkdtemp())
    for way in ("padded", "shared-prefix"):
        ways[way] = train(way, kept / way)
    before = train("shared-prefix", kept / "stopped", stop_at=steps // 2)
    after = train("shared-prefix", kept / "stopped")
    ways["resumed"] = after | {"losses": before["losses"] + after["losses"]}
    short_once()
    ways["short"] = train("shared-prefix", kept / "short")
    out.write_text(json.dumps(ways))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int((sys.argv[3:] or [50])[0]))
