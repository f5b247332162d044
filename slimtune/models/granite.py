"""Granite 3.3 Instruct (IBM).

Source: the models' cards, and configs rebuilt until the count equals the hub's. Not confirmed: the 8B's
attention_multiplier and logits_scaling (they follow the 2B's pattern), that both have 131,072 positions (the cards say
128K) and the 8B the 2B's rope_theta. A downloaded config overrides all of it. Not in Unsloth's mapper: 4-bit is plain
NF4 on the fly.
"""

from slimtune.models.spec import CONFIGS, DENSE_LORA_REGEX, TEMPLATES, Family, ModelSpec

GRANITE = Family(
    name="granite",
    model_type="granite",
    lora_regex=DENSE_LORA_REGEX,
    thinking="none",  # `thinking=True` prompts for <think> and <response>: not the switch that is used here
    tool_call_format="granite",
    stop_token="<|end_of_text|>",
    pad_token="<fim_pad>",
    chat_template=(TEMPLATES / "granite.jinja").read_text(encoding="utf-8"),
    fast_path=False,
    pitfalls=(
        "Begin, end and pad are one token, <|end_of_text|>; slimtune pads with <fim_pad>.",
        "Four multipliers change the arithmetic: kernels made for Llama give wrong losses, so Unsloth uses none here.",
        "The template writes today's date into its default system turn; slimtune pins it.",
        "The template leaves out the calls of earlier turns; slimtune writes them itself.",
    ),
)


def _granite(size: str, params_total: int) -> ModelSpec:
    name = f"granite-3.3-{size}-instruct"
    return ModelSpec(
        key=name,
        label=name,
        traits=GRANITE,
        config_file=CONFIGS / f"{name}.json",
        repo=f"ibm-granite/{name}",
        params_total=params_total,
        native_context=131072,
        licence="apache-2.0",
    )


MODELS = (_granite("2b", 2_533_539_840), _granite("8b", 8_170_864_640))
