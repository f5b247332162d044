"""Contexts longer than a model was made for: where YaRN may be used, what it sets, and how to serve the result.

YaRN (Peng et al. 2023, arXiv 2309.00071) slows the rotary frequencies that a longer text would carry out of their known
range, and leaves the fast ones alone. It is static in transformers, vLLM and llama.cpp: one factor at every length, so
short prompts pay for long ones. The factor is Qwen's rule: target over original window, rounded up to one decimal.

What is never used is linear scaling, which Unsloth turns on in silence when it is asked for more than the window.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.errors import DoesNotFit, Problem, SlimtuneError, UserError
from slimtune.files import read_json
from slimtune.models import ModelSpec
from slimtune.plan.memory import answering_gib
from slimtune.plan.planner import Plan
from slimtune.recipe import Context

SETTING = "slimtune.json"  # beside an adapter: {"rope": what `setting` gives, "thinking": the recipe's}
_LAYOUT = ("rope_theta", "partial_rotary_factor", "mrope_section", "mrope_interleaved")


@dataclass(frozen=True)
class Yarn:
    """One setting of YaRN."""

    length: int  # tokens of prompt and answer that it is for
    original_tokens: int  # the window the model was trained in: not always what config.json calls the maximum
    experimental: bool = False  # no vendor vouches for it

    @property
    def factor(self) -> float:
        return self._tenths / 10

    @property
    def window_tokens(self) -> int:
        """What the factor reaches: max_position_embeddings."""
        return self._tenths * self.original_tokens // 10

    @property
    def note(self) -> str:
        """For the plan."""
        doubt = " It is an experiment: no maker vouches for it." if self.experimental else ""
        return f"YaRN: factor {self.factor} over {self.original_tokens:,} tokens, for short rows too.{doubt}"

    @property
    def _tenths(self) -> int:
        return max(10, -(-10 * self.length // self.original_tokens))


def context_problem(spec: ModelSpec, context: Context, *, where: str = "context") -> Problem | None:
    """Why this model cannot be given this context, with the lines that it can be given; None where it can."""
    length, native, extension = context.length, spec.native_context, spec.extension
    longest = extension.longest_tokens if extension else native
    made_for = f"{length:,} is more than the {native:,} tokens {spec.label} was made for"
    experiment = (
        f" (an experiment: its makers vouch for {native:,} only)" if extension and extension.experimental else ""
    )
    if length > longest and extension:
        what = f"{length:,} is more than {spec.label} takes: {native:,} tokens, or {longest:,} with YaRN{experiment}."
        return Problem(where, what, f"The most is `{_line(longest, 'yarn')}`.")
    if length > longest:
        return Problem(where, f"{made_for}, and it cannot be stretched.", f"The most is `{_line(native, 'none')}`.")
    if context.method == "yarn" and extension is None:
        what = f"{spec.label} is not meant for YaRN: its {native:,} tokens are what it can do."
        return Problem(where, what, f"Set `{_line(length, 'none')}`.")
    if length > native and context.method == "none":
        how = f"YaRN stretches it{experiment}: set `{_line(length, 'yarn')}`."
        return Problem(where, f"{made_for}.", f"{how} Short prompts may lose by it; the report shows what.")
    return None


def yarn_for(spec: ModelSpec, context: Context) -> Yarn | None:
    """The setting a context asks for; None where positions stay as the model has them. Raises UserError."""
    if problem := context_problem(spec, context):
        raise UserError(str(problem))
    if context.method == "none":
        return None
    beyond = context.length > spec.native_context
    return Yarn(context.length, spec.extension.original_tokens, spec.extension.experimental and beyond)


def holds_needles(spec: ModelSpec, plan: Plan, yarn: Yarn | None) -> bool:
    """Whether a prompt as long as the stretched context, which the long-context check asks, fits where the training
    does: its keys and values are kept for every layer."""
    return yarn is None or answering_gib(spec, plan.setting, yarn.length) <= plan.room_gib


def refuse_needles(spec: ModelSpec, plan: Plan, yarn: Yarn | None) -> None:
    """Raises DoesNotFit where the long-context check does not fit, with the length that would."""
    if holds_needles(spec, plan, yarn):
        return
    most, step = 0, 1024
    while answering_gib(spec, plan.setting, most + step) <= plan.room_gib:
        most += step
    needs = answering_gib(spec, plan.setting, yarn.length)
    fix = f"Set `{_line(most, 'yarn')}`, or take" if most > spec.native_context else "Take"
    raise DoesNotFit(
        f"{spec.label} trains on rows of {yarn.length:,} tokens here, and cannot be asked as much: the long-context "
        f"check needs {needs:.0f} GiB, most for keys and values, and has {plan.room_gib:.1f}. {fix} a larger card."
    )


def rope_parameters(yarn: Yarn, own: Mapping[str, Any]) -> dict[str, Any]:
    """What to set as `rope_parameters`, from the model's `own`: the whole block, since it is replaced and not merged.

    Raises SlimtuneError where the model's own positions are scaled already, or do not say their base.
    """
    if own.get("rope_theta") is None:
        raise SlimtuneError(f"The model's config gives no rope_theta for YaRN to start from: {dict(own)}.")
    if (scaled := own.get("rope_type", "default")) != "default":
        raise SlimtuneError(f"The model's positions are scaled already ({scaled}): YaRN does not go on top of that.")
    return {
        **{key: own[key] for key in _LAYOUT if key in own},
        "rope_type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_tokens,
    }


def setting(yarn: Yarn | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """How a model's positions are set, as stored beside an adapter; with YaRN, the flags that serve it too."""
    if yarn is None:
        return {"method": "none", "rope_parameters": dict(parameters)}
    return {
        "method": "yarn",
        "length": yarn.length,
        "experimental": yarn.experimental,
        "rope_parameters": dict(parameters),
        "max_position_embeddings": yarn.window_tokens,
        "vllm": vllm_flags(yarn, parameters),
        "llama_cpp": llama_cpp_flags(yarn),
    }


def learned_setting(adapter: Path) -> dict[str, Any]:
    """The setting that an adapter was trained with; empty where none stands beside it."""
    path = adapter / SETTING
    return read_json(path)["rope"] if path.is_file() else {}


def learned_context(adapter: Path, asked: Context) -> Context:
    """The context that an adapter answers in: the one it learned in where that was stretched, else the recipe's."""
    learned = learned_setting(adapter)
    return Context(length=learned["length"], method="yarn") if learned.get("method") == "yarn" else asked


def vllm_flags(yarn: Yarn, parameters: Mapping[str, Any]) -> str:
    """For `vllm serve`, from 0.11.1 on, which has no --rope-scaling any more (vllm-project/recipes#856)."""
    overrides = json.dumps({"rope_parameters": dict(parameters)})
    return f"--hf-overrides {shlex.quote(overrides)} --max-model-len {yarn.length}"


def llama_cpp_flags(yarn: Yarn) -> str:
    """For llama.cpp's tools (its server's README)."""
    return f"-c {yarn.length} --rope-scaling yarn --rope-scale {yarn.factor} --yarn-orig-ctx {yarn.original_tokens}"


def usable_tokens(spec: ModelSpec, yarn: Yarn | None) -> int:
    """The longest prompt with its answer that the model may be given."""
    return yarn.window_tokens if yarn else spec.native_context


def _line(length: int, method: str) -> str:
    return f"context: {length}" if method == "none" else f"context: {{length: {length}, method: {method}}}"
