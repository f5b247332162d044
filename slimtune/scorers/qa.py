"""Is the answer one of the accepted ones? SQuAD's exact match and token F1, and ROUGE-L.

EM and F1 normalise as the official evaluation script does (Rajpurkar et al., EMNLP 2016 and ACL 2018): lower case, then
punctuation off, then the articles a, an, the off, then spaces collapsed. All three take the best of the accepted
answers, which stand in `meta["answers"]`.

A question without an answer has `meta["part"]` "NoAns", as the script calls it: right is to say so (_NOTHING), or to
say nothing, and every measure is 1 or 0.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

from slimtune.data import Completion, Example, Score
from slimtune.scorers.lcs import lcs_length

HAS_ANSWER, NO_ANSWER = "HasAns", "NoAns"  # the parts of a task of which some questions have no answer
UNANSWERABLE = "unanswerable"  # what is to be said then
_NOTHING = ("", UNANSWERABLE, "no answer", "not answerable", "cannot be answered")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORDS = re.compile(r"[^\W_]+")


def squad_em(completion: Completion, example: Example) -> Score:
    """1 when the answer, normalised, equals an accepted answer, normalised."""
    return _score(completion, example, _em, _with_words(accepted_answers(example)))


def squad_f1(completion: Completion, example: Example) -> Score:
    """The harmonic mean of precision and recall over tokens, for the accepted answer that it is best for."""
    return _score(completion, example, _f1, _with_words(accepted_answers(example)))


def rouge_l(completion: Completion, example: Example) -> Score:
    """F1 of the longest common subsequence of words (Lin, "ROUGE", 2004), for the accepted answer that it is best for.

    Lower case, no stemming, as the package rouge-score has it by default; but a word is one of letters and digits of
    any script, where that package knows a to z only. Of texts without any word, equal ones have 1.
    """
    return _score(completion, example, _rouge, accepted_answers(example))


def normalise_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def accepted_answers(example: Example) -> tuple[str, ...]:
    """The answers of which any is right."""
    return tuple(example.meta.get("answers", ())) or (str(example.target),)


def _with_words(answers: tuple[str, ...]) -> tuple[str, ...]:
    """Without those of which normalisation leaves nothing, as in the script, unless all are such."""
    return tuple(answer for answer in answers if normalise_answer(answer)) or answers


def _em(answer: str, accepted: str) -> float:
    return float(normalise_answer(answer) == normalise_answer(accepted))


def _f1(answer: str, accepted: str) -> float:
    answer_tokens, accepted_tokens = normalise_answer(answer).split(), normalise_answer(accepted).split()
    if not answer_tokens or not accepted_tokens:
        return float(answer_tokens == accepted_tokens)
    shared = sum((Counter(answer_tokens) & Counter(accepted_tokens)).values())
    return 2 * shared / (len(answer_tokens) + len(accepted_tokens))


def _rouge(answer: str, accepted: str) -> float:
    said, wanted = _WORDS.findall(answer.lower()), _WORDS.findall(accepted.lower())
    if not said or not wanted:
        return float(said == wanted and answer.strip() == accepted.strip())
    return 2 * lcs_length(wanted, said) / (len(said) + len(wanted))


def _score(
    completion: Completion, example: Example, likeness: Callable[[str, str], float], accepted: tuple[str, ...]
) -> Score:
    answer = completion.text.strip()
    cut = "cut off before its end" if completion.cut_off else ""
    if example.meta.get("part") == NO_ANSWER:
        right = not cut and normalise_answer(answer) in _NOTHING
        return Score(float(right), answer, cut or ("" if right else "the text has no answer to this"))
    value = max(likeness(answer, one) for one in accepted)
    return Score(value, answer or None, cut or ("" if answer else "empty answer"))
