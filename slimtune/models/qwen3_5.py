"""Qwen3.5 (Alibaba), the dense sizes: three layers in four have a gated delta rule in the place of attention.

Source: config.json on the hub, the QwenLM/Qwen3.5 repository and TRL 1.15's copies of the templates; totals are those
of transformers, which leaves out the layer for multi-token prediction that the hub's files hold. Not confirmed: the
chat's stop and pad tokens beyond what the template writes, the vision tower of 2B and larger (beyond the exact total),
and a YaRN recipe for these sizes. Not in Unsloth's mapper (2026.10.9), but on its list of models that need fp32.
"""

from slimtune.models.spec import CONFIGS, Family, ModelSpec

QWEN3_5 = Family(
    name="qwen3_5",
    model_type="qwen3_5",
    lora_regex=(
        r"(?:.*\.)?layers\.\d+\.(?:self_attn\.[qkvo]_proj|linear_attn\.(?:in_proj_qkv|in_proj_z|out_proj)"
        r"|mlp\.(?:gate|up|down)_proj)"
    ),
    thinking="hybrid",
    tool_call_format="qwen_xml",
    stop_token="<|im_end|>",
    pad_token="<|endoftext|>",
    fp16_ok=False,
    fast_path=False,
    untrainable="Qwen3.5 is planned for, not trained: its linear attention has not been seen to train here yet.",
    pitfalls=(
        "Thinking is on by default in 4B and 9B, off in 0.8B and 2B.",
        "Linear attention is slow without the kernels of flash-linear-attention.",
        "Rows packed together leak state through the linear attention.",
        "248,320 words in the vocabulary: logits outweigh the rest in the small sizes.",
    ),
)


def _qwen3_5(size: str, params_total: int) -> ModelSpec:
    name = f"Qwen3.5-{size}"
    return ModelSpec(
        key=name.lower(),
        label=name,
        traits=QWEN3_5,
        config_file=CONFIGS / f"{name.lower()}.json",
        repo=f"Qwen/{name}",
        params_total=params_total,
        native_context=262144,
        licence="apache-2.0",
    )


MODELS = (
    _qwen3_5("0.8B", 852_985_920),
    _qwen3_5("2B", 2_213_241_664),
    _qwen3_5("4B", 4_539_265_536),
    _qwen3_5("9B", 9_409_813_744),
)
