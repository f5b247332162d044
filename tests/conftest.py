"""Small real things the tests share: a tiny random model with a real tokenizer, and a task of a few rows."""

import os
from pathlib import Path

import pytest
from samples import make_task

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: more threads only get in each other's way


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The embedded model as a folder; converted once and cached."""
    from slimtune.engine.embedded import embedded_folder

    return embedded_folder()


@pytest.fixture(scope="session")
def tiny_model(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Llama layers of random weights with SmolLM2's tokenizer: learns three words, proves nothing about quality."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tokenizer = AutoTokenizer.from_pretrained(embedded)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "slimtune.json").write_text('{"note": "random weights: they measure no quality"}')
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return make_task(tmp_path / "actions")


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, task: Path) -> Path:
    """A recipe of six steps over the tiny model."""
    path = tmp_path / "tiny.yaml"
    path.write_text(f"""model: {tiny_model}
task: {task}
lora: {{r: 4, alpha: 8}}
train: {{epochs: 2, lr: 5e-3, batch: 8, checkpoint_steps: 1}}
evaluate: {{few_shot: 2, max_new_tokens: 4}}
context: 256
""")
    return path
