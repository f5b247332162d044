"""Answers that go on from a kept prefix, on a real card: the plain ones, in less time and memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def seen(folder: Path, what: str, *arguments: object) -> dict[str, dict[str, dict]]:
    """What answer_ways.py saw: case, way, and what was said there."""
    out = folder / "-".join([what, *(Path(str(one)).name for one in arguments), "seen.json"])
    if not out.exists():
        script = Path(__file__).with_name("answer_ways.py")
        command = [sys.executable, script, out, what, *arguments]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=500, env=os.environ)
        assert done.returncode == 0, done.stderr[-3000:]
        print(done.stdout)
    cases = json.loads(out.read_text())
    for ways in cases.values():
        assert all(found["captured"] and not found["short"] for found in ways.values())
    return cases


def differing(one: dict, other: dict) -> int:
    return sum(mine != theirs for mine, theirs in zip(one["said"], other["said"], strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers")


@pytest.mark.parametrize("what", ["families", "real"])
def test_in_fp32_they_are_the_plain_ones_token_for_token(what: str, smollm2: Path, folder: Path) -> None:
    cases = seen(folder, what, smollm2, *(["fp32"] if what == "real" else []))
    assert len(cases) >= 3
    for name, ways in cases.items():
        plain = ways.pop("plain_128")
        assert len({text for text, _ in plain["said"]}) > 20
        assert [differing(found, plain) for found in ways.values()] == [0, 0], name


def test_in_bf16_they_are_no_further_from_those_of_fp32_than_plain_ones_are(smollm2: Path, folder: Path) -> None:
    """But for chance: of the answers that only one way changes, half would be of either."""
    exact, rough = seen(folder, "real", smollm2, "fp32"), seen(folder, "real", smollm2, "bf16")
    for name in exact:
        truth, plain, kept = exact[name]["plain_128"], rough[name]["plain_128"], rough[name]["kept_512"]
        pairs = list(zip(truth["said"], plain["said"], kept["said"], strict=True))
        only_plain = sum(b != a == c for a, b, c in pairs)
        only_kept = sum(c != a == b for a, b, c in pairs)
        assert len(pairs) >= 256 and only_kept - only_plain <= 2 * (only_kept + only_plain) ** 0.5 + 1, name
        assert 4 * kept["seconds"] < plain["seconds"], name


def test_of_4_bit_weights_they_are_as_like_plain_ones(smollm2: Path, folder: Path) -> None:
    """But for chance: as many differ from plain ones as plain ones in batches of another size do."""
    for name, ways in seen(folder, "real", smollm2, "4bit").items():
        kept, other = (differing(ways[way], ways["plain_128"]) for way in ("kept_512", "plain_64"))
        assert other > 0 and kept - other <= 2 * (kept + other) ** 0.5 + 1, (name, kept, other)


def test_thousands_of_shared_tokens_are_kept_once(folder: Path) -> None:
    """In the memory of a T4, a 1B model with 256 prompts of 3,000 tokens."""
    (ways,) = seen(folder, "hollow", "llama-3.2-1b-instruct", "T4").values()
    assert 5 * ways["kept_512"]["seconds"] < ways["plain_128"]["seconds"]
    assert ways["kept_512"]["peak_gib"] < 12
