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
from slimtune.answering import answer, fitting_shots, score_cache
from slimtune.check import Ready, RowTokens, data_facts, plan_of
from slimtune.data import Example
from slimtune.errors import Problems, UserError
from slimtune.evaluate import Evaluation, choose_shots, read_evaluation, with_shots, write_evaluation
from slimtune.files import damage, digest_file, publish_folder, read_json, write_json
from slimtune.gpus import GpuSpec, detect_gpu
from slimtune.plan import Plan, refuse_full_disk, usable_tokens, yarn_for
from slimtune.plan.context import SETTING
from slimtune.runs import Run, training_totals
from slimtune.status import Listener
from slimtune.tasks import Task
from slimtune.tasks.needle_check import needle_checks, needle_names


class Steps:
    """base, few_shot, train and tuned, in this order. A step that is complete costs a read."""

    def __init__(
        self, prepared: Ready, run: Run, *, as_gpu: GpuSpec | None, listener: Listener, should_stop: Callable[[], bool]
    ):
        self.prepared, self.recipe, self.task, self.run = prepared, prepared.recipe, prepared.task, run
        self.listener, self.should_stop = listener, should_stop
        self.as_gpu, self.gpu = as_gpu, as_gpu or detect_gpu()
        self.limit = self.recipe.evaluate.max_new_tokens or self.task.max_new_tokens
        self.yarn = yarn_for(prepared.spec, self.recipe.context)
        self.plan = self._planned()  # refuses what cannot fit, before any download
        self.shots: Sequence[Example] = ()
        self.loaded: Any = None
        self.facts: dict[str, Any] = {}
        self.rows: Sequence[Any] = ()

    def base(self) -> Evaluation:
        """The base model with the very prompts the tuned one gets."""
        return self._evaluation("base", "base, zero-shot", self.task.test, 0)

    def few_shot(self) -> Evaluation | None:
        """The base model with worked examples in the prompt: what can be had without training. None where the recipe
        asks for none, or where not one fits."""
        if not self.recipe.evaluate.few_shot:
            return None
        if self.run.has("few_shot"):
            return self._evaluation("few_shot", "", (), 0)  # read, not done
        self._loaded()
        if not self.shots:
            self.listener.say("Not one worked example fits the model's context: there is no few-shot score.")
            return None
        examples = [with_shots(example, self.shots) for example in self.task.test]
        return self._evaluation("few_shot", f"base, {len(self.shots)}-shot", examples, len(self.shots))

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

    def needles(self, who: str) -> None:
        """Where the context is stretched: what "base" or "tuned" finds in a short text, and in one of full length."""
        names, tasks = needle_names(self.recipe.context, who), {}
        if any(damage(self.run.folder / name) for name in names.values()):
            loaded = self._loaded() if who == "base" else self._attach()
            room = self.recipe.evaluate.max_new_tokens or 0
            tasks = needle_checks(self.recipe.context, lambda text: len(loaded.renderer.ids(text)), answer_tokens=room)
        for reach, name in names.items():
            task = tasks.get(reach, self.task)  # whole: read, not asked
            self._evaluation(name, f"{who}, {task.title}", task.test, 0, task)

    def _evaluation(
        self, name: str, label: str, examples: Sequence[Example], few_shot_k: int, task: Task | None = None
    ) -> Evaluation:
        task, tuned = task or self.task, name.endswith("tuned")
        limit = self.limit if task is self.task else task.max_new_tokens
        folder, journal = self.run.folder / name, self.run.folder / f"{name}.journal"
        if folder.exists() and damage(folder) is None:
            journal.unlink(missing_ok=True)  # left by a kill between the two
            return read_evaluation(folder)
        loaded = self._loaded()
        cached = None if tuned else score_cache(self.facts, task, examples, thinking=self.recipe.thinking, limit=limit)
        if cached is not None and damage(cached) is None:
            self.listener.say(f"Score of {label}: taken from the cache, where an earlier run left it.")
            evaluation = read_evaluation(cached)
        else:
            evaluation = answer(
                loaded,
                task,
                examples,
                name=name,
                label=label,
                few_shot_k=few_shot_k,
                max_new_tokens=limit,
                journal=journal,
                listener=self.listener,
                should_stop=self.should_stop,
                adapter_sha256=self._adapter_sha256() if tuned else None,
            )
            if cached is not None:
                write_evaluation(cached, evaluation)
        write_evaluation(folder, evaluation)
        journal.unlink(missing_ok=True)
        return evaluation

    def _loaded(self) -> Any:
        """The base model; loading it also counts tokens, makes the final plan and records what really runs."""
        if self.loaded is not None:
            return self.loaded
        self.listener.say(f"Loading {self.prepared.spec.label}.")
        from slimtune.engine import load, source

        if self.as_gpu is not None:
            load.cap_memory(self.as_gpu)
        spec, quantisation = self.prepared.spec, self.plan.quantisation
        pinned = read_json(self.run.folder / "source.json")["revision"] if self.run.has("source.json") else None
        keep, cache = self.recipe.train.keep_checkpoints, source.download_folder(spec)
        refuse_full_disk(spec, self.plan.setting, keep_checkpoints=keep, run=self.run.folder, download=cache)
        where = source.resolve_source(spec, quantisation=quantisation, revision=pinned or self.recipe.revision)
        self._same_model(where)
        renderer = load.load_renderer(spec, where, thinking=self.recipe.thinking)
        self.rows = self._encoded(renderer)
        asked = choose_shots(self.task, self.recipe.evaluate.few_shot, seed=self.recipe.seed)
        room = usable_tokens(spec, self.yarn) - self.limit
        self.shots, longest = fitting_shots(renderer, self.task, asked, room_tokens=room)
        if len(self.shots) < len(asked):
            self.listener.say(f"{len(self.shots)} of {len(asked)} worked examples fit the model's context.")
        self.plan = self._planned(RowTokens([len(row) for row in self.rows], [len(row.answer) for row in self.rows]))
        self.loaded = load.load_model(
            spec,
            where,
            renderer,
            precision=self.plan.precision,
            quantisation=quantisation,
            window=max(self.recipe.context.length, longest + self.limit),
            yarn=self.yarn,
            tiled_mlp=self.plan.tiled_mlp,
            offload_embedding=self.plan.offload_embedding,
        )
        write_json(self.run.folder / "plan.json", self.plan.as_json())
        facts = load.describe(self.loaded)
        self.facts = facts | {"versions": {"slimtune": __version__, **facts["versions"]}}
        self.run.step("data.json", lambda: data_facts(self.prepared, train_rows=len(self.rows)))
        began = self.run.step("environment.json", self._environment)
        if (now := self.facts["versions"]) not in (began["versions"], *began.get("went_on_with", ())):
            self.listener.say("It goes on with other versions than it began with; the report says so.")
            went_on = [*began.get("went_on_with", ()), now]
            write_json(self.run.folder / "environment.json", began | {"went_on_with": went_on})
        return self.loaded

    def _planned(self, counted: RowTokens | None = None) -> Plan:
        """The plan for this machine; a run that goes on keeps the precision and quantisation it began with."""
        began = read_json(self.run.folder / "environment.json") if self.run.has("environment.json") else {}
        keep = self.plan.quantisation if counted else began.get("quantisation")
        plan = plan_of(self.prepared, gpu=self.gpu, counted=counted, quantisation=keep)
        if plan.precision != began.get("precision", plan.precision):
            raise UserError(
                f"This run began in {began['precision']}, and here it would go on in {plan.precision}. "
                "Go on with it on a card like the first, or choose another --out."
            )
        return plan

    def _environment(self) -> dict[str, Any]:
        command = shlex.join(["slimtune", *sys.argv[1:]])
        return {**self.facts, "collation": self.plan.collation, "command": command, "started": _now()}

    def _same_model(self, where: Any) -> None:
        before = self.run.step(
            "source.json", lambda: {"repository": where.repository, "revision": where.revision, "digest": where.digest}
        )
        if before["digest"] != where.digest:
            raise UserError(f"The files of {where.repository} have changed since this run began. Choose another --out.")

    def _encoded(self, renderer: Any) -> list[Any]:
        """The training rows as tokens; a row longer than the context is an error, or dropped and counted."""
        from slimtune.engine.render import encode_rows, long_rows

        rows = encode_rows(renderer, self.task.train)
        problems = long_rows(rows, self.recipe.context.length)
        if problems and self.recipe.data.long_rows == "error":
            raise Problems(
                f"{len(problems)} of {len(rows)} training rows (raise `context`, or set `data.long_rows: drop`)",
                problems[:20],
            )
        kept = [row for row in rows if len(row) <= self.recipe.context.length]
        if not kept:
            raise UserError("No training row fits the context.")
        return kept

    def _attach(self) -> Any:
        """The loaded model with its adapter: fresh, or the trained one where training is complete."""
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
                window=loaded.window,
            )
            if self.run.has("training.json"):
                lora.load_adapter(loaded.model, self.run.folder / "adapter")
        return loaded

    def _on_step(self, report: Any) -> None:
        self.run.log(asdict(report))
        self.listener.progress("Fine-tune", report.step, report.steps, f"loss {report.loss:.3f}")

    def _save_adapter(self, out: Path) -> None:
        if self.prepared.spec.folder is None:  # the model's name, not where it lies on this machine
            made, settings = read_json(self.run.folder / "source.json"), self.loaded.model.peft_config["default"]
            settings.base_model_name_or_path, settings.revision = made["repository"], made["revision"]
        self.loaded.model.save_pretrained(out)
        (out / "README.md").unlink(missing_ok=True)  # PEFT's form to be filled in, which names that place too
        self.loaded.renderer.tokenizer.save_pretrained(out)
        write_json(out / SETTING, {"rope": self.loaded.rope})

    def _adapter_sha256(self) -> str:
        return digest_file(self.run.folder / "adapter" / "adapter_model.safetensors")

    def _training(self, result: Any) -> dict[str, Any]:
        from slimtune.engine import lora

        model = self.loaded.model
        environment = {
            **read_json(self.run.folder / "environment.json"),
            "adapter_modules": lora.adapter_modules(model),
            "trainable_parameters": lora.trainable_parameters(model),
            "finished": _now(),
        }
        write_json(self.run.folder / "environment.json", environment)
        outcome = {
            "steps": result.steps,
            "train_rows": len(self.rows),
            "resumed_at_step": result.resumed_at,
            "oom_splits": result.oom_splits,
            "micro_batch": result.micro_batch,
            "notes": result.notes,
            "adapter_sha256": self._adapter_sha256(),
        }
        return outcome | training_totals(self.run.folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
