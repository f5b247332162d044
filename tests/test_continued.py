"""Answers that go on from what was kept of one row are those of padded decoding, whatever prompts share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_engine import family, loaded_from  # noqa: E402

from slimtune.engine import continued, generate, kernels  # noqa: E402
from slimtune.engine.cache import Room  # noqa: E402
from slimtune.engine.collate import shared_prefix  # noqa: E402
from slimtune.engine.continued import Continued  # noqa: E402
from slimtune.engine.decode import padded  # noqa: E402
from slimtune.engine.render import Encoded  # noqa: E402
from slimtune.engine.sampling import Draws  # noqa: E402
from slimtune.models import get_model  # noqa: E402
from slimtune.plan import rows_at_a_time  # noqa: E402
from slimtune.tasks import get_task  # noqa: E402

SHARING = {  # for each group, its prefix's tokens and the tokens that each of its prompts has of its own
    "one prefix": [(40, [3, 9, 1, 5, 5])],
    "two prefixes, and a prompt by itself": [(30, [2, 4]), (12, [6, 1, 1]), (0, [21])],
    "nothing": [(0, [7]), (0, [12]), (0, [3])],
    "nothing, for one is a single token": [(20, [2, 5]), (0, [1])],
    "all there is": [(25, [0, 0, 0])],
}


def prompts_of(groups: list) -> list[list[int]]:
    rng, prompts = np.random.default_rng(3), []
    for shared, own in groups:
        start = rng.integers(10, 1000, shared).tolist()
        prompts += [start + rng.integers(10, 1000, tokens).tolist() for tokens in own]
    return [prompts[index] for index in rng.permutation(len(prompts))]


def by_masks(model):
    """What a GPU's layers are told beside their input, these are told by a mask that knows its row."""

    def states(ids, positions, attends):
        mask = torch.zeros(1, 1, 1, 1)
        mask.row = attends
        found = model.model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False)
        return found.last_hidden_state

    return states


def say(way: Continued, *asked, said=None, **knobs):
    with torch.inference_mode():
        return way.say(*asked, said=said or [[] for _ in asked[0]], **knobs)


@pytest.fixture(scope="module", params=["Llama", "Qwen3"])
def loaded(request, tmp_path_factory, embedded: Path):
    loaded = loaded_from(family(request.param, tmp_path_factory.mktemp("made") / "model", embedded))
    loaded.renderer = replace(loaded.renderer, stop_ids=frozenset(range(7, loaded.model.config.vocab_size, 20)))
    return loaded


@pytest.fixture
def way(loaded) -> Continued:
    return Continued(loaded, states=by_masks(loaded.model))


@pytest.mark.parametrize("groups", SHARING.values(), ids=SHARING)
def test_they_are_those_of_padded_decoding(groups, loaded, way) -> None:
    prompts = prompts_of(groups)
    found = say(way, prompts, 12)
    assert found == padded(loaded, prompts, 12) and max(len(tokens) for tokens, _ in found) > 1


def test_drawn_ones_too_and_a_batch_may_end_before_its_answers(loaded, way, monkeypatch) -> None:
    prompts = prompts_of(SHARING["two prefixes, and a prompt by itself"])
    draws = Draws(get_model("qwen3-0.6b").sampling("on"), prompts, tokens=30, seed=17)
    whole = [tokens for tokens, _ in padded(loaded, prompts, 30, draws=draws)]
    assert len({len(tokens) for tokens in whole}) > 2
    few = say(way, prompts, 30, draws, few=2)
    assert few == padded(loaded, prompts, 30, draws=draws, few=2) and not all(over for _, over in few)
    monkeypatch.setattr(continued, "NEW_TOKENS", 4)
    said = [[] for _ in prompts]
    for _ in range(8):
        going = [row for row, tokens in enumerate(whole) if len(said[row]) < len(tokens)]
        if going:
            part = Draws(get_model("qwen3-0.6b").sampling("on"), [prompts[row] for row in going], tokens=30, seed=17)
            found = say(way, [prompts[row] for row in going], 30, part, said=[said[row] for row in going])
            assert all(len(tokens) <= 4 for tokens, _ in found)
            for row, (tokens, over) in zip(going, found, strict=True):
                said[row] += tokens
                assert over == (len(said[row]) == len(whole[row]))
    assert said == whole


