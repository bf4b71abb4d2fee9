import io
import random
import resource
import zipfile

import numpy as np
import pytest
from PIL import ExifTags, Image

from stages.encoders.covers import LONGEST, SIDE, CoverArchive, small_rgb

NOISE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "PCX", "QOI", "DDS"]


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def archive_of(folder, contents):
    with zipfile.ZipFile(folder / "covers.zip", "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return CoverArchive(folder / "covers.zip")


@pytest.mark.parametrize("kind", FORMATS)
def test_covers_of_every_format_are_read_at_any_depth(tmp_path, kind):
    content = encoded(Image.fromarray(NOISE), kind)
    archive = archive_of(tmp_path, {f"a/b/v1{'.' + kind.lower().replace('jpeg2000', 'jp2')}": content, "v1.txt": b"v1"})
    cover = archive.get("v1")
    assert cover.mode == "RGB"
    assert cover.width > cover.height / 2 > 8


def test_an_item_id_may_contain_dots_and_the_extension_may_be_in_capitals(tmp_path):
    archive = archive_of(tmp_path, {"B0.1.JPG": encoded(Image.fromarray(NOISE), "JPEG")})
    assert archive.get("B0.1") is not None
    assert "B0" not in archive


def test_of_two_covers_of_an_item_the_outer_one_is_read(tmp_path):
    black, white = (encoded(Image.new("RGB", (8, 8), colour), "PNG") for colour in ("black", "white"))
    archive = archive_of(tmp_path, {"small/v1.png": black, "v1.png": white})
    assert archive.get("v1").getpixel((0, 0)) == (255, 255, 255)


def test_a_missing_archive_has_no_covers(tmp_path):
    archive = CoverArchive(tmp_path / "none.zip")
    assert archive.get("v1") is None


def test_an_ordinary_jpeg_is_decoded_as_pillow_does():
    content = encoded(Image.fromarray(NOISE), "JPEG")
    assert np.array_equal(small_rgb(content), Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_cover_is_turned_as_its_exif_orientation_says(kind):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be shown turned by 90° clockwise
    picture = Image.new("RGB", (32, 16), "black")
    picture.paste("white", (0, 0, 16, 16))  # the left half, the upper one once turned
    cover = small_rgb(encoded(picture, kind, exif=exif))
    assert cover.size == (16, 32)
    assert cover.getpixel((8, 2))[0] > 250 and cover.getpixel((8, 29))[0] < 5


def test_a_cover_with_damaged_exif_is_read_as_it_is(tmp_path):
    content = encoded(Image.fromarray(NOISE), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 9)
    assert np.array_equal(archive_of(tmp_path, {"v1.png": content}).get("v1"), NOISE)


def test_transparent_parts_are_white():
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putpixel((0, 0), 1)
    colours = small_rgb(encoded(palette, "PNG", transparency=0))
    assert colours.getpixel((0, 0)) == (200, 100, 0)
    assert colours.getpixel((4, 4)) == (255, 255, 255)
    assert small_rgb(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    assert small_rgb(encoded(Image.new("LA", (8, 8), (0, 128)), "PNG")).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize(
    ("dtype", "value", "kind"),
    [(np.uint16, 32_896, "PNG"), (np.uint16, 32_896, "TIFF"), (np.int32, 128, "TIFF"), (np.float32, 0.5, "TIFF")],
)
def test_deep_colours_become_eight_bits(dtype, value, kind):
    depth = np.full((8, 8), value, dtype=dtype)
    assert small_rgb(encoded(Image.fromarray(depth), kind)).getpixel((0, 0))[0] in (127, 128)


def test_cmyk_becomes_rgb():
    assert small_rgb(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4))[0] > 200


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_read(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    red, _, blue = small_rgb(content).getpixel((4, 4))
    assert (red > 200, blue < 50) == (True, True)


@pytest.mark.parametrize(("kind", "side"), [("JPEG", 14_000), ("PNG", 5_000)])
def test_a_huge_cover_is_decoded_small_in_bounded_memory(kind, side):
    content = encoded(Image.new("RGB", (side, side), (200, 100, 0)), kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cover = small_rgb(content)
    assert max(cover.size) <= SIDE
    assert cover.getpixel((500, 500))[0] in range(195, 206)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    with pytest.raises(Image.DecompressionBombError):
        small_rgb(encoded(Image.new("1", (20_000, 20_000)), "PNG"))
    assert Image.MAX_IMAGE_PIXELS is not None


def test_a_very_long_cover_is_cut_to_its_middle():
    assert small_rgb(encoded(Image.new("RGB", (2, 3000)), "PNG")).size == (2, 2 * LONGEST)
    assert small_rgb(encoded(Image.new("RGB", (3000, 2)), "PNG")).size == (2 * LONGEST, 2)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_cover_gives_an_image_or_none_whatever_the_decoder_raises(tmp_path, kind):
    whole = encoded(Image.fromarray(NOISE), kind)
    draw = random.Random(kind)
    contents = {}
    for number in range(60):
        damaged = bytearray(whole[: draw.randrange(len(whole))] if number % 3 == 0 else whole)
        for _ in range(draw.randrange(1, 8)):
            if damaged:
                damaged[draw.randrange(len(damaged)) if number % 2 else draw.randrange(min(64, len(damaged)))] = (
                    draw.randrange(256)
                )
        contents[f"v{number}.png"] = bytes(damaged)
    archive = archive_of(tmp_path, contents)
    found = [archive.get(f"v{number}") for number in range(60)]
    assert None in found
    assert all(image is None or image.mode == "RGB" for image in found)


def test_an_entry_that_is_damaged_in_the_archive_is_unreadable(tmp_path):
    archive_of(tmp_path, {"v1.bmp": encoded(Image.fromarray(NOISE), "BMP")})
    path = tmp_path / "covers.zip"
    content = bytearray(path.read_bytes())
    content[500] ^= 255
    path.write_bytes(content)
    assert CoverArchive(path).get("v1") is None
