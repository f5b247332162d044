"""What an answer costs: a card's price over what it serves, and the volume at which that beats a service's price.

    dollars a million requests = price an hour / (requests a second x 3600 x utilisation) x 1,000,000

A card that is rented is paid for around the clock, so a figure without its utilisation says nothing: $2.40 an hour and
222 requests a second are $3.00 a million where the card is always full, and $10.01 where it is busy 30% of the time.

Where nothing was measured, requests a second are a roofline, low to high: every weight is multiplied once for each
token of a prompt, and read once for each token of all answers that are written at the same time. A server that keeps
what prompts share does better.
"""

from dataclasses import dataclass

from slimtune.gpus import GpuSpec
from slimtune.models import ModelSpec
from slimtune.plan.memory import GIB

UTILISATION = 0.3  # assumed where nobody says: requests do not come evenly around the clock
HOURS_A_MONTH = 730
MILLION = 1_000_000
_SHARE = (0.10, 0.60)  # of the data sheet's rates that a server gets out of a card: slow, fast
_MOST_AT_ONCE = 256  # answers written at the same time: vLLM's default
_SERVER_GIB = 1.5  # activations and buffers of a server


@dataclass(frozen=True)
class Request:
    """How long a prompt and its answer are, in tokens, on average."""

    prompt_tokens: float
    answer_tokens: float


@dataclass(frozen=True)
class Throughput:
    """Requests a second on one card, low to high (the same twice where it was measured). `how`: "measured ..." or
    "estimated ..." in words."""

    low: float
    high: float
    how: str
    measured: bool


@dataclass(frozen=True)
class ServingCost:
    """Dollars for a million requests, low to high."""

    low_usd: float
    high_usd: float
    utilisation: float
    throughput: Throughput


@dataclass(frozen=True)
class BreakEven:
    """From how many requests a month on one card is cheaper than a service, at the throughput's low end and at its high
    end: None where the service is cheaper than a card that is filled to the utilisation."""

    requests: float
    capacity: tuple[float, float]  # requests a month that one card serves at the utilisation

    @property
    def certain(self) -> bool:
        """One card serves that many, even at the low end."""
        return self.requests <= self.capacity[0]

    @property
    def possible(self) -> bool:
        return self.requests <= self.capacity[1]


def training_usd(seconds: float, hourly_usd: float) -> float:
    return seconds / 3600 * hourly_usd


def usd_per_million(hourly_usd: float, requests_per_s: float, *, utilisation: float = UTILISATION) -> float:
    """The formula above. Raises ValueError for a rate or a utilisation that is not positive, or above 1."""
    if requests_per_s <= 0 or not 0 < utilisation <= 1:
        raise ValueError(f"Need requests a second above 0 and a utilisation in (0, 1], not {requests_per_s=}.")
    return hourly_usd / (requests_per_s * 3600 * utilisation) * MILLION


def serving_cost(hourly_usd: float, throughput: Throughput, *, utilisation: float = UTILISATION) -> ServingCost:
    low, high = (
        usd_per_million(hourly_usd, rate, utilisation=utilisation) for rate in (throughput.high, throughput.low)
    )
    return ServingCost(low, high, utilisation, throughput)


def break_even(
    hourly_usd: float, usd_a_request: float, throughput: Throughput, *, utilisation: float = UTILISATION
) -> BreakEven:
    """A card for a month against a service that takes so much for a request. Raises ValueError for a free service."""
    if usd_a_request <= 0:
        raise ValueError("A service that costs nothing has no break-even.")
    capacity = tuple(rate * utilisation * HOURS_A_MONTH * 3600 for rate in (throughput.low, throughput.high))
    return BreakEven(hourly_usd * HOURS_A_MONTH / usd_a_request, capacity)


def estimate_throughput(spec: ModelSpec, gpu: GpuSpec, request: Request) -> Throughput | None:
    """Requests a second of a server with 16-bit weights that is always full; None where it does not fit the card."""
    at_once = answers_at_once(spec, gpu, request.prompt_tokens + request.answer_tokens)
    if at_once < 1:
        return None
    slow, fast = (1 / seconds for seconds in seconds_a_request(spec, gpu, request, at_once=at_once))
    about = f"{request.prompt_tokens:,.0f} tokens in and {request.answer_tokens:,.0f} out"
    return Throughput(slow, fast, f"estimated for {gpu.name}, {about}", measured=False)


def answers_at_once(
    spec: ModelSpec, gpu: GpuSpec, tokens: float, *, weights_bytes: float | None = None, most: int = _MOST_AT_ONCE
) -> int:
    """How many requests of so many tokens fit beside the weights, which are 16-bit ones unless said, `most` at most; 0:
    not one."""
    room_bytes = (gpu.usable_gib - _SERVER_GIB) * GIB - (weights_bytes or 2 * spec.params_total)
    return max(0, min(most, int(room_bytes // (kept_bytes(spec) * max(tokens, 1)))))


def kept_bytes(spec: ModelSpec) -> int:
    """Keys and values of one token in 16-bit; layers without attention keep none that grow with the text."""
    shapes = spec.shapes
    return 4 * (shapes.layers - shapes.conv_layers - shapes.delta_layers) * shapes.kv_heads * shapes.head_dim


def seconds_a_request(
    spec: ModelSpec, gpu: GpuSpec, request: Request, *, at_once: int, weights_bytes: float | None = None
) -> tuple[float, float]:
    """Slow and fast, where so many are answered at the same time by a card that is always at it."""
    shapes, active = spec.shapes, spec.linear_params
    if shapes.experts:
        active += spec.expert_params * shapes.experts_per_token / shapes.experts
    head = shapes.vocab * shapes.hidden
    tokens = request.prompt_tokens + request.answer_tokens
    compute_s = 2 * (tokens * active + request.answer_tokens * head) / (gpu.half_tflops * 1e12)
    read = (weights_bytes or 2 * spec.params_total) / at_once + kept_bytes(spec) * tokens
    whole = compute_s + request.answer_tokens * read / (gpu.bandwidth_gb_s * 1e9)
    slow, fast = (whole / share for share in _SHARE)
    return slow, fast