def test_one_room_serves_batches_that_fit_it_and_nothing_of_one_is_seen_by_the_next(loaded, way) -> None:
    for groups in SHARING.values():
        alone = Continued(loaded, states=by_masks(loaded.model))
        asked = prompts_of(groups)
        assert say(way, asked, 12) == say(alone, asked, 12)
    first = [prompts_of([(40, [9] * 16)]), prompts_of([(33, [3] * 10)])]
    say(way, first[0], 12)
    cache = way._cache
    assert say(way, first[1], 8) == padded(loaded, first[1], 8) and way._cache is cache


def test_a_batch_that_does_not_fit_is_halved_and_answers_the_same(loaded, task: Path, monkeypatch) -> None:
    """On a CPU the way of a card is put in place by hand."""
    sizes, states = [], by_masks(loaded.model)

    def short_of_memory(ids, positions, attends):
        sizes.append(ids.shape[1])
        if len(sizes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return states(ids, positions, attends)

    examples = get_task(str(task)).test
    plain = dict(generate.generate(loaded, examples, 6))
    monkeypatch.setattr(Continued, "most_rows", lambda way, *asked: 100)
    monkeypatch.setattr(generate, "keeps_prefixes", lambda spec, **how: True)
    monkeypatch.setattr(generate, "Continued", lambda loaded: Continued(loaded, states=short_of_memory))
    kept = dict(generate.generate(loaded, examples, 6))
    assert len(plain) > 2 and {at: one.text for at, one in kept.items()} == {at: one.text for at, one in plain.items()}
    assert max(sizes[1:]) < sizes[0]


def test_room_is_for_every_prompt_with_its_answer_and_hardly_more() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        groups = [(int(rng.integers(0, 300)), rng.integers(1, 60, rng.integers(1, 9)).tolist()) for _ in range(4)]
        layout = shared_prefix([Encoded("", tuple(prompt), ()) for prompt in prompts_of(groups)])
        least = Room.least(layout, 20)
        roomy = least.roomy()
        assert least.own == max(layout.suffixes) + 20 and roomy.holds(least) and least.holds(least)
        assert roomy.rows < least.rows + 8 and roomy.own < least.own + 32
        assert not roomy.holds(replace(least, rows=roomy.rows + 1))
        assert roomy.holds(replace(least, rows=1)) == (roomy.rows == 8), "hardly more, or no less than there is"
        assert not roomy.holds(replace(least, ahead=0))


def test_prompts_that_are_answered_one_by_one_share_a_room() -> None:
    least = Room.least(shared_prefix([Encoded("", tuple(range(40)), ())]), 20)
    assert least.rows == 1 and least.roomy().holds(least)


def test_what_is_kept_is_not_copied_for_heads_that_have_their_own() -> None:
    query, key = torch.zeros(3, 4, 8), torch.randn(5, 4, 8)
    assert kernels._for_all_heads(key, query) is key
    assert kernels._for_all_heads(key[:, :2], query).shape == key.shape


def test_so_many_are_answered_together_as_memory_holds() -> None:
    shapes, gib = get_model("qwen3-4b").shapes, 2**30

    def rows(free_gib: float, *, shared: int = 4000, own: int = 100, new: int = 100) -> int:
        return rows_at_a_time(
            shapes, shared_tokens=shared, own_tokens=own, new_tokens=new, free_bytes=int(free_gib * gib), word_bytes=2
        )

    kept = 2 * shapes.layers * shapes.kv_heads * shapes.head_dim * 2
    for free in (4, 16, 100):
        assert kept * (4000 + rows(free) * 200) < free * gib
    assert 1 == rows(0.1) < rows(4) < rows(16) < rows(100) and rows(1000, own=5000) == 127072 // 5000
    assert rows(16, shared=4000) > 4 * rows(16, shared=0, own=4100), "a prefix is there once"
