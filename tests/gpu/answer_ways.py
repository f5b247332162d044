"""Answers by what was kept of their prefix beside plain ones, on this card: `python answer_ways.py FOLDER fp32|bf16`
over real weights, `python answer_ways.py KEY bf16` over random ones in the shape of a model, and
`python answer_ways.py families FOLDER` over two random layers of every family, with the tokenizer of FOLDER.

One JSON line for each case: how many examples are answered otherwise than by the plain way with batches of 128, and
seconds. Rendering is not timed.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
FAMILIES = ("llama-3.2-1b-instruct", "mistral", "qwen2", "qwen3-0.6b")
WINDOW = {True: 2048, False: 8192}  # of words, of bytes
PLAIN = 128


def answer(loaded, examples, new_tokens, *, kept, batch):
    """What was said, and in how many seconds; by what was kept, or plainly."""
    from slimtune.engine import generate as module

    module.is_continued = lambda loaded: kept
    module._BATCH["cuda"] = module._CONTINUED_BATCH = batch
    began = time.monotonic()
    found = dict(module.generate(loaded, examples, new_tokens))
    return [(found[at].text, found[at].completion_tokens) for at in range(len(examples))], time.monotonic() - began


def differing(one, other):
    return sum(a != b for a, b in zip(one, other, strict=True))


def compare(loaded, name, examples, new_tokens, *, batches=(64, 32)):
    """The plain way in other batches says how much is rounding."""
    ways = {"kept_512": (True, 512), "kept_96": (True, 96)} | {f"plain_{size}": (False, size) for size in batches}
    answer(loaded, examples[:16], new_tokens, kept=False, batch=16)
    plain, seconds = answer(loaded, examples, new_tokens, kept=False, batch=PLAIN)
    counts = [tokens for _, tokens in plain]
    seen = {"case": name, "n": len(plain), "kinds": len(set(plain)), "tokens": sum(counts), "longest": max(counts)}
    seen[f"plain_{PLAIN}_s"] = seconds
    for way, (kept, batch) in ways.items():
        found, first = answer(loaded, examples, new_tokens, kept=kept, batch=batch)
        again, seconds = answer(loaded, examples, new_tokens, kept=kept, batch=batch) if kept else (found, first)
        seen |= {way: differing(found, plain), f"{way}_s": seconds, f"{way}_first_s": first}
        if kept:
            seen[f"{way}_again"] = differing(found, again)
    print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in seen.items()}))
    sys.stdout.flush()


def render_once():
    """Rendering takes the same time for both."""
    from slimtune.engine.render import Renderer

    theirs, known = Renderer.prompt_ids, {}

    def prompt_ids(self, example):
        key = (id(self.tokenizer), id(example))
        return known[key] if key in known else known.setdefault(key, theirs(self, example))

    Renderer.prompt_ids = prompt_ids


def load(where, precision):
    """Without an adapter where the weights are real."""
    import torch

    from slimtune.engine import load, measure, source
    from slimtune.models import get_model
    from slimtune.plan import Setting

    if precision == "fp32":
        load._weights_dtype = lambda precision: torch.float32
    spec, real = get_model(where), Path(where).is_dir()
    if not real:
        setting = Setting("16bit", precision, False, 1, WINDOW[real], 64, cuda=True)
        return measure.load_hollow(spec, setting, Path(tempfile.mkdtemp()) / "model", window=WINDOW[real], skip=None)
    found = source.resolve_source(spec, quantisation="16bit", revision=None)
    renderer = load.load_renderer(spec, found, thinking="off")
    return load.load_model(spec, found, renderer, precision=precision, quantisation="16bit", window=WINDOW[real])


def adapt(loaded):
    """A fresh adapter that changes answers."""
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


def main(where: str, precision: str) -> None:
    import unsloth  # noqa: F401  first: it patches what the others import

    from slimtune.evaluate import choose_shots, with_shots
    from slimtune.tasks import get_task

    loaded, task = load(where, precision), get_task("banking77")
    render_once()
    shots = choose_shots(task, 8, seed=1)
    zero = task.test[:512]
    if not Path(where).is_dir():
        return compare(loaded, "thousands shared, adapted", zero[:256], 16, batches=())
    few = [with_shots(example, shots) for example in task.test[:256]]
    exact = precision == "fp32"
    batches = () if exact else (64, 32)
    compare(loaded, "zero-shot", zero[:256] if exact else zero, 16, batches=batches)
    compare(loaded, "8-shot", few, 16, batches=batches)
    if not exact:
        stops = {loaded.renderer.tokenizer.encode(text)[-1] for text in ("\n", ".")}
        plain, loaded.renderer = loaded.renderer, replace(loaded.renderer, stop_ids=loaded.renderer.stop_ids | stops)
        compare(loaded, "a long tail", zero, 192, batches=(64,))
        loaded.renderer = plain
    adapt(loaded)
    compare(loaded, "zero-shot, adapted", zero[:256] if exact else zero, 16, batches=batches)
    return None


def families(tokenizer: Path) -> None:
    """Two random layers of each, in fp32."""
    import families as made
    import torch
    import unsloth  # noqa: F401  first: it patches what the others import

    from slimtune.engine import load
    from slimtune.tasks import get_task

    load._weights_dtype = lambda precision: torch.float32
    tasks = [get_task(name).test[:20] for name in ("trec", "ecommerce", "clinc150")]
    for key in FAMILIES:
        folder = Path(tempfile.mkdtemp()) / "model"
        made.write_model(made.original(key), folder, tokenizer)
        loaded = made.loaded_from(folder)
        adapt(loaded)
        examples = [example for task in tasks for example in task]
        fitting = [one for one in examples if len(loaded.renderer.prompt_ids(one)) < 480]
        compare(loaded, key, fitting, 16, batches=())


if __name__ == "__main__":
    if sys.argv[1] == "families":
        families(Path(sys.argv[2]))
    else:
        main(sys.argv[1], sys.argv[2])
