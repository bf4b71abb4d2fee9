"""Find the columns of user, item, time and title: by params, or by the names that datasets commonly use."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from stages.errors import InputError

# Names without case, spaces and punctuation.
USER = {
    "user", "userid", "uid", "reviewerid", "customer", "customerid", "visitorid", "memberid", "accountid", "buyerid",
    "viewerid", "listenerid", "readerid", "playerid", "profileid",
}  # fmt: skip
ITEM = {
    "item", "itemid", "iid", "parentasin", "asin", "movie", "movieid", "product", "productid", "video", "videoid",
    "book", "bookid", "article", "articleid", "newsid", "song", "songid", "track", "trackid", "artistid", "goodsid",
    "sku", "skuid", "isbn", "businessid", "gmapid", "restaurantid", "recipeid", "gameid", "appid", "courseid", "poiid",
}  # fmt: skip
TIME = {
    "timestamp", "time", "ts", "date", "datetime", "unixtime", "unixtimestamp", "unixreviewtime", "createdat",
    "eventtime", "ratedat", "timestampms", "datetimestamp",
}  # fmt: skip
TITLE = {
    "title", "titles", "name", "itemtitle", "itemname", "producttitle", "productname", "movietitle", "moviename",
    "booktitle", "videotitle", "articletitle", "songtitle", "trackname", "gametitle", "coursename", "businessname",
}  # fmt: skip
TITLE_ZH = {"titlezh", "titlecn", "zh", "chinesetitle", "titlechinese", "namezh", "namecn", "zhtitle", "cntitle"}
TITLE_EN = {"titleen", "en", "englishtitle", "titleenglish", "nameen", "entitle"}
TITLES = TITLE | TITLE_ZH | TITLE_EN
OTHER_COLUMN = {"parentasin": {"asin"}}  # Amazon's parent_asin joins a product's variants; its item files have no other
LAYOUTS = {  # MovieLens' files without a header
    "ratings.dat": ("user_id", "item_id", "rating", "timestamp"),
    "movies.dat": ("item_id", "title"),
    "u.data": ("user_id", "item_id", "rating", "timestamp"),
    "u.item": ("item_id", "title"),
}
RECBOLE_TYPE = re.compile(r":(token|float|token_seq|float_seq)$")


@dataclass(frozen=True)
class Wanted:
    """The section `columns` of params.yaml: names, or numbers from 1 without a header; '' = found by name."""

    user: str = ""
    item: str = ""
    time: str = ""
    title: str = ""

    def names(self) -> set[str]:
        """The names that are given."""
        return {name for name in (self.user, self.item, self.time, self.title) if name}


@dataclass(frozen=True)
class InteractionColumns:
    """Columns of the interactions; `user` and `item` are '' if only the values show which is which."""

    user: str
    item: str
    time: str
    title: str  # '' unless set in params: in a file of reviews `title` is the review's
    may_be_time: tuple[str, ...] = ()  # if only its place tells the time: the columns that params do not name


@dataclass(frozen=True)
class ItemColumns:
    """Columns of the items' file; '' for a title that it does not have."""

    item: str
    title_zh: str
    title_en: str


def plain(name: str) -> str:
    """A column name without RecBole's type, case, spaces and punctuation."""
    return re.sub(r"[\W_]", "", RECBOLE_TYPE.sub("", name.strip()).lower())


def is_header(cells: Sequence[str], wanted: Wanted) -> bool:
    """Whether a first row is a header: a name from params, a RecBole type, the name of an id, or two known names."""
    given = {name for name in wanted.names() if not name.isdigit()}
    if any(RECBOLE_TYPE.search(cell) or cell.strip() in given for cell in cells):
        return True
    if any(plain(cell) in USER | ITEM and plain(cell).endswith(("id", "asin")) for cell in cells):
        return True
    known = USER | ITEM | TIME | TITLES | ({"id"} if _has_title(cells) else set())
    return sum(plain(cell) in known for cell in cells) >= min(2, len(cells))


def _has_title(cells: Sequence[str]) -> bool:
    return any(plain(cell) in TITLES for cell in cells)


def _is(name: str, given: str, known: set[str]) -> bool:
    """Whether a column is the one that params name, or has a known name."""
    return (bool(given) and name == given) or plain(name) in known


def looks_like(role: str, names: Sequence[str], wanted: Wanted) -> bool:
    """Whether a table with a header has the columns of `interactions` or of `items`."""
    has_user = any(_is(name, wanted.user, USER) for name in names)
    has_item = any(_is(name, wanted.item, ITEM | {"id"}) for name in names)
    return has_item and has_user == (role == "interactions")


def interaction_columns(names: Sequence[str], wanted: Wanted, *, header: bool, file: str) -> InteractionColumns:
    """Columns of the file of interactions.

    Without a header, the third of three columns is the time, as in NineRec's files, unless params name others; user
    and item are then found by their values, unless params name one of them. Raises InputError, naming the param to set,
    when it is not certain.
    """
    for role in ("user", "item", "time"):
        name = getattr(wanted, role)
        if name and name not in names and (role != "item" or not header):
            raise InputError(f"columns.{role}={name}: {file} has no such column, it has {_listed(names)}")
    if not header and tuple(names) == ("1", "2", "3"):
        return _columns_by_place(names, wanted, file)
    found = {}
    for role, known in (("user", USER), ("item", ITEM), ("time", TIME)):
        given = getattr(wanted, role)
        found[role] = given if given and given in names else find_column(role, names, known, file)
    _refuse_equal(found.values(), file)
    title = wanted.title if wanted.title and wanted.title in names else ""
    return InteractionColumns(found["user"], found["item"], found["time"], title)


