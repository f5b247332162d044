"""Families on the card: KEY[,KEY...] FOLDER TOKENIZER. For each kind of prefix, how far gradients are from fp32 rows by
themselves: padded in bf16, shared in bf16 and more exactly, each started by Python, and replayed as a graph. More
exactly is in fp32; within a window, for which there is no kernel in it, all but the products are. And what would
be seen if layers were not told: of Unsloth's own, the row by a mask, which they drop; of transformers', the row alone.

Unsloth patches transformers for each family: those with layers of Unsloth's own take a process each.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main(keys: list[str], folder: Path, tokenizer: Path) -> None:
    import unsloth  # noqa: F401, I001  first: it patches what the others import

    import families

    for key in keys:
        spec = families.original(key)
        families.write_model(spec, folder / key, tokenizer)
        check(key, families.loaded_from(folder / key, precision="bf16"))


def check(key: str, loaded) -> None:
    """One JSON line for each kind of prefix, and one of the graphs."""
    import families
    import torch

    from slimtune.engine.collate import padded, shared_prefix
    from slimtune.engine.frame import FrameView
    from slimtune.engine.prefix import as_batch
    from slimtune.engine.replay import Replays
    from slimtune.engine.row_layers import RowLayers

    torch.set_float32_matmul_precision("highest")  # Unsloth lets fp32 products be rounded
    layers = None if loaded.spec.fast_path else RowLayers(loaded.model)
    rows = {name: families.rows_of(groups, alike=name == "the same row") for name, groups in families.PREFIXES.items()}

    def on_card(batch):
        return {name: value.to("cuda") if isinstance(value, torch.Tensor) else value for name, value in batch.items()}

    def gradient(batches, dtype):
        with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
            return families.over(loaded, [on_card(batch) for batch in batches])["gradient"].float()

    def filled_frame(found, replays):
        layout = shared_prefix(found)
        frame = replays.frame_for(layout)
        filled = frame.fill(layout)
        filled[-1] = sum(len(row.answer) for row in found)
        return frame, filled

    def framed(found, replays, *, times):
        """Of the last time."""
        frame, filled = filled_frame(found, replays)
        loaded.model.train()
        for _ in range(times):
            replays.begin()
            replays.row(frame, filled)
        trained = [weight for weight in loaded.model.parameters() if weight.requires_grad]
        return torch.cat([weight.grad.flatten() for weight in trained]).float()

    def replays(dtype, *, capturing):
        return Replays(
            loaded.model, layers=layers, dtype=dtype, backward=lambda loss: loss.backward(), capturing=capturing,
            say=print,
        )  # fmt: skip

    def untold(found):
        """The loss of layers that were not told."""
        frame, filled = filled_frame(found, eager)
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
            return layers.loss(FrameView.of(frame, filled.to("cuda"))).item()

    finer = torch.float16 if layers and loaded.spec.shapes.sliding_window else torch.float32
    exact, eager = (replays(dtype, capturing=False) for dtype in (finer, torch.bfloat16))
    graphs = replays(torch.bfloat16, capturing=not loaded.spec.shapes.experts)

    def rough(name, found):
        ways = {
            "padded": gradient([padded(found, pad_id=0)], torch.bfloat16),
            "shared": framed(found, eager, times=1),
            "replayed": framed(found, graphs, times=3),
        }
        layout = shared_prefix(found)
        if layers is None and len(found) > 1 and name != "none" and len(layout.ids) <= loaded.window:
            ways["masked"] = gradient([as_batch(layout, loaded.model)], torch.bfloat16)  # a longer one would be cut
        return ways

    apart = {name: rough(name, found) for name, found in rows.items()}
    lost = {name: untold(found) for name, found in rows.items()} if layers else {}
    in_fp32(loaded.model)
    for name, found in rows.items():
        with torch.compiler.set_stance("force_eager"):
            truth = gradient([padded([row], pad_id=0) for row in found], torch.float32)
        ways = apart[name] | {"exact": framed(found, exact, times=1)}
        off = {way: (value - truth).norm().item() for way, value in ways.items()}
        off |= {"untold": lost[name]} if layers else {}
        print(json.dumps({"key": key, "case": name, "norm": truth.norm().item(), **off}), flush=True)
    print(json.dumps({"key": key, "captured": graphs.captured, "capturing": graphs.capturing}), flush=True)


def in_fp32(model) -> None:
    """The weights, what Unsloth's layers take for their type, and their tables of positions."""
    import torch

    model.float()
    model.config.dtype = torch.float32
    for module in model.modules():
        if forget := getattr(module, "_init_rope_cache_state", None):
            forget(torch.float32)


if __name__ == "__main__":
    main(sys.argv[1].split(","), Path(sys.argv[2]), Path(sys.argv[3]))
