"""Match images to items by name, and pack them unchanged into one zip."""

import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from stages.errors import InputError

FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows: the same covers give the same bytes


def match_covers(images: Iterable[tuple[PurePosixPath, Path]], item_ids: set[str]) -> dict[str, tuple[str, Path]]:
    """{item id: (name in the zip, file)} for the images whose name without its suffix is an item id.

    images: (path in the source, file here). Raises InputError when an item has two.
    """
    covers: dict[str, tuple[str, Path]] = {}
    first: dict[str, PurePosixPath] = {}
    for path, file in images:
        if path.stem not in item_ids:
            continue
        if path.stem in covers:
            raise InputError(f"source has two covers of item {path.stem!r} ({first[path.stem]}, {path}): remove one")
        covers[path.stem] = (f"{path.stem}{path.suffix.lower()}", file)
        first[path.stem] = path
    return covers


def pack_covers(path: Path, covers: dict[str, tuple[str, Path]]) -> None:
    """Write a zip of the covers, sorted by item id."""
    write_covers(path, ((covers[item][0], covers[item][1].read_bytes()) for item in sorted(covers)))


def write_covers(path: Path, covers: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip of (member name, content), uncompressed and with a fixed date: same covers, same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in covers:
            member = zipfile.ZipInfo(name, FIXED_DATE)
            member.create_system = 3  # or Windows would write other bytes
            archive.writestr(member, content)


def check_covers(path: Path, raw_ids: Iterable[str], modalities: tuple[str, ...]) -> None:
    """Raise InputError, with the mend, when `modalities` has image and no item has a cover. path: the zip of covers."""
    if "image" not in modalities or not cover_names(path).keys().isdisjoint(raw_ids):
        return
    without = ",".join(name for name in modalities if name != "image") or "id"
    raise InputError(
        f"{path}: no item has a cover: name the images by item id, or run with -S 'modalities=[{without}]'"
    )


def cover_names(path: Path) -> dict[str, str]:
    """{raw id: its cover's name in the zip}; empty when there is no zip (a dataset without covers)."""
    if not path.exists():
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            return {PurePosixPath(name).stem: name for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is damaged ({error}): run `dvc repro -f download`") from error
