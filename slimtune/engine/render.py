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

from slimtune.data import Example, Message, ToolCall, listed
from slimtune.errors import Problem, Problems, UserError
from slimtune.files import digest_bytes
from slimtune.models import ModelSpec
from slimtune.models.thoughts import opens_thought, split_thought
from slimtune.models.toolcalls import answer_turn, parse_tool_calls, render_tool_calls

_PINNED = datetime(2024, 7, 26)  # the date Llama 3's own template falls back to
_OWN_TEMPLATE = "{{- own_template }}"  # where a template of ours hands over to the tokenizer's own


@dataclass(frozen=True)
class Encoded:
    """One training row as token ids. The loss is on `answer` alone; its last token is the template's stop token."""

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


class RowError(UserError):
    """A row that a chat template cannot hold."""

    def __init__(self, example: Example, what: str):
        self.id, self.what = example.id, what
        super().__init__(f"Row {example.id}: {what}")


@dataclass(frozen=True)
class Renderer:
    """A tokenizer with the model it belongs to, the thinking mode and the stop tokens it is used with."""

    tokenizer: Any
    spec: ModelSpec
    thinking: str
    stop_ids: frozenset[int]

    @property
    def template_sha256(self) -> str:
        return digest_bytes(str(self.tokenizer.chat_template).encode())

    def prompt(self, example: Example) -> str:
        """The chat up to where the answer begins, as a model is asked: in `mixed` without a thought, whatever the row
        carries. Raises RowError where the template refuses the chat, or leaves tools or calls out of it."""
        return self._prompt(example, thinks=self.thinking == "on")

    def _prompt(self, example: Example, *, thinks: bool) -> str:
        turns = [_as_dict(message) for message in example.messages]
        text = self._text(example, turns, answered=False, thinks=thinks)
        if missing := [name for name in _called(example) if name not in text]:
            raise RowError(
                example,
                f"the chat template of {self.spec.label} leaves out {', '.join(map(repr, dict.fromkeys(missing)))}: "
                "it knows no tools, or no calls in earlier turns. Choose another model for this task.",
            )
        return text

    def prompt_ids(self, example: Example) -> tuple[int, ...]:
        return self.ids(self.prompt(example))

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode(self, example: Example) -> Encoded:
        """Prompt and answer of one training row. Raises RowError where the template does not write the answer after
        the prompt, does not close it with a stop token, or writes calls that are not read back as they were."""
        thinks = self._thinks(example)
        prompt = self._prompt(example, thinks=thinks)
        turns = [*map(_as_dict, example.messages), self._answer(example)]
        full = self._text(example, turns, answered=True, thinks=thinks)
        if not full.startswith(prompt):
            raise RowError(
                example,
                "the chat template does not write the answer after the prompt it asks with; training on it would "
                "teach another prompt than the one that is evaluated. Give the model another template.",
            )
        said = full[len(prompt) :]
        answer = self.ids(said)
        end = self._end(example, said, answer, begun=opens_thought(prompt))
        return Encoded(example.id, self.ids(prompt), answer[:end])

    def stop_words(self) -> list[str]:
        return [self.tokenizer.decode([token]) for token in sorted(self.stop_ids)]

    def _text(self, example: Example, turns: Sequence[Mapping[str, Any]], *, answered: bool, thinks: bool) -> str:
        """A chat as the template writes it; one that is not answered goes on to where the answer begins."""
        try:
            return self.tokenizer.apply_chat_template(
                turns,
                tools=[dict(tool) for tool in example.tools] or None,
                tokenize=False,
                add_generation_prompt=not answered,
                strftime_now=_PINNED.strftime,
                **({"enable_thinking": thinks} if self._hybrid else {}),
            )
        except (TemplateError, TypeError) as error:
            part = "answer" if answered else "chat"
            raise RowError(example, f"the chat template of {self.spec.label} refuses the {part}: {error}") from error

    def _answer(self, example: Example) -> dict[str, Any]:
        """The answer's turn, with the reasoning that the row carries where the model thinks."""
        turn = _as_dict(answer_turn(example.target))
        if self._thinks(example) and "reasoning" not in example.meta:
            raise RowError(example, "it carries no reasoning to think with. Set `thinking: off`, or mixed.")
        if not self._hybrid:
            return turn
        # said to be empty, or a template would look for a thought in the answer's text
        return turn | {"reasoning_content": example.meta["reasoning"] if self._thinks(example) else ""}

    def _end(self, example: Example, said: str, answer: Sequence[int], *, begun: bool) -> int:
        """How many tokens of a rendered answer are to be learnt: up to its stop token, with it. `begun`: its prompt has
        opened a thought."""
        stop = next((index for index, token in enumerate(answer) if token in self.stop_ids), None)
        if stop is None:
            raise RowError(
                example,
                "the chat template does not end an answer with a stop token of the model "
                f"({', '.join(self.stop_words())}).",
            )
        word = self.tokenizer.decode([answer[stop]])
        text, _, after = said.partition(word)
        if after.strip():
            raise RowError(example, f"the answer holds {word} in its own text, where the model would stop.")
        if stop == 0:
            raise RowError(example, "the chat template dropped the answer.")
        self._check_kept(example, text, begun=begun)
        return stop + 1

    def _check_kept(self, example: Example, said: str, *, begun: bool) -> None:
        """What is learnt must be the answer, and calls must be what the parser reads: else a perfect model scores 0."""
        if isinstance(example.target, str):
            if example.target.strip() not in said:
                raise RowError(example, "the chat template changes the answer's text.")
            return
        if self.spec.tool_call_format == "none":
            raise UserError(f"{self.spec.label} has no format for tool calls. Choose another model for this task.")
        form = self.spec.tool_call_format
        reading = parse_tool_calls(split_thought(said, begun=begun).answer, form, example.tools)
        if reading != parse_tool_calls(render_tool_calls(example.target, form), form, example.tools):
            raise RowError(
                example,
                "its calls are not read back from what the chat template makes of them: the answer "
                f"{reading.why or 'holds other values'}.",
            )

    @property
    def _hybrid(self) -> bool:
        return self.spec.thinking == "hybrid"

    def _thinks(self, example: Example) -> bool:
        """Whether a training row thinks."""
        return self.thinking == "on" or (self.thinking == "mixed" and "reasoning" in example.meta)


