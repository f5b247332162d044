"""The family of models that no family file covers, but that are built like one: Mistral, Qwen2, and tunes with a chat
format of their own.

What they say is read from their own files: the stop token is the tokenizer's end of sequence, the template its own.
Mistral and Qwen2 take Unsloth's hand-written path (2026.10.9), and neither is on its list of models that need fp32.
"""

from dataclasses import replace

from slimtune.models.spec import DENSE_LORA_REGEX, TEMPLATES, Family
from slimtune.models.toolcalls import format_in

_OTHER = Family(
    name="other",
    model_type="llama",
    lora_regex=DENSE_LORA_REGEX,
    thinking="none",
    tool_call_format="hermes",
    stop_token=None,
    pad_token=None,
    pitfalls=("slimtune has not seen this model before: read the row that `slimtune check` shows.",),
)
OTHER_TYPES = ("llama", "mistral", "qwen2")


def other_family(like: Family | None, model_type: str, *, stop_token: str | None, template: str | None) -> Family:
    """The traits of a model with its own chat format; `like` is the family of the same architecture, if there is one,
    whose name and needs it keeps.
    Tool calls are written as its template does; where it knows none of our formats, tools become text before it."""
    known = format_in(template or "")
    family = replace(
        _OTHER,
        model_type=model_type,
        stop_token=stop_token,
        tool_call_format=known or _OTHER.tool_call_format,
        chat_template=None if known else (TEMPLATES / "tools_as_text.jinja").read_text(encoding="utf-8"),
    )
    if like is None:
        return family
    return replace(
        family,
        name=like.name,
        lora_regex=like.lora_regex,
        fp16_ok=like.fp16_ok,
        fast_path=like.fast_path,
        untrainable=like.untrainable,
    )
