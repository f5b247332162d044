"""What TRL's trainer is told: everything that it would otherwise choose for itself."""

import unsloth  # noqa: F401, I001  first: it patches what the others import
import math
from pathlib import Path

import torch
from trl import SFTConfig

from slimtune.engine.load import Loaded
from slimtune.engine.schedule import Settings, optimizer_name

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def arguments(settings: Settings, steps: int, folder: Path, loaded: Loaded) -> SFTConfig:
    precision = loaded.precision
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=1,
        num_train_epochs=1,
        max_steps=steps,
        learning_rate=settings.lr,
        lr_scheduler_type=_SCHEDULES[settings.schedule],
        warmup_steps=math.ceil(settings.warmup * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim=optimizer_name(settings.optimizer, precision, cuda=torch.cuda.is_available()),
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        # as the adapter was attached: TRL's own default is to compute every layer twice
        gradient_checkpointing=any(getattr(part, "gradient_checkpointing", False) for part in loaded.model.modules()),
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_num_workers=0,
        max_length=None,
        packing=False,
        padding_free=False,
    )
