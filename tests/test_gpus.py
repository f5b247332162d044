"""The GPU table and the card in this machine."""

import re
import shutil
import subprocess

import pytest

from slimtune.errors import UserError
from slimtune.gpus import GPUS, DetectedGpu, detect_gpu, find_gpu, get_gpu


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("t4", "T4"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("a100", "A100-80GB"),
    ],
)
def test_a_card_is_found_by_what_people_and_drivers_call_it(said, meant):
    assert get_gpu(said).name == meant


def test_a_misspelt_card_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"no GPU named 'RTX 4900'\. Did you mean 'RTX 4090'"):
        get_gpu("RTX 4900")


def test_no_name_or_alias_means_two_cards():
    names = [name.lower() for spec in GPUS.values() for name in {spec.name, *spec.aliases}]
    assert len(names) == len(set(names))


def test_every_card_has_a_size_near_the_one_in_its_name():
    for name, spec in GPUS.items():
        sized = re.search(r"(\d+)GB", name)
        if sized:
            assert 0.9 * int(sized.group(1)) < spec.total_gib <= int(sized.group(1)), name
        assert 0 < spec.usable_gib < spec.total_gib, name


def test_bf16_is_for_ampere_and_newer():
    without = {spec.name for spec in GPUS.values() if not spec.bf16}
    assert without == {"T4", "V100-16GB"}


def test_a_t4_leaves_14_16_gib_beside_its_context():
    assert get_gpu("T4").usable_gib == pytest.approx(14.16)


def test_a_detected_card_can_fill_what_is_free_and_not_what_it_has():
    card = DetectedGpu("Tesla T4", total_gib=14.56, free_gib=6.0, capability=(7, 5), driver="580.1")
    assert card.spec == get_gpu("T4") and not card.bf16
    assert card.usable_gib == pytest.approx(6.0 - 0.40)


def test_a_card_outside_the_table_is_still_a_card():
    card = DetectedGpu("NVIDIA Thing", total_gib=20.0, free_gib=20.0, capability=(10, 0), driver="600")
    assert card.spec is None and card.bf16 and card.usable_gib == 19.5
    assert find_gpu("NVIDIA Thing") is None


def test_hiding_all_cards_hides_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert detect_gpu() is None


def test_without_a_driver_there_is_no_card():
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has an NVIDIA driver")
    assert detect_gpu() is None


@pytest.mark.gpu
def test_the_driver_and_the_table_agree_on_this_card():
    if not shutil.which("nvidia-smi"):
        pytest.skip("no NVIDIA driver here")
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    name, total_mib = subprocess.check_output(query, text=True).splitlines()[0].split(", ")
    card = detect_gpu()
    assert card.name == name
    assert card.free_gib <= card.total_gib <= int(total_mib) / 1024
    assert card.spec is None or card.spec.total_gib == pytest.approx(card.total_gib, rel=0.02)
