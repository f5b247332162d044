"""Who shares a prefix with whom, and which rows of a run are most at a time."""

import numpy as np
import pytest

pytest.importorskip("torch")
from slimtune.engine.collate import shared_prefix
from slimtune.engine.groups import prefix_groups, prefix_length
from slimtune.engine.parts import Rows, parts_of_batches
from slimtune.engine.render import Encoded
from slimtune.engine.schedule import row_order


def saved(prompts: list[tuple[int, ...]], groups: list[list[int]]) -> int:
    return sum((len(group) - 1) * prefix_length([prompts[index] for index in group]) for group in groups)


def cuts(order: list[int]):
    """Every way to cut a list into runs."""
    for length in range(1, len(order) + 1):
        yield from ([order[:length], *rest] for rest in (cuts(order[length:]) if length < len(order) else [[]]))


def test_no_other_cut_of_sorted_prompts_saves_more_tokens() -> None:
    rng = np.random.default_rng(2)
    for _ in range(60):
        prompts = [tuple(rng.integers(0, 2, int(rng.integers(1, 9))).tolist()) for _ in range(6)]
        groups, order = prefix_groups(prompts), sorted(range(6), key=lambda index: prompts[index])
        assert sorted(index for group in groups for index in group) == list(range(6))
        assert saved(prompts, groups) == max(saved(prompts, other) for other in cuts(order))


def test_two_instructions_are_two_groups() -> None:
    prompts = [(*start, *own) for own in ((7, 8), (8, 7), (9, 9)) for start in (range(20), range(100, 130))]
    assert prefix_groups(prompts) == [[0, 2, 4], [1, 3, 5]]


def test_what_is_most_at_a_time_is_the_largest_row_that_a_run_lays_out() -> None:
    rng = np.random.default_rng(5)

    def encoded(start: tuple[int, ...], most: int = 30) -> Encoded:
        own = rng.integers(100, 999, int(rng.integers(2, most)))
        return Encoded("", (*start, *own.tolist()), (1, 2))

    passages = [tuple(range(first, first + 60)) for first in range(1000, 2000, 100)] + [tuple(range(2000, 2100))] * 10
    cases = {
        "alike": [encoded(tuple(range(40))) for _ in range(90)],
        "passages": [encoded(passages[int(rng.integers(20))]) for _ in range(300)],
        "one long passage": [encoded(tuple(range(3000, 3400)), 9) for _ in range(30)] + [
            encoded((int(n),), 300) for n in range(1, 40)] + [encoded((77,)) for _ in range(600)],
        "a token alone": [Encoded("", (5,), (1, 2)), *(encoded(tuple(range(40))) for _ in range(29))],
        "a row": [encoded((4, 4))],
    }  # fmt: skip
    for name, rows in cases.items():
        prompts, lengths = [row.prompt for row in rows], [*map(len, rows)]
        order = row_order(len(rows), epochs=2, seed=3).tolist()
        for size in (8, 4, 2, 1):
            parts = parts_of_batches(order, batch=8, micro_batch=size)
            assert [row for part in parts for row in part] == order and max(map(len, parts)) <= size
            run = Rows.of(prompts, lengths)
            most, usual = run.largest(parts), run.usual(parts, work=1e6)
            laid_out = {tuple(one): shared_prefix([rows[index] for index in one]) for one in parts}
            found = laid_out[tuple(most.part)]
            assert (most.ahead, most.own) == (found.ahead, len(found.ids) - found.ahead), (name, size)
            assert most.tokens == max(len(one.ids) for one in laid_out.values()), (name, size)
            whole = [len(one.ids) for part, one in laid_out.items() if len(part) == len(parts[0])]
            assert sum(usual) == pytest.approx(np.mean(whole), rel=0.15), (name, size)


def test_a_search_that_is_cut_short_finds_no_part_that_is_not_there() -> None:
    rng = np.random.default_rng(6)
    prompts = [(*[int(n)] * int(20 * n), *rng.integers(100, 999, 5).tolist()) for n in rng.integers(1, 30, 400)]
    run = Rows.of(prompts, [len(prompt) + 1 for prompt in prompts])
    parts = parts_of_batches(row_order(400, epochs=3, seed=1).tolist(), batch=16, micro_batch=16)
    whole = run.largest(parts)
    for work in (1, 2e4, 4e4):
        found, usual = run.largest(parts, work=work), run.usual(parts, work=work)
        assert found.part in parts and 0.7 * whole.tokens < found.tokens <= whole.tokens
        assert 0.5 * whole.tokens < sum(usual) <= whole.tokens
    assert run.largest(parts, work=1).tokens < whole.tokens, "it was not cut short"
