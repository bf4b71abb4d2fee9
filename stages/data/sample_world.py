"""Who views what in the built-in sample: items with attributes, and users whose next item depends on them.

The next item of a user depends on

- *content*: the sub-topics of a history are a Markov chain, and each user prefers the items of one creator;
- *habit*: each item has one to three habitual followers, independent of content, which only a model of IDs can learn;
- *popularity*, which has a long tail;
- *time*: most items are there from the start, the others are released later. A share of the steps goes to new items,
  and some items are released when the data end, so a few are known to the test set alone. The interest in each topic
  rises and falls over the year.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

SUBTOPICS = 4  # of a topic
CREATORS = 9
# share of steps by habit, to new items and by content; the other steps follow popularity alone
HABIT, NEWS, CONTENT = 0.1, 0.045, 0.8
STAY, SIBLING, FOLLOW_UP, ANYWHERE = 0.4, 0.03, 0.55, 0.02  # where the sub-topic goes in a step by content
FAVOURITE = 8.0  # how many times likelier an item by the user's favourite creator is
TAIL = 1.0  # popularity of the item of rank r: r^-TAIL
SEARCH = 0.5  # share of steps by content that come from a search, which finds all items equally
LENGTHS = (4, 14)  # interactions of a user, short ones more often
RELEASED_LATER, RELEASED_LAST = 0.2, 0.02  # share of items: at any time of the year, and only when it ends
NEW_FOR, LAST = 0.05, 0.995  # how long an item is new, and when the last ones are released, in years
GAP = 0.03  # mean time between two interactions of a user, in years


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
    series = rng.permutation(topics * SUBTOPICS * CREATORS)[np.arange(items) % (topics * SUBTOPICS * CREATORS)]
    subtopic, creator = series // CREATORS, series % CREATORS
    part = 1 + np.arange(items) // (topics * SUBTOPICS * CREATORS)
    popularity = rng.permutation(1.0 / np.arange(1, items + 1) ** TAIL)
    popularity /= popularity.sum()
    kind, year = rng.random(items), rng.random(items)
    release = np.where(kind < RELEASED_LAST, LAST, np.where(kind < RELEASED_LAST + RELEASED_LATER, year, 0.0))
    peak = np.repeat(rng.random(topics), SUBTOPICS)
    followers = []
    for item in range(items):
        others = np.where(np.arange(items) == item, 0, popularity)
        followers.append(rng.choice(items, size=rng.integers(1, 4), replace=False, p=others / others.sum()))
    return World(subtopic, creator, part, popularity, release, _moves(topics, rng), peak, followers)


def _moves(topics: int, rng: np.random.Generator) -> Float[np.ndarray, "S S"]:
    """Probability of the next sub-topic: the same, a sibling, the one in its place in the follow-up topic, or any."""
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


def walk(world: World, rng: np.random.Generator) -> tuple[list[int], Float[np.ndarray, " n"]]:
    """One user's history and its times in years: no item twice, none before its release."""
    low, high = LENGTHS
    length = low + int((high - low + 1) * rng.random() ** 2)
    gaps = rng.exponential(GAP, size=length)
    gaps[-1] = rng.random() * (1 - LAST)  # the data hold users who were active shortly before they end
    times = 1 - np.cumsum(gaps[::-1])[::-1]
    history: list[int] = []
    favourite = int(rng.integers(CREATORS))
    for time in times:
        possible = (world.release <= time).astype(float)
        possible[history] = 0
        weights = _next_weights(world, history, favourite, float(time), rng) * possible
        if not weights.any():  # all habitual followers or new items are in the history already, or there are none yet
            weights = world.popularity * possible
        history.append(int(rng.choice(len(weights), p=weights / weights.sum())))
    return history, times


def _next_weights(
    world: World, history: list[int], favourite: int, time: float, rng: np.random.Generator
) -> Float[np.ndarray, " I"]:
    season = 1 + 0.8 * np.cos(2 * np.pi * (time - world.peak))[world.subtopic]
    draw = rng.random()
    if history and draw < HABIT:
        weights = np.zeros(len(world.popularity))
        weights[world.followers[history[-1]]] = 1.0 / np.arange(1, len(world.followers[history[-1]]) + 1)
        return weights
    loyalty = np.where(world.creator == favourite, FAVOURITE, 1.0)
    if draw < HABIT + NEWS:
        return loyalty * ((world.release > 0) & (time - world.release < NEW_FOR))
    if history and draw < HABIT + NEWS + CONTENT:
        shown = 1.0 if rng.random() < SEARCH else world.popularity
        return world.moves[world.subtopic[history[-1]]][world.subtopic] * loyalty * shown
    return world.popularity * season
