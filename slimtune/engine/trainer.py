"""TRL's SFTTrainer over whole optimizer batches: it owns the loop, we own batches, checkpoints and what goes wrong."""

from unsloth import FastLanguageModel  # noqa: F401, I001  first: it patches what the others import
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback
from trl import SFTTrainer

from slimtune.engine.answers import attach_scaler, freeze_routing, loss_on_answers
from slimtune.engine.arguments import arguments
from slimtune.engine.checkpoint import Misses, write_checkpoint
from slimtune.engine.collate import Batch, check_asked, padded, shared_prefix
from slimtune.engine.compiled import graphs_compiled
from slimtune.engine.row_steps import RowSteps
from slimtune.engine.load import Loaded
from slimtune.engine.memory import is_out_of_memory, release
from slimtune.engine.parts import Rows, parts_of_batches
from slimtune.engine.prefix import as_batch
from slimtune.engine.render import Encoded
from slimtune.engine.schedule import WARM_STEPS, Settings, StepReport, TrainResult, row_order
from slimtune.engine.watch import Watch
from slimtune.errors import Diverged, UserError

_SEEN = 256  # parts of a run that frames are chosen by


class RowTrainer(SFTTrainer):
    """SFTTrainer over whole optimizer batches, with checkpoints of our own."""

    def __init__(
        self,
        loaded: Loaded,
        rows: Sequence[Encoded],
        settings: Settings,
        folder: Path,
        steps: int,
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
        say: Callable[[str], None],
    ):
        self.rows, self.settings, self.folder, self.steps, self.say = rows, settings, folder, steps, say
        self.pad_id = loaded.renderer.tokenizer.pad_token_id
        self.spec, self.counts_items = loaded.spec, True
        self.result = TrainResult(steps, None, min(settings.micro_batch, settings.batch))
        self.step_tokens = self.step_supervised = 0
        self.misses = Misses(say)
        self.order = row_order(len(rows), epochs=settings.epochs, seed=settings.seed).tolist()
        self.batches = parts_of_batches(self.order, batch=settings.batch, micro_batch=settings.batch)
        super().__init__(
            model=loaded.model,
            args=arguments(settings, steps, folder, loaded),
            train_dataset=Dataset.from_dict({"row": list(range(len(rows)))}),
            data_collator=lambda batch: {"rows": [item["row"] for item in batch]},
            processing_class=loaded.renderer.tokenizer,
        )
        freeze_routing(loaded.model)
        cuda = self.args.device.type == "cuda"  # on a CPU masks tell who sees whom
        self.row_steps = RowSteps.of(self, loaded) if cuda and settings.collation == "shared-prefix" else None
        self.remove_callback(PrinterCallback)
        self.add_callback(_Steps(self, on_step, should_stop))

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any = None) -> tuple[list, None]:
        return [next(epoch_iterator) for _ in range(num_batches)], None

    @property
    def made(self) -> int:
        """Graphs that were compiled or captured so far."""
        return graphs_compiled() + (self.row_steps.replays.captured if self.row_steps else 0)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over one optimizer batch; the mean loss per supervised token, as a tensor."""
        loss = self._replayed(model, [self.rows[index] for index in inputs["rows"]])
        following = self.batches[self.state.global_step + 1 :][:1]
        if self.row_steps and following:  # while the device computes
            self.row_steps.look_ahead(self._parts([self.rows[index] for index in following[0]]))
        return loss

    def expect(self) -> None:
        """Have frames chosen for what is computed at a time, by some of it: the same ones wherever it goes on."""
        if self.row_steps:
            parts = self._parts(self.order)
            every = math.ceil(len(parts) / _SEEN)
            self.row_steps.expect([[self.rows[index] for index in part] for part in parts[::every]], times=every)

    def _parts(self, rows: Sequence[Any]) -> list[Sequence[Any]]:
        """What is computed at a time, of one batch or of several."""
        return parts_of_batches(rows, batch=self.settings.batch, micro_batch=self.result.micro_batch)

    def _replayed(self, model: Any, batch: Sequence[Encoded]) -> torch.Tensor:
        while True:
            try:
                return self._slices(model, batch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            model.zero_grad(set_to_none=True)
            release()
            self._halve(batch)

    def _slices(self, model: Any, batch: Sequence[Encoded]) -> torch.Tensor:
        supervised = sum(len(row.answer) for row in batch)
        self.step_tokens, self.step_supervised = 0, supervised
        if self.row_steps:
            loss, self.step_tokens = self.row_steps.step(self._parts(batch), items=supervised)
            return loss
        total = torch.zeros((), device=self.args.device)
        for part in self._parts(batch):
            total += self._backward(model, part, supervised)
        return total

    def _backward(self, model: Any, part: Sequence[Encoded], supervised: int) -> torch.Tensor:
        tensors = self._tensors(part)
        self.step_tokens += tensors["input_ids"].numel()
        loss = self._loss(model, tensors, supervised)
        if not self.counts_items:
            loss = loss * (sum(len(row.answer) for row in part) / supervised)
        self.accelerator.backward(loss)
        return loss.detach().float()

    def _tensors(self, part: Sequence[Encoded]) -> Batch:
        if self.settings.collation == "shared-prefix":
            tensors = as_batch(shared_prefix(part), self.model)
        else:
            tensors = padded(part, pad_id=self.pad_id, multiple=8 if self.args.device.type == "cuda" else 1)
        check_asked(tensors["targets"], part)
        if self.spec.traits.model_type == "gemma3":  # with its vision tower it asks which tokens are of an image
            tensors["token_type_ids"] = torch.zeros_like(tensors["input_ids"])
        return self._prepare_inputs(tensors)

    def _loss(self, model: Any, tensors: Batch, items: int) -> torch.Tensor:
        with self.compute_loss_context_manager():
            return loss_on_answers(model, tensors, items=torch.tensor(items, device=self.args.device))

    def _divides(self, part: Sequence[Encoded]) -> bool:
        """Whether the model divides its loss by the count it is given, or takes the mean of the slice instead, as
        Gemma 3 with its vision tower does in transformers 5.5."""
        tensors, items = self._tensors(part), sum(len(row.answer) for row in part)
        once, twice = (self._loss(self.model, tensors, count).item() for count in (items, 2 * items))
        return once > 1.5 * twice

    def _halve(self, batch: Sequence[Encoded]) -> None:
        if self.result.micro_batch == 1:
            raise UserError(
                f"One row of {max(map(len, batch))} tokens does not fit the memory. What helps: a smaller "
                "`context`, a smaller `lora.r`, or `train.quantisation: 4bit`."
            )
        self.result.micro_batch //= 2
        if self.row_steps:
            self.row_steps.forget()
            self.expect()
        split = {"step": self.state.global_step + 1, "micro_batch": self.result.micro_batch}
        self.result.oom_splits.append(split)
        self.say(
            f"Out of memory at step {split['step']}: from here on the batch is computed in parts of "
            f"{split['micro_batch']} rows. The batch itself stays {self.settings.batch}."
        )

    def probe(self, *, step: bool) -> None:
        """Forward and backward over what is most at a time, and an optimizer step that changes nothing, so that a run
        that cannot fit says so in its first minute."""
        state, tried = torch.get_rng_state(), 0
        while tried != self.result.micro_batch:  # of fewer at a time, others are most
            most, tried = self._most(), self.result.micro_batch
            self._replayed(self.model, most)
        gradient = sum(p.grad.abs().sum().item() for p in self.model.parameters() if p.grad is not None)
        if gradient == 0:  # not a number: fp16 overflowed at the scaler's first guess, which is normal
            raise Diverged("The gradient of the rows that are tried first is zero: nothing would be learned.")
        if not self.spec.fast_path and not self.row_steps:
            self.counts_items = self._divides(most[: self.result.micro_batch])
        if step:
            self._empty_step()
        self.model.zero_grad(set_to_none=True)
        torch.set_rng_state(state)

    def _most(self) -> list[Encoded]:
        if self.settings.collation == "padded":
            return sorted(self.rows, key=len, reverse=True)[: max(2, self.result.micro_batch)]
        run = Rows.of([row.prompt for row in self.rows], [*map(len, self.rows)])
        return [self.rows[index] for index in run.largest(self._parts(self.order)).part]

    def _empty_step(self) -> None:
        """Make the optimizer allocate its state by a step of nothing, then forget it."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.zero_()
        try:
            optimizer.step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise UserError("The optimizer's state does not fit the memory. What helps: a smaller `lora.r`.") from error
        optimizer.state.clear()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not all(torch.isfinite(p).all() for p in model.parameters() if p.requires_grad):
            raise Diverged(f"Step {self.state.global_step}: the weights are not finite. The checkpoint before is kept.")
        with self.misses.forgiven(last=self.control.should_training_stop):
            write_checkpoint(self.folder, self.state.global_step, self._fill, keep=self.settings.keep_checkpoints)

    def _fill(self, out: Path) -> None:
        self.model.save_pretrained(out)
        self._save_optimizer_and_scheduler(str(out))
        self._save_scaler(str(out))
        self._save_rng_state(str(out))
        self.state.save_to_json(str(out / "trainer_state.json"))


