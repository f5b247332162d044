"""A run folder goes in, a report comes out: its numbers are the rows', nothing in it acts, nothing crashes it."""

import hashlib
import json
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pandas
import pytest

from slimtune.data import Tally
from slimtune.errors import UserError
from slimtune.files import read_json, write_json
from slimtune.report import read_report, write_report
from slimtune.report.side_by_side import side_by_side
from slimtune.report.text import clean, clip, duration, escape_markdown, fenced, p_value, percent
from slimtune.stats import Interval, paired_difference, score_interval
from slimtune.tallies import aggregate

LABELS = [
    "card_arrival",
    "card_linking",
    "exchange_rate",
    "lost_or_stolen_card",
    "pending_transfer",
    "pin_blocked",
    "request_refund",
    "reverted_card_payment?",
    "top_up_failed",
    "why_verify_identity",
]
QUESTIONS = ["Where is it, please?", "This has been going on since Tuesday.", "Can you help me with that?"]
HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(2)> | a | b | `tick` ```fence``` </pre></style>"
    " \x1b[31mred\x1b[0m \x1b]0;title\x07 \u202eback \u2028 next ![pixel](http://tracker.example/p.png) $x$ \x00"
)
NOTE = "weights dequantised from a 4-bit GGUF"


# a run as the pipeline leaves it


def answers(draw, name, right_share, *, rows=240, group_size=1):
    """One evaluation's rows: right with `right_share`, now and then unreadable, cut off or not judged."""
    found = []
    for index in range(rows):
        gold, right = LABELS[index % len(LABELS)], draw.random() < right_share
        near = LABELS[(LABELS.index(gold) + (1 if draw.random() < 0.7 else 4)) % len(LABELS)]
        unread = not right and draw.random() < 0.15
        prompt = f"{gold.replace('_', ' ').capitalize()}. {QUESTIONS[index % 3]}"
        unjudged = index == (12 if name == "tuned" else 11)
        if index == 7:
            prompt, right, unread = HOSTILE, name == "tuned", False
        answer = gold if right else None if unread else near
        found.append(
            {
                "id": f"banking77-{index:04d}",
                "group": f"chat-{index // group_size}",
                "prompt_sha256": hashlib.sha256(f"{name == 'few_shot'}{prompt}".encode()).hexdigest(),
                "prompt": prompt,
                "target": gold,
                "output": HOSTILE if index == 7 and not right else answer or "I would be happy to look into that for",
                "answer": answer,
                "score": None if unjudged else float(right),
                "why": f"our scoring broke: ValueError: {HOSTILE}"
                if unjudged
                else "same"
                if right
                else f"expected {gold}",
                "stopped": "length" if unread else "stop",
                "prompt_tokens": 90,
                "completion_tokens": 6,
                "seconds": 0.03,
                "label": gold,
            }
        )
    return found


def put_evaluation(folder, rows, *, label, k=0):
    folder.mkdir(parents=True)
    judged = [row for row in rows if row["score"] is not None]
    score = score_interval(
        [row["score"] for row in judged], [row["group"] for row in judged], rng=np.random.default_rng(0)
    )
    facts = {
        "name": folder.name,
        "label": label,
        "scorer": "exact_match",
        "n": len(rows),
        "score": score.as_json(),
        "also": {"starts_with": score.as_json()},
        "unparseable": sum(row["answer"] is None for row in rows) / len(rows),
        "unscored": len(rows) - len(judged),
        "truncated": sum(row["stopped"] == "length" for row in rows) / len(rows),
        "seconds": 71.5,
        "prompt_tokens": 90 * len(rows),
        "completion_tokens": 6 * len(rows),
        "few_shot_k": k,
    }
    write_json(folder / "evaluation.json", facts)
    pandas.DataFrame(rows).to_parquet(folder / "examples.parquet")


