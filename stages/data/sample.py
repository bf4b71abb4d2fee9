"""The built-in sample: a small synthetic dataset in NineRec's layout, for a run without any download.

The next item of a history depends on two things:

- *Content.* Each item has a topic and one of its sub-topics. Both titles and the cover show them (colour = topic,
  shape = sub-topic, with noise). The sub-topics of a history are a Markov chain: a step stays, moves to a sibling
  sub-topic, or moves to the follow-up topic of this topic. Within a sub-topic, popular items are a little more likely.
- *Habit.* Each item has one to three habitual followers, drawn by popularity and independent of content, so only a
  model of item ids can learn them.

Popularity is skewed: a rare item is almost never a habitual follower and has too few interactions for a good ID
embedding, so only content predicts it. A model with both IDs and content is therefore better than one with either.
"""

import colorsys
import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from stages.data.covers import write_covers
from stages.errors import InputError

# A topic and its four sub-topics, in Chinese and in English.
TOPICS = (
    (
        "川菜：麻辣火锅、水煮鱼、回锅肉、担担面",
        "Sichuan food: spicy hotpot, boiled fish, twice-cooked pork, dandan noodles",
    ),
    ("烘焙：草莓蛋糕、酸面包、黄油曲奇、苹果派", "baking: strawberry cake, sourdough bread, butter cookies, apple pie"),
    ("街舞：霹雳舞、机械舞、锁舞、爵士舞", "street dance: breaking, popping, locking, jazz funk"),
    (
        "古典舞：水袖、扇子舞、敦煌飞天、汉唐乐舞",
        "classical dance: water sleeves, fan dance, Dunhuang flying, Han court dance",
    ),
    (
        "热血动漫：忍者对决、机甲战斗、海盗冒险、魔法学院",
        "action anime: ninja duel, mecha battle, pirate voyage, magic academy",
    ),
    (
        "治愈动画：森林小熊、猫咪咖啡馆、乡村夏天、玩具朋友",
        "cosy cartoon: forest bear, cat cafe, country summer, toy friends",
    ),
    (
        "科幻电影：太空旅行、时间循环、人工智能、外星来客",
        "science fiction film: space travel, time loop, artificial mind, alien visitor",
    ),
    (
        "悬疑电影：密室案件、连环谜案、失踪少女、卧底警察",
        "mystery film: locked room, serial case, missing girl, undercover police",
    ),
    (
        "户外旅行：雪山徒步、海岛潜水、沙漠露营、草原骑马",
        "outdoor travel: snow hiking, island diving, desert camp, steppe riding",
    ),
    (
        "数码评测：折叠手机、降噪耳机、机械键盘、微单相机",
        "gadget review: folding phone, quiet headphones, mechanical keyboard, mirrorless camera",
    ),
    (
        "健身：晨间瑜伽、力量训练、跑步计划、拉伸放松",
        "fitness: morning yoga, strength training, running plan, stretching",
    ),
    (
        "萌宠：橘猫日常、柯基幼犬、仓鼠乐园、鹦鹉学舌",
        "pets: orange cat days, corgi puppy, hamster park, talking parrot",
    ),
)
SUBTOPICS = 4
OPENINGS = (
    ("新手也能学会", "Even beginners can do it"),
    ("超详细", "In full detail"),
    ("周末在家", "A weekend at home"),
    ("第一次尝试", "My first try"),
    ("全网最火", "The one everybody watches"),
    ("朋友推荐", 'Friends said "you must see this"'),
    ("三分钟看懂", "In three minutes"),
    ("年度合集", "Best of the year"),
)
ENDINGS = (
    ("真的太好看了", "so good"),
    ("你学会了吗？", "have you got it?"),
    ("记得收藏", "keep it for later"),
    ("“后悔没早点知道”", 'I wish I had known this "secret" earlier'),
    ("第二集", "part two"),
    ("太治愈了！", "it heals me"),
)
HABIT, CONTENT = 0.15, 0.8  # share of steps by habit and by content; the other steps follow popularity alone
STAY, SIBLING, FOLLOW_UP, ANYWHERE = 0.7, 0.03, 0.25, 0.02  # where a step by content goes
LENGTHS = (4, 9)
COVER_SIZE = 64


@dataclass(frozen=True)
class World:
    """What the next item is drawn from, for I items and S sub-topics.

    popularity: (I,), sums to 1. subtopic: (I,). moves: (S, S), each row sums to 1. followers: 1-3 items for each item.
    """

    popularity: np.ndarray
    subtopic: np.ndarray
    moves: np.ndarray
    followers: list[np.ndarray]


def write_sample(folder: Path, *, users: int, items: int, topics: int, seed: int) -> None:
    """Write sample_pair.csv, sample_item.csv and sample_cover.zip into `folder`; same arguments, same bytes.

    Raises InputError when `topics` is more than TOPICS has, or `items` is fewer than a history needs.
    """
    if topics > len(TOPICS):
        raise InputError(f"download.sample_topics is {topics}: the sample has words for at most {len(TOPICS)}")
    if items < max(topics, LENGTHS[1] + 1):
        raise InputError(f"download.sample_items is {items}: at least {max(topics, LENGTHS[1] + 1)} are needed")
    rng = np.random.default_rng(seed)
    world = _make_world(items, topics, rng)
    folder.mkdir(parents=True, exist_ok=True)
    _write_pairs(folder / "sample_pair.csv", world, users, rng)
    _write_items(folder / "sample_item.csv", world.subtopic, rng)
    covers = [(f"v{item}.jpg", _draw_cover(int(world.subtopic[item]), topics, rng)) for item in range(items)]
    write_covers(folder / "sample_cover.zip", sorted(covers))


