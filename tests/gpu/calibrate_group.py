"""One process of calibrate.py: loads one model one way and measures one micro-batch after the other."""

import json
import sys
import time
from pathlib import Path

BEGAN = time.monotonic()


def main(folder: Path) -> None:
    import unsloth  # noqa: F401, I001  first: it patches what the others import
    import torch

    from slimtune.engine.load import package_versions
    from slimtune.engine.measure import as_row, load_hollow, measure_steps
    from slimtune.engine.memory import cap_memory
    from slimtune.errors import UserError
    from slimtune.gpus import get_gpu
    from slimtune.models import get_model
    from slimtune.plan import Setting, choose_precision

    rows = json.loads((folder / "group.json").read_text())
    first, gpu = rows[0], get_gpu(rows[0]["card"])
    print("imports", time.monotonic() - BEGAN, flush=True)
    spec = get_model(first["model"])
    precision = choose_precision(spec, gpu)
    cap_memory(gpu, context_gib=gpu.context_gib)
    room = torch.cuda.mem_get_info()[0] / 2**30
    skip = None if first["weights"] != "dynamic" else DYNAMIC_SKIP
    setting = Setting(
        "16bit" if first["weights"] == "16bit" else "4bit", precision, first["checkpointing"] == "1", 1, 512,
        int(first["r"]), cuda=True, tiled_mlp=first["tiled_mlp"] == "1",
        offload_embedding=first["offload_embedding"] == "1",
    )  # fmt: skip
    window = max(512, max(int(row["row_tokens"]) for row in rows))
    loaded = load_hollow(spec, setting, folder / "model", window=window, skip=skip)
    print("loaded", time.monotonic() - BEGAN, flush=True)
    for row in rows:
        found = {"precision": precision, "room_gib": round(room, 3), "gpu": torch.cuda.get_device_name()}
        versions = package_versions()
        found |= {"unsloth": versions["unsloth"], "torch": versions["torch"]}
        try:
            sizes = {name: int(row[name]) for name in ("micro_batch", "row_tokens", "answer_tokens")}
            layout = {"collation": row["collation"], "prefix_tokens": int(row["prefix_tokens"] or 0)}
            found |= as_row(measure_steps(loaded, **sizes, **layout, optimizer=row["optimizer"]))
        except UserError as error:
            found["failed"] = str(error).split(".")[0]
        with (folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(time.monotonic() - BEGAN, found, flush=True)


if __name__ == "__main__":
    from calibrate import DYNAMIC_SKIP

    main(Path(sys.argv[1]))