def put_metrics(path, draw, *, steps=120):
    lines = []
    for step in range(1, steps + 1):
        entry = {
            "step": step,
            "epoch": step / 60,
            "loss": 0.25 + 2.6 * np.exp(-step / 18) + 0.12 * draw.random(),
            "lr": 2e-4,
            "grad_norm": float("nan") if step == 40 else 0.4 + 2 * np.exp(-step / 10) + 0.2 * draw.random(),
            "skipped": step == 40,
            "tokens": 8192,
            "supervised_tokens": 224,
            "seconds": 0.9,
            "gpu_reserved_gib": 6.1,
        }
        lines.append(json.dumps(entry))
        if step == 60:  # killed after step 60, resumed from step 50's checkpoint
            lines += [json.dumps({**json.loads(line), "loss": 99.0}) for line in lines[50:60]]
            lines += [json.dumps({**json.loads(line), "loss": 0.4}) for line in lines[50:60]]
    path.write_text("\n".join(lines) + '\n{"step": 121, "lo')


def put_documents(folder):
    recipe = {
        "model": "qwen3-4b",
        "task": "banking77",
        "lora": {"r": 32, "alpha": 32},
        "train": {"epochs": 2, "lr": 0.0002, "batch": 32},
        "context": 1024,
        "thinking": None,
        "evaluate": {"rows": 240, "few_shot": 5},
        "seed": 7,
    }
    plan = {
        "gpu": "NVIDIA T4",
        "precision": "fp16",
        "quantisation": "4-bit",
        "micro_batch": 16,
        "accumulation": 2,
        "collation": "shared-prefix",
        "checkpointing": True,
        "steps": 120,
        "peak_gib": {"low": 5.1, "expected": 5.9, "high": 6.8},
        "parts_gib": {"weights": 2.9, "adapter and optimiser": 0.5, "activations": 2.5},
        "notes": ["4-bit, because 16-bit weights leave no room for a micro-batch of 16."],
    }
    environment = {
        "device": "cuda",
        "gpu": "NVIDIA T4",
        "precision": "fp16",
        "quantisation": "4-bit",
        "model": {
            "key": "qwen3-4b",
            "label": "Qwen3 4B Instruct",
            "source": "unsloth/Qwen3-4B-Instruct-2507",
            "revision": "a1b2c3d",
            "digest": "9f2c" * 16,
            "note": NOTE,
        },
        "versions": {"unsloth": "2026.10.9", "torch": "2.9.0", "transformers": "5.2.0"},
        "attention": "sdpa",
        "collation": "padded",
        "template_sha256": "77aa" * 16,
        "adapter_modules": {"q_proj": 36, "k_proj": 36, "v_proj": 36, "o_proj": 36},
        "trainable_parameters": 66_060_288,
        "command": "slimtune run recipes/qwen3-4b-banking77.yaml --set seed=7",
        "platform": "Linux-6.1 x86_64",
        "cpu_threads": 4,
        "started": "2026-11-22T19:02:11Z",
        "finished": "2026-11-22T19:31:40Z",
    }
    data = {
        "task": "banking77",
        "title": "Banking77, 10 of 77 intents",
        "kind": "classification",
        "licence": "CC-BY-4.0",
        "attribution": "Casanueva et al. (PolyAI), 2020. Sub-sampled.",
        "train_rows": 1900,
        "test_rows": 240,
        "digest": "0d1e" * 16,
        "notes": ["Labels with fewer than 20 rows were left out."],
        "scorer": "exact_match",
        "overlap": {"exact": 0, "near": 3},
    }
    training = {
        "steps": 120,
        "train_rows": 1900,
        "seconds": 1412.0,
        "tokens": 983_040,
        "supervised_tokens": 26_880,
        "peak_gpu_gib": 6.12,
        "planned_gib": 5.9,
        "resumed": 1,
        "oom_splits": [{"step": 3, "micro_batch": 8}],
        "micro_batch": 8,
        "first_loss": 2.91,
        "last_loss": 0.31,
        "adapter_sha256": "5c5c" * 16,
    }
    documents = {"recipe": recipe, "plan": plan, "environment": environment, "data": data, "training": training}
    for name, document in documents.items():
        write_json(folder / f"{name}.json", document)


