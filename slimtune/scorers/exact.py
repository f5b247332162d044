"""Is the answer the target? For classification, and for any task with one right text.

exact_match              the strings are equal once spaces at both ends are gone: the published measure
exact_match_normalised   also forgives case, quotes, a final full stop, and "_" or "-" for a space
six_digit_code           forgives all that stands around a number of six digits, and a second number never
"""

import re
import unicodedata

from slimtune.data import Completion, Example, Score

_CODE = re.compile(r"(?<!\d)\d{6}(?!\d)")
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


def six_digit_code(completion: Completion, example: Example) -> Score:
    """1 when the one number of six digits in the answer is the target. No such number, or two that differ: unparseable,
    so that an answer that recites the text finds nothing."""
    codes = set(_CODE.findall(completion.text))
    if len(codes) != 1:
        return Score(0.0, None, f"{len(codes)} different codes" if codes else "no code of six digits")
    (code,) = codes
    return Score(float(code == example.target), code)


def normalise_label(text: str) -> str:
    """NFKC, case folded, quotes and a final full stop off, "_", "-" and runs of space as one space."""
    bare = unicodedata.normalize("NFKC", text).casefold().strip(_FRAME)
    return " ".join(bare.replace("_", " ").replace("-", " ").split())


def _unreadable(completion: Completion, answer: str, labels: int) -> str:
    if completion.cut_off:
        return "cut off before it was an answer"
    return f"not one of the {labels} labels" if answer and labels else "empty answer"
