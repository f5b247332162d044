"""Is the answer the target? For classification, and for any task with one right text.

exact_match              the strings are equal once spaces at both ends are gone: the published measure
exact_match_normalised   also forgives case, quotes, a final full stop, and "_" or "-" for a space
"""

import unicodedata

from slimtune.data import Completion, Example, Score

_FRAME = " \t\r\n\"'`*."


def exact_match(completion: Completion, example: Example) -> Score:
    """1 when the answer equals the target. An answer that is none of the labels (`meta["labels"]`) is unparseable."""
    answer = completion.text.strip()
    labels = example.meta.get("labels", ())
    if not answer or (labels and answer not in labels):
        return Score(0.0, None, _unreadable(completion, answer, len(labels)))
    return Score(float(answer == str(example.target).strip()), answer)


def exact_match_normalised(completion: Completion, example: Example) -> Score:
    """1 when answer and target are equal after `normalise_label`: tells a wrong label from a badly written one."""
    answer = normalise_label(completion.text)
    labels = {normalise_label(label) for label in example.meta.get("labels", ())}
    if not answer or (labels and answer not in labels):
        return Score(0.0, None, _unreadable(completion, answer, len(labels)))
    return Score(float(answer == normalise_label(str(example.target))), answer)


def normalise_label(text: str) -> str:
    """NFKC, case folded, quotes and a final full stop off, "_", "-" and runs of space as one space."""
    bare = unicodedata.normalize("NFKC", text).casefold().strip(_FRAME)
    return " ".join(bare.replace("_", " ").replace("-", " ").split())


def _unreadable(completion: Completion, answer: str, labels: int) -> str:
    if completion.stopped == "length":
        return "cut off before it was an answer"
    return f"not one of the {labels} labels" if answer and labels else "empty answer"
