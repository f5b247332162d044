"""Rows as tokens are kept: the next run reads what it would have encoded, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
from slimtune.data import Message
from slimtune.engine import kept_rows
from slimtune.engine.kept_rows import encode_kept
from slimtune.engine.render import encode_rows, load_tokenizer, make_renderer
from slimtune.models import get_model
from slimtune.tasks import get_task


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIMTUNE_CACHE", str(tmp_path))
    return tmp_path / "tokens"


@pytest.fixture(scope="module")
def renderer(embedded: Path):
    spec = get_model("smollm2-135m-embedded")
    return make_renderer(load_tokenizer(embedded, spec), spec, thinking="off")


@pytest.fixture(scope="module")
def examples():
    return get_task("banking77").train[:300]


def test_what_is_read_is_what_was_encoded(cache: Path, renderer, examples, monkeypatch) -> None:
    first = encode_kept(renderer, examples)
    assert first == encode_rows(renderer, examples) and len(list(cache.iterdir())) == 1
    monkeypatch.setattr(kept_rows, "encode_rows", lambda *_, **__: pytest.fail("encoded again"))
    assert encode_kept(renderer, examples) == first


def test_whatever_changes_tokens_is_another_file(cache: Path, renderer, examples) -> None:
    encode_kept(renderer, examples)
    asked = [*examples[:-1], replace(examples[-1], messages=(Message("user", "Else?"),))]
    assert encode_kept(renderer, asked)[-1] != encode_kept(renderer, examples)[-1]
    encode_kept(replace(renderer, stop_ids=renderer.stop_ids | {5}), examples)
    encode_kept(renderer, examples, skip_bad=True)
    encode_kept(renderer, examples[:-1])
    assert len(list(cache.iterdir())) == 5


def test_a_damaged_file_or_no_room_costs_time_alone(cache: Path, renderer, examples) -> None:
    right = encode_kept(renderer, examples)
    (file,) = cache.iterdir()
    for damaged in (b"", b"PK\x03\x04", file.read_bytes()[:-40]):
        file.write_bytes(damaged)
        assert encode_kept(renderer, examples) == right
    assert encode_kept(renderer, examples) == right
    file.unlink()
    cache.rmdir()
    cache.write_text("no folder")
    assert encode_kept(renderer, examples) == right


def test_a_few_rows_are_not_kept(cache: Path, renderer, examples) -> None:
    assert len(encode_kept(renderer, examples[:20])) == 20 and not cache.exists()
