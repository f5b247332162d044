"""Qwen3 (Alibaba): the hybrid-thinking sizes, the 2507 instruct models, and the mixtures of experts.

Source: config.json on the hub, the QwenLM/Qwen3 repository (context, thinking switch, tool calls) and Unsloth's mapper
2026.10.9 (4-bit repositories). Where embeddings are tied the hub's file may hold the head once more; `params_total`
counts it once. No recipe beyond 262,144 tokens was found for the 4B 2507 model; the one for 30B-A3B is not YaRN.
"""

from dataclasses import replace

from slimtune.models.spec import (
    ATTENTION_LORA_REGEX,
    CONFIGS,
    DENSE_LORA_REGEX,
    Extension,
    Family,
    ModelSpec,
    Sampling,
)

QWEN3 = Family(
    name="qwen3",
    model_type="qwen3",
    lora_regex=DENSE_LORA_REGEX,
    thinking="hybrid",
    tool_call_format="hermes",
    stop_token="<|im_end|>",
    pad_token="<|endoftext|>",
    # the model card's, with "do not use greedy decoding" for thinking: it repeats itself without end
    thinking_sampling=Sampling(temperature=0.6, top_p=0.95, top_k=20, min_p=0.0),
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
        "rope_theta differs from the hybrid models' 1,000,000: never reuse their rope block.",
    ),
)
_EXPERTS = (
    "LoRA goes on attention alone: the usual seven names would put 995 million weights on the experts at rank 16.",
    "Experts are fused tensors, not linear layers: plain bitsandbytes leaves their 58 GB in 16-bit.",
    "peft 0.19 takes the regex for a list of letters and refuses it; 0.21 reads it.",
    "Unsloth lists 4-bit repositories and fetches the 16-bit one in their place: 61 GB, quantised on the fly.",
)
QWEN3_MOE = replace(
    QWEN3,
    name="qwen3_moe",
    model_type="qwen3_moe",
    lora_regex=ATTENTION_LORA_REGEX,
    fp16_ok=False,
    fast_path=False,
    pitfalls=(*QWEN3.pitfalls, *_EXPERTS),
)
QWEN3_MOE_2507 = replace(QWEN3_MOE, thinking="none", pitfalls=(*QWEN3_2507.pitfalls, *_EXPERTS))


def _qwen3(name: str, params_total: int) -> ModelSpec:
    return ModelSpec(
        key=name.lower(),
        label=name,
        traits=QWEN3,
        config_file=CONFIGS / f"{name.lower()}.json",
        repo=f"Qwen/{name}",
        params_total=params_total,
        native_context=32768,
        licence="apache-2.0",
        mirror_16bit=f"unsloth/{name}",
        dynamic_4bit=f"unsloth/{name}-unsloth-bnb-4bit",
        plain_4bit=f"unsloth/{name}-bnb-4bit",
        extension=Extension(original_tokens=32768, longest_tokens=131072),
    )


def _mixture(name: str) -> ModelSpec:
    return replace(_qwen3(name, 30_532_122_624), traits=QWEN3_MOE, dynamic_4bit=None, plain_4bit=None)


def _2507(spec: ModelSpec, traits: Family) -> ModelSpec:
    return replace(spec, traits=traits, native_context=262144, extension=None)


MODELS = (
    _qwen3("Qwen3-0.6B", 596_049_920),
    _qwen3("Qwen3-1.7B", 1_720_574_976),
    _qwen3("Qwen3-4B", 4_022_468_096),
    _2507(_qwen3("Qwen3-4B-Instruct-2507", 4_022_468_096), QWEN3_2507),
    _qwen3("Qwen3-8B", 8_190_735_360),
    _qwen3("Qwen3-14B", 14_768_307_200),
    replace(_qwen3("Qwen3-32B", 32_762_123_264), dynamic_4bit=None),  # Unsloth's is too big to be of use, it says
    _mixture("Qwen3-30B-A3B"),
    _2507(_mixture("Qwen3-30B-A3B-Instruct-2507"), QWEN3_MOE_2507),
)
