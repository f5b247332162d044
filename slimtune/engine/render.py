"""From an example to token ids: the prompt exactly as it will be asked, and the answer up to its one stop token.

Everything goes through the tokenizer's own chat template (sandboxed by transformers). The clock a template may ask for
is pinned, so the same row renders to the same tokens on every day.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from slimtune.data import Example, Message, ToolCall
from slimtune.errors import Problem, UserError
from slimtune.files import digest_bytes
from slimtune.models import ModelSpec
from slimtune.models.toolcalls import answer_turn

_PINNED = datetime(2024, 7, 26)  # the date Llama 3's own template falls back to


@dataclass(frozen=True)
class Encoded:
    """One training row as token ids. The loss is on `answer` alone; its last token is the template's stop token."""

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Renderer:
    """A tokenizer with the template, the thinking mode and the stop tokens it is used with."""

    tokenizer: Any
    thinking: str
    hybrid: bool
    stop_ids: frozenset[int]

    @property
    def template_sha256(self) -> str:
        return digest_bytes(str(self.tokenizer.chat_template).encode())

    def text(
        self,
        messages: Sequence[Message],
        tools: Sequence[Any],
        *,
        thinks: bool,
        answer: Mapping[str, Any] | None = None,
    ) -> str:
        """A chat as the template writes it, with the answer's turn; without one, up to where the answer begins."""
        turns = [_as_dict(message) for message in messages]
        return self.tokenizer.apply_chat_template(
            turns if answer is None else [*turns, dict(answer)],
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=answer is None,
            strftime_now=_PINNED.strftime,
            **self._switch(thinks),
        )

    def prompt(self, example: Example) -> str:
        return self.text(example.messages, example.tools, thinks=self._thinks(example))

    def prompt_ids(self, example: Example) -> tuple[int, ...]:
        return self.ids(self.prompt(example))

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode(self, example: Example) -> Encoded:
        """Prompt and answer of one training row. Raises UserError where the template does not write the answer after
        the prompt, or does not close it with a stop token."""
        prompt, thinks = self.prompt(example), self._thinks(example)
        try:
            full = self.text(example.messages, example.tools, thinks=thinks, answer=_answer(example, thinks=thinks))
        except TemplateError as error:
            raise UserError(f"Row {example.id}: the chat template refuses the answer: {error}") from error
        if not full.startswith(prompt):
            raise UserError(
                "The chat template does not write the answer after the prompt it asks with; training on it "
                "would teach another prompt than the one that is evaluated. Give the model another template."
            )
        answer = self.ids(full[len(prompt) :])
        stops = [index for index, token in enumerate(answer) if token in self.stop_ids]
        if not stops:
            raise UserError(
                "The chat template does not end an answer with a stop token of the model "
                f"({', '.join(self.stop_words())})."
            )
        if stops[0] == 0:
            raise UserError(f"Row {example.id}: the chat template dropped the answer.")
        return Encoded(example.id, self.ids(prompt), answer[: stops[0] + 1])

    def stop_words(self) -> list[str]:
        return [self.tokenizer.decode([token]) for token in sorted(self.stop_ids)]

    def _thinks(self, example: Example) -> bool:
        return self.thinking == "on" or (self.thinking == "mixed" and "reasoning" in example.meta)

    def _switch(self, thinks: bool) -> dict[str, bool]:
        return {"enable_thinking": thinks} if self.hybrid else {}


def load_tokenizer(folder: Path, spec: ModelSpec) -> Any:
    """The tokenizer of a model folder with the spec's template and a padding token. UserError without one."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    dress_tokenizer(tokenizer, spec)
    return tokenizer


def dress_tokenizer(tokenizer: Any, spec: ModelSpec) -> None:
    """Give a tokenizer the spec's chat template, and a padding token. Padding never reaches the loss: labels are laid
    out by position, so pad may equal eos."""
    if spec.chat_template is not None:
        tokenizer.chat_template = spec.chat_template
    if tokenizer.chat_template is None:
        raise UserError(
            f"{spec.label} has no chat template. Use an instruction-tuned model, or put chat_template.jinja "
            "into its folder."
        )
    if spec.pad_token is not None and spec.pad_token in tokenizer.get_vocab():
        tokenizer.pad_token = spec.pad_token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def make_renderer(tokenizer: Any, spec: ModelSpec, *, thinking: str, generation_eos: Iterable[int] = ()) -> Renderer:
    """A Renderer for a dressed tokenizer. Raises UserError where the model has no thinking mode to switch on."""
    hybrid = spec.thinking == "hybrid"
    if thinking != "off" and not hybrid:
        raise UserError(f"{spec.label} has no thinking mode that can be switched. Set `thinking: off`.")
    stops = set(generation_eos) | {tokenizer.eos_token_id}
    if spec.stop_token is not None:
        stops.add(tokenizer.convert_tokens_to_ids(spec.stop_token))
    return Renderer(tokenizer, thinking, hybrid, frozenset(token for token in stops if token is not None))


def long_rows(rows: Sequence[Encoded], context: int) -> list[Problem]:
    """The rows that do not fit the context. An answer is never cut to make one fit."""
    return [
        Problem(f"row {row.id}", f"has {len(row)} tokens, more than the context of {context}.")
        for row in rows
        if len(row) > context
    ]


def _answer(example: Example, *, thinks: bool) -> dict[str, Any]:
    """The answer's turn, with the reasoning that the row carries where the model thinks."""
    turn = _as_dict(answer_turn(example.target))
    if thinks and "reasoning" not in example.meta:
        raise UserError(f"Row {example.id} carries no reasoning to think with. Set `thinking: off`, or mixed.")
    return turn | ({"reasoning_content": example.meta["reasoning"]} if thinks else {})


def _as_dict(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        value["tool_calls"] = [_call(call) for call in message.tool_calls]
    return value


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "function", "function": call.as_json()}
