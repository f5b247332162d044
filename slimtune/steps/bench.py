"""The model that a run's steps work on: loaded when the first of them needs it, given its adapter when training does.

Loading also counts tokens, makes the final plan, and records what really runs.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from slimtune import __version__
from slimtune.answering import fitting_shots
from slimtune.check import Ready, plan_of
from slimtune.data import Example
from slimtune.errors import Problems, UserError
from slimtune.evaluate import choose_shots
from slimtune.files import read_json, write_json
from slimtune.gpus import GpuSpec, detect_gpu
from slimtune.lengths import RowTokens, count_rows
from slimtune.plan import Plan, refuse_full_disk, usable_tokens, yarn_for
from slimtune.runs import Run
from slimtune.status import Listener
from slimtune.steps.whole import ADAPTER, lost_adapter


class Bench:
    """`shots`, `facts` and `rows` are there once the model is loaded."""

    def __init__(
        self,
        prepared: Ready,
        run: Run,
        *,
        as_gpu: GpuSpec | None,
        listener: Listener,
        shelf: Any | None = None,
        command: str = "",
    ):
        self.prepared, self.recipe, self.task, self.run = prepared, prepared.recipe, prepared.task, run
        self.listener, self.shelf = listener, shelf
        self.command = command or shlex.join(["slimtune", *sys.argv[1:]])
        self.as_gpu, self.gpu = as_gpu, as_gpu or detect_gpu()
        self.limit = self.recipe.answer_limit(self.task.max_new_tokens)
        self.yarn = yarn_for(prepared.spec, self.recipe.context)
        self.plan = self._planned()  # refuses what cannot fit, before any download
        self.shots: Sequence[Example] = ()
        self.model: Any = None
        self.facts: dict[str, Any] = {}
        self.rows: Sequence[Any] = ()

    def loaded(self) -> Any:
        """The base model; loading it also counts tokens, makes the final plan and records what really runs."""
        if self.model is not None:
            return self.model
        self.listener.say(f"Loading {self.prepared.spec.label}.")
        from slimtune.engine import load, memory, source

        if self.as_gpu is not None:
            memory.cap_memory(self.as_gpu)
        spec, quantisation = self.prepared.spec, self.plan.quantisation
        pinned = read_json(self.run.folder / "source.json")["revision"] if self.run.has("source.json") else None
        revision, keep = pinned or self.recipe.revision, self.recipe.train.keep_checkpoints
        cache = source.download_folder(spec, revision=revision)
        refuse_full_disk(spec, self.plan.setting, keep_checkpoints=keep, run=self.run.folder, download=cache)
        where = source.resolve_source(spec, quantisation=quantisation, revision=revision)
        self._same_model(where)
        renderer = load.load_renderer(spec, where, thinking=self.recipe.thinking)
        self.rows = self._encoded(renderer)
        asked = choose_shots(self.task, self.recipe.evaluate.few_shot, seed=self.recipe.seed)
        room = usable_tokens(spec, self.yarn) - self.limit
        self.shots, longest = fitting_shots(renderer, self.task, asked, room_tokens=room)
        if len(self.shots) < len(asked):
            self.listener.say(f"{len(self.shots)} of {len(asked)} worked examples fit the model's context.")
        self.plan = self._planned(count_rows(self.rows))
        for note in self.plan.notes:
            self.listener.say(note)
        self.model = self._load(where, renderer, window=max(self.recipe.context.length, longest + self.limit))
        write_json(self.run.folder / "plan.json", self.plan.as_json())
        facts = load.describe(self.model)
        self.facts = facts | {"versions": {"slimtune": __version__, **facts["versions"]}}
        self.run.step("data.json", lambda: data_facts(self.prepared, train_rows=len(self.rows)))
        began = self.run.step("environment.json", self._environment)
        if (now := self.facts["versions"]) not in (began["versions"], *began.get("went_on_with", ())):
            self.listener.say("It goes on with other versions than it began with; the report says so.")
            went_on = [*began.get("went_on_with", ()), now]
            write_json(self.run.folder / "environment.json", began | {"went_on_with": went_on})
        return self.model

    def _load(self, where: Any, renderer: Any, *, window: int) -> Any:
        """The base model; from the shelf, where the run before in this process left one loaded the same way."""
        from slimtune.engine import load

        plan, spec = self.plan, self.prepared.spec
        how = {
            "precision": plan.precision,
            "quantisation": plan.quantisation,
            "window": window,
            "yarn": self.yarn,
            "tiled_mlp": plan.tiled_mlp,
            "offload_embedding": plan.offload_embedding,
        }

        def loaded() -> Any:
            return load.load_model(spec, where, renderer, **how, seed=self.recipe.seed)

        if self.shelf is None:
            return loaded()
        kept = self.shelf.take((spec.key, where.digest, *how.values()), loaded)
        return replace(kept, renderer=renderer, seed=self.recipe.seed)

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
        return {**self.facts, "collation": self.plan.collation, "command": self.command, "started": utc_now()}

    def _same_model(self, where: Any) -> None:
        before = self.run.step(
            "source.json", lambda: {"repository": where.repository, "revision": where.revision, "digest": where.digest}
        )
        if before["digest"] != where.digest:
            raise UserError(f"The files of {where.repository} have changed since this run began. Choose another --out.")

    def _encoded(self, renderer: Any) -> list[Any]:
        """The training rows as tokens; one longer than the context, or that the template cannot hold, is an error, or
        dropped and counted."""
        from slimtune.engine.kept_rows import encode_kept
        from slimtune.engine.render import long_rows

        rows = encode_kept(renderer, self.task.train, skip_bad=self.recipe.data.skip_bad)
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

    def attached(self) -> Any:
        """The loaded model with its adapter: fresh, or the trained one where training is complete."""
        from slimtune.engine import lora

        loaded = self.loaded()
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
            if self.trained:
                lora.load_adapter(loaded.model, self.run.folder / ADAPTER)
        return loaded

    @property
    def trained(self) -> bool:
        """Whether training is complete, and its adapter still there."""
        return self.run.has("training.json") and lost_adapter(self.run.folder) is None


def utc_now() -> str:
    """The time of day, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def data_facts(prepared: Ready, *, train_rows: int) -> dict[str, Any]:
    """What a run's data.json says: the task, its size, its licence, and what a reader of a score must know."""
    task, notes = prepared.task, [*prepared.task.notes, *map(str, prepared.quality.warnings)]
    if dropped := len(task.train) - train_rows:
        kind = "longer than the context" + ", or not for its template" * prepared.recipe.data.skip_bad
        notes.append(f"Training rows dropped, being {kind}: {dropped:,}.")
    return {
        "task": task.name,
        "title": task.title,
        "kind": task.kind,
        "licence": task.licence,
        "attribution": task.attribution,
        "train_rows": train_rows,
        "test_rows": len(task.test),
        "scored_on": task.scored_on,
        "digest": task.digest,
        "notes": notes,
        "scorer": task.scorer,
        "folder": task.folder,
    }