def change(path, **values):
    write_json(path, {**read_json(path), **values})


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("runs") / "qwen3-4b-banking77", np.random.default_rng(20261122)
    folder.mkdir()
    put_documents(folder)
    put_metrics(folder / "metrics.jsonl", draw)
    put_evaluation(folder / "base", answers(draw, "base", 0.3), label="Base, zero-shot")
    put_evaluation(folder / "few_shot", answers(draw, "few_shot", 0.71), label="Base, 5-shot", k=5)
    put_evaluation(folder / "tuned", answers(draw, "tuned", 0.92), label="Tuned")
    put_evaluation(folder / "teacher", answers(draw, "teacher", 0.9), label="Teacher, gpt-oss-120b")
    return folder


@pytest.fixture
def run_dir(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture(scope="session")
def written(made, tmp_path_factory):
    folder = shutil.copytree(made, tmp_path_factory.mktemp("written") / "run")
    return write_report(folder), folder


class Page(HTMLParser):
    """What a browser would make of the page: its elements, their attributes, its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def read(folder, name):
    return (folder / name).read_text(encoding="utf-8")


# what it says


def test_the_verdict_says_how_much_over_zero_shot_and_over_few_shot(written):
    report, folder = written
    rows = {name: pandas.read_parquet(folder / name / "examples.parquet").drop([11, 12]) for name in NAMES}
    over = {
        name: paired_difference(
            rows[name].score, rows["tuned"].score, list(rows["tuned"].group), rng=np.random.default_rng(1)
        )
        for name in ("base", "few_shot", "teacher")
    }
    assert report.verdict.outcome == "helped"
    assert report.verdict.sentence == (
        f"Tuning helped: {shown(over['base'])} over zero-shot, {p_value(over['base'].p)};"
        f" {shown(over['few_shot'])} over 5-shot, {p_value(over['few_shot'].p)}."
        f" Not told apart from the teacher: {shown(over['teacher'])}, {p_value(over['teacher'].p)};"
        f" by that interval at most {math.ceil(-100 * over['teacher'].difference.low) / 100:.2f} below it."
    )


@pytest.mark.parametrize(
    ("right", "said"), [(239, r"The tuned model beats the teacher: \+0\."), (20, r"The teacher is better: -0\.\d\d \[")]
)
def test_the_verdict_says_who_is_better_where_the_teacher_or_the_tuned_model_clearly_is(run_dir, right, said):
    rewrite(run_dir, "teacher", [1.0] * 150 + [0.0] * 90)
    rewrite(run_dir, "tuned", [1.0] * right + [0.0] * (240 - right))
    assert re.search(rf"\. {said}.*, p = \S+\.$", outcome(run_dir).sentence)


NAMES = ("base", "few_shot", "tuned", "teacher")


def shown(comparison):
    interval = comparison.difference
    return f"{interval.value:+.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def test_the_report_carries_what_a_terminal_prints(written):
    report, folder = written
    assert report.title == "Banking77, 10 of 77 intents \u00b7 Qwen3 4B Instruct"
    assert report.note == NOTE
    assert [row.name for row in report.scores] == list(NAMES)
    assert [row.score.as_json() for row in report.scores] == [
        read_json(folder / name / "evaluation.json")["score"] for name in NAMES
    ]
    assert [one.label for one in report.differences] == ["Tuned - zero-shot", "Tuned - 5-shot", "Tuned - teacher"]
    assert report.html == folder / "report.html"
    assert report.missing == ()


def test_rows_that_were_not_judged_are_left_out_and_counted_and_say_why(written):
    report, folder = written
    comparison = report.differences[0].comparison
    assert (comparison.n, report.differences[0].left_out) == (238, 2)
    assert comparison.wins + comparison.losses + comparison.ties == 238
    said = "1 not judged. The first is banking77-0012: our scoring broke: ValueError:"
    assert said in "".join(Page((folder / "report.html").read_text()).text)


def test_the_page_follows_the_order_of_a_reader(written):
    _, folder = written
    for name, mark in (("report.html", "<h2>"), ("report.md", "## ")):
        text = read(folder, name)
        places = [text.index(mark + heading) for heading in HEADINGS]
        assert places == sorted(places)
        assert text.index("Tuning helped") < places[0]


HEADINGS = [
    "Scores",
    "Differences on the same rows",
    "What tuning was worth",
    "Answers",
    "Confusion",
    "Training",
    "Memory",
    "Time and tokens",
    "What really ran",
    "Data and licence",
    "Run it again",
]


def test_the_note_on_the_weights_stands_at_the_title_and_beside_every_score_table(written):
    _, folder = written
    text = read(folder, "report.html")
    parts = re.split("<h2>", text)
    for part in (
        parts[0],
        *(part for part in parts if part.startswith(("Scores", "Differences", "What tuning", "Confusion"))),
    ):
        assert f'<p class="note">{NOTE}</p>' in part
    assert read(folder, "report.md").count(f"> {NOTE}") == 5


def test_every_score_in_the_tables_stands_with_its_interval(written):
    report, folder = written
    for name in ("report.html", "report.md"):
        for row in report.scores:
            assert str(row.score) in read(folder, name)


def test_memory_is_planned_against_measured_on_a_gpu_only(run_dir):
    write_report(run_dir)
    assert "+3.7%, inside the planned range" in read(run_dir, "report.html")
    change(run_dir / "training.json", peak_gpu_gib=7.5)
    write_report(run_dir)
    assert "+27.1%, outside the planned range" in read(run_dir, "report.html")
    change(run_dir / "environment.json", gpu=None)
    write_report(run_dir)
    assert "No GPU: not measured." in read(run_dir, "report.md")
    assert "planned range" not in read(run_dir, "report.md")


def test_what_ran_otherwise_than_planned_is_said(written):
    _, folder = written
    assert read_json(folder / "report.json")["departures"] == [
        "collation: planned shared-prefix, ran padded",
        "micro-batch: planned 16, ran 8",
    ]
    assert "Not as planned. collation: planned shared-prefix, ran padded." in read(folder, "report.html")


def test_a_resumed_step_counts_once_and_a_torn_line_not_at_all(run_dir):
    from slimtune.report.collect import collect

    steps = collect(run_dir).steps
    assert [step["step"] for step in steps] == list(range(1, 121))
    assert {step["loss"] for step in steps[50:60]} == {0.4}


def test_confusion_counts_the_labelled_rows(written):
    _, folder = written
    found = read_json(folder / "report.json")["confusion"]
    rows = pandas.read_parquet(folder / "tuned" / "examples.parquet").dropna(subset="score")
    assert found["labels"] == LABELS
    assert sum(map(sum, found["counts"])) == len(rows)
    assert sum(found["counts"][at][at] for at in range(10)) == rows.score.sum()
    wrong = rows[(rows.score == 0) & rows.answer.notna()]
    commonest = wrong.groupby(["label", "answer"]).size().max()
    assert found["mistakes"][0]["rows"] >= commonest > 0
    assert all(score["recall"]["low"] < score["recall"]["high"] for score in found["scores"])


def test_every_label_has_precision_recall_and_f1_and_every_model_their_mean(written):
    _, folder = written
    found = read_json(folder / "report.json")["confusion"]
    for score in found["scores"]:
        assert score["precision"]["value"] == pytest.approx(score["right"] / score["said"])
        assert score["recall"]["value"] == pytest.approx(score["right"] / score["n"])
        assert score["f1"]["value"] == pytest.approx(2 * score["right"] / (score["n"] + score["said"]))
        assert score["f1"]["low"] < score["f1"]["value"] <= score["f1"]["high"]
    macro = found["macro_f1"]
    assert list(macro) == ["Base, zero-shot", "Base, 5-shot", "Tuned", "Teacher, gpt-oss-120b"]
    assert macro["Tuned"]["value"] == pytest.approx(np.mean([score["f1"]["value"] for score in found["scores"]]))
    assert macro["Base, zero-shot"]["high"] < macro["Tuned"]["low"]
    for name in ("report.html", "report.md"):
        assert f"Tuned {Interval.from_json(macro['Tuned'])}" in read(folder, name)


def test_measures_of_all_rows_parts_and_types_stand_beside_the_score(run_dir):
    counts = [{"span_f1": {HOSTILE: Tally(2, 1, 0), "person": Tally(0, 0, 1)}} for _ in range(12)]
    whole = aggregate(
        [one["span_f1"] for one in counts], list("abcdefghijkl"), measures=("f1",), rng=np.random.default_rng(0)
    )
    score = read_json(run_dir / "tuned" / "evaluation.json")["score"]
    parts = {part: {"score": score, "also": {"rouge_l": score}} for part in ("HasAns", "NoAns")}
    change(run_dir / "tuned" / "evaluation.json", aggregate={"span_f1": whole.as_json()}, parts=parts)
    row = write_report(run_dir).scores[2]
    names = ["starts_with", "span_f1, micro F1", "span_f1, macro F1", "HasAns: exact_match", "HasAns: rouge_l"]
    assert [name for name, _ in row.also] == [*names, "NoAns: exact_match", "NoAns: rouge_l"]
    types = read_json(run_dir / "report.json")["types"]["span_f1"]
    assert [(one["support"], one["found"], one["made_up"]) for one in types] == [(24, 24, 12), (12, 0, 0)]
    page = Page(read(run_dir, "report.html"))
    assert "script" not in page.tags and "24 of 24" in page.text and "span_f1, macro F1" in page.text
    assert "| person | 0 of 12 | 0 |" in read(run_dir, "report.md")
    change(run_dir / "tuned" / "evaluation.json", aggregate={"span_f1": {"micro_f1": 3, "per_type": {"x": 1}}}, parts=7)
    assert [name for name, _ in write_report(run_dir).scores[2].also] == ["starts_with"]


def test_thoughts_and_circles_are_told_below_the_scores_where_there_were_any(run_dir):
    write_report(run_dir)
    assert "in circles" not in read(run_dir, "report.md") + read(run_dir, "report.html")
    change(run_dir / "tuned" / "evaluation.json", repeated=0.05, thinking=0.5, thinking_tokens=36_000)
    report = write_report(run_dir)
    for name in ("report.md", "report.html"):
        said = read(run_dir, name)
        assert "50.0% of the answers began with a thought, of 300 tokens on average." in said
        assert "5.0% of the answers went round in circles and were ended." in said
    assert [row.thought_tokens for row in report.scores if row.name == "tuned"] == [300]


def test_an_answer_that_is_no_label_and_one_that_could_not_be_read_have_columns_of_their_own(run_dir):
    rows = pandas.read_parquet(run_dir / "tuned" / "examples.parquet").to_dict("records")
    rows[0].update(score=0.0, answer="something else")
    rows[1].update(score=0.0, answer=None)
    rows[2].update(score=0.0, answer=" CARD_ARRIVAL ")
    pandas.DataFrame(rows).to_parquet(run_dir / "tuned" / "examples.parquet")
    write_report(run_dir)
    found = read_json(run_dir / "report.json")["confusion"]
    assert found["answers"] == [*LABELS, "(not a label)", "(no readable answer)"]
    assert found["counts"][0][10] == 1
    assert found["counts"][1][11] >= 1
    assert found["counts"][2][0] >= 1


def test_rows_that_flipped_are_shown_with_both_answers(written):
    _, folder = written
    rows = read_json(folder / "report.json")["rows"]
    assert all(row["before_score"] == 0 and row["after_score"] == 1 for row in rows["mended"])
    assert all(row["before_score"] == 1 and row["after_score"] == 0 for row in rows["broken"])
    assert len(rows["mended"]) == 6 and rows["broken"] and rows["worst"] and rows["best"]
    ids = [row["id"] for kind in rows.values() for row in kind]
    assert len(ids) == len(set(ids))


def test_the_same_folder_gives_the_same_report(run_dir):
    names = ("report.json", "report.md", "report.html", "plots/scores.png", "plots/training.png", "plots/confusion.png")
    write_report(run_dir)
    first = [(run_dir / name).read_bytes() for name in names]
    write_report(run_dir)
    assert [(run_dir / name).read_bytes() for name in names] == first


def test_a_report_read_again_is_the_one_that_was_written_and_writes_nothing(written):
    report, folder = written
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert read_report(folder) == report
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# other outcomes


def rewrite(run_dir, name, right):
    """Give an evaluation these scores, in row order."""
    path = run_dir / name / "examples.parquet"
    pandas.read_parquet(path).assign(score=right).to_parquet(path)


def outcome(run_dir):
    return write_report(run_dir).verdict


def test_a_model_that_got_worse_is_said_to_be_worse(run_dir):
    rewrite(run_dir, "base", [1.0] * 200 + [0.0] * 40)
    rewrite(run_dir, "tuned", [1.0] * 100 + [0.0] * 140)
    assert outcome(run_dir).sentence.startswith("It got worse: -0.42 [")


def test_a_difference_within_noise_is_no_clear_difference_and_says_what_would_be_missed(run_dir):
    rewrite(run_dir, "base", [1.0] * 100 + [0.0] * 140)
    rewrite(run_dir, "tuned", [1.0] * 103 + [0.0] * 137)
    assert outcome(run_dir).sentence.startswith("No clear difference: +0.01 [")
    assert "with 240 rows like these, a difference under 3.3 points is often missed" in read(run_dir, "report.md")


def test_an_interval_and_a_test_that_part_are_explained():
    from slimtune.report.compare import Difference, disagreements

    def one(wins, losses, n):
        before = [0.0] * wins + [1.0] * (n - wins)
        after = [1.0] * wins + [0.0] * losses + [1.0] * (n - wins - losses)
        found = paired_difference(before, after, [str(row) for row in range(n)], rng=np.random.default_rng(0))
        return Difference("base", "zero-shot", found, None, None, 0, 0)

    parted = one(5, 0, 20)
    assert parted.comparison.difference.low > 0 and parted.comparison.p > 0.05
    (line,) = disagreements((parted, one(9, 0, 20), one(1, 1, 20)))
    assert line.startswith("Tuned - zero-shot: the interval leaves zero out, and the test says p = 0.062.")


def test_a_gain_that_a_few_examples_in_the_prompt_give_too_is_told(run_dir):
    rewrite(run_dir, "base", [1.0] * 100 + [0.0] * 140)
    rewrite(run_dir, "few_shot", [1.0] * 200 + [0.0] * 40)
    rewrite(run_dir, "tuned", [1.0] * 150 + [0.0] * 90)
    sentence = outcome(run_dir).sentence
    assert sentence.startswith("Tuning helped: +0.21 [")
    assert "-0.21 [" in sentence and "against 5-shot, which is better" in sentence


def test_rows_of_one_conversation_widen_the_interval(made, tmp_path):
    widths = {}
    for size in (1, 24):
        folder, draw = shutil.copytree(made, tmp_path / str(size)), np.random.default_rng(3)
        for name, share in (("base", 0.5), ("tuned", 0.6)):
            shutil.rmtree(folder / name)
            rows = answers(draw, name, share, group_size=size)
            put_evaluation(folder / name, rows, label=name)
        # every conversation of 24 goes one way
        rewrite(folder, "tuned", [float(index // 24 % 3 > 0) for index in range(240)])
        report = write_report(folder)
        difference = report.differences[0].comparison.difference
        widths[size] = difference.high - difference.low
    assert widths[24] > 1.5 * widths[1]
    assert "239 rows in 10 groups" in read(tmp_path / "24", "report.md")


def test_prompts_that_differ_between_the_two_models_are_told(run_dir):
    path = run_dir / "tuned" / "examples.parquet"
    pandas.read_parquet(path).assign(prompt_sha256="another").to_parquet(path)
    write_report(run_dir)
    assert "Tuned - zero-shot: rows not asked with the same prompt: 238." in read(run_dir, "report.md")


# what is missing or damaged


@pytest.mark.parametrize(
    "name",
    [
        "recipe.json",
        "plan.json",
        "environment.json",
        "data.json",
        "training.json",
        "metrics.jsonl",
        "base",
        "few_shot",
        "tuned",
        "tuned/examples.parquet",
        "base/evaluation.json",
    ],
)
def test_a_missing_file_is_named_and_nothing_else_is_lost(run_dir, name):
    gone = run_dir / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    report = write_report(run_dir)
    assert len(report.missing) == 1 and report.missing[0].startswith(name)
    assert report.missing[0] in read(run_dir, "report.html")
    assert escape_markdown(report.missing[0]) in read(run_dir, "report.md")
    assert read_json(run_dir / "report.json")["missing"] == list(report.missing)


def test_a_run_scored_on_validation_rows_says_so_and_is_compared_with_none_on_test_rows(made, run_dir):
    change(run_dir / "data.json", scored_on="validation")
    report = write_report(run_dir)
    assert report.verdict.sentence.endswith("Scored on validation rows held out of train, not on the test rows.")
    assert "Mean score on the validation rows held out of train;" in read(run_dir, "report.html")
    with pytest.raises(UserError, match="run on validation rows held out of train"):
        side_by_side([made, run_dir])


def test_a_teacher_is_optional(run_dir):
    shutil.rmtree(run_dir / "teacher")
    assert write_report(run_dir).missing == ()


def test_an_empty_folder_has_a_report_of_what_it_lacks(tmp_path):
    report = write_report(tmp_path)
    assert report.verdict.sentence == "No verdict yet: the tuned model has not been evaluated."
    assert len(report.missing) == 9
    assert "No evaluation is in this run" in read(tmp_path, "report.html")
    assert "No GPU" not in read(tmp_path, "report.html")  # nobody knows


def test_damaged_files_are_named(run_dir):
    (run_dir / "plan.json").write_text('{"gpu": ')
    (run_dir / "data.json").write_text("[1]")
    (run_dir / "base" / "examples.parquet").write_bytes(b"PAR1 torn")
    rows = pandas.read_parquet(run_dir / "few_shot" / "examples.parquet")
    pandas.concat([rows, rows.head(1)]).to_parquet(run_dir / "few_shot" / "examples.parquet")
    missing = " ".join(write_report(run_dir).missing)
    assert "plan.json is not readable as JSON" in missing
    assert "data.json holds no JSON object" in missing
    assert "base/examples.parquet cannot be read" in missing
    assert "few_shot/examples.parquet has the same id twice" in missing


def test_no_run_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="There is no run at"):
        write_report(tmp_path / "nowhere")


# text is data


@pytest.fixture(scope="session")
def poisoned(made, tmp_path_factory):
    """A report of hostile text wherever text can come in."""
    run_dir = shutil.copytree(made, tmp_path_factory.mktemp("poisoned") / "run")
    for name in ("recipe", "plan", "environment", "data", "training"):
        path = run_dir / f"{name}.json"
        document = {key: HOSTILE if isinstance(value, str) else value for key, value in read_json(path).items()}
        write_json(path, {**document, "gpu": HOSTILE})
    model = dict.fromkeys(("key", "label", "source", "revision", "digest", "note"), HOSTILE)
    change(run_dir / "environment.json", model=model, versions={HOSTILE: HOSTILE}, adapter_modules={HOSTILE: 3})
    change(run_dir / "tuned" / "evaluation.json", label=HOSTILE, scorer=HOSTILE)
    rows = pandas.read_parquet(run_dir / "tuned" / "examples.parquet")
    columns = {key: rows[key].astype(str) + HOSTILE for key in ("prompt", "target", "output", "why", "label")}
    rows.assign(**columns, answer=rows.answer + HOSTILE).to_parquet(run_dir / "tuned" / "examples.parquet")
    return write_report(run_dir), run_dir


def test_nothing_from_a_model_or_a_dataset_acts_in_the_page(poisoned):
    _, run_dir = poisoned
    page = Page(read(run_dir, "report.html"))
    assert {"script", "img", "iframe", "link", "object"}.isdisjoint(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in "".join(page.text)  # shown, as text


def test_the_page_loads_nothing_from_anywhere(written):
    _, folder = written
    text = read(folder, "report.html")
    links = [value for name, value in Page(text).attributes if name in ("src", "href", "xlink:href")]
    assert all(link.startswith("#") for link in links)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text


def test_nothing_from_a_model_or_a_dataset_acts_in_markdown(poisoned):
    _, run_dir = poisoned
    text, fence, outside = read(run_dir, "report.md"), None, []
    for line in text.split("\n"):
        ticks = re.match(r"`{3,}", line)
        if fence is None and ticks:
            fence = ticks.group()
        elif fence is None:
            outside.append(line)
        elif line == fence:
            fence = None
    assert fence is None
    plain = "\n".join(outside)
    assert "<" not in plain and "![pixel]" not in plain.replace("\\![pixel]", "")
    for line in outside:  # every table row has the cells of its head
        if line.startswith("|") and not line.startswith("|--"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 5, 7, 8)
    assert outside.count("# " + escape_markdown(f"{clean(HOSTILE)} \u00b7 {clean(HOSTILE)}")) == 1


def test_no_escape_sequence_or_hidden_character_is_left_anywhere(poisoned):
    report, run_dir = poisoned
    texts = [read(run_dir, name) for name in ("report.json", "report.md", "report.html")] + [repr(report)]
    for text in texts:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", text)
        assert "\\u001b" not in text and "\\x1b" not in text and "[31m" not in text


def test_pictures_are_well_formed_in_the_ink_of_the_page_and_share_no_names(poisoned):
    _, run_dir = poisoned
    pictures = re.findall(r"<svg.*?</svg>", read(run_dir, "report.html"), flags=re.DOTALL)
    assert len(pictures) == 3
    for picture in pictures:
        ElementTree.fromstring(picture)
        assert "currentColor" in picture and "#7d8591" not in picture
    names = [name for picture in pictures for name in re.findall(r'\bid="([^"]+)"', picture)]
    assert len(names) == len(set(names))
    for picture in pictures:
        used = re.findall(r"(?:url\(|href=\")#([\w.-]+)", picture)
        assert set(used) <= set(re.findall(r'\bid="([^"]+)"', picture))


def test_a_hundred_labels_get_a_table_and_no_heat_map(run_dir):
    path = run_dir / "tuned" / "examples.parquet"
    rows = pandas.read_parquet(path)
    rows.assign(label=[f"label {index % 100}" for index in range(len(rows))]).to_parquet(path)
    write_report(run_dir)
    assert not (run_dir / "plots" / "confusion.png").exists()
    assert "label 99" in read(run_dir, "report.html")


# words and numbers


def test_terminal_sequences_go_and_the_words_stay():
    assert clean("\x1b[1;31mred\x1b[0m and \x1b]8;;http://x.example\x1b\\link\x1b]8;;\x1b\\") == "red and link"
    assert clean("a\r\nb\u2028c\td\x00") == "a\nb\nc\td"
    assert clean({"\ud800": [float("nan"), "\u202etxt.exe"]}) == {"\ufffd": ["nan", "txt.exe"]}


def test_markdown_shows_text_as_it_is_written():
    assert escape_markdown("a|b `c` <d> ![e](f)\n# g") == r"a\|b \`c\` &lt;d&gt; \![e\](f) # g"
    assert escape_markdown("0.730 [0.640, 0.810]") == "0.730 [0.640, 0.810]"
    assert fenced("x\n````\ny").startswith("`````text\n")


def test_long_texts_keep_their_ends():
    text = clip("a" * 500 + "b" * 500, 100)
    assert text == "a" * 50 + "\n[... 900 characters ...]\n" + "b" * 50


def test_numbers_read_well():
    assert [p_value(p) for p in (0.0, 3.2e-12, 0.0312, 1.0)] == ["p < 1e-300", "p = 3e-12", "p = 0.031", "p = 1.000"]
    assert [duration(s) for s in (4.21, 71.5, 3725, None)] == ["4.2 s", "1 min 12 s", "1 h 02 min", "-"]
    assert [percent(share) for share in (0.0314, None)] == ["3.1%", "-"]