def _columns_by_place(names: Sequence[str], wanted: Wanted, file: str) -> InteractionColumns:
    """Columns of three without a header: those that params name, the third as the time, or the one left over."""
    given = [name for name in (wanted.user, wanted.item, wanted.time) if name]
    _refuse_equal(given, file)
    left = [name for name in names if name not in given]
    time = wanted.time or left[-1]
    if not wanted.time and len(given) == 1 and names[2] in given:
        role = "user" if wanted.user else "item"
        raise InputError(f"{file}: without a header column 3 is the time, but columns.{role}=3: set columns.time")
    first, second = (name for name in names if name != time)
    other = {first: second, second: first, "": ""}
    user, item = wanted.user or other[wanted.item], wanted.item or other[wanted.user]
    return InteractionColumns(user, item, time, "", () if wanted.time else tuple(left))


def _refuse_equal(columns: Collection[str], file: str) -> None:
    if len(set(columns)) < len(columns):
        raise InputError(f"{file}: user, item and time must be three columns, not {_listed(columns)}: mend `columns`")


def refuse_unknown_header(first_row: Sequence[str], file: str) -> None:
    """Raise InputError when the first row of interactions has no digit: no time is in it, so it is a header.

    first_row: of a file in which `is_header` found no name that it knows.
    """
    if not _has_digit("".join(first_row)):
        raise InputError(
            f"{file}: no name of its header ({_listed(first_row)}) tells user, item or time: set columns.user, "
            "columns.item and columns.time to the names"
        )


def refuse_item_header(first_row: Sequence[str], ids: Sequence[str], file: str) -> None:
    """Raise InputError when the first row of items, in which `is_header` found too few names, looks like a header.

    It does when a cell is a name of titles, or when it has no digit and all other ids have some. ids: of all rows.
    """
    digitless = not _has_digit("".join(first_row)) and len(ids) > 1 and all(map(_has_digit, ids[1:]))
    if digitless or _has_title(first_row):
        raise InputError(
            f"{file}: its first row ({_listed(first_row)}) looks like a header, but no name in it tells the item: name "
            "the columns item_id and title, or add such a header if the row is an item"
        )


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def item_columns(names: Sequence[str], wanted: Wanted, *, like: str, file: str) -> ItemColumns:
    """Columns of the file of items; like: the name of the item column in the interactions.

    Without a header: id and title, or NineRec's id, Chinese title, English title if the file is called NAME_item.
    Raises InputError, naming the param to set, when it is not certain.
    """
    numbered = names[0] == "1"  # then columns.item is a number of the interactions' file, not of this one
    item = "" if numbered else next((name for name in (wanted.item, like) if name in names), "")
    if numbered and wanted.title in names:
        return ItemColumns(names[0], wanted.title, wanted.title)
    if numbered:
        if len(names) > 3 or (len(names) == 3 and not PurePosixPath(file).name.split(".")[0].endswith("_item")):
            raise InputError(
                f"{file} has {len(names)} columns and no header that we know: add one, such as item_id,title, or set "
                "columns.item and columns.title"
            )
        title_zh, title_en = (*names[1:], *names[1:], "", "")[:2]  # a single title serves both languages
        return ItemColumns(names[0], title_zh, title_en)
    if not item:
        weak = [name for name in names if plain(name) == "id"]
        strong = [name for name in names if plain(name) in ITEM]
        item = weak[0] if weak and not strong else find_column("item", names, ITEM, file)
    if wanted.title:
        if wanted.title not in names:
            raise InputError(f"columns.title={wanted.title}: {file} has no such column, it has {_listed(names)}")
        return ItemColumns(item, wanted.title, wanted.title)
    others = [name for name in names if name != item]
    zh, en, any_language = (_at_most_one(others, known, file) for known in (TITLE_ZH, TITLE_EN, TITLE))
    return ItemColumns(item, zh or any_language, en or any_language)


def find_column(role: str, names: Sequence[str], known: set[str], file: str) -> str:
    """The one column whose plain name is in `known`. Raises InputError when there is none, or more than one."""
    found = [name for name in names if plain(name) in known]
    for better, worse in OTHER_COLUMN.items():
        if better in map(plain, found):
            found = [name for name in found if plain(name) not in worse]
    if len(found) == 1:
        return found[0]
    has = f"{_listed(found)} could all be it" if found else f"its columns are {_listed(names)}"
    raise InputError(f"{file}: which column is the {role} is not certain ({has}): set columns.{role}")


def _at_most_one(names: Sequence[str], known: set[str], file: str) -> str:
    found = [name for name in names if plain(name) in known]
    if len(found) > 1:
        raise InputError(f"{file}: {_listed(found)} could all be the title: set columns.title")
    return found[0] if found else ""


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:12]) + (" …" if len(shown) > 12 else "")
