"""One family on the card: KEY FOLDER TOKENIZER. For each kind of prefix, how far gradients are from fp32 rows by
themselves: padded in bf16, shared in bf16 and in fp32. Where Unsloth drops masks: rows in frames, started by Python and
replayed as a graph, and shared by a mask."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main(key: str, folder: Path, tokenizer: Path) -> None:
    import unsloth  # noqa: F401, I001  first: it patches what the others import
    import torch

    import families
    from slimtune.engine.collate import padded, shared_prefix
    from slimtune.engine.prefix import as_batch
    from slimtune.engine.replay import Replays
    from slimtune.plan import choose_collation

    families.write_model(families.original(key), folder / "model", tokenizer)
    loaded = families.loaded_from(folder / "model")
    rows = {name: families.rows_of(groups, alike=name == "the same row") for name, groups in families.PREFIXES.items()}

    def on_card(batch):
        return {name: value.to("cuda") if isinstance(value, torch.Tensor) else value for name, value in batch.items()}

    def gradient(batches, dtype):
        with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
            return families.over(loaded, [on_card(batch) for batch in batches])["gradient"].float()

    def masked(found, dtype):
        return gradient([as_batch(shared_prefix(found), loaded.model)], dtype)

    def framed(found, replays, *, times):
        """Of the last time."""
        layout = shared_prefix(found)
        frame = replays.frame_for(layout)
        filled = frame.fill(layout)
        filled[-1] = sum(len(row.answer) for row in found)
        loaded.model.train()
        for _ in range(times):
            replays.begin()
            replays.row(frame, filled)
        trained = [weight for weight in loaded.model.parameters() if weight.requires_grad]
        return torch.cat([weight.grad.flatten() for weight in trained]).float()

    def replays(dtype, *, capturing):
        return Replays(loaded.model, dtype=dtype, backward=lambda loss: loss.backward(), capturing=capturing, say=print)

    truth = {name: gradient([padded([row], pad_id=0) for row in found], torch.float32) for name, found in rows.items()}
    rough = {name: gradient([padded(found, pad_id=0)], torch.bfloat16) for name, found in rows.items()}
    framed_here = choose_collation(loaded.spec, asked="auto", cuda=True, prefix_tokens=99) == "shared-prefix"
    if framed_here:
        exact, eager = (replays(dtype, capturing=False) for dtype in (torch.float32, torch.bfloat16))
        graphs = replays(torch.bfloat16, capturing=True)
    for name, found in rows.items():
        if framed_here:
            apart = {
                "shared": framed(found, eager, times=1),
                "fp32": framed(found, exact, times=1),
                "replayed": framed(found, graphs, times=3),
            }
            if len(found) > 1 and name != "none":
                apart["masked"] = masked(found, torch.bfloat16)
        else:
            apart = {"shared": masked(found, torch.bfloat16), "fp32": masked(found, torch.float32)}
        off = {way: (value - truth[name]).norm().item() for way, value in ({"padded": rough[name]} | apart).items()}
        print(json.dumps({"key": key, "case": name, "norm": truth[name].norm().item(), **off}), flush=True)
    if framed_here:
        print(json.dumps({"captured": graphs.captured, "capturing": graphs.capturing}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
