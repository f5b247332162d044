"""One client for every model that is served behind chat completions as OpenAI has them: vLLM, Ollama, llama.cpp's
server, commercial services. A teacher, a judge, or any model to be scored.

settings   where the model is, whose key, what it may cost
wire       an example as a request, a response as an answer
journal    every call, before and after: what was answered is never asked for again
budget     tokens and dollars, reserved before a call and settled after it
call       one request until it is answered: waits, retries, refusals
session    many requests, a few at once
"""

from slimtune.endpoint.session import Session, asking
from slimtune.endpoint.settings import Endpoint, in_clear, key_problem, wrong_address, wrong_budget, wrong_key_name

__all__ = [
    "Endpoint",
    "Session",
    "asking",
    "in_clear",
    "key_problem",
    "wrong_address",
    "wrong_budget",
    "wrong_key_name",
]
