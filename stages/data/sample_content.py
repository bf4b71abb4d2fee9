"""Titles and covers of the built-in sample: both show which item it is, up to the words around it and to noise."""

import colorsys
import io

import numpy as np
from PIL import Image, ImageDraw

from stages.data.sample_world import CREATORS, SUBTOPICS, World

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
# Who made it, in Chinese and in English, and the colour of the frame round the cover.
MAKERS = (
    ("李记杂货铺", "Li's corner shop", (225, 225, 225)),
    ("王阿姨小课堂", "Auntie Wang's class", (20, 20, 20)),
    ("大壮爱折腾", "Big Zhuang tinkers", (200, 30, 30)),
    ("阿青碎碎念", "Qing's murmurs", (30, 160, 50)),
    ("蓝胖子工坊", "Bluey workshop", (30, 60, 200)),
    ("橙老师讲堂", "Teacher Orange lectures", (240, 140, 20)),
    ("紫薯同学会", "Purple Yam reunion", (130, 40, 160)),
    ("黄豆豆手账", "Yellow Bean diary", (240, 220, 40)),
    ("老灰不睡觉", "Old Grey awake", (120, 120, 120)),
)
assert len(MAKERS) == CREATORS
SAYING = 0.5  # share of titles with one
SAYINGS = (
    ("新手也能学会", "Even beginners can do it"),
    ("超详细", "In full detail"),
    ("周末在家", "A weekend at home"),
    ("第一次尝试", "My first try"),
    ("全网最火", "The one everybody watches"),
    ("朋友推荐", 'Friends said "you must see this"'),
    ("三分钟看懂", "In three minutes"),
    ("年度合集", "Best of the year"),
    ("真的太好看了", "so good"),
    ("你学会了吗？", "have you got it?"),
    ("记得收藏", "keep it for later"),
    ("“后悔没早点知道”", 'I wish I had known this "secret" earlier'),
    ("太治愈了！", "it heals me"),
)
COVER_SIZE, FRAME = 64, 8


def titles(world: World, rng: np.random.Generator) -> list[tuple[str, str]]:
    """A Chinese and an English title for each item: topic, sub-topic, part, creator, often words that say nothing."""
    rows = []
    for subtopic, creator, part in zip(world.subtopic, world.creator, world.part, strict=True):
        topic_zh, sub_zh = _words(TOPICS[subtopic // SUBTOPICS][0], subtopic, "：", "、")
        topic_en, sub_en = _words(TOPICS[subtopic // SUBTOPICS][1], subtopic, ": ", ", ")
        maker_zh, maker_en, _ = MAKERS[creator]
        part_zh, part_en = (f"{part}", f" {part}") if part > 1 else ("", "")
        zh, en = f"{topic_zh}，{sub_zh}{part_zh}，{maker_zh}", f"{topic_en}: {sub_en}{part_en} by {maker_en}"
        said_zh, said_en = SAYINGS[rng.integers(len(SAYINGS))]
        rows.append((f"{zh}，{said_zh}", f"{en}, {said_en}") if rng.random() < SAYING else (zh, en))
    return rows


def _words(line: str, subtopic: int, colon: str, comma: str) -> tuple[str, str]:
    """The words of a topic and of its sub-topic number `subtopic`."""
    topic, subtopics = line.split(colon)
    return topic, subtopics.split(comma)[subtopic % SUBTOPICS]


def draw_cover(world: World, item: int, topics: int, rng: np.random.Generator) -> bytes:
    """JPEG bytes: background = topic, shape = sub-topic within the topic, frame = creator, dots = part; with noise."""
    subtopic = int(world.subtopic[item])
    hue = (subtopic // SUBTOPICS + rng.normal(0, 0.05)) / topics
    image = Image.new("RGB", (COVER_SIZE, COVER_SIZE), MAKERS[world.creator[item]][2])
    draw = ImageDraw.Draw(image)
    inside = (FRAME, FRAME, COVER_SIZE - FRAME - 1, COVER_SIZE - FRAME - 1)
    draw.rectangle(inside, fill=_colour(hue, 0.75, rng.uniform(0.6, 0.7)))
    light = _colour(hue, 0.15, rng.uniform(0.9, 1.0))
    _draw_shape(draw, subtopic % SUBTOPICS, light, rng)
    for dot in range(int(world.part[item]) - 1):
        x = FRAME + 4 + 6 * (dot % 8)
        draw.rectangle((x, FRAME + 2, x + 3, FRAME + 5), fill=light)
    noisy = np.asarray(image, dtype=np.float32) + rng.normal(0, 6, size=(COVER_SIZE, COVER_SIZE, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _draw_shape(draw: ImageDraw.ImageDraw, shape: int, light: tuple[int, int, int], rng: np.random.Generator) -> None:
    radius = rng.uniform(14, 17)
    x, y = COVER_SIZE / 2 + rng.uniform(-4, 4, size=2)
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == 0:
        draw.ellipse(box, fill=light)
    elif shape == 1:
        draw.rectangle(box, fill=light)
    elif shape == 2:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=light)
    else:
        for offset in np.linspace(-radius, radius, 3):
            draw.line([(x + offset, y - radius), (x + offset, y + radius)], fill=light, width=4)


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
