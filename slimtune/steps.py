"""The steps of one run: each is read from the run's folder where it is complete, else done and put there whole.

The model is loaded when the first step needs it, and gets its adapter when training does.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slimtune import __version__
from slimtune.answering import Listener, answer
from slimtune.check import Ready, plan_of
from slimtune.data import Example
from slimtune.errors import Problems, UserError
from slimtune.evaluate import (
    Evaluation,
    choose_shots,
    prompt_digest,
    read_evaluation,
    target_text,
    with_shots,
    write_evaluation,
)
from slimtune.files import cache_folder, damage, digest_file, digest_json, publish_folder, read_json, write_json
from slimtune.gpus import GpuSpec, detect_gpu
from slimtune.runs import Run, read_metrics, training_seconds

SCORES_SCHEMA = 1  # raise it when a change to slimtune changes what a score means
_SCORE_FACTS = ("versions", "gpu", "device", "precision", "quantisation", "attention", "template_sha256", "cpu_threads")


class Steps:
    """base, few_shot, train and tuned, in this order. A step that is complete costs a read."""

    def __init__(
        self, prepared: Ready, run: Run, *, as_gpu: GpuSpec | None, listener: Listener, should_stop: Callable[[], bool]
    ):
        self.prepared, self.recipe, self.task, self.run = prepared, prepared.recipe, prepared.task, run
        self.listener, self.should_stop = listener, should_stop
        self.as_gpu, self.gpu = as_gpu, as_gpu or detect_gpu()
        self.plan = plan_of(prepared, gpu=self.gpu)  # refuses what cannot fit, before any download
        self.loaded: Any = None
        self.facts: dict[str, Any] = {}
        self.rows: Sequence[Any] = ()

    def base(self) -> Evaluation:
        """The base model with the very prompts the tuned one gets."""
        return self._evaluation("base", "base, zero-shot", self.task.test, 0)

    def few_shot(self) -> Evaluation | None:
        """The base model with worked examples in the prompt: what can be had without training."""
        shots = choose_shots(self.task, self.recipe.evaluate.few_shot, seed=self.recipe.seed)
        if not shots:
            return None
        shots = self._fitting(shots)
        examples = [with_shots(example, shots) for example in self.task.test]
        return self._evaluation("few_shot", f"base, {len(shots)}-shot", examples, len(shots))

    def train(self) -> None:
        """Train the adapter, and keep it."""
        if self.run.has("training.json"):
            return
        from slimtune.engine import sft

        self._attach()
        train = self.recipe.train
        settings = sft.Settings(
            epochs=train.epochs,
            lr=train.lr,
            schedule=train.schedule,
            warmup=train.warmup,
            batch=train.batch,
            micro_batch=self.plan.micro_batch,
            collation=self.plan.collation,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            seed=self.recipe.seed,
            checkpoint_minutes=train.checkpoint_minutes,
            checkpoint_steps=train.checkpoint_steps,
            keep_checkpoints=train.keep_checkpoints,
        )
        result = sft.train(
            self.loaded,
            self.rows,
            settings,
            self.run.folder / "checkpoints",
            on_step=self._on_step,
            should_stop=self.should_stop,
            say=self.listener.say,
        )
        publish_folder(self.run.folder / "adapter", self._save_adapter)
        self.run.step("training.json", lambda: self._training(result))

    def tuned(self) -> Evaluation:
        """The adapter, on the same rows with the same prompts."""
        if not self.run.has("tuned"):
            self._attach()
        return self._evaluation("tuned", "tuned", self.task.test, 0)

    def _evaluation(self, name: str, label: str, examples: Sequence[Example], few_shot_k: int) -> Evaluation:
        folder, journal = self.run.folder / name, self.run.folder / f"{name}.journal"
        if folder.exists():
            journal.unlink(missing_ok=True)  # left by a kill between the two
            return read_evaluation(folder)
        loaded = self._loaded()
        cached = self._cached_score(examples) if name != "tuned" else None
        if cached is not None and damage(cached) is None:
            self.listener.say(f"Score of {label}: taken from the cache, where an earlier run left it.")
            evaluation = read_evaluation(cached)
        else:
            evaluation = answer(
                loaded,
                self.task,
                examples,
                name=name,
                label=label,
                few_shot_k=few_shot_k,
                max_new_tokens=self.recipe.evaluate.max_new_tokens,
                journal=journal,
                listener=self.listener,
                should_stop=self.should_stop,
            )
            if cached is not None:
                write_evaluation(cached, evaluation)
        write_evaluation(folder, evaluation)
        journal.unlink(missing_ok=True)
        return evaluation

    def _cached_score(self, examples: Sequence[Example]) -> Path:
        """Where the base's score on these prompts is kept: a name made of everything that can change it."""
        parts = {name: self.facts[name] for name in _SCORE_FACTS} | {
            "schema": SCORES_SCHEMA,
            "model": self.facts["model"]["digest"],
            "thinking": self.recipe.thinking,
            "limit": self.recipe.evaluate.max_new_tokens or self.task.max_new_tokens,
            "scorers": [self.task.scorer, *self.task.also],
            "asked": [prompt_digest(example) for example in examples],
            "expected": [target_text(example) for example in examples],
        }
        return cache_folder() / "scores" / digest_json(parts)

    def _loaded(self) -> Any:
        """The base model; loading it also counts tokens, makes the final plan and records what really runs."""
        if self.loaded is not None:
            return self.loaded
        self.listener.say(f"Loading {self.prepared.spec.label}.")
        from slimtune.engine import load, source

        if self.as_gpu is not None:
            load.cap_memory(self.as_gpu)
        plan, spec = self.plan, self.prepared.spec
        pinned = read_json(self.run.folder / "source.json")["revision"] if self.run.has("source.json") else None
        where = source.resolve_source(spec, quantisation=plan.quantisation, revision=pinned or self.recipe.revision)
        self._same_model(where)
        self.loaded = load.load_model(
            spec,
            where,
            precision=plan.precision,
            quantisation=plan.quantisation,
            context=self.recipe.context,
            thinking=self.recipe.thinking,
        )
        self.rows = self._encoded()
        self.plan = plan_of(self.prepared, gpu=self.gpu, lengths=[len(row) for row in self.rows])
        write_json(self.run.folder / "plan.json", self.plan.as_json())
        facts = load.describe(self.loaded)
        self.facts = facts | {"versions": {"slimtune": __version__, **facts["versions"]}}
        self.run.step("data.json", self._data)
        self.run.step("environment.json", self._environment)
        return self.loaded

    def _environment(self) -> dict[str, Any]:
        command = shlex.join(["slimtune", *sys.argv[1:]])
        return {**self.facts, "collation": self.plan.collation, "command": command, "started": _now()}

    def _same_model(self, where: Any) -> None:
        before = self.run.step(
            "source.json", lambda: {"repository": where.repository, "revision": where.revision, "digest": where.digest}
        )
        if before["digest"] != where.digest:
            raise UserError(f"The files of {where.repository} have changed since this run began. Choose another --out.")

    def _encoded(self) -> list[Any]:
        """The training rows as tokens; a row longer than the context is an error, or dropped and counted."""
        from slimtune.engine.render import long_rows

        rows = [self.loaded.renderer.encode(example) for example in self.task.train]
        problems = long_rows(rows, self.recipe.context)
        if problems and self.recipe.data.long_rows == "error":
            raise Problems(
                f"{len(problems)} of {len(rows)} training rows (raise `context`, or set `data.long_rows: drop`)",
                problems[:20],
            )
        kept = [row for row in rows if len(row) <= self.recipe.context]
        if not kept:
            raise UserError("No training row fits the context.")
        return kept

    def _fitting(self, shots: Sequence[Example]) -> Sequence[Example]:
        """As many shots as leave every prompt and its answer inside the model's context."""
        room = self.prepared.spec.native_context - (self.recipe.evaluate.max_new_tokens or self.task.max_new_tokens)
        if self.run.has("few_shot"):
            return shots
        renderer = self._loaded().renderer
        longest = max(self.task.test, key=lambda example: len(renderer.prompt(example)))
        while shots and len(renderer.prompt_ids(with_shots(longest, shots))) > room:
            shots = shots[:-1]
        return shots

    def _attach(self) -> None:
        """Give the loaded model its adapter: fresh, or the trained one where training is complete."""
        from slimtune.engine import lora

        loaded = self._loaded()
        if not lora.adapter_modules(loaded.model):
            loaded.model = lora.attach_lora(
                loaded.model,
                loaded.spec,
                r=self.recipe.lora.r,
                alpha=self.recipe.lora.alpha,
                dropout=self.recipe.lora.dropout,
                seed=self.recipe.seed,
                checkpointing=self.plan.checkpointing,
                context=self.recipe.context,
            )
            if self.run.has("training.json"):
                lora.load_adapter(loaded.model, self.run.folder / "adapter")

    def _on_step(self, report: Any) -> None:
        self.run.log(asdict(report))
        self.listener.progress("Fine-tune", report.step, report.steps, f"loss {report.loss:.3f}")

    def _save_adapter(self, out: Path) -> None:
        self.loaded.model.save_pretrained(out)
        self.loaded.renderer.tokenizer.save_pretrained(out)

    def _training(self, result: Any) -> dict[str, Any]:
        from slimtune.engine import lora

        steps = read_metrics(self.run.folder)
        facts = read_json(self.run.folder / "environment.json")
        write_json(
            self.run.folder / "environment.json",
            {
                **facts,
                "adapter_modules": lora.adapter_modules(self.loaded.model),
                "trainable_parameters": lora.trainable_parameters(self.loaded.model),
                "finished": _now(),
            },
        )
        return {
            "steps": result.steps,
            "train_rows": len(self.rows),
            "seconds": training_seconds(self.run.folder),
            "tokens": sum(step["tokens"] for step in steps),
            "supervised_tokens": sum(step["supervised_tokens"] for step in steps),
            "peak_gpu_gib": result.peak_gpu_gib,
            "planned_gib": self.plan.peak_gib and self.plan.peak_gib["expected"],
            "resumed": result.resumed_at or 0,
            "oom_splits": result.oom_splits,
            "micro_batch": result.micro_batch,
            "first_loss": steps[0]["loss"],
            "last_loss": steps[-1]["loss"],
            "notes": result.notes,
            "adapter_sha256": digest_file(self.run.folder / "adapter" / "adapter_model.safetensors"),
        }

    def _data(self) -> dict[str, Any]:
        task, quality = self.task, self.prepared.quality
        dropped = len(task.train) - len(self.rows)
        notes = [*task.notes, *(str(warning) for warning in quality.warnings)]
        notes += [f"{dropped} training rows are longer than the context and were dropped."] if dropped else []
        return {
            "task": task.name,
            "title": task.title,
            "kind": task.kind,
            "licence": task.licence,
            "attribution": task.attribution,
            "train_rows": len(self.rows),
            "test_rows": len(task.test),
            "digest": task.digest,
            "notes": notes,
            "scorer": task.scorer,
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
