"""Llama 3.1 and 3.2 Instruct (Meta). Gated: the vendor's repositories need an accepted licence and a token.

Source: config.json as published, the meta-llama/llama-models repository (tokens, context) and Unsloth's mapper
2026.10.9 (mirrors and 4-bit repositories).
"""

from slimtune.models.spec import CONFIGS, DENSE_LORA_REGEX, Family, ModelSpec

LLAMA3 = Family(
    name="llama3",
    model_type="llama",
    lora_regex=DENSE_LORA_REGEX,
    thinking="none",
    tool_call_format="json",  # one bare object a turn: {"name": .., "parameters": ..}; results under the role ipython
    stop_token="<|eot_id|>",
    pad_token="<|finetune_right_pad_id|>",
    pitfalls=(
        "The tokenizer has no pad token; slimtune uses <|finetune_right_pad_id|>, never the stop token.",
        "The template writes <|begin_of_text|> itself: special tokens added to a rendered chat double it.",
        "The template puts today's date into the system turn: without a fixed date_string, prompts change every day.",
        "At most one tool call a turn, under the key 'parameters'.",
        "The 131,072 window is RoPE scaling of 8,192 already: do not put YaRN on top.",
    ),
)


def _llama3(name: str, params_total: int, licence: str) -> ModelSpec:
    return ModelSpec(
        key=name.lower(),
        label=name,
        traits=LLAMA3,
        config_file=CONFIGS / f"{name.lower()}.json",
        repo=f"meta-llama/{name}",
        params_total=params_total,
        native_context=131072,
        licence=licence,
        mirror_16bit=f"unsloth/{name}",
        dynamic_4bit=f"unsloth/{name}-unsloth-bnb-4bit",
        plain_4bit=f"unsloth/{name}-bnb-4bit",
        gated=True,
    )


MODELS = (
    _llama3("Llama-3.2-1B-Instruct", 1_235_814_400, "llama3.2"),
    _llama3("Llama-3.2-3B-Instruct", 3_212_749_824, "llama3.2"),
    _llama3("Llama-3.1-8B-Instruct", 8_030_261_248, "llama3.1"),
)
