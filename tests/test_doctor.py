"""What `slimtune doctor` finds, on this machine and on machines described to it."""

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from slimtune.doctor import CORE, WINDOW, diagnose, judge_cuda, judge_environment, judge_versions
from slimtune.gpus import DetectedGpu

GOOD = dict.fromkeys(CORE, "1.0") | {
    "unsloth": "2026.10.9", "unsloth_zoo": "2026.10.9", "torch": "2.13.0+cpu", "transformers": "5.17.0",
    "trl": "1.15.0", "peft": "0.21.2", "accelerate": "1.15.0", "datasets": "4.8.5", "bitsandbytes": "0.50.2",
}  # fmt: skip
T4 = DetectedGpu("Tesla T4", 14.56, 14.56, (7, 5), "580.1")


def troubles(findings) -> dict[str, str]:
    return {finding.name: finding.fix for finding in findings if finding.status != "ok"}


def test_this_machine_is_looked_at_without_importing_anything_heavy():
    code = (
        "import sys; from slimtune.doctor import diagnose; print(len(diagnose()));"
        "print(sorted({'torch', 'unsloth', 'transformers'} & set(sys.modules)))"
    )
    count, heavy = subprocess.check_output([sys.executable, "-c", code], text=True).split("\n")[:2]
    assert int(count) > 10 and heavy == "[]"


def test_every_trouble_comes_with_a_way_out():
    for finding in diagnose():
        assert finding.name and finding.value
        assert bool(finding.fix) == (finding.status != "ok"), finding


def test_a_known_good_set_is_left_alone():
    assert troubles(judge_versions(GOOD, gpu=False)) == {}


def test_a_laptop_without_the_training_packages_is_only_told():
    findings = judge_versions(dict.fromkeys(CORE, "1.0"), gpu=False)
    assert [finding.status for finding in findings] == ["ok", "warning"]


def test_a_missing_package_is_named():
    missing = {name: version for name, version in GOOD.items() if name not in ("trl", "scipy")}
    assert set(troubles(judge_versions(missing, gpu=False))) == {"trl", "core packages"}


def test_a_version_outside_the_window_is_a_problem_with_the_window_as_its_fix():
    found = troubles(judge_versions(GOOD | {"transformers": "5.18.0"}, gpu=False))
    assert "5.17.0" in found["transformers"]


def test_without_a_gpu_an_unsloth_without_a_cpu_backend_is_a_problem():
    old = GOOD | {"unsloth": "2026.10.7", "unsloth_zoo": "2026.10.7"}
    assert "2026.10.9" in troubles(judge_versions(old, gpu=False))["CPU training"]
    assert troubles(judge_versions(old, gpu=True)) == {}


def test_unsloth_and_its_zoo_must_be_of_one_release():
    assert "unsloth pair" in troubles(judge_versions(GOOD | {"unsloth_zoo": "2026.10.8"}, gpu=True))


def test_an_old_certifi_is_a_note_and_not_a_trouble():
    findings = judge_versions(GOOD | {"certifi": "2026.10.18"}, gpu=False)
    assert "It works" in findings[-1].value and troubles(findings) == {}


def test_a_cpu_torch_beside_a_driver_is_a_problem():
    assert "CUDA build" in troubles(judge_cuda(T4, torch_cuda="none", xformers_cuda=None))["torch and driver"]


def test_an_xformers_of_another_cuda_is_named_before_it_fails_to_load():
    found = {finding.name: finding for finding in judge_cuda(T4, torch_cuda="13.0", xformers_cuda="12.8")}
    assert found["attention"].status == "warning" and "12.8" in found["attention"].value
    assert "fp16" in found["precision"].value
    assert troubles(judge_cuda(T4, torch_cuda="12.8", xformers_cuda="12.8")) == {}


def test_variables_that_spoil_a_run_are_told_from_those_that_do_not():
    harmless = {"UNSLOTH_DISABLE_STATISTICS": "1", "HF_HUB_OFFLINE": "1", "PATH": "/bin"}
    findings = judge_environment(harmless, gpu=False)
    assert len(findings) == 2 and troubles(findings) == {}
    assert "Unset it" in troubles(judge_environment({"UNSLOTH_ALLOW_CPU": "1"}, gpu=False))["environment"]
    assert troubles(judge_environment({"UNSLOTH_DISABLE_CPU_FALLBACK": "1"}, gpu=False))
    assert not troubles(judge_environment({"UNSLOTH_DISABLE_CPU_FALLBACK": "1"}, gpu=True))


def test_no_token_is_ever_shown():
    assert judge_environment({"HF_TOKEN": "hf_secret", "HF_HUB_TOKEN": "hf_secret"}, gpu=False) == ()


def test_the_window_is_the_one_that_pip_is_given():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    declared = {req.name: req.specifier for req in map(Requirement, project["optional-dependencies"]["train"])}
    assert {req.name: req.specifier for req in WINDOW}.items() <= declared.items()
    core = {Requirement(line).name for line in project["dependencies"]}
    assert set(CORE) <= core
