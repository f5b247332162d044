"""Qwen2.5-VL and Qwen3-VL Instruct (Alibaba): vision models. They are planned for; training them comes later.

Source: config.json on the hub, the QwenLM/Qwen2.5-VL and Qwen3-VL repositories, Unsloth's mapper 2026.10.9. The licence
was seen for Qwen3-VL-8B alone. Qwen2.5-VL's config says 128,000 positions, its README 32,768; its vendor advises
against YaRN.
"""

from dataclasses import replace

from slimtune.models.spec import CONFIGS, TEXT_LORA_REGEX, Family, ModelSpec

QWEN3_VL = Family(
    name="qwen3_vl",
    model_type="qwen3_vl",
    lora_regex=TEXT_LORA_REGEX,
    thinking="none",
    tool_call_format="hermes",
    stop_token="<|im_end|>",
    pad_token="<|endoftext|>",
    fast_path=False,
    untrainable="Vision models are planned for; training them comes later.",
    pitfalls=(
        "rope_theta is 5,000,000, unlike the text models': never reuse their rope block.",
        "Three mergers feed the image into early text layers: they stay in 16-bit.",
    ),
)
QWEN2_5_VL = replace(
    QWEN3_VL,
    name="qwen2_5_vl",
    model_type="qwen2_5_vl",
    tool_call_format="none",
    pitfalls=("A plain list of LoRA names also adapts the MLP of the vision tower.",),
)


def _vl(name: str, params_total: int, traits: Family, native_context: int) -> ModelSpec:
    return ModelSpec(
        key=name.lower(),
        label=name,
        traits=traits,
        config_file=CONFIGS / f"{name.lower()}.json",
        repo=f"Qwen/{name}",
        params_total=params_total,
        native_context=native_context,
        licence="apache-2.0",
        mirror_16bit=f"unsloth/{name}",
        dynamic_4bit=f"unsloth/{name}-unsloth-bnb-4bit",
        plain_4bit=f"unsloth/{name}-bnb-4bit",
    )


MODELS = (
    _vl("Qwen2.5-VL-7B-Instruct", 8_292_166_656, QWEN2_5_VL, 32768),
    _vl("Qwen3-VL-2B-Instruct", 2_127_532_032, QWEN3_VL, 262144),
    _vl("Qwen3-VL-4B-Instruct", 4_437_815_808, QWEN3_VL, 262144),
    _vl("Qwen3-VL-8B-Instruct", 8_767_123_696, QWEN3_VL, 262144),
)
