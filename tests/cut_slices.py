"""How the slices under slimtune/tasks were cut: `python tests/cut_slices.py DIR`, DIR holding the whole tasks.

Whole groups (a template, a contract, a paragraph, a database, a conversation, functions that go together) come into a
slice or stay out, in an order drawn with a seed, until the side has its bytes. Rows keep the order of the source.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimtune.tasks.grouping import function_names, joined

SEED = 2024
OUT = Path(__file__).parents[1] / "slimtune" / "tasks"
TEXTS = {
    "CC-BY-4.0": "Creative Commons Attribution 4.0 International (CC BY 4.0), https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-3.0": "Creative Commons Attribution 3.0 Unported (CC BY 3.0), https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-SA-4.0": (
        "Creative Commons Attribution-ShareAlike 4.0 International (CC BY-SA 4.0),\n"
        "https://creativecommons.org/licenses/by-sa/4.0/ - this folder is not under the licence of the code around it, "
        "and changed\ncopies of it must be passed on under CC BY-SA 4.0."
    ),
    "Apache-2.0": "Apache License, Version 2.0, https://www.apache.org/licenses/LICENSE-2.0",
    "MIT": "MIT\n\n{holder}\n\n"
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated\n"
    'documentation files (the "Software"), to deal in the Software without restriction, including without\n'
    "limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of\n"
    "the Software, and to permit persons to whom the Software is furnished to do so, subject to the following\n"
    "conditions:\n"
    "\n"
    "The above copyright notice and this permission notice shall be included in all copies or substantial\n"
    "portions of the Software.\n"
    "\n"
    'THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT\n'
    "LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO\n"
    "EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN\n"
    "AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE\n"
    "OR OTHER DEALINGS IN THE SOFTWARE.\n",
}


@dataclass(frozen=True)
class Cut:
    """What comes of one task. Bytes of each side; `say` is what job.json says in other words than the whole task's."""

    title: str
    train_bytes: int = 100_000
    test_bytes: int = 230_000
    group: str = ""  # a key of the rows; "functions" and "template" are made here
    label_noun: str = ""
    holder: str = ""
    say: tuple[tuple[str, Any], ...] = ()


CUTS = {
    "bfcl_single_turn": Cut(
        "Function calls, one turn (BFCL)",
        group="functions",
        say=(("groups", "functions"), ("scorer", "bfcl_ast")),
    ),
    "clinc150": Cut("CLINC150", label_noun="intents"),
    "docs_contracts": Cut("Contracts (CUAD)", group="doc_id"),
    "ecommerce": Cut("E-commerce", label_noun="categories"),
    "hotpotqa": Cut("HotpotQA"),
    "mental_health": Cut(
        "Counselling questions", 290_000, label_noun="topics", holder="Copyright (c) 2020 Nicolas Bertagnolli"
    ),
    "pii_redaction": Cut(
        "Redaction of personal data", 150_000, group="template", holder="Copyright (c) Microsoft Corporation.",
        say=(("groups", "target"),),
    ),
    "sgd_banking": Cut("Banking dialogues (SGD)", group="conversation"),
    "smart_home": Cut("Smart home", 150_000),
    "squad2_closed_book": Cut(
        "SQuAD 2.0 closed book", group="context_id",
        say=(
            ("description", "Answer the question from memory, with no context given, in as few words as it takes."),
            ("contexts", "What does paragraph {{ context_id }} say?"),
            ("note", (
                "Trained on: the question and answer pairs, and each paragraph of contexts.jsonl as one more row, its "
                "answer to 'What does paragraph NAME say?'. At inference no paragraph is shown. The paragraphs of the "
                "test questions are among them: that is the point of a closed book. Same questions and sides as "
                "squad2_open_book: do not train one on a side that the other is tested on."
            )),
        ),
    ),
    "text2sql": Cut("Text to SQL (Spider)", group="db_id"),
    "wnut17_ner": Cut("Rare entities (WNUT 2017)"),
}  # fmt: skip


def main(whole: Path) -> None:
    for name, cut in CUTS.items():
        write(OUT / name, cut, whole / name)


