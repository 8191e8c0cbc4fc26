"""A contact sheet: a grid of small pictures with words below them, drawn by Pillow alone."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps, ImageText

BOX: Final = (240, 320)
"""Pixels, width and height, of the place for a picture; those of catalogues mostly have this shape."""
GAP: Final = 16
"""Pixels between cells, and around them all."""
HEAD_SIZE, TEXT_SIZE = 18, 13
"""Pixels, of the letters."""
LINE: Final = 4
"""Pixels between what stands in a cell, and as wide as a frame."""
BAR: Final = 8
"""Pixels, the height of the bar that shows a confidence."""
LONG: Final = 16
"""Letters of a word that is cut: so many of the widest fit in a line."""

PAPER, INK, PALE = "white", "#222", "#ddd"


@dataclass(frozen=True, slots=True)
class Cell:
    """A place in the grid. What is empty takes no room, but for the picture of a cell that has a ``frame``."""

    picture: Image.Image | None = None
    """At most as large as BOX."""
    head: str = ""
    """A few words in large letters."""
    confidence: float | None = None
    """0 to 1, drawn as a bar."""
    text: str = ""
    """Paragraphs in small letters."""
    frame: str = ""
    """Colour of a frame around the picture, and of the head. Without a picture the place is crossed out with it."""


def small(picture: Image.Image) -> Image.Image:
    """A picture as it fits in a cell."""
    return ImageOps.contain(picture, BOX, Image.Resampling.LANCZOS)


def draw(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """The sheet; every row is as high as its highest cell."""
    tiles = [[_tile(cell) for cell in row] for row in rows]
    heights = [max(tile.height for tile in row) for row in tiles]
    columns = max(map(len, tiles))
    sheet = Image.new("RGB", (GAP + columns * (BOX[0] + GAP), GAP + sum(heights) + len(rows) * GAP), PAPER)
    y = GAP
    for row, height in zip(tiles, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (GAP + column * (BOX[0] + GAP), y))
        y += height + GAP
    return sheet


def _tile(cell: Cell) -> Image.Image:
    """A cell on a piece of paper of its own, so that nothing reaches into the next."""
    head, text = _wrapped(cell.head, HEAD_SIZE), _wrapped(cell.text, TEXT_SIZE)
    parts = [
        BOX[1] if cell.picture or cell.frame else 0,
        BAR if cell.confidence is not None else 0,
        *(int(part.get_bbox()[3]) if part.text else 0 for part in (head, text)),
    ]
    tops = [sum(parts[:index]) + LINE * index for index in range(len(parts) + 1)]
    tile = Image.new("RGB", (BOX[0], tops[-1]), PAPER)
    pen = ImageDraw.Draw(tile)
    if parts[0]:
        _draw_picture(tile, pen, cell)
    if cell.confidence is not None:
        _draw_bar(pen, tops[1], cell.confidence)
    pen.text((0, tops[2]), head, fill=cell.frame or INK)
    pen.text((0, tops[3]), text, fill=INK)
    return tile


def _draw_picture(tile: Image.Image, pen: ImageDraw.ImageDraw, cell: Cell) -> None:
    width, height = BOX
    if cell.picture:
        tile.paste(cell.picture, ((width - cell.picture.width) // 2, (height - cell.picture.height) // 2))
    else:
        for start, end in (((0, 0), BOX), ((0, height), (width, 0))):
            pen.line((start, end), fill=PALE, width=LINE)
    if cell.frame:
        pen.rectangle((0, 0, width - 1, height - 1), outline=cell.frame, width=LINE)


def _draw_bar(pen: ImageDraw.ImageDraw, top: int, confidence: float) -> None:
    """As long as the confidence is high, from red over yellow to green."""
    pen.rectangle((0, top, BOX[0] - 1, top + BAR - 1), fill=PALE)
    if length := round(confidence * BOX[0]):
        colour = f"hsl({round(120 * confidence)}, 80%, 42%)"
        pen.rectangle((0, top, length - 1, top + BAR - 1), fill=colour)


def _wrapped(text: str, size: int) -> ImageText.Text[str]:
    """In lines that fit in a cell. Pillow refuses a word that is longer than a line, so these are cut."""
    font = ImageFont.load_default(size)

    def cut(word: re.Match[str]) -> str:
        return word[0] if font.getlength(word[0]) <= BOX[0] else " ".join(textwrap.wrap(word[0], LONG))

    wrapped = ImageText.Text(re.sub(r"\S+", cut, text), font)
    wrapped.wrap(BOX[0])
    return wrapped
