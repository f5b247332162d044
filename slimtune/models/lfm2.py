"""LFM2 and LFM2.5 (Liquid AI): short convolutions with an attention layer here and there.

Source: config.json on the hub, Liquid's documentation and cards, Unsloth's mapper 2026.10.9 and notebooks (names of the
layers: Liquid's own fine-tuning page lists Llama's, which do not exist here). Not confirmed: published totals of
LFM2.5-350M and LFM2.5-1.2B (the shapes are LFM2's), which revision of its template a repository ships, that
LFM2-2.6B-Exp has LFM2-2.6B's shape (its card says it was built on it). Of LFM2.5-2.6B token ids, template and licence
are not known: it is planned for, not trained.
"""

from dataclasses import replace

from slimtune.models.spec import CONFIGS, TEMPLATES, Family, ModelSpec

LFM2 = Family(
    name="lfm2",
    model_type="lfm2",
    lora_regex=(
        r"(?:.*\.)?layers\.\d+\."
        r"(?:conv\.(?:in|out)_proj|self_attn\.(?:[qkv]_proj|out_proj)|feed_forward\.w[123])"
    ),
    thinking="none",
    tool_call_format="pythonic",
    stop_token="<|im_end|>",
    pad_token="<|pad|>",
    chat_template=(TEMPLATES / "lfm2.jinja").read_text(encoding="utf-8"),
    fast_path=False,
    pitfalls=(
        "A list of LoRA names loses the convolutions on Unsloth's FastLanguageModel; a regex string keeps them.",
        "The MLP is two thirds of what config.json says, rounded up to 256, where block_auto_adjust_ff_dim is set.",
        "Rows packed together leak through the convolution into the first two tokens of the next row.",
        "The template's first revision drops tool calls, LFM2.5's does not escape quotes; slimtune writes them itself.",
        "config.json says 128,000 positions; the cards document 32,768.",
    ),
)
LFM2_5_2_6B = replace(
    LFM2,
    untrainable="LFM2.5-2.6B is planned for, not trained: its stop token and its template are not confirmed yet.",
)


def _lfm2(name: str, params_total: int) -> ModelSpec:
    return ModelSpec(
        key=name.lower(),
        label=name,
        traits=LFM2,
        config_file=CONFIGS / f"{name.lower()}.json",
        repo=f"LiquidAI/{name}",
        params_total=params_total,
        native_context=32768,
        licence="lfm1.0",
    )


MODELS = (
    _lfm2("LFM2-350M", 354_483_968),
    _lfm2("LFM2-700M", 742_489_344),
    replace(
        _lfm2("LFM2-1.2B", 1_170_340_608),
        mirror_16bit="unsloth/LFM2-1.2B",
        dynamic_4bit="unsloth/LFM2-1.2B-unsloth-bnb-4bit",
    ),
    _lfm2("LFM2-2.6B", 2_569_272_320),
    _lfm2("LFM2-2.6B-Exp", 2_569_272_320),
    _lfm2("LFM2.5-350M", 354_483_968),
    replace(_lfm2("LFM2.5-1.2B-Instruct", 1_170_340_608), mirror_16bit="unsloth/LFM2.5-1.2B-Instruct"),
    replace(_lfm2("LFM2.5-2.6B", 2_697_198_592), traits=LFM2_5_2_6B, native_context=131072),
)
