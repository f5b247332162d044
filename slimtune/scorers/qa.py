"""Is the answer one of the accepted ones? SQuAD's exact match and token F1.

Both normalise as the official evaluation script does (Rajpurkar et al., EMNLP 2016 and ACL 2018): lower case, then
punctuation off, then the articles a, an, the off, then spaces collapsed; and both take the best of the accepted
answers, which stand in `meta["answers"]`.
"""

import re
import string
from collections import Counter

from slimtune.data import Completion, Example, Score

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_em(completion: Completion, example: Example) -> Score:
    """1 when the answer, normalised, equals an accepted answer, normalised."""
    answer = normalise_answer(completion.text)
    value = max(float(answer == normalise_answer(accepted)) for accepted in accepted_answers(example))
    return _score(value, completion)


def squad_f1(completion: Completion, example: Example) -> Score:
    """The harmonic mean of precision and recall over tokens, for the accepted answer that it is best for."""
    return _score(max(_f1(completion.text, accepted) for accepted in accepted_answers(example)), completion)


def normalise_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def accepted_answers(example: Example) -> tuple[str, ...]:
    """The answers of which any is right."""
    return tuple(example.meta.get("answers", ())) or (str(example.target),)


def _f1(answer: str, accepted: str) -> float:
    answer_tokens, accepted_tokens = normalise_answer(answer).split(), normalise_answer(accepted).split()
    if not answer_tokens or not accepted_tokens:
        return float(answer_tokens == accepted_tokens)
    shared = sum((Counter(answer_tokens) & Counter(accepted_tokens)).values())
    return 2 * shared / (len(answer_tokens) + len(accepted_tokens))


def _score(value: float, completion: Completion) -> Score:
    answer = completion.text.strip()
    why = "" if answer else "empty answer"
    return Score(value, answer or None, "cut off by the token limit" if completion.stopped == "length" else why)
