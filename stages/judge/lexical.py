"""The embedded judge: cosine of character n-grams of raw titles. No server, no weights."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from stages.judge.prompt import Question, Verdict


def choose_similar(questions: list[Question], titles: list[str], threshold: float) -> list[Verdict]:
    """Each question's most similar candidate, the latest of equals; None where none reaches the threshold.

    titles: item i's is `titles[i - 1]`. One- to three-character n-grams work for Chinese as for English.
    """
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True).fit_transform(titles)
    targets = np.repeat([q.target for q in questions], [len(q.candidates) for q in questions])
    candidates = np.concatenate([q.candidates for q in questions])
    cosine = np.asarray(vectors[targets - 1].multiply(vectors[candidates - 1]).sum(axis=1)).ravel()
    answers = []
    begin = 0
    for question in questions:
        scores = cosine[begin : begin + len(question.candidates)]
        begin += len(question.candidates)
        best = len(scores) - 1 - int(np.argmax(scores[::-1]))
        answers.append(Verdict(question.candidates[best] if scores[best] >= threshold else None))
    return answers
