"""Covers of a dataset as small images, by raw item id."""

import zipfile
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image

LARGEST = (512, 512)  # of the images returned
MOST_PIXELS = 200_000_000  # of an image in memory: 600 MB in RGB
Image.MAX_IMAGE_PIXELS = (
    MOST_PIXELS  # a JPEG of more is decoded at a fraction of its size; Pillow refuses twice as many
)


class CoverArchive:
    """Covers in a zip whose members are named by raw id, in any format that Pillow reads."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        names = zipfile.ZipFile(archive).namelist() if archive.is_file() else []
        self.names = {PurePosixPath(name).stem: name for name in names}

    def get(self, raw_id: str) -> Image.Image | None:
        """The cover in RGB, or None for an item without one that can be decoded."""
        if raw_id not in self.names:
            return None
        with zipfile.ZipFile(self.archive) as file:
            try:
                return decode(file.read(self.names[raw_id]))
            except Exception:  # on damaged images decoders raise errors of any kind; `embed` counts these covers
                return None


def decode(content: bytes) -> Image.Image:
    """The first frame in RGB, reduced to fit in LARGEST. Raises what the decoder of its format raises."""
    with Image.open(BytesIO(content)) as image:
        image.draft(None, LARGEST)  # a large JPEG is decoded at a half, a quarter or an eighth of its size
        if image.width * image.height > MOST_PIXELS:
            raise Image.DecompressionBombError(f"{image.width} × {image.height} pixels")
        frame: Image.Image = image
        if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling
            frame = image.point(lambda value: value * (1 / 256)).convert("L")
        frame.thumbnail(LARGEST)
        return frame.convert("RGB")
