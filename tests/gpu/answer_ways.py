"""Answers that go on from a kept prefix, and plain ones, on this card; `python answer_ways.py OUT.json WHAT ...`:

    real FOLDER bf16|fp32|4bit   real weights on Banking77: without an adapter, with examples in the prompt, adapted
    batches FOLDER               the first of these in bf16, plain ones in batches from 128 down to one at a time
    hollow KEY [CARD]            random weights in a model's shape, thousands of shared tokens, in that card's memory
    families FOLDER              two random layers of each family, in fp32, with the tokenizer of FOLDER

OUT.json gets, for each case and way, what was said, in how many seconds, the peak of memory in GiB, how often there
was too little of it, and whether steps were captured. Prompts are rendered before. A way's number is its batch.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
FAMILIES = ("llama-3.2-1b-instruct", "mistral", "qwen2", "qwen3-0.6b")
KEPT = ("kept_512", "kept_96")


def answer(loaded, examples, new_tokens, way):
    """By way of `kept_512`, `plain_128` and the like."""
    import torch

    from slimtune.engine import generate as module
    from slimtune.engine.continued import Continued

    kind, batch = way.split("_")
    module.keeps_prefixes = lambda spec, **how: kind == "kept"
    module._BATCH["cuda"] = module.KEPT_AT_ONCE = int(batch)
    short, made, answered = [], [], module._answered

    def counted(*asked, **knobs):
        done = answered(*asked, **knobs)
        short.extend([] if done else [1])
        return done

    module._answered, module.Continued = counted, lambda loaded: made.append(Continued(loaded)) or made[-1]
    torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    found = dict(module.generate(loaded, examples, new_tokens))
    seconds, module._answered = time.monotonic() - began, answered
    said = [[found[at].text, found[at].completion_tokens] for at in range(len(examples))]
    peak = torch.cuda.max_memory_reserved() / 2**30
    seen = {"said": said, "seconds": round(seconds, 3), "peak_gib": round(peak, 2), "short": len(short)}
    return seen | {"captured": all(one.capturing for one in made)}


def case(seen, out, loaded, name, examples, new_tokens, ways):
    answer(loaded, examples[:8], new_tokens, "plain_8")
    answer(loaded, examples[:40], new_tokens, "kept_40")
    seen[name] = {way: answer(loaded, examples, new_tokens, way) for way in ways}
    print(name, {way: found["seconds"] for way, found in seen[name].items()}, flush=True)
    out.write_text(json.dumps(seen))


def render_before():
    """Every example once."""
    from slimtune.engine.render import Renderer

    theirs, known = Renderer.prompt_ids, {}

    def prompt_ids(self, example):
        if isinstance(example, list):
            return example
        key = (id(self.tokenizer), id(example))
        return known[key] if key in known else known.setdefault(key, theirs(self, example))

    Renderer.prompt_ids = prompt_ids


def adapt(loaded):
    """An adapter that changes answers."""
    import torch

    from slimtune.engine.lora import attach_lora

    if not hasattr(loaded.model, "peft_config"):
        loaded.model = attach_lora(
            loaded.model, loaded.spec, r=64, alpha=64, dropout=0.0, seed=3, checkpointing=False, window=loaded.window
        )
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, 0.01)


def weighty(folder: str, kind: str):
    """The model of a folder: bf16, fp32 or 4bit."""
    import torch

    from slimtune.engine import load, source
    from slimtune.models import get_model

    if kind == "fp32":
        load._weights_dtype = lambda precision: torch.float32
    precision, weights = ("fp32" if kind == "fp32" else "bf16"), ("4bit" if kind == "4bit" else "16bit")
    spec = get_model(folder)
    where = source.resolve_source(spec, quantisation=weights, revision=None)
    renderer = load.load_renderer(spec, where, thinking="off")
    return load.load_model(spec, where, renderer, precision=precision, quantisation=weights, window=2048)


def batches(out: Path, folder: str) -> None:
    from slimtune.tasks import get_task

    ways = ("kept_512", *(f"plain_{size}" for size in (128, 64, 32, 8, 1)))
    case({}, out, weighty(folder, "bf16"), "zero-shot", get_task("banking77").test[:256], 16, ways)


def real(out: Path, folder: str, kind: str) -> None:
    from slimtune.evaluate import choose_shots, with_shots
    from slimtune.tasks import get_task

    loaded, task, ways = weighty(folder, kind), get_task("banking77"), (*KEPT, "plain_128")
    if kind != "fp32":
        ways = (*ways, "plain_64")
    shots, zero, seen = choose_shots(task, 8, seed=1), task.test[:384], {}
    few = [with_shots(example, shots) for example in task.test[:256]]
    case(seen, out, loaded, "zero-shot", zero, 16, ways)
    case(seen, out, loaded, "8-shot", few, 16, ways)
    adapt(loaded)
    case(seen, out, loaded, "adapted", zero, 16, ways)


def hollow(out: Path, key: str, card: str = "") -> None:
    from slimtune.engine import measure
    from slimtune.engine.memory import cap_memory
    from slimtune.gpus import detect_gpu, get_gpu
    from slimtune.models import get_model
    from slimtune.plan import Setting, choose_precision
    from slimtune.tasks import get_task

    spec, gpu = get_model(key), get_gpu(card) if card else detect_gpu()
    if card:
        cap_memory(gpu)
    setting = Setting("16bit", choose_precision(spec, gpu), False, 1, 8192, 64, cuda=True)
    loaded = measure.load_hollow(spec, setting, Path(tempfile.mkdtemp()) / "model", window=8192, skip=None)
    case({}, out, loaded, "thousands are shared", get_task("banking77").test[:256], 16, ("kept_512", "plain_128"))


def families(out: Path, tokenizer: str) -> None:
    import families as made
    import numpy as np
    import torch

    from slimtune.engine import load

    load._weights_dtype = lambda precision: torch.float32
    rng, prompts, seen = np.random.default_rng(3), [], {}
    for shared, rows in ((300, 30), (40, 20), (0, 6)):
        start = rng.integers(10, 1000, shared).tolist()
        prompts += [start + rng.integers(10, 1000, int(own)).tolist() for own in rng.integers(1, 120, rows)]
    for key in FAMILIES:
        folder = Path(tempfile.mkdtemp()) / "model"
        made.write_model(made.original(key), folder, Path(tokenizer))
        loaded = made.loaded_from(folder)
        adapt(loaded)
        case(seen, out, loaded, key, prompts, 24, (*KEPT, "plain_128"))


if __name__ == "__main__":
    import unsloth  # noqa: F401  first: it patches what the others import

    render_before()
    what = {"real": real, "batches": batches, "hollow": hollow, "families": families}[sys.argv[2]]
    what(Path(sys.argv[1]), *sys.argv[3:])
