"""The steps of one run: each is read from the run's folder where it is complete, else done and put there whole.

The model is loaded when the first step needs it, and gets its adapter when training does.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slimtune.answering import answer, asked_label, judging, score_cache
from slimtune.data import Example
from slimtune.evaluate import Evaluation, read_evaluation, with_shots, write_evaluation
from slimtune.files import damage, digest_file, publish_folder, read_json, remove_folder, write_json
from slimtune.plan.context import SETTING
from slimtune.runs import training_totals
from slimtune.scorers.judge import Judge
from slimtune.steps.bench import Bench, utc_now
from slimtune.steps.teacher import TeacherColumn
from slimtune.steps.whole import ADAPTER
from slimtune.tasks import Task
from slimtune.tasks.needle_check import needle_checks, needle_names


class Steps:
    """greet, base, few_shot, train, tuned and teacher, in this order. A step that is complete costs a read."""

    def __init__(self, bench: Bench, *, should_stop: Callable[[], bool]):
        self.bench, self.prepared, self.recipe, self.task = bench, bench.prepared, bench.recipe, bench.task
        self.run, self.listener, self.should_stop = bench.run, bench.listener, should_stop
        self.teacher_column = TeacherColumn(
            self.prepared, self.run, max_new_tokens=bench.limit, listener=self.listener, should_stop=should_stop
        )

    def greet(self) -> None:
        """Meet the served models that the recipe names, before anything is loaded: a wrong key or name, or a judge that
        cannot judge, is known at once."""
        if self.recipe.judge is not None and not self.run.has("tuned"):
            with self._judging(self.task) as judge:
                judge.prove(self.task.test)
        self.teacher_column.greet()

    def base(self) -> Evaluation:
        """The base model with the very prompts the tuned one gets."""
        return self._evaluation("base", "base, zero-shot", self.task.test, 0)

    def few_shot(self) -> Evaluation | None:
        """The base model with worked examples in the prompt: what can be had without training. None where the recipe
        asks for none, or where not one fits."""
        if not self.recipe.evaluate.few_shot:
            return None
        if damage(self.run.folder / "few_shot") is None:
            return self._evaluation("few_shot", "", (), 0)  # read, not done
        self.bench.loaded()
        if not self.bench.shots:
            self.listener.say("Not one worked example fits the model's context: there is no few-shot score.")
            return None
        examples = [with_shots(example, self.bench.shots) for example in self.task.test]
        return self._evaluation("few_shot", f"base, {len(self.bench.shots)}-shot", examples, len(self.bench.shots))

    def train(self) -> None:
        """Train the adapter, and keep it."""
        if self.bench.trained:
            return
        from slimtune.engine import sft

        self.bench.attached()
        train = self.recipe.train
        settings = sft.Settings(
            epochs=train.epochs,
            lr=train.lr,
            schedule=train.schedule,
            warmup=train.warmup,
            batch=self.bench.plan.batch,
            micro_batch=self.bench.plan.micro_batch,
            collation=self.bench.plan.collation,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            seed=self.recipe.seed,
            checkpoint_minutes=train.checkpoint_minutes,
            checkpoint_steps=train.checkpoint_steps,
            keep_checkpoints=train.keep_checkpoints,
            optimizer=self.bench.plan.optimizer,
        )
        result = sft.train(
            self.bench.model,
            self.bench.rows,
            settings,
            self.run.folder / "checkpoints",
            on_step=self._on_step,
            should_stop=self.should_stop,
            say=self.listener.say,
        )
        publish_folder(self.run.folder / ADAPTER, self._save_adapter)
        self._drop_scores_of_another()
        write_json(self.run.folder / "training.json", self._training(result))

    def tuned(self) -> Evaluation:
        """The adapter, on the same rows with the same prompts."""
        if damage(self.run.folder / "tuned") is not None:
            self.bench.attached()
        return self._evaluation("tuned", "tuned", self.task.test, 0)

    def teacher(self) -> Evaluation | None:
        """The teacher, on the same rows, with a prompt of the same making. None where the recipe names none."""
        with self._judging(self.task) as judge:
            return self.teacher_column.answer(judge)

    def _judging(self, task: Task) -> AbstractContextManager[Judge | None]:
        """The recipe's judge, for the run's own task: needles have a rule."""
        judge, journal = self.recipe.judge if task is self.task else None, self.run.folder / "judge.journal"
        return judging(judge, journal=journal, listener=self.listener, should_stop=self.should_stop)

    def needles(self, who: str) -> None:
        """Where the context is stretched: what "base" or "tuned" finds in a short text, and in one of full length."""
        names, tasks = needle_names(self.recipe.context, who), {}
        if any(damage(self.run.folder / name) for name in names.values()):
            loaded = self.bench.loaded() if who == "base" else self.bench.attached()
            room = self.recipe.answer_limit(0)
            tasks = needle_checks(self.recipe.context, lambda text: len(loaded.renderer.ids(text)), answer_tokens=room)
        for reach, name in names.items():
            task = tasks.get(reach, self.task)  # whole: read, not asked
            self._evaluation(name, f"{who}, {task.title}", task.test, 0, task)

    def _evaluation(
        self, name: str, label: str, examples: Sequence[Example], few_shot_k: int, task: Task | None = None
    ) -> Evaluation:
        task, tuned = task or self.task, name.endswith("tuned")
        limit = self.bench.limit if task is self.task else task.max_new_tokens
        folder, journal = self.run.folder / name, self.run.folder / f"{name}.journal"
        if folder.exists() and damage(folder) is None:
            journal.unlink(missing_ok=True)  # left by a kill between the two
            return read_evaluation(folder)
        loaded = self.bench.loaded()
        asked, thinking = self.recipe.judge if task is self.task else None, self.recipe.thinking
        cached = None
        if not tuned:
            cached = score_cache(self.bench.facts, task, examples, thinking=thinking, limit=limit, judge=asked)
        if cached is not None and damage(cached) is None:
            self.listener.say(f"Score of {label}: taken from the cache, where an earlier run left it.")
            evaluation = read_evaluation(cached)
        else:
            with self._judging(task) as judge:
                evaluation = answer(
                    loaded,
                    task,
                    examples,
                    name=name,
                    label=asked_label(label, self.recipe),
                    few_shot_k=few_shot_k,
                    max_new_tokens=limit,
                    journal=journal,
                    listener=self.listener,
                    should_stop=self.should_stop,
                    adapter_sha256=self._adapter_sha256() if tuned else None,
                    judge=judge,
                )
            if cached is not None:
                write_evaluation(cached, evaluation)
        write_evaluation(folder, evaluation)
        journal.unlink(missing_ok=True)
        return evaluation

    def _on_step(self, report: Any) -> None:
        self.run.log(asdict(report))
        self.listener.progress("Fine-tune", report.step, report.steps, f"loss {report.loss:.3f}")

    def _save_adapter(self, out: Path) -> None:
        spec = self.prepared.spec
        if spec.folder is None and spec.repo is not None:  # the model's name, not where it lies on this machine
            made, settings = read_json(self.run.folder / "source.json"), self.bench.model.model.peft_config["default"]
            settings.base_model_name_or_path, settings.revision = made["repository"], made["revision"]
        # told that no embedding is trained, PEFT does not ask the hub whether one grew
        self.bench.model.model.save_pretrained(out, save_embedding_layers=False)
        (out / "README.md").unlink(missing_ok=True)  # PEFT's form to be filled in, which names that place too
        self.bench.model.renderer.tokenizer.save_pretrained(out)
        write_json(out / SETTING, {"rope": self.bench.model.rope, "thinking": self.recipe.thinking})

    def _adapter_sha256(self) -> str:
        return digest_file(self.run.folder / ADAPTER / "adapter_model.safetensors")

    def _drop_scores_of_another(self) -> None:
        """An adapter that had to be trained again may be another, where a card's sums are not the same each time."""
        told = self.run.folder / "training.json"
        if told.is_file() and read_json(told)["adapter_sha256"] != self._adapter_sha256():
            for name in ("tuned", *needle_names(self.recipe.context, "tuned").values()):
                if self.run.has(name):
                    remove_folder(self.run.folder / name)

    def _training(self, result: Any) -> dict[str, Any]:
        from slimtune.engine import lora

        model = self.bench.model.model
        environment = {
            **read_json(self.run.folder / "environment.json"),
            "adapter_modules": lora.adapter_modules(model),
            "trainable_parameters": lora.trainable_parameters(model),
            "finished": utc_now(),
        }
        write_json(self.run.folder / "environment.json", environment)
        outcome = {
            "steps": result.steps,
            "train_rows": len(self.bench.rows),
            "resumed_at_step": result.resumed_at,
            "oom_splits": result.oom_splits,
            "micro_batch": result.micro_batch,
            "graphs_made_late": result.made_late,
            "notes": result.notes,
            "adapter_sha256": self._adapter_sha256(),
        }
        return outcome | training_totals(self.run.folder)
