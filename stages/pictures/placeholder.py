"""Drawing that may fail: a placeholder instead of the picture, and one line that says why."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from stages.files import atomic

SIZE = (900, 60)
LONGEST_REASON = 200  # characters


def draw_or_placeholder(path: Path, draw: Callable[[Path], None]) -> None:
    """Call `draw(path)`. If it fails, print one line and write a placeholder, so that the stage ends well without it.

    Of the warnings that drawing raises only the first is printed, with their number.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            draw(path)
        except Exception as error:  # whatever a font, a decoder or matplotlib raises: the tables do not depend on it
            reason = f"{type(error).__name__}: {_one_line(str(error))}"
            print(f"warning: {path} could not be drawn ({reason}); the tables are not affected", file=sys.stderr)
            _write_placeholder(path, f"{path.name} could not be drawn: {reason}")
    relevant = [warning for warning in caught if not issubclass(warning.category, DeprecationWarning)]
    if relevant:
        print(f"warning: {path}: {_one_line(str(relevant[0].message))} ({len(relevant)} warnings)", file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_REASON]


def _write_placeholder(path: Path, text: str) -> None:
    image = Image.new("RGB", SIZE, "white")
    ImageDraw.Draw(image).text((10, 20), text.encode("ascii", "replace").decode(), fill="black")
    with atomic(path) as temporary:
        image.save(temporary, format={".jpg": "JPEG", ".png": "PNG"}[path.suffix])
