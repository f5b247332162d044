"""Random weights in a model's real shape, for measuring memory and speed without a download; never for quality.

A hollow checkpoint is a Hugging Face folder whose weights file is a sparse file: a header, then zeros that take no
disk. It loads through the same code as a real one; afterwards `fill` puts random numbers where the zeros are, layer
by layer on the device. `skip` writes it the way Unsloth's dynamic 4-bit repositories are: NF4 weights, with the modules
named in `skip` left in 16-bit.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedTokenizerFast

from slimtune.models import ModelSpec

_SIZES = {"BF16": 2, "F32": 4, "U8": 1}
_BLOCK, _NESTED_BLOCK = 64, 256  # weights a scale, scales a scale of scales: bitsandbytes' NF4 with double quantisation
_STD = 0.02
_STOP, _PAD = "<|im_end|>", "<|endoftext|>"
_TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"


def hollow_model(spec: ModelSpec, folder: Path, *, skip: Sequence[str] | None = None) -> ModelSpec:
    """Write a hollow checkpoint of `spec` into `folder`, with a tokenizer of bytes; the spec of what was written.

    `skip` None: 16-bit weights. Otherwise every linear layer but the head, and but the modules whose names end with one
    of `skip`, is stored in NF4.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = spec.config()
    (folder / "config.json").write_text(json.dumps(config))
    tensors, contents = _tensors(folder, skip)
    _write_sparse(folder / "model.safetensors", tensors, contents)
    if skip is not None:
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": _nf4_config(skip)}))
    _byte_tokenizer().save_pretrained(folder)
    traits = replace(spec.traits, stop_token=_STOP, pad_token=_PAD, chat_template=_TEMPLATE)
    return replace(spec, traits=traits, folder=folder, repo=None, note="random weights: memory and speed only")


def fill(model: torch.nn.Module, *, seed: int) -> None:
    """Random numbers for every weight: normal with a deviation of 0.02, and whatever makes a norm neutral."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                _fill(module, name, parameter)


def _fill(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        _fill_nf4(module, parameter, state)
    elif parameter.ndim == 1 and name == "weight":
        parameter.fill_(0.0 if "Gemma" in type(module).__name__ else 1.0)
    elif parameter.ndim == 1:
        parameter.zero_()
    else:
        parameter.normal_(0.0, _STD)


def _fill_nf4(module: torch.nn.Module, parameter: torch.nn.Parameter, state: Any) -> None:
    from bitsandbytes.functional import quantize_4bit

    weights = torch.empty(state.shape, dtype=state.dtype, device=parameter.device).normal_(0.0, _STD)
    packed, fresh = quantize_4bit(
        weights, blocksize=state.blocksize, compress_statistics=state.nested, quant_type=state.quant_type
    )
    parameter.data.copy_(packed.view(parameter.dtype).reshape(parameter.shape))
    parameter.quant_state = fresh
    if getattr(module, "quant_state", None) is state:
        module.quant_state = fresh


def _tensors(folder: Path, skip: Sequence[str] | None) -> tuple[dict[str, tuple[str, list[int]]], dict[str, bytes]]:
    """Name -> (dtype, shape) of every tensor of the file, and the bytes of the few that must not be zeros."""
    config = AutoConfig.from_pretrained(folder)
    auto = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    tied = set(getattr(model, "_tied_weights_keys", None) or ()) if config.get_text_config().tie_word_embeddings else ()
    linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    tensors: dict[str, tuple[str, list[int]]] = {}
    contents: dict[str, bytes] = {}
    for name, tensor in model.state_dict().items():
        module = name.removesuffix(".weight")
        if name in tied:
            continue
        if skip is None or module not in linears or module.endswith(("lm_head", *skip)):
            tensors[name] = ("BF16", list(tensor.shape))
        else:
            _add_nf4(tensors, contents, name, list(tensor.shape))
    return tensors, contents


def _add_nf4(tensors: dict, contents: dict[str, bytes], name: str, shape: list[int]) -> None:
    """The six tensors bitsandbytes stores for an NF4 weight with double quantisation."""
    from bitsandbytes.functional import create_dynamic_map, get_4bit_type

    scales = math.ceil(math.prod(shape) / _BLOCK)
    state = {
        "quant_type": "nf4",
        "blocksize": _BLOCK,
        "dtype": "bfloat16",
        "shape": shape,
        "nested_blocksize": _NESTED_BLOCK,
        "nested_dtype": "float32",
        "nested_offset": 0.0,
    }
    text = json.dumps(state).encode()
    tensors[name] = ("U8", [math.prod(shape) // 2, 1])
    tensors[f"{name}.absmax"] = ("U8", [scales])
    tensors[f"{name}.nested_absmax"] = ("F32", [math.ceil(scales / _NESTED_BLOCK)])
    for key, table in (("quant_map", get_4bit_type("nf4", device="cpu")), ("nested_quant_map", create_dynamic_map())):
        tensors[f"{name}.{key}"] = ("F32", list(table.shape))
        contents[f"{name}.{key}"] = table.float().numpy().tobytes()
    tensors[f"{name}.quant_state.bitsandbytes__nf4"] = ("U8", [len(text)])
    contents[f"{name}.quant_state.bitsandbytes__nf4"] = text


def _write_sparse(path: Path, tensors: dict[str, tuple[str, list[int]]], contents: dict[str, bytes]) -> None:
    """A safetensors file (a length, a JSON header, the data) that is a hole wherever `contents` is silent."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + _SIZES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, data in contents.items():
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(data)
        file.truncate(8 + len(text) + end)


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows bytes and two special tokens: its ids fit every vocabulary."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_STOP, pad_token=_PAD)


def _nf4_config(skip: Sequence[str]) -> dict[str, Any]:
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": ["lm_head", *skip],
    }
