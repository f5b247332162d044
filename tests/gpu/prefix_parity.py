"""One family on the card: KEY FOLDER TOKENIZER. For each kind of prefix, how far gradients are from fp32 rows by
themselves: padded in bf16, shared in bf16 and in fp32; and where Unsloth drops masks, shared by a mask."""

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

    families.write_model(families.original(key), folder / "model", tokenizer)
    loaded = families.loaded_from(folder / "model")
    kernel = loaded.spec.fast_path
    rows = {name: families.rows_of(groups, alike=name == "the same row") for name, groups in families.PREFIXES.items()}

    def on_card(batch):
        return {name: value.to("cuda") if isinstance(value, torch.Tensor) else value for name, value in batch.items()}

    def gradient(batches, dtype):
        with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
            return families.over(loaded, [on_card(batch) for batch in batches])["gradient"].float()

    def shared(found, *, segments):
        return [as_batch(shared_prefix(found, multiple=64), loaded.model, segments=segments)]

    truth = {name: gradient([padded([row], pad_id=0) for row in found], torch.float32) for name, found in rows.items()}
    rough = {name: gradient([padded(found, pad_id=0)], torch.bfloat16) for name, found in rows.items()}
    for name, found in rows.items():
        apart = {
            "padded": rough[name],
            "shared": gradient(shared(found, segments=kernel), torch.bfloat16),
            "fp32": gradient(shared(found, segments=kernel), torch.float32),
        }
        if kernel and len(found) > 1 and name != "none":
            apart["masked"] = gradient(shared(found, segments=False), torch.bfloat16)
        off = {way: (value - truth[name]).norm().item() for way, value in apart.items()}
        print(json.dumps({"key": key, "case": name, "norm": truth[name].norm().item(), **off}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
