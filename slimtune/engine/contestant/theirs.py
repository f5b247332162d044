"""The other contestants, each as its documentation has it: Unsloth over TRL's SFTTrainer, and TRL with PEFT and
bitsandbytes alone, for which Unsloth is never imported. Their own loaders, collation, shuffling and loss."""

import math
from pathlib import Path
from typing import Any

from slimtune.engine.contestant.job import OWN_CHOICE, Job, Pace
from slimtune.engine.schedule import optimizer_name

_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def train_unsloth(job: Job, folder: Path) -> Pace:
    """As Unsloth's notebooks and its "Fine-tuning LLMs Guide" have it."""
    from unsloth import FastLanguageModel  # first: it patches what the others import

    from slimtune.engine.hollow import fill

    way = job.way
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(_folder(job, folder)), max_seq_length=_row_tokens(job), load_in_4bit=way.quantisation == "4bit",
        dtype=_dtype(way.precision), use_exact_model_name=True, local_files_only=True,
    )  # fmt: skip
    if job.shape is not None:
        fill(model, seed=job.seed)
    model = FastLanguageModel.get_peft_model(
        model, r=job.r, lora_alpha=job.r, lora_dropout=0, bias="none", target_modules=_LINEAR, random_state=job.seed,
        use_gradient_checkpointing="unsloth" if way.checkpointing else False, max_seq_length=_row_tokens(job),
    )  # fmt: skip
    return _sft(job, folder, model, tokenizer)


def train_plain(job: Job, folder: Path) -> Pace:
    """As the documentation of TRL and PEFT ("Quantization") has it."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from slimtune.engine.hollow import fill

    way, source = job.way, _folder(job, folder)
    dtype, in_4bit = _dtype(way.precision), way.quantisation == "4bit"
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, quantization_config=nf4 if in_4bit else None,
        device_map={"": 0} if torch.cuda.is_available() else None,
    )  # fmt: skip
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

        return resolve_source(job.spec, quantisation=job.way.quantisation, revision=None).folder
    from slimtune.engine.hollow import hollow_model

    hollow_model(job.spec, folder / "model")
    return folder / "model"


def _row_tokens(job: Job) -> int:
    """The longest row there may be: packed ones hold as many tokens as a micro-batch has on average."""
    if job.way.collation != "packed":
        return job.window
    rows = job.read_rows()
    mean = sum(len(prompt) + len(answer) for prompt, answer in rows) / len(rows)
    return max(job.window, math.ceil(job.way.micro_batch * mean))


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
    trainer = SFTTrainer(model=model, args=_arguments(job, folder), train_dataset=data, processing_class=tokenizer)
    collate = trainer.data_collator

    def counted(examples: Any) -> Any:
        batch = collate(examples)
        tokens = batch["attention_mask"].sum().item() if "attention_mask" in batch else batch["input_ids"].numel()
        clock.saw(tokens=int(tokens), supervised=int((batch["labels"] != -100).sum()))
        return batch

    class Ticks(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if logs and "grad_norm" in logs:
                clock.ended(state.global_step, loss=float(logs["loss"]), grad_norm=float(logs["grad_norm"]))

    trainer.data_collator = counted
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Ticks())
    clock.start()
    trainer.train()
    return clock.pace()


def _arguments(job: Job, folder: Path) -> Any:
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
        gradient_accumulation_steps=math.ceil(job.batch / way.micro_batch),
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
