"""Find the files of a dataset in a source by their names: interactions, items, covers."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath

from stages.data.dialect import table_suffix
from stages.errors import InputError

INTERACTIONS = {
    "pair", "pairs", "inter", "interaction", "interactions", "rating", "ratings", "review", "reviews", "event",
    "events", "log", "logs", "click", "clicks", "behavior", "behaviors", "behaviour", "behaviours", "purchases", 
    "orders", "transactions", "history", "histories",
}  # fmt: skip
ITEMS = {
    "item", "items", "title", "titles", "movie", "movies", "meta", "metadata", "product", "products", "catalog",
    "catalogue", "article", "articles", "book", "books", "video", "videos", "goods", "news",
}  # fmt: skip
COVERS = {"cover", "covers", "image", "images"}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
NINEREC = re.compile(r"(.+)_(?:pair|item|cover)$")
EXACT = {"u.data": "interactions", "u.item": "items"}  # MovieLens 100K
BY_SUFFIX = {".inter": "interactions", ".item": "items"}  # RecBole


@dataclass
class Files:
    """Paths of a source by role. tables[role]: files named after the dataset, then files named after the role only."""

    tables: dict[str, list[list[PurePosixPath]]]
    unknown: list[PurePosixPath]  # tables with other names
    covers: list[PurePosixPath] = field(default_factory=list)  # images
    cover_archives: list[PurePosixPath] = field(default_factory=list)
    other_datasets: set[str] = field(default_factory=set)


def choose_files(paths: Iterable[PurePosixPath], dataset: str) -> Files:
    """Sort the files of a source by role.

    Files called OTHER_pair are left out; so are OTHER_item and OTHER_cover, if there is OTHER_pair or the dataset's
    own pair or item file. Without these OTHER may be any word: user_item.csv, dim_item.csv.
    """
    others = {path: _other_dataset(path, dataset) for path in paths}
    paired = {other for path, other in others.items() if _stem(path) == f"{other}_pair"}
    has_own = any(_words(_stem(path)) in ([*_words(dataset), "pair"], [*_words(dataset), "item"]) for path in others)
    files = Files({"interactions": [[], []], "items": [[], []]}, [])
    images: dict[bool, list[PurePosixPath]] = {True: [], False: []}
    archives: dict[bool, list[PurePosixPath]] = {True: [], False: []}
    for path, other in others.items():
        if other and (has_own or other in paired):
            files.other_datasets.add(other)
        elif path.suffix.lower() in image_suffixes():
            images[any(_is_cover_name(part, dataset) for part in path.parts[:-1])].append(path)
        elif path.name.lower().endswith(ARCHIVES):
            stem = _stem(path)
            if _is_cover_name(stem, dataset) or stem.lower() in COVERS:
                archives[_is_cover_name(stem, dataset)].append(path)
        elif table_suffix(path):
            role, named = _role(path, dataset) if not other else ("", False)
            if role:
                files.tables[role][0 if named else 1].append(path)
            else:
                files.unknown.append(path)
    _settle_bare_name(files, dataset)
    named = bool(images[True] or archives[True])
    files.covers, files.cover_archives = images[named], archives[named]
    return files


def pick_one(files: Files, role: str, is_role: Callable[[PurePosixPath], bool]) -> PurePosixPath | None:
    """The file of a role: named after the dataset, else named after the role, else the only one that looks like it.

    is_role: whether the columns of a file are those of the role. Raises InputError when several would do.
    """
    for candidates in files.tables[role]:
        if len(candidates) > 1:
            raise _several(candidates, role)
        if candidates:
            return candidates[0]
    candidates = [path for path in files.unknown if is_role(path)]
    if len(candidates) > 1:
        raise _several(candidates, role)
    return candidates[0] if candidates else None


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the images that Pillow opens."""
    from PIL import Image  # slow to import, and not needed for the sample

    return frozenset(suffix for suffix, form in Image.registered_extensions().items() if form in Image.OPEN)


def _several(candidates: list[PurePosixPath], role: str) -> InputError:
    names = ", ".join(path.as_posix() for path in sorted(candidates)[:6]) + (" …" if len(candidates) > 6 else "")
    if len({path.name for path in candidates}) == 1:
        return InputError(f"source has {candidates[0].name} twice ({names}): remove one, or set `source` to its folder")
    return InputError(
        f"source has several files that could be the {role}: {names}: keep one, or name it DATASET_"
        f"{'pair' if role == 'interactions' else 'item'}.csv"
    )


def _role(path: PurePosixPath, dataset: str) -> tuple[str, bool]:
    """'interactions', 'items' or '', and whether the file is named after the dataset."""
    words, own = _words(_stem(path)), _words(dataset)
    named = words[: len(own)] == own or words[-len(own) :] == own
    if named:
        words = words[len(own) :] if words[: len(own)] == own else words[: -len(own)]
    suffix = table_suffix(path)
    role = EXACT.get(path.name.lower().removesuffix(".gz")) or BY_SUFFIX.get(suffix)
    if not role:
        is_interactions, is_items = bool(INTERACTIONS & set(words)), bool(ITEMS & set(words))
        if is_interactions != is_items:
            role = "interactions" if is_interactions else "items"
        elif named and not words:
            role = "interactions"  # Amazon's reviews of a category
    return role or "", named


def _settle_bare_name(files: Files, dataset: str) -> None:
    """A file named like the dataset holds the items if its name is a word for items and another has the interactions.

    movies.csv beside ratings.csv does; Amazon's Books.jsonl beside meta_Books.jsonl does not.
    """
    named, others = files.tables["interactions"]
    bare = [path for path in named if _words(_stem(path)) == _words(dataset)]
    has_others = len(named) > len(bare) or others
    if has_others and not any(files.tables["items"]) and ITEMS & set(_words(dataset)):
        files.tables["interactions"][0] = [path for path in named if path not in bare]
        files.tables["items"][0] = bare


def _other_dataset(path: PurePosixPath, dataset: str) -> str:
    """NAME of a file NAME_pair, NAME_item or NAME_cover, if it is not `dataset`; else ''."""
    for name in (_stem(path), *(part for part in path.parts[:-1] if part.endswith("_cover"))):
        match = NINEREC.fullmatch(name)
        if match and _words(match[1]) != _words(dataset):
            return match[1]
    return ""


def _is_cover_name(name: str, dataset: str) -> bool:
    words, own = _words(name), _words(dataset)
    return len(words) == len(own) + 1 and words[: len(own)] == own and words[-1] in COVERS


def _stem(path: PurePosixPath) -> str:
    name = path.name
    while (short := PurePosixPath(name).stem) != name and PurePosixPath(name).suffix.lower() in _KNOWN_SUFFIXES:
        name = short
    return name


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.lower()) if word]


_KNOWN_SUFFIXES = {
    ".gz", ".zst", ".zstd", ".zip", ".tar", ".tgz", ".bz2", ".xz", ".csv", ".tsv", ".txt", ".dat", ".data", ".inter",
    ".item", ".json", ".jsonl", ".ndjson", ".parquet", ".pq",
}  # fmt: skip
