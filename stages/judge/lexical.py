"""The built-in judge: cosine similarity of titles' character n-grams. It needs no server and no weights."""

from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from stages.judge.judge import JudgeSettings, Statistics
from stages.judge.prompt import Question, Verdict


@dataclass(frozen=True)
class LexicalJudge:
    """The most similar title by TF-IDF. Implements judge.Judge."""

    threshold: float  # below this cosine no candidate is similar

    def choose(self, questions: list[Question], titles: list[str]) -> tuple[list[Verdict], Statistics]:
        """See judge.Judge."""
        return choose_similar(questions, titles, self.threshold), {}


def make_judge(settings: JudgeSettings) -> LexicalJudge:
    """The judge with these settings, for the registry."""
    return LexicalJudge(settings.pairs.threshold)


def choose_similar(questions: list[Question], titles: list[str], threshold: float) -> list[Verdict]:
    """Each question's most similar candidate, the latest if several are equal; None if all are below the threshold.

    titles: item i's is `titles[i - 1]`. N-grams of one to three characters work for Chinese as for English.
    """
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True).fit_transform(titles)
    targets = np.repeat([q.target for q in questions], [len(q.candidates) for q in questions])
    candidates = np.concatenate([q.candidates for q in questions])
    cosine = np.asarray(vectors[targets - 1].multiply(vectors[candidates - 1]).sum(axis=1)).ravel()
    verdicts = []
    begin = 0
    for question in questions:
        scores = cosine[begin : begin + len(question.candidates)]
        begin += len(question.candidates)
        best = len(scores) - 1 - int(np.argmax(scores[::-1]))
        verdicts.append(Verdict(question.candidates[best] if scores[best] >= threshold else None))
    return verdicts
