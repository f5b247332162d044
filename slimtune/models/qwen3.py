"""Qwen3 dense (Alibaba): the hybrid-thinking sizes and the 2507 instruct model.

Source: config.json on the hub, the QwenLM/Qwen3 repository (context, thinking switch, tool calls) and Unsloth's mapper
2026.10.9 (4-bit repositories). Where embeddings are tied the hub's file holds the head once more; `params_total` counts
it once.
"""

from dataclasses import replace

from slimtune.models.spec import DENSE_LORA_REGEX, Extension, Family, ModelSpec, Shapes, dense_linears

QWEN3 = Family(
    name="qwen3",
    model_type="qwen3",
    lora_regex=DENSE_LORA_REGEX,
    chat_template=None,
    thinking="hybrid",
    tool_call_format="hermes",
    stop_token="<|im_end|>",
    pad_token="<|endoftext|>",
    pitfalls=(
        "The template thinks by default: pass enable_thinking=False, in training and in evaluation alike.",
        "Earlier assistant turns are rendered without their <think> block, the last one with it, even when empty.",
        "config.json says 40,960 positions: that is 32,768 and a reserve. YaRN starts from 32,768.",
        "A YaRN setting replaces the whole rope block: it must repeat rope_theta.",
        "Some mirrors ship <|vision_pad|> as pad token; the vendor pads with <|endoftext|>.",
    ),
)
QWEN3_2507 = replace(
    QWEN3,
    thinking="none",
    pitfalls=(
        "No thinking and no enable_thinking switch in this template.",
        "rope_theta is 5,000,000 and not Qwen3-4B's 1,000,000: never reuse that model's rope block.",
    ),
)


def _qwen3(key: str, name: str, shapes: Shapes, params_total: int) -> ModelSpec:
    return ModelSpec(
        key=key,
        label=name,
        traits=QWEN3,
        repo=f"Qwen/{name}",
        shapes=shapes,
        linears=dense_linears(shapes),
        params_total=params_total,
        native_context=32768,
        licence="apache-2.0",
        mirror_16bit=f"unsloth/{name}",
        dynamic_4bit=f"unsloth/{name}-unsloth-bnb-4bit",
        plain_4bit=f"unsloth/{name}-bnb-4bit",
        extension=Extension(original_tokens=32768, longest_tokens=131072),
    )


# fmt: off
#              layers hidden   ffn heads kv head_dim vocab  tied  qk_norm
_0_6B = Shapes(    28,  1024,  3072, 16,  8, 128,  151936, True,  True)
_1_7B = Shapes(    28,  2048,  6144, 16,  8, 128,  151936, True,  True)
_4B =   Shapes(    36,  2560,  9728, 32,  8, 128,  151936, True,  True)
_8B =   Shapes(    36,  4096, 12288, 32,  8, 128,  151936, False, True)
# fmt: on

MODELS = (
    _qwen3("qwen3-0.6b", "Qwen3-0.6B", _0_6B, 596_049_920),
    _qwen3("qwen3-1.7b", "Qwen3-1.7B", _1_7B, 1_720_574_976),
    _qwen3("qwen3-4b", "Qwen3-4B", _4B, 4_022_468_096),
    replace(
        _qwen3("qwen3-4b-instruct-2507", "Qwen3-4B-Instruct-2507", _4B, 4_022_468_096),
        traits=QWEN3_2507,
        native_context=262144,
        extension=None,
    ),
    _qwen3("qwen3-8b", "Qwen3-8B", _8B, 8_190_735_360),
)
