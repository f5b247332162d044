"""Base and tuned model side by side on any prompt, in a process of their own: who asks never imports torch.

`Tryout` is the asking end. The worker it starts is `python -m slimtune.tryout RUN_FOLDER|MODEL`: one loaded model, and
JSON objects, one a line. It reads

    {"ask": ID, "messages": [...], "tools": [...], "side": "base"|"tuned"|"both", "max_new_tokens": N}
    {"stop": ID}                                         ends the answer to it, under way or due

and writes

    {"event": "loading", "text"}                         what it is at
    {"event": "ready", "label", "sides", "tools", "window"}
    {"event": "failed", "text"}                          it could not load, and ends with the error's exit code
    {"event": "piece", "ask", "side", "text"}            with "thinking": true inside a thought
    {"event": "end", "ask", "side", "stopped": "stop"|"length"|"repetition"|"cancelled", "prompt_tokens", "tokens",
     "seconds", "tool_calls": [{"name", "arguments"}] or null, "unread": why a call could not be read,
     "thinking": text or null}
    {"event": "error", "ask", "text"}                    it cannot be asked; the worker lives on

An ask is over with its `error`, or with an `end` for each of its sides, base before tuned. The worker ends with its
stdin, and with its parent.
"""

from slimtune.tryout.client import Tryout
from slimtune.tryout.sample import sample_prompt

__all__ = ["Tryout", "sample_prompt"]