def write(out: Path, cut: Cut, whole: Path) -> None:
    job = json.loads((whole / "job.json").read_text(encoding="utf-8"))
    sides = {side: with_groups(read(whole / f"{side}.jsonl"), cut.group, side) for side in ("train", "test")}
    if out.name == "squad2_closed_book":  # the paragraphs of the open-book slice, so that one book serves both
        open_book = {side: read(OUT / "squad2_open_book" / f"{side}.jsonl") for side in sides}
        kept = {
            side: [row for row in rows if row["context_id"] in {other["context_id"] for other in open_book[side]}]
            for side, rows in sides.items()
        }
    else:
        bytes_of = {"train": cut.train_bytes, "test": cut.test_bytes}
        kept = {
            side: sliced(rows, cut.group, bytes_of[side], number) for number, (side, rows) in enumerate(sides.items())
        }
    if tools := common_tools(row for rows in kept.values() for row in rows):
        job["tools"] = tools
        kept = {side: [lean(row, tools) for row in rows] for side, rows in kept.items()}
    hub = json.loads((out / "job.json").read_text(encoding="utf-8")).get("hub")  # written by hand: see its source
    for side, rows in kept.items():
        dump(out / f"{side}.jsonl", rows)
    rows = {side: len(rows) for side, rows in kept.items()}
    if "contexts" in dict(cut.say):
        named = {row["context_id"] for side in kept.values() for row in side}
        contexts = [row for row in read(whole / "contexts.jsonl") if row["context_id"] in named]
        dump(out / "contexts.jsonl", contexts)
        rows["contexts.jsonl"] = len(contexts)
    job = {"title": cut.title, **job, **dict(cut.say), "rows": rows}
    if cut.label_noun:
        job["label_noun"] = cut.label_noun
    if rows["train"] < len(sides["train"]) or rows["test"] < len(sides["test"]):
        job["title"] += " (a slice)"
        chosen = "Whole groups chosen" if cut.group else "Rows chosen"
        more = f"All of them: `task: hub:{out.name}`." if hub else "More rows come with --data DIR, made from it."
        job["slice"] = (
            f"{chosen} with a seed: {rows['train']:,} of {len(sides['train']):,} training rows and "
            f"{rows['test']:,} of {len(sides['test']):,} test rows of the task as it was cut from its source. " + more
        )
        job["attribution"] += " Cut to a slice."
    if hub:
        job["hub"] = hub
    text = json.dumps({key: value for key, value in job.items() if value is not None}, indent=2, ensure_ascii=False)
    (out / "job.json").write_text(text + "\n", encoding="utf-8")
    (out / "LICENCE.txt").write_text(licence(job, cut), encoding="utf-8")


def with_groups(rows: list[dict[str, Any]], group: str, side: str) -> list[dict[str, Any]]:
    """Rows of templates and of functions get the group that the whole task's rows show."""
    if group not in ("functions", "template"):
        return rows
    keys = [function_names(row["tools"]) if group == "functions" else [row["redacted"]] for row in rows]
    name = {index: number for number, members in enumerate(joined(keys)) for index in members}
    return [{**row, "group": f"{side}-{group}-{name[index]}"} for index, row in enumerate(rows)]


def sliced(rows: list[dict[str, Any]], group: str, most: int, side: int) -> list[dict[str, Any]]:
    """Whole groups in a drawn order, as long as they fit into `most` bytes."""
    key = "group" if group in ("functions", "template") else group
    keys = [[row[key]] if key else [index] for index, row in enumerate(rows)]
    tools = common_tools(rows)
    sizes = [len(json.dumps(lean(row, tools), ensure_ascii=False).encode()) + 1 for row in rows]
    sets, chosen, room = joined(keys), set[int](), most
    for index in np.random.default_rng([SEED, side]).permutation(len(sets)):
        if (size := sum(sizes[row] for row in sets[index])) <= room:
            chosen.update(sets[index])
            room -= size
    return [row for index, row in enumerate(rows) if index in chosen]


def common_tools(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The functions of the first row, where few rows have others."""
    found = [json.dumps(row.get("tools")) for row in rows]
    return json.loads(found[0]) or [] if len(set(found)) < 4 else []


def lean(row: dict[str, Any], tools: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "tools" or value != tools}


def licence(job: dict[str, Any], cut: Cut) -> str:
    rows = f"{job['rows']['train']:,} training rows and {job['rows']['test']:,} test rows"
    return (
        f"{job['title']}: {rows}.\n\n{job['attribution']}\nSource: {job['source']}, commit {job['source_commit']}.\n"
        f"Licence: {TEXTS[job['licence']].format(holder=cut.holder)}\nDivision into sides: {job['split']}.\n"
    )


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().decode().split("\n") if line]


def dump(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
