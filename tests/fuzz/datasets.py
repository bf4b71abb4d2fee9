"""Datasets as `tests.fuzz` draws them: what was meant, and the files that say it in one of many ways."""

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.folders import pack, write_covers, write_others
from tests.fuzz.writers import DAY, Style, time_column, write_table

LEAST = 3
ODD_WORDS = (
    "红烧", "tea", "$5", "$$ x$", "\U0001f469‍\U0001f373", "عربي", "שלום", 'say "hi"', "it's", "a,b", "a;b", "a|b",
    "\x1f", "\u200b", "NULL", "nan", "-", "=1+1", "<b>", "&amp;", "x" * 300, "\\", "#", "{}", "é", "Ω",
    "12\" vinyl", "%s", '"Weird Al" live',
)  # fmt: skip
ID_STYLES: tuple[Callable[[str, int], str], ...] = (
    lambda kind, n: f"{kind}{n}",
    lambda kind, n: str(n),
    lambda kind, n: str(n + (0 if kind == "u" else 100_000)),
    lambda kind, n: f"{n:06}" if kind == "u" else f"{n:04}",
    lambda kind, n: f"-{n}" if kind == "v" else f"u{n}",
    lambda kind, n: f"{kind} {n}, \"x\"",
    lambda kind, n: f"用户{n}" if kind == "u" else f"商品{n}",
    lambda kind, n: f"{kind}{n}.0",
    lambda kind, n: f"{kind}#{n}$",
    lambda kind, n: f"{n}e{n}" if kind == "v" else f"x{n}",
)  # fmt: skip
NAMES = (
    ("user_id", "item_id", "timestamp"), ("userId", "movieId", "timestamp"), ("reviewerID", "asin", "unixReviewTime"),
    ("User", "Item", "Time"), ("uid", "iid", "ts"), ("customer_id", "product_id", "date"), ("kunde", "artikel", "zeit"),
)  # fmt: skip
FAULTS = (
    "empty user", "empty item", "bad time", "short row", "long row", "no time column", "two files",
    "other titles twice", "another dataset's items", "another dataset", "not UTF-8", "cut gzip", "no rows",
    "two covers", "wrong columns.time",
)  # fmt: skip


@dataclass
class Case:
    """What a source means: events in file order (user, item, time as its column tells it), titles, covers, params."""

    events: list[tuple[str, str, int]] = field(default_factory=list)
    titles: dict[str, tuple[str, str]] = field(default_factory=dict)
    covers: dict[str, bytes] = field(default_factory=dict)
    params: dict[str, object] = field(default_factory=dict)
    fault: str = ""
    may_be_refused: tuple[str, ...] = ("no user has",)

    def histories(self) -> list[tuple[str, list[str]]]:
        """By a plain loop, what split has to write."""
        untitled = {item for item in {item for _, item, _ in self.events} if not self._is_titled(item)}
        if not any(map(self._is_titled, self.titles)):
            untitled = set()
        rows = defaultdict(list)
        for user, item, time in dict.fromkeys(self.events):
            if item not in untitled:
                rows[user].append((time, item))
        return [
            (user, [item for _, item in sorted(events, key=lambda event: event[0])])
            for user, events in rows.items()
            if len(events) >= LEAST
        ]

    def _is_titled(self, item: str) -> bool:
        return any(title.replace("\x1f", "x").strip() for title in self.titles.get(item, ()))


def make_case(rng: Random, folder: Path) -> Case:
    """Draw a dataset and write it into `folder`, or into an archive of it."""
    case = Case(fault=rng.choice(FAULTS) if rng.random() < 0.3 else "")
    style = _draw_style(rng, case)
    _draw_events(rng, case, style)
    _draw_titles(rng, case, style)
    folder.mkdir(parents=True)
    _write_tables(rng, case, style, folder)
    case.covers = write_covers(rng, [item for _, item, _ in case.events], folder, twice=case.fault == "two covers")
    if not case.covers:
        case.may_be_refused += ("no item has a cover",)
    write_others(rng, folder)
    source = pack(rng, folder)
    columns = case.params.get("columns", {})
    case.params |= {"dataset": "Store" if case.fault == "another dataset" else "Shop", "source": str(source)}
    case.params["columns"] = {"user": None, "item": None, "time": None, "title": None} | columns  # type: ignore[operator]
    if case.fault == "wrong columns.time":
        case.params["columns"] |= {"time": "nowhere"}  # type: ignore[operator]
    return case