def _make_world(items: int, topics: int, rng: np.random.Generator) -> World:
    popularity = rng.permutation(1.0 / np.arange(1, items + 1) ** 0.9)
    popularity /= popularity.sum()
    subtopic = rng.permutation(np.arange(items) % (topics * SUBTOPICS))
    followers = []
    for item in range(items):
        others = np.where(np.arange(items) == item, 0, popularity)
        followers.append(rng.choice(items, size=rng.integers(1, 4), replace=False, p=others / others.sum()))
    return World(popularity, subtopic, _make_moves(topics, rng), followers)


def _make_moves(topics: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S) probability of the next sub-topic: the same, a sibling, its like in the follow-up topic, or any."""
    count = topics * SUBTOPICS
    topic = np.arange(count) // SUBTOPICS
    order = rng.permutation(topics)
    follow_up = np.empty(topics, dtype=int)
    follow_up[order] = np.roll(order, 1)  # one cycle through all topics
    place = np.arange(count) % SUBTOPICS
    moves = np.full((count, count), ANYWHERE / count)
    moves += np.where(topic[:, None] == topic, SIBLING / SUBTOPICS, 0)
    moves += np.eye(count) * STAY
    moves[np.arange(count), follow_up[topic] * SUBTOPICS + place] += FOLLOW_UP
    return moves


def _write_pairs(path: Path, world: World, users: int, rng: np.random.Generator) -> None:
    """Write item_id,user_id,timestamp, sorted by time."""
    rows = []
    for user in range(users):
        history = _walk(world, int(rng.integers(LENGTHS[0], LENGTHS[1] + 1)), rng)
        start = int(rng.integers(1_600_000_000, 1_620_000_000))
        times = start + np.cumsum(rng.integers(60, 500_000, size=len(history)))
        rows += [(int(time), user, item) for time, item in zip(times, history, strict=True)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            (f"v{item}", f"u{user}", time) for time, user, item in sorted(rows)
        )


def _walk(world: World, length: int, rng: np.random.Generator) -> list[int]:
    """One user's history: `length` items, none twice."""
    unseen = np.ones(len(world.popularity))
    history = [int(rng.choice(len(unseen), p=world.popularity))]
    while len(history) < length:
        unseen[history[-1]] = 0
        weights = _next_weights(world, history[-1], rng.random()) * unseen
        if not weights.any():  # all habitual followers are in the history already
            weights = world.popularity * unseen
        history.append(int(rng.choice(len(weights), p=weights / weights.sum())))
    return history


def _next_weights(world: World, item: int, draw: float) -> np.ndarray:
    """(I,) weights of the next item after `item`; draw: uniform in [0, 1), chooses habit, content or popularity."""
    if draw < HABIT:
        weights = np.zeros(len(world.popularity))
        weights[world.followers[item]] = 1.0 / np.arange(1, len(world.followers[item]) + 1)
        return weights
    if draw < HABIT + CONTENT:
        return world.moves[world.subtopic[item]][world.subtopic] * world.popularity**0.4
    return world.popularity


def _write_items(path: Path, subtopic: np.ndarray, rng: np.random.Generator) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for item, sub in enumerate(subtopic):
            topic_zh, sub_zh = _words(TOPICS[sub // SUBTOPICS][0], sub, "：", "、")
            topic_en, sub_en = _words(TOPICS[sub // SUBTOPICS][1], sub, ": ", ", ")
            opening_zh, opening_en = OPENINGS[rng.integers(len(OPENINGS))]
            ending_zh, ending_en = ENDINGS[rng.integers(len(ENDINGS))]
            zh = f"{opening_zh}的{sub_zh}，{topic_zh}{ending_zh}"
            writer.writerow((f"v{item}", zh, f"{opening_en}: {sub_en}, {topic_en}, {ending_en}"))


def _words(line: str, sub: int, colon: str, comma: str) -> tuple[str, str]:
    """The words of a topic and of its sub-topic number `sub`."""
    topic, subs = line.split(colon)
    return topic, subs.split(comma)[sub % SUBTOPICS]


def _draw_cover(sub: int, topics: int, rng: np.random.Generator) -> bytes:
    """JPEG bytes: background hue = topic, shape = sub-topic within the topic, both with noise."""
    hue = (sub // SUBTOPICS + rng.normal(0, 0.1)) / topics
    background = _colour(hue, 0.75, rng.uniform(0.55, 0.75))
    image = Image.new("RGB", (COVER_SIZE, COVER_SIZE), background)
    radius = rng.uniform(14, 22)
    x, y = rng.uniform(24, COVER_SIZE - 24, size=2)
    box = (x - radius, y - radius, x + radius, y + radius)
    light = _colour(hue, 0.15, rng.uniform(0.9, 1.0))
    draw = ImageDraw.Draw(image)
    place = sub % SUBTOPICS
    if place == 0:
        draw.ellipse(box, fill=light)
    elif place == 1:
        draw.rectangle(box, fill=light)
    elif place == 2:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=light)
    else:
        for offset in np.linspace(-radius, radius, 3):
            draw.line([(x + offset, y - radius), (x + offset, y + radius)], fill=light, width=5)
    noisy = np.asarray(image, dtype=np.float32) + rng.normal(0, 14, size=(COVER_SIZE, COVER_SIZE, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
