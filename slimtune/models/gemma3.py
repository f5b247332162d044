"""Gemma 3 (Google): 270M and 1B are text models, 4B and 12B bring a vision tower, of which nothing is trained.

Source: config.json as published, the google-deepmind/gemma repository and Unsloth's mapper and loader 2026.10.9. The
hub's 1B config says 32,768 positions and 4B's vocabulary is 262,208; other projects' copies differ and do not match the
published totals. 270M's end of sequence id is assumed to be 1, as in the other sizes; answers stop at <end_of_turn>.
"""

from dataclasses import replace

from slimtune.models.spec import CONFIGS, DENSE_LORA_REGEX, TEMPLATES, TEXT_LORA_REGEX, Family, ModelSpec

GEMMA3 = Family(
    name="gemma3",
    model_type="gemma3_text",
    lora_regex=DENSE_LORA_REGEX,
    thinking="none",
    tool_call_format="hermes",
    stop_token="<end_of_turn>",
    pad_token="<pad>",
    chat_template=(TEMPLATES / "tools_as_text.jinja").read_text(encoding="utf-8"),
    fp16_ok=False,
    fast_path=False,
    pitfalls=(
        "Activations overflow fp16: on a card without bf16 Unsloth computes in fp32, slower and larger.",
        "Turns must alternate, the user's first; the system turn becomes the beginning of the first user turn.",
        "The template writes <bos> itself: special tokens added to a rendered chat double it.",
        "262,144 words in the vocabulary: embedding and logits outweigh the rest in the small sizes.",
        "The template knows no tools; slimtune writes them into the first user turn, and calls as text.",
    ),
)
GEMMA3_VISION = replace(
    GEMMA3,
    model_type="gemma3",
    lora_regex=TEXT_LORA_REGEX,
    pitfalls=(
        *GEMMA3.pitfalls,
        "A plain list of names also adapts the vision tower; slimtune's regex keeps to the language model.",
        "The 131,072 window is RoPE scaling already: do not put YaRN on top.",
    ),
)


def _gemma3(size: str, params_total: int, traits: Family, native_context: int) -> ModelSpec:
    name = f"gemma-3-{size}-it"
    return ModelSpec(
        key=name,
        label=name,
        traits=traits,
        config_file=CONFIGS / f"{name}.json",
        repo=f"google/{name}",
        params_total=params_total,
        native_context=native_context,
        licence="gemma",
        mirror_16bit=f"unsloth/{name}",
        dynamic_4bit=f"unsloth/{name}-unsloth-bnb-4bit",
        plain_4bit=f"unsloth/{name}-bnb-4bit",
        gated=True,
    )


MODELS = (
    _gemma3("270m", 268_098_176, GEMMA3, 32768),
    _gemma3("1b", 999_885_952, GEMMA3, 32768),
    _gemma3("4b", 4_300_079_472, GEMMA3_VISION, 131072),
    _gemma3("12b", 12_187_325_040, GEMMA3_VISION, 131072),
)