class _Steps(TrainerCallback):
    """Reports every step, saves by time and by step, and stops on request at a step's end."""

    def __init__(self, trainer: RowTrainer, on_step: Callable[[StepReport], None], should_stop: Callable[[], bool]):
        self.trainer, self.on_step, self.should_stop = trainer, on_step, should_stop
        self.watch = Watch(trainer.steps, scaler=trainer.args.fp16)
        self.began = self.saved = time.monotonic()
        self.taken = self.made = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        release()  # the peak to report is training's, not that of the answers before it
        self.trainer.model.train()
        if args.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            attach_scaler(self.trainer, self.trainer.model)
        for past in state.log_history:
            if "grad_norm" in past:
                self.watch.step(past["step"], loss=past["loss"], grad_norm=past["grad_norm"], skipped=past["skipped"])
        self.trainer.expect()
        self.trainer.probe(step=state.global_step == 0)
        self.began = self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        settings = self.trainer.settings
        due = time.monotonic() - self.saved > settings.checkpoint_minutes * 60
        due |= bool(settings.checkpoint_steps) and state.global_step % settings.checkpoint_steps == 0
        if self.should_stop():
            control.should_training_stop = due = True
        if due or state.global_step == self.trainer.steps:
            control.should_save = True
        self.taken += 1
        if self.taken <= WARM_STEPS:
            self.made = self.trainer.made
        self.trainer.result.made_late = self.trainer.made - self.made
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "grad_norm" not in logs:
            return
        skipped = bool(self.trainer.accelerator.optimizer_step_was_skipped)
        state.log_history[-1]["skipped"] = skipped  # a resumed run's watch reads it
        loss, norm = float(logs["loss"]), float(logs["grad_norm"])
        self.watch.step(state.global_step, loss=loss, grad_norm=norm, skipped=skipped)
        cuda = args.device.type == "cuda"
        self.on_step(
            StepReport(
                state.global_step,
                self.trainer.steps,
                state.global_step * self.trainer.settings.batch / len(self.trainer.rows),
                loss,
                logs["learning_rate"],
                norm,
                skipped,
                self.trainer.step_tokens,
                self.trainer.step_supervised,
                time.monotonic() - self.began,
                torch.cuda.max_memory_reserved() / 2**30 if cuda else None,
            )
        )
