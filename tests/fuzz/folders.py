"""What a source of `tests.fuzz` holds beside its tables, and what it is packed in."""

import io
import tarfile
import zipfile
from pathlib import Path
from random import Random

from PIL import Image


def write_covers(rng: Random, item_ids: list[str], folder: Path, *, twice: bool) -> dict[str, bytes]:
    """Covers of some items, or none; twice: one of them in two files. → {item id: bytes}."""
    ids = list(dict.fromkeys(item_ids))
    if rng.random() < 0.5 and not twice:
        return {}
    covers: dict[str, bytes] = {}
    place = folder / rng.choice(("Shop_cover", "Shop_cover/a/b", "covers", "pictures/x"))
    place.mkdir(parents=True)
    suffix = rng.choice((".jpg", ".png", ".JPEG", ".webp", ".bmp"))
    for number, item in enumerate(rng.sample(ids, max(1, len(ids) * 2 // 3))):
        image = io.BytesIO()
        Image.new("RGB", (4, 4), (number * 7 % 256, 9, 30)).save(
            image, {".jpg": "JPEG", ".JPEG": "JPEG"}.get(suffix, suffix[1:])
        )
        covers[item] = image.getvalue()
        (place / f"{item}{suffix}").write_bytes(covers[item])
        if number == 0 and twice:
            (place / f"{item}.gif").write_bytes(covers[item])
    (place / "no item at all.png").write_bytes(b"logo")
    return covers


def write_others(rng: Random, folder: Path) -> None:
    """Files that are none of the dataset."""
    if rng.random() < 0.3:
        (folder / "README.txt").write_text("What this is.\n\nA shop, with items, and users.\n")
        (folder / ".hidden.csv").write_text("a,b,c\n1,2,3\n")
        (folder / "users.csv").write_text("user_id,age\nu1,20\n")


def pack(rng: Random, folder: Path) -> Path:
    """Leave the folder as it is, or make an archive of it. → the source."""
    kind = rng.choice(("", "", "zip", "tar.gz", "tar"))
    if not kind:
        return folder
    target = folder.with_name(f"packed.{kind}")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(folder.parent))
    else:
        with tarfile.open(target, "w:gz" if kind == "tar.gz" else "w") as tar:
            for path in files:
                tar.add(path, path.relative_to(folder.parent))
    return target
