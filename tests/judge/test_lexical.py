from stages.judge.lexical import choose_similar
from stages.judge.prompt import Question

TITLES = [
    "how to bake a cake",
    "street dance battle",
    "baking a chocolate cake",
    "麻辣火锅教程",
    "在家做麻辣火锅",
    "zzz",
]


def chosen(questions, titles, threshold):
    return [verdict.chosen for verdict in choose_similar(questions, titles, threshold)]


def test_it_picks_the_similar_title_in_both_languages():
    questions = [Question(0, 3, (1, 2, 4)), Question(1, 5, (4, 2, 1))]
    assert chosen(questions, TITLES, 0.1) == [1, 4]


def test_below_the_threshold_there_is_none():
    assert chosen([Question(0, 6, (1, 2))], TITLES, 0.1) == [None]


def test_of_equal_titles_the_latest_is_taken():
    assert chosen([Question(0, 1, (2, 3, 4))], ["cake", "cake", "soup", "cake"], 0.1) == [4]