def load_tokenizer(folder: Path, spec: ModelSpec) -> Any:
    """The tokenizer of a model folder with the spec's template and a padding token. UserError without one."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    dress_tokenizer(tokenizer, spec)
    return tokenizer


def dress_tokenizer(tokenizer: Any, spec: ModelSpec) -> None:
    """Give a tokenizer the spec's chat template, and a padding token that ends nothing. Done twice, it changes
    nothing."""
    tokenizer.chat_template = _template(tokenizer.chat_template, spec.chat_template)
    if tokenizer.chat_template is None:
        raise UserError(
            f"{spec.label} has no chat template. Use an instruction-tuned model, or put chat_template.jinja "
            "into its folder."
        )
    tokenizer.pad_token = _pad_token(tokenizer, spec)


def _template(own: str | None, ours: str | None) -> str | None:
    """Our template, the tokenizer's own, or ours before its own where it hands over."""
    head, hands_over, _ = (ours or _OWN_TEMPLATE).partition(_OWN_TEMPLATE)
    if not hands_over:
        return ours
    if own is None or own.startswith(head):
        return own
    return f"{head}{{{{- '' }}}}{own}"  # a tag at the end of ours would eat white space that begins the other


def _pad_token(tokenizer: Any, spec: ModelSpec) -> str:
    vocabulary, stops = tokenizer.get_vocab(), (spec.stop_token, tokenizer.eos_token)
    spare = [token for token in tokenizer.get_added_vocab() if "pad" in token or "reserved" in token]
    for token in (spec.pad_token, tokenizer.pad_token, tokenizer.unk_token, *spare, tokenizer.bos_token):
        if token in vocabulary and token not in stops:
            return token
    raise UserError(f"{spec.label} has no token to pad with: each of its special tokens ends an answer.")


def make_renderer(tokenizer: Any, spec: ModelSpec, *, thinking: str, generation_eos: Iterable[int] = ()) -> Renderer:
    """A Renderer for a dressed tokenizer. Raises UserError where the model has no thinking mode to switch on."""
    if thinking != "off" and spec.thinking != "hybrid":
        raise UserError(f"{spec.label} has no thinking mode that can be switched. Set `thinking: off`.")
    stop = tokenizer.convert_tokens_to_ids(spec.stop_token)  # a word that it does not have becomes the unknown one
    stops = {*generation_eos, tokenizer.eos_token_id, None if stop == tokenizer.unk_token_id else stop}
    return Renderer(tokenizer, spec, thinking, frozenset(token for token in stops if token is not None))


def encode_rows(renderer: Renderer, examples: Iterable[Example], *, skip_bad: bool = False) -> list[Encoded]:
    """Every row as tokens; with `skip_bad` without those that the template cannot hold, such as two calls in one answer
    where a model makes one. Else raises Problems with what is wrong with any of them, each kind once, by its first
    row."""
    rows: list[Encoded] = []
    wrong: dict[str, list[str]] = {}
    for example in examples:
        try:
            rows.append(renderer.encode(example))
        except RowError as error:
            wrong.setdefault(error.what, []).append(error.id)
    if wrong and not (skip_bad and rows):
        fix = "" if skip_bad else "`data.skip_bad: true` trains without such rows."
        problems = [
            Problem(f"row {ids[0]}" + (f" and {len(ids) - 1} more" if len(ids) > 1 else ""), what, fix)
            for what, ids in wrong.items()
        ]
        raise Problems(f"{sum(map(len, wrong.values()))} of the training rows", listed(problems))
    return rows


def long_rows(rows: Sequence[Encoded], context: int) -> list[Problem]:
    """The rows that do not fit the context. An answer is never cut to make one fit."""
    return [
        Problem(f"row {row.id}", f"has {len(row)} tokens, more than the context of {context}.")
        for row in rows
        if len(row) > context
    ]


def _called(example: Example) -> Iterable[str]:
    """The names of the functions that a chat offers and of those that were called in it."""
    yield from (tool.get("function", tool)["name"] for tool in example.tools)
    yield from (call.name for message in example.messages for call in message.tool_calls)


def _as_dict(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        value["tool_calls"] = [_call(call) for call in message.tool_calls]
    return value


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "function", "function": call.as_json()}
