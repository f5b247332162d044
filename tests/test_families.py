"""Every architecture through the real engine: two layers of random weights learn, stop, go on, are saved and asked.

What is seen is collected once, by `families.py`, in a process for each; the tests say what it should be.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from families import KEYS, original

from slimtune.models import FAMILIES, MODELS
from slimtune.plan import SHARED_PREFIX_TYPES

pytest.importorskip("torch")

pytestmark = pytest.mark.xdist_group("families")  # in one process: they share what takes long to make


@pytest.fixture(scope="module")
def lives(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    script = Path(__file__).with_name("families.py")
    command = [sys.executable, str(script), str(tmp_path_factory.mktemp("families")), str(embedded), *KEYS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return {seen["key"]: seen for seen in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(params=KEYS)
def seen(request: pytest.FixtureRequest, lives: dict[str, dict]) -> dict:
    assert "error" not in lives[request.param], lives[request.param]["error"]
    return lives[request.param]


def test_every_architecture_that_can_be_trained_is_here() -> None:
    trained = {family.model_type for family in FAMILIES if not family.untrainable}
    assert trained == {MODELS[key].traits.model_type for key in KEYS if key in MODELS}


def test_a_folder_is_recognised_as_its_family_and_its_size_is_counted(seen: dict) -> None:
    assert seen["traits_kept"] and seen["counted"] == seen["expected_count"]


def test_every_expected_layer_has_an_adapter_and_nothing_else_has(seen: dict) -> None:
    assert seen["adapters"] == seen["expected"] and seen["trainable"] == seen["expected_trainable"]


def test_it_learns_in_every_adapter(seen: dict) -> None:
    assert len(seen["losses"]) == 10 and seen["losses"][-1] < seen["losses"][0] - 0.05
    assert min(seen["grad_norms"]) > 0
    assert seen["adapters_that_learned"] == sum(seen["expected"].values())


def test_a_batch_is_the_same_however_it_is_sliced(seen: dict) -> None:
    assert [seen["losses"][0], seen["grad_norms"][0]] == pytest.approx(seen["unsliced"], rel=1e-3)


def test_logits_of_answers_alone_give_the_loss_and_gradients_of_all(seen: dict) -> None:
    found = seen["on_answers"]
    assert found["ours_loss"] == pytest.approx(found["all_loss"], rel=1e-5)
    assert found["all_norm"] > 0 and found["apart"] < 1e-4 * found["all_norm"]


def test_a_shared_prefix_gives_the_loss_and_gradients_of_rows_by_themselves(seen: dict) -> None:
    for kind, found in seen["shared_prefix"].items():
        assert found["losses"][1] == pytest.approx(found["losses"][0], rel=1e-5), kind
        assert found["norm"] > 0 and found["apart"] < 1e-5 * found["norm"], kind
        assert found["framed_apart"] < 1e-5 * found["norm"], kind
    by_themselves, together = seen["shared_prefix"]["long"]["tokens"]
    assert together < by_themselves / 6


def test_no_other_architecture_shares_prefixes() -> None:
    assert {original(key).traits.model_type for key in KEYS} == SHARED_PREFIX_TYPES


def test_what_is_no_adapter_stays_as_it_was_and_is_refused_otherwise(seen: dict) -> None:
    assert seen["base_unchanged"] and "would be trained beside the adapters" in seen["refusal"]


def test_the_routers_of_a_mixture_are_frozen(lives: dict[str, dict]) -> None:
    mixture = lives["qwen3-30b-a3b"]
    assert len(mixture["routers"]) == 2 and mixture["routers"][0] in mixture["refusal"]


def test_a_run_goes_on_from_a_checkpoint_to_the_same_weights(seen: dict) -> None:
    assert seen["resumed_at"] == 5 and seen["resumed_alike"]


def test_a_saved_adapter_answers_as_the_trained_one(seen: dict) -> None:
    trained, loaded = seen["answers"]
    assert trained == loaded and any(trained)
