"""The other contestants, each as its documentation has it: Unsloth over TRL's SFTTrainer, and TRL with PEFT and
bitsandbytes alone, for which Unsloth is never imported. Their own loaders, collation, shuffling and loss; the positions
are the model's own, and the layout is the one that was asked for, or they fail."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimtune.engine.contestant.job import OWN_CHOICE, Job, Pace
from slimtune.engine.contestant.layout import misfit
from slimtune.engine.schedule import optimizer_name
from slimtune.errors import UserError

_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def train_unsloth(job: Job, folder: Path) -> Pace:
    """As Unsloth's notebooks and its "Fine-tuning LLMs Guide" have it."""
    return _sft(job, folder, *load_unsloth(job, folder))


def load_unsloth(job: Job, folder: Path) -> tuple[Any, Any]:
    """The model with its adapter, and its tokenizer. SlimtuneError where its positions are not the model's own."""
    from unsloth import FastLanguageModel  # first: it patches what the others import

    from slimtune.engine.hollow import fill
    from slimtune.engine.rope import asked_config, check_rope

    way, source = job.way, _folder(job, folder)
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(source), max_seq_length=_row_tokens(job), load_in_4bit=way.quantisation == "4bit",
        dtype=_dtype(way.precision), use_exact_model_name=True, local_files_only=True,
    )  # fmt: skip
    check_rope(model, asked_config(source, None))
    if job.shape is not None:
        fill(model, seed=job.seed)
    model = FastLanguageModel.get_peft_model(
        model, r=job.r, lora_alpha=job.r, lora_dropout=0, bias="none", target_modules=_LINEAR, random_state=job.seed,
        use_gradient_checkpointing="unsloth" if way.checkpointing else False, max_seq_length=_row_tokens(job),
    )  # fmt: skip
    return model, tokenizer


def train_plain(job: Job, folder: Path) -> Pace:
    """As the documentation of TRL and PEFT ("Quantization") has it."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from slimtune.engine.hollow import fill
    from slimtune.engine.rope import asked_config, check_rope

    way, source = job.way, _folder(job, folder)
    dtype, in_4bit = _dtype(way.precision), way.quantisation == "4bit"
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, quantization_config=nf4 if in_4bit else None,
        device_map={"": 0} if torch.cuda.is_available() else None,
    )  # fmt: skip
    check_rope(model, asked_config(source, None))
    if job.shape is not None:
        fill(model, seed=job.seed)
    if in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=way.checkpointing)
    config = LoraConfig(r=job.r, lora_alpha=job.r, target_modules=_LINEAR, task_type="CAUSAL_LM")
    return _sft(job, folder, get_peft_model(model, config), AutoTokenizer.from_pretrained(source))


def _folder(job: Job, folder: Path) -> Path:
    """The model's files: the real ones, or hollow ones in its shape."""
    if job.shape is None:
        from slimtune.engine.source import resolve_source

        return resolve_source(job.spec, quantisation=job.way.quantisation, revision=job.revision).folder
    from slimtune.engine.hollow import hollow_model

    hollow_model(job.spec, folder / "model")
    return folder / "model"


def _row_tokens(job: Job) -> int:
    """The longest row there may be: packed ones hold as many tokens as a micro-batch has on average, or as the longest
    example has; and no more than the model was made for, beyond which Unsloth stretches positions in silence."""
    if job.way.collation != "packed":
        return job.window
    lengths = [len(prompt) + len(answer) for prompt, answer in job.read_rows()]
    wanted = max(max(lengths), math.ceil(job.way.micro_batch * sum(lengths) / len(lengths)))
    return min(wanted, max(job.window, job.spec.native_context))


def _passes(job: Job, data: Any) -> int:
    """Forward and backward passes that make a batch. How many examples packed rows hold is not known before they are
    packed: they stay whole, and no row is longer than the model takes. So many rows as make about a batch, then."""
    from trl import pack_dataset

    if job.way.collation != "packed":
        return math.ceil(job.batch / job.way.micro_batch)
    packed = pack_dataset(data.select_columns("input_ids"), _row_tokens(job))
    return max(1, round(job.batch * len(packed) / len(data)))


class _Counted:
    """The trainer's own collator, whose batches the clock hears of. UserError where the first is not laid out as it was
    asked for."""

    def __init__(self, job: Job, clock: Any, collate: Any, examples: int):
        self.way, self.clock, self.collate, self.examples = job.way, clock, collate, examples
        self.seen = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        batch = self.collate(rows)
        if not self.seen and (wrong := misfit(self.way, rows, batch, examples=self.examples)):
            raise UserError(wrong)
        self.seen = True
        tokens = batch["attention_mask"].sum().item() if "attention_mask" in batch else batch["input_ids"].numel()
        self.clock.saw(tokens=int(tokens), supervised=int((batch["labels"] != -100).sum()))
        return batch


def _sft(job: Job, folder: Path, model: Any, tokenizer: Any) -> Pace:
    """TRL's SFTTrainer over the job's rows, the loss on answers only."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTTrainer

    from slimtune.engine.contestant.clock import Clock

    rows = job.read_rows()
    clock = Clock(job, answer_tokens=sum(len(answer) for _, answer in rows) / len(rows))
    data = Dataset.from_dict(
        {
            "input_ids": [[*prompt, *answer] for prompt, answer in rows],
            "completion_mask": [[0] * len(prompt) + [1] * len(answer) for prompt, answer in rows],
        }
    )
    arguments = _arguments(job, folder, passes=_passes(job, data))
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)

    class Ticks(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if logs and "grad_norm" in logs:
                skipped = bool(trainer.accelerator.optimizer_step_was_skipped)
                loss, norm = float(logs["loss"]), float(logs["grad_norm"])
                clock.ended(state.global_step, loss=loss, grad_norm=norm, skipped=skipped)

    trainer.data_collator = _Counted(job, clock, trainer.data_collator, len(rows))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Ticks())
    clock.start()
    trainer.train()
    return clock.pace()


def _arguments(job: Job, folder: Path, *, passes: int) -> Any:
    import torch
    from trl import SFTConfig

    way, cuda = job.way, torch.cuda.is_available()
    packed = way.collation == "packed"
    layout = {"packing": packed, "padding_free": way.collation == "padding-free"}
    if way.collation == OWN_CHOICE:
        layout = {}
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=1 if packed else way.micro_batch,
        gradient_accumulation_steps=passes,
        max_steps=job.last_step,
        learning_rate=job.lr,
        lr_scheduler_type="constant",
        warmup_steps=0,
        max_grad_norm=1.0,
        weight_decay=0.0,
        optim=optimizer_name(way.optimizer, way.precision, cuda=cuda),
        bf16=way.precision == "bf16",
        fp16=way.precision == "fp16",
        use_cpu=not cuda,
        gradient_checkpointing=way.checkpointing,
        seed=job.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        max_length=_row_tokens(job),
        completion_only_loss=True,
        dataset_num_proc=1,
        **layout,
    )


def _dtype(precision: str) -> Any:
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
