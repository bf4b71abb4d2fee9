"""A small shop as somebody's own data: interactions, titles and images, in the formats that people have."""

import io
from dataclasses import dataclass
from pathlib import Path
from random import Random

import polars as pl
from PIL import Image

USERS, ITEMS, LENGTH = 60, 40, 6
KINDS = ("green tea", "black tea", "filter coffee", "dark chocolate")
COLOURS = ((30, 160, 60), (60, 40, 30), (130, 80, 30), (70, 10, 10))
UNTITLED = "sku39"  # an item of the interactions that the table of items does not have
WITHOUT_IMAGE = ("sku37", "sku38")


@dataclass(frozen=True)
class Shop:
    """events: (user, item, Unix time), in the order of time; titles: {item: title}."""

    events: list[tuple[str, str, int]]
    titles: dict[str, str]


def make_shop(seed: int = 7) -> Shop:
    """Each user buys items of one kind, in the order of their numbers and with one purchase of another kind."""
    rng = Random(seed)
    titles = {f"sku{n}": f"{KINDS[n % len(KINDS)]} no. {n}" for n in range(ITEMS) if f"sku{n}" != UNTITLED}
    events = []
    for user in range(USERS):
        kind, start = user % len(KINDS), rng.randrange(ITEMS)
        for step in range(LENGTH):
            number = (start + step * len(KINDS)) // len(KINDS) * len(KINDS) + kind
            item = rng.randrange(ITEMS) if step == 2 else number % ITEMS
            events.append((f"buyer{user:03}", f"sku{item}", 1_700_000_000 + step * 3600 + user))
    return Shop(sorted(events, key=lambda event: event[2]), titles)


def write_csv(shop: Shop, folder: Path, *, columns: tuple[str, str, str] = ("user_id", "item_id", "timestamp")) -> None:
    """interactions.csv and items.csv with headers."""
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(shop.events, schema=columns, orient="row").write_csv(folder / "interactions.csv")
    _titles(shop, columns[1]).write_csv(folder / "items.csv")


def write_parquet(shop: Shop, folder: Path) -> None:
    """interactions.parquet, whose times are datetimes, and items.parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    events = pl.DataFrame(shop.events, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.with_columns(pl.from_epoch("timestamp")).write_parquet(folder / "interactions.parquet")
    _titles(shop, "item_id").write_parquet(folder / "items.parquet")


def write_recbole(shop: Shop, folder: Path) -> None:
    """RecBole's atomic files: tabs between columns, the type of a column after its name."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["user_id:token", "item_id:token", "timestamp:float"]
    events = pl.DataFrame(shop.events, schema=names, orient="row")
    events.write_csv(folder / "MyShop.inter", separator="\t")
    titles = _titles(shop, "item_id:token").rename({"title": "title:token_seq"})
    titles.write_csv(folder / "MyShop.item", separator="\t")


def write_images(shop: Shop, folder: Path) -> None:
    """images/ITEM.jpg: a square of the colour of the item's kind."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for item in shop.titles:
        if item not in WITHOUT_IMAGE:
            content = io.BytesIO()
            Image.new("RGB", (32, 32), COLOURS[int(item.removeprefix("sku")) % len(KINDS)]).save(content, "JPEG")
            (folder / "images" / f"{item}.jpg").write_bytes(content.getvalue())


def _titles(shop: Shop, item: str) -> pl.DataFrame:
    return pl.DataFrame({item: list(shop.titles), "title": list(shop.titles.values())})
