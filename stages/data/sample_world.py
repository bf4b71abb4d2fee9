"""Who views what in the built-in sample: items with attributes, and users whose next item depends on them.

A user comes on several visits and views one or two items on each. A visit starts with an item that is new, often by the
user's favourite creator, or goes on from the last item. What comes next depends on

- *content*: the sub-topics of a history are a Markov chain, and a user prefers the items of one creator;
- *habit*: each item has one to three habitual followers, independent of content, which only a model of IDs can learn;
- *popularity*, which has a long tail, and *time*: the interest in each topic rises and falls over the year.

Half of the items are released in the course of the year, and some of them when it ends: only valid and test know those.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

SUBTOPICS = 4  # of a topic
CREATORS = 9
NEWS = 0.5  # share of visits that start with a new item
HABIT, CONTENT = 0.1, 0.8  # share of the other steps by habit and by content; the rest follows popularity alone
STAY, SIBLING, FOLLOW_UP, ANYWHERE = 0.4, 0.03, 0.55, 0.02  # where the sub-topic goes in a step by content
FAVOURITE = 8.0  # how many times likelier an item by the user's favourite creator is
SEARCH = 0.2  # share of steps by content that come from a search, which finds all items equally
TAIL = 1.0  # popularity of the item of rank r: r^-TAIL
VISITS = (3, 9)  # of a user, few more often
ONE_VIEW = 0.25  # share of visits with one item; the others have two
RELEASED_LATER, RELEASED_LAST = 0.45, 0.03  # share of items: at any time of the year, and only when it ends
NEW_FOR, LAST = 0.03, 0.995  # how long an item is new, and when the last ones are released, in years
GAP, VIEW = 0.03, 1e-5  # mean time between two visits, and between two items of a visit, in years


@dataclass(frozen=True)
class World:
    """What the next item is drawn from, for I items and S sub-topics.

    subtopic, creator, part: (I,), together different for every item. popularity: (I,), sums to 1.
    release: (I,) year from the start. moves: (S, S), each row sums to 1. peak: (S,) when in the year a topic is viewed
    most. followers: 1-3 items for each item.
    """

    subtopic: Int[np.ndarray, " I"]
    creator: Int[np.ndarray, " I"]
    part: Int[np.ndarray, " I"]
    popularity: Float[np.ndarray, " I"]
    release: Float[np.ndarray, " I"]
    moves: Float[np.ndarray, "S S"]
    peak: Float[np.ndarray, " S"]
    followers: list[np.ndarray]


def make_world(items: int, topics: int, rng: np.random.Generator) -> World:
    """Draw the items' attributes and the rules by which they follow each other."""
    count = topics * SUBTOPICS * CREATORS
    series, part = rng.permutation(count)[np.arange(items) % count], 1 + np.arange(items) // count
    popularity = rng.permutation(1.0 / np.arange(1, items + 1) ** TAIL)
    popularity /= popularity.sum()
    kind, year = rng.random(items), rng.random(items)
    release = np.where(kind < RELEASED_LAST, LAST, np.where(kind < RELEASED_LAST + RELEASED_LATER, year, 0.0))
    followers = []
    for item in range(items):
        others = np.where(np.arange(items) == item, 0, popularity)
        followers.append(rng.choice(items, size=rng.integers(1, 4), replace=False, p=others / others.sum()))
    moves, peak = _moves(topics, rng), np.repeat(rng.random(topics), SUBTOPICS)
    return World(series // CREATORS, series % CREATORS, part, popularity, release, moves, peak, followers)


def _moves(topics: int, rng: np.random.Generator) -> Float[np.ndarray, "S S"]:
    """Probability of the next sub-topic: the same, a sibling, its like in the follow-up topic, or any."""
    count = topics * SUBTOPICS
    topic, place = np.arange(count) // SUBTOPICS, np.arange(count) % SUBTOPICS
    order = rng.permutation(topics)
    follow_up = np.empty(topics, dtype=int)
    follow_up[order] = np.roll(order, 1)  # one cycle through all topics
    moves = np.full((count, count), ANYWHERE / count)
    moves += np.where(topic[:, None] == topic, SIBLING / SUBTOPICS, 0)
    moves += np.eye(count) * STAY
    moves[np.arange(count), follow_up[topic] * SUBTOPICS + place] += FOLLOW_UP
    return moves


def walk(world: World, rng: np.random.Generator) -> tuple[list[int], list[float]]:
    """One user's history and its times in years: no item twice, none before its release."""
    low, high = VISITS
    gaps = rng.exponential(GAP, size=low + int((high - low + 1) * rng.random() ** 2))
    gaps[-1] = rng.random() * (1 - LAST)  # the data hold users who were active shortly before they end
    favourite = int(rng.integers(CREATORS))
    history: list[int] = []
    times: list[float] = []
    for start in 1 - np.cumsum(gaps[::-1])[::-1]:
        for view in range(1 if rng.random() < ONE_VIEW else 2):
            times.append(float(start) + view * VIEW)
            possible = (world.release <= start).astype(float)
            possible[history] = 0
            weights = possible * _next_weights(world, history, favourite, times[-1], view == 0, rng)
            if not weights.any():  # what was to follow is in the history already, or nothing is new
                weights = possible * world.popularity
            history.append(int(rng.choice(len(weights), p=weights / weights.sum())))
    return history, times


def _next_weights(
    world: World, history: list[int], favourite: int, time: float, starts: bool, rng: np.random.Generator
) -> Float[np.ndarray, " I"]:
    """starts: whether a visit starts with this item."""
    loyalty = np.where(world.creator == favourite, FAVOURITE, 1.0)
    if starts and rng.random() < NEWS:
        return loyalty * ((world.release > 0) & (time - world.release < NEW_FOR))
    draw = rng.random()
    if history and draw < HABIT:
        weights = np.zeros(len(world.popularity))
        weights[world.followers[history[-1]]] = 1.0 / np.arange(1, len(world.followers[history[-1]]) + 1)
        return weights
    if history and draw < HABIT + CONTENT:
        shown = 1.0 if rng.random() < SEARCH else world.popularity
        return world.moves[world.subtopic[history[-1]]][world.subtopic] * loyalty * shown
    return world.popularity * (1 + 0.8 * np.cos(2 * np.pi * (time - world.peak)))[world.subtopic]