def _draw_style(rng: Random, case: Case) -> Style:
    form = rng.choice(("ninerec", "csv", "csv", "json", "parquet", "movielens", "recbole"))
    if case.fault in ("another dataset", "other titles twice"):
        form = "ninerec"
    elif case.fault in ("short row", "long row", "not UTF-8", "cut gzip", "no time column", "wrong columns.time"):
        form = "csv"
    names = rng.choice(NAMES)
    if form == "recbole":
        names = NAMES[0]
    if case.fault == "no time column" and names == NAMES[-1]:
        names = NAMES[0]
    packed = "gz" if case.fault == "cut gzip" else rng.choice(("", "", "gz", "zst")) if form != "parquet" else ""
    style = Style(
        form, names, rng.choice((",", "\t", ";", "|")) if form in ("csv", "ninerec") else "\t",
        rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)), rng.choice(("\n", "\r\n")), bom=rng.random() < 0.2,
        utf_16=False, extra=rng.random() < 0.4, packed=packed, blank=rng.random() < 0.3,
    )  # fmt: skip
    if form == "csv" and style.separator == "\t" and rng.random() < 0.5:
        style.quote = csv.QUOTE_NONE
    elif form == "csv" and not case.fault and rng.random() < 0.1:
        style.utf_16, style.packed = True, ""
    return style


