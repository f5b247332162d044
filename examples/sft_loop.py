"""The demo's fine-tune with nothing of slimtune around it: a model, adapters, a loop, a count. Read it top to bottom.

    python examples/sft_loop.py

About two minutes on two CPU cores. It takes four of the demo's ten intents; prompt, loss and learning rate are the
demo's. slimtune gives the files, weights and rows, and has what is not here: the base model's score beside the tuned
one's, intervals, a plan that fits the card, the way back after a crash, and rows that share what they have in common.
"""

from slimtune.engine.embedded import embedded_folder  # noqa: I001  first: it sets what Unsloth reads at its import
import unsloth  # second: it patches what the others import
import json
import random
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

import slimtune.tasks

LABELS = ["activate_my_card", "age_limit", "atm_support", "cancel_transfer"]
SYSTEM = f"""Classify an online-banking customer query into exactly one of 4 fine-grained intents.

Labels:
{chr(10).join(LABELS)}

Answer with one of these labels and nothing else."""
ROWS, BATCH, LR = 96, 8, 2e-3


def read(split: str) -> list[dict]:
    lines = (Path(slimtune.tasks.__file__).parent / "banking77" / f"{split}.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["label"] in LABELS]


def prompt_ids(row: dict) -> torch.Tensor:
    chat = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": row["text"]}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0]


def example(row: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, and labels with the prompt masked: the loss is on the answer and its stop token alone."""
    prompt = prompt_ids(row)
    answer = tokenizer(row["label"] + tokenizer.eos_token, add_special_tokens=False, return_tensors="pt").input_ids[0]
    return torch.cat([prompt, answer]), torch.cat([torch.full_like(prompt, -100), answer])


model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
    str(embedded_folder()), max_seq_length=512, dtype=torch.float32, load_in_4bit=False
)
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
model = unsloth.FastLanguageModel.get_peft_model(
    model, r=16, lora_alpha=32, target_modules=LAYERS, use_gradient_checkpointing=False, random_state=17
)
optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=LR, weight_decay=0)

train = random.Random(17).sample(read("train"), ROWS)
for step in range(ROWS // BATCH):
    for group in optimizer.param_groups:
        group["lr"] = LR * (1 - step * BATCH / ROWS)  # linear, down to nothing
    ids, labels = zip(*map(example, train[step * BATCH : (step + 1) * BATCH]), strict=True)
    ids = pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id)
    labels = pad_sequence(labels, batch_first=True, padding_value=-100)
    loss = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step + 1:2} of {ROWS // BATCH}: loss {loss.item():.3f}", flush=True)

unsloth.FastLanguageModel.for_inference(model)
test, right = read("test")[::2], 0
for row in test:
    ids = prompt_ids(row)[None]
    said = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    right += tokenizer.decode(said, skip_special_tokens=True).strip() == row["label"]
print(f"accuracy {right / len(test):.3f}: {right} of {len(test)} test rows")
