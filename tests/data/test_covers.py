import zipfile
from pathlib import Path, PurePosixPath

import pytest

from stages.data.covers import cover_names, match_covers, pack_covers, write_covers
from stages.errors import InputError


def test_covers_are_written_with_a_fixed_date_and_found_by_item_id(tmp_path: Path) -> None:
    path = tmp_path / "x_cover.zip"
    write_covers(path, [("v1.jpg", b"one"), ("v2.5.png", b"two")])
    assert cover_names(path) == {"v1": "v1.jpg", "v2.5": "v2.5.png"}
    with zipfile.ZipFile(path) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
    assert cover_names(tmp_path / "none.zip") == {}
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="x_cover.zip is damaged"):
        cover_names(path)


def test_images_are_matched_by_name_without_suffix_and_packed_by_item_id(tmp_path: Path) -> None:
    images = []
    for name in ("b/007.JPG", "7.png", "a/other.png", "v2.5.webp"):
        file = tmp_path / str(len(images))
        file.write_bytes(name.encode())
        images.append((PurePosixPath(name), file))
    covers = match_covers(images, {"007", "7", "v2.5", "none"})
    pack_covers(tmp_path / "x_cover.zip", covers)
    with zipfile.ZipFile(tmp_path / "x_cover.zip") as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == {"007.jpg": b"b/007.JPG", "7.png": b"7.png", "v2.5.webp": b"v2.5.webp"}
    assert list(found) == ["007.jpg", "7.png", "v2.5.webp"]