def _draw_events(rng: Random, case: Case, style: Style) -> None:
    users, items = rng.randint(1, 30), rng.randint(3, 30)
    kind = rng.choice(ID_STYLES)
    if style.form == "movielens":
        kind = ID_STYLES[1]
    elif style.form == "recbole" or style.separator != ",":
        kind = rng.choice((*ID_STYLES[:5], *ID_STYLES[6:]))
    length = rng.choice((lambda: 3, lambda: rng.randint(1, 8), lambda: rng.randint(3, 12)))
    rows = [
        (kind("u", u), kind("v", rng.randint(1, items)), _time(rng))
        for u in range(1, users + 1)
        for _ in range(length())
    ]
    if rng.random() < 0.1:
        rows += [(kind("u", 1), kind("v", rng.randint(1, items)), _time(rng)) for _ in range(2000)]
    rows += rng.choices(rows, k=len(rows) // 20)  # exact repeats
    order = rng.choice(("log", "user", "item", "random"))
    if order == "random":
        rng.shuffle(rows)
    else:
        rows.sort(key=lambda row: row[("user", "item", "log").index(order)])
    case.events = rows
    if style.form == "ninerec" and kind in (ID_STYLES[1], ID_STYLES[3]):
        case.may_be_refused += ("set columns.item",)


def _time(rng: Random) -> int:
    return 1_600_000_000 + rng.randrange(0, 400 * DAY, rng.choice((1, DAY // 2)))


def _draw_titles(rng: Random, case: Case, style: Style) -> None:
    ids = list(dict.fromkeys(item for _, item, _ in case.events))
    rng.shuffle(ids)
    kind = rng.choice(("both", "both", "one", "en", "none"))
    case.params["language"] = "en" if kind == "en" else "zh"
    case.params["modalities"] = ["id", "image"] if kind == "none" else ["id", "text"]
    if style.form in ("movielens", "recbole") and kind in ("both", "en"):
        kind, case.params["language"] = "one", "zh"
    for item in ids:
        first, second = _title(rng, style), _title(rng, style)
        case.titles[item] = {"both": (first, second), "one": (first, first), "en": ("", first), "none": ("", "")}[kind]
    if kind != "none":
        case.may_be_refused += ("no item has a title_", "no item has a title,")
    if kind == "none" or style.form == "ninerec":
        return
    if len(ids) > 4 and rng.random() < 0.2:
        for item in rng.sample(ids, len(ids) // 3):
            del case.titles[item]  # an item that the file of titles lacks


def _title(rng: Random, style: Style) -> str:
    if rng.random() < 0.1:
        return ""
    words = rng.choices(ODD_WORDS, k=rng.randint(1, 4))
    if style.form in ("movielens", "recbole"):
        words = [word for word in words if word.isascii() or not style.extra] or ["Amélie"]
    elif style.quote != csv.QUOTE_NONE and rng.random() < 0.1:
        words.append("new\nline\ttab\r\nend")
    return " ".join(words)


def _write_tables(rng: Random, case: Case, style: Style, folder: Path) -> None:
    user, item, time = style.names
    column, keys = time_column(rng, [row[2] for row in case.events], style)
    case.events = [(u, i, key) for (u, i, _), key in zip(case.events, keys, strict=True)]
    rows: list[list[object]] = [[u, i, written] for (u, i, _), written in zip(case.events, column, strict=True)]
    case.fault = _spoil(rng, case.fault, rows)
    header = [user, item, time]
    if case.fault == "no time column":
        header, rows = header[:2] + ["stars"], [row[:2] + [5] for row in rows]
    if style.form == "ninerec":
        if rng.random() < 0.5:
            rows = [[row[1], row[0], *row[2:]] for row in rows]
            right = {"item": 1}
        else:
            right = {"item": 2}
        if rng.random() < 0.3:
            case.params["columns"] = right
            case.may_be_refused = tuple(reason for reason in case.may_be_refused if reason != "set columns.item")
    if header[0] == "kunde" and style.form != "movielens" and style.form != "ninerec":
        case.params["columns"] = {"user": user, "item": item, "time": time}
    titles = case.titles
    if case.fault == "another dataset's items":
        titles = {f"other {item}": both for item, both in titles.items()}
    item_rows: list[list[object]] = [[i, *both] for i, both in titles.items()]
    if case.fault == "other titles twice":
        item_rows.append([item_rows[0][0], "another", "title"])
    elif item_rows and rng.random() < 0.2:
        item_rows.append(item_rows[0])
    one = all(zh == en for zh, en in case.titles.values())
    title_names = ["title"] if one else ["title_zh", "title_en"]
    if one and style.form != "ninerec":
        item_rows = [row[:2] for row in item_rows]
    name = (
        rng.choice(("Shop_pair", "Shop_interactions", "ratings", "log-2024"))
        if style.form != "ninerec"
        else "Shop_pair"
    )
    items_name = rng.choice(("Shop_item", "items", "names")) if name != "log-2024" else "names"
    if style.form == "ninerec":
        items_name = "Shop_item"
    if style.form == "movielens":
        name, items_name = "ratings", "movies"
    elif style.form == "recbole":
        name = items_name = "Shop"
    if style.extra and style.form == "csv" and case.fault not in ("short row", "long row"):
        rows, header = [["5", *row[::-1], "x, y"] for row in rows], ["stars", *header[::-1], "comment"]
    write_table(folder / name, rows, header, style, case.fault)
    if case.titles or style.form == "ninerec":
        write_table(folder / items_name, item_rows, [item, *title_names], style, "")
    if case.fault == "two files":
        write_table(folder / "old" / name, rows, header, style, "")


def _spoil(rng: Random, fault: str, rows: list[list[object]]) -> str:
    row = rng.choice(rows)
    if fault == "empty user":
        row[0] = ""
    elif fault == "empty item":
        row[1] = " "
    elif fault == "bad time":
        for other in rows:
            other[2] = str(other[2])
        row[2] = rng.choice(("soon", "", "1.2.3", "2020-13-45"))
    elif fault == "short row":
        del row[2]
    elif fault == "long row":
        row.append("more")
    elif fault == "no rows":
        rows.clear()
    return fault
