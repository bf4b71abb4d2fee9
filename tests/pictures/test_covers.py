import struct
import subprocess
import sys
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.pictures.covers import LARGEST, MOST_PIXELS, CoverArchive

RED = Image.new("RGB", (20, 10), (255, 0, 0))
SIXTEEN_BITS = Image.fromarray(np.full((10, 20), 40_000, np.uint16))
GARBLED_PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + bytes(40)


def encoded(image: Image.Image, kind: str) -> bytes:
    content = BytesIO()
    image.save(content, kind)
    return content.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A valid header of a PNG of that size, with no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def archive(tmp_path: Path, **members: bytes) -> CoverArchive:
    """members: `v1__png=…` is the member v1.png."""
    with zipfile.ZipFile(tmp_path / "cover.zip", "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "."), content)
    return CoverArchive(tmp_path / "cover.zip")


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("RGB", "WEBP"), ("L", "TIFF")],
)
def test_a_cover_of_any_format_and_mode_is_rgb(tmp_path, mode, kind):
    suffix = kind.lower()
    cover = archive(tmp_path, **{f"v1__{suffix}": encoded(RED.convert(mode), kind)}).get("v1")
    assert (cover.mode, cover.size) == ("RGB", (20, 10))


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    assert archive(tmp_path, v1__png=encoded(SIXTEEN_BITS, "PNG")).get("v1").getpixel((0, 0)) == (156, 156, 156)


def test_an_animated_cover_is_its_first_frame(tmp_path):
    content = BytesIO()
    RED.save(content, "GIF", save_all=True, append_images=[Image.new("RGB", (20, 10), "blue")])
    assert archive(tmp_path, v1__gif=content.getvalue()).get("v1").getpixel((0, 0))[0] > 240


def test_an_item_without_a_cover_has_none(tmp_path):
    assert archive(tmp_path, v1__jpg=encoded(RED, "JPEG")).get("v2") is None
    assert CoverArchive(tmp_path / "none.zip").get("v1") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an image",
        encoded(RED, "PNG")[:50],
        encoded(RED.resize((400, 400)), "JPEG")[:800],
        GARBLED_PNG,
        png_of_size(MOST_PIXELS // 1000 + 1, 1000),
        png_of_size(MOST_PIXELS // 1000 * 3, 1000),
    ],
)
def test_a_cover_that_cannot_be_decoded_is_none(tmp_path, content):
    assert archive(tmp_path, v1__png=content).get("v1") is None


def test_a_member_whose_checksum_is_wrong_is_none(tmp_path):
    covers = archive(tmp_path, v1__jpg=encoded(RED, "JPEG"))
    content = bytearray(covers.archive.read_bytes())
    content[100:120] = bytes(20)
    covers.archive.write_bytes(content)
    assert covers.get("v1") is None


@pytest.mark.parametrize(("kind", "limit_mb"), [("JPEG", 150), ("PNG", 750)])
def test_a_cover_of_14000_by_14000_pixels_is_decoded_small_in_bounded_memory(tmp_path, kind, limit_mb):
    covers = archive(
        tmp_path, v1__img=encoded(Image.new("L" if kind == "JPEG" else "RGB", (14_000, 14_000), 200), kind)
    )
    script = (
        "import resource, sys; from pathlib import Path; from stages.pictures.covers import CoverArchive\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "cover = CoverArchive(Path(sys.argv[1])).get('v1')\n"
        "print(*cover.size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, covers.archive], capture_output=True, text=True, check=True)
    width, height, megabytes = map(int, done.stdout.split())
    assert (width, height) == LARGEST
    assert megabytes < limit_mb
