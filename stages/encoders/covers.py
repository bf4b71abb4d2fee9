"""A dataset's covers by item id, as small RGB images; None for what Pillow cannot read."""

import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

LARGE = 4096 * 4096  # pixels above which an image is scaled down while it is decoded
SIDE = 2048  # its longer side then; encoders read 224 to 512 pixels
MOST_PIXELS = 16_384 * 16_384  # images above this are refused: 0.8 GB as RGB; a JPEG is never decoded in full size
LONGEST = 16  # an image longer than this many times its width is cut to its middle
WHITE = (255, 255, 255, 255)
# what Pillow's decoders raise on damaged files, by fuzzing and in its issues
DECODER_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, struct.error, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError,
)  # fmt: skip


class CoverArchive:
    """The covers of a zip archive. An entry belongs to the item whose id is its name without folder and extension."""

    def __init__(self, path: Path) -> None:
        """A missing archive is one without covers."""
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self.names: dict[str, str] = {}
        if path.is_file():
            with zipfile.ZipFile(path) as file:
                names = sorted(file.namelist(), key=lambda name: (name.count("/"), name), reverse=True)
            extensions = Image.registered_extensions()
            for name in names:  # of several files of one item the one in the outermost folder, then the first
                entry = PurePosixPath(name)
                if entry.suffix.lower() in extensions:
                    self.names[entry.stem] = name

    def __contains__(self, raw_id: str) -> bool:
        return raw_id in self.names

    def get(self, raw_id: str) -> Image.Image | None:
        """An item's cover as RGB, at most about SIDE pixels long; None if it is missing or cannot be read."""
        if raw_id not in self.names:
            return None
        try:
            with warnings.catch_warnings():  # of damaged metadata, which does not matter if the pixels can be read
                warnings.simplefilter("ignore")
                return small_rgb(self._file().read(self.names[raw_id]))
        except DECODER_ERRORS:
            return None  # counted by the caller

    def _file(self) -> zipfile.ZipFile:
        """The archive, opened once per process: its directory is as long as the list of items."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), zipfile.ZipFile(self.path))
        return self._opened[1]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_opened": None}  # each process opens its own


def small_rgb(content: bytes) -> Image.Image:
    """Decode an image: its first frame, upright, transparent parts on white, deep colours in 8 bits, huge ones smaller.

    Raises one of DECODER_ERRORS for what is no image, is damaged, or has more than MOST_PIXELS.
    """
    with _own_pixel_limit():
        image: Image.Image = Image.open(BytesIO(content))
    if image.width * image.height > LARGE:
        image.draft(None, (SIDE, SIDE))  # lets libjpeg decode at a fraction of the size; other formats ignore it
        if image.width * image.height > MOST_PIXELS:
            raise Image.DecompressionBombError(f"{image.width} × {image.height} pixels")
        image.thumbnail((SIDE, SIDE))
    return _cut(_as_rgb(_upright(image)))


@contextmanager
def _own_pixel_limit() -> Iterator[None]:
    """Pillow's limit off while `open` reads the header: `small_rgb` has its own, which depends on the format."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; unchanged without one, or with metadata that cannot be read."""
    with suppress(*DECODER_ERRORS):  # damaged pixels are found when they are converted
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    if image.mode.startswith(("I", "F")):  # 16-bit, 32-bit, float: `convert` would cut everything above 255
        sixteen_bits, image = image.mode.startswith("I;"), image.convert("F")
        brightest = float(np.asarray(image).max())
        ranges = [65_535] if sixteen_bits else [top for top in (1, 255, 65_535) if brightest <= top]
        scale = 255 / (ranges[0] if ranges else brightest)
        image = image.point(lambda value: value * scale + 0.0).convert("L")
    return image.convert("RGB")


def _cut(image: Image.Image) -> Image.Image:
    """The middle of an image that is very long or very wide, which a resize of its shorter side would blow up."""
    width, height = (min(side, LONGEST * min(image.size)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image if (width, height) == image.size else image.crop((left, top, left + width, top + height))
