"""Draws a card with Pillow. Knows nothing of listings; the same card gives the same bytes.

The one font is part of this package (OFL.txt beside it), since a server has none that can be relied on. It has Latin, Greek, Cyrillic,
kana and the characters of GB 2312. A name with any other character is not drawn with holes: the name in the address stands for it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont

DRAWING = 2  # goes up with what this module draws, so that nobody is shown an older one
SIZE = (1200, 630)
MARGIN = 72
COLOURS = 96  # of the palette: a card has few, and a fourth of the bytes
PAPER, INK, SECOND, THIRD, LINE, ACCENT = "#fbfbfa", "#15171a", "#474b51", "#64686e", "#cfcfca", "#0a6176"  # of tokens.css
HUES = (25, 62, 105, 150, 195, 235, 275, 345)
OPACITIES = (0.16, 0.36, 0.64, 1.0)
ICON_PX, FINER = 168, 4
_FONT = Path(__file__).with_name("NotoSansCJKsc-subset.otf")
_RANGES = (  # of its characters but those of Chinese
    *((0x20, 0x7E), (0xA0, 0x103), (0x110, 0x113), (0x11A, 0x11B), (0x128, 0x12B), (0x143, 0x144), (0x147, 0x148), (0x14C, 0x14F)),
    *((0x152, 0x153), (0x168, 0x16D), (0x391, 0x3A1), (0x3A3, 0x3A9), (0x3B1, 0x3C9), (0x401, 0x401), (0x410, 0x44F), (0x451, 0x451)),
    *((0x2010, 0x2016), (0x2018, 0x201A), (0x201C, 0x201E), (0x2020, 0x2022), (0x2025, 0x2027), (0x2030, 0x2030), (0x2039, 0x203C)),
    *((0x20AB, 0x20AC), (0x2190, 0x2193), (0x2605, 0x2606), (0x3000, 0x303F), (0x3041, 0x3096), (0x3099, 0x30FF), (0xFF01, 0xFF60)),
)
_WITHOUT_SPACES = 0x2E80  # from here on
_BEGIN_NO_LINE = frozenset("，。、；：！？）》”’")
_SINGLE = frozenset("−≈≠≤≥∞✓")


@dataclass(frozen=True)
class Card:
    name: str
    instead: str  # plain ASCII, drawn where the name can't be
    publisher: str
    summary: str
    kind: str = ""  # weights, adapter or prompt: the shape in its icon; "" for the store itself
    facts: tuple[str, ...] = ()
    icon: str = ""  # the digest of the picture that its publisher gave

    @property
    def key(self) -> str:
        """Changes with anything that is drawn."""
        drawn = json.dumps([DRAWING, asdict(self)], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(drawn.encode()).hexdigest()[:24]


def png(card: Card, picture: bytes = b"") -> bytes:
    """`picture`: that of `card.icon`; without it one is drawn from the name."""
    image = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(image)
    width = SIZE[0] - 2 * MARGIN
    top: float = MARGIN
    if card.kind:
        if picture:
            image.paste(*_given(picture))
        else:
            image.paste(_icon(card.instead, card.kind), (MARGIN, MARGIN))
        left = MARGIN + ICON_PX + 40
        name = card.name if is_drawable(card.name) else card.instead
        size = 60 if _font(60).getlength(name) <= 2 * (SIZE[0] - MARGIN - left) else 46
        bottom = _lines(draw, (left, top - 10), name, size, INK, width=SIZE[0] - MARGIN - left, most=2, bold=1)
        _lines(draw, (left, bottom + 8), _drawable(card.publisher) or card.instead, 34, THIRD, width=SIZE[0] - MARGIN - left, most=1)
        top = max(bottom + 64, top + ICON_PX) + 32
    else:
        top = _lines(draw, (MARGIN, top + 40), card.name, 68, INK, width=width, most=3, bold=1) + 24
    _lines(draw, (MARGIN, top), _drawable(card.summary), 36, SECOND, width=width, most=3)
    _foot(draw, card)
    buffer = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def is_drawable(text: str) -> bool:
    return bool(text.strip()) and all(map(_has_glyph, text))


def _drawable(text: str) -> str:
    """Without what the font lacks; nothing where that is more than a tenth of it."""
    kept = "".join(filter(_has_glyph, " ".join(text.split())))
    return kept if len(kept) >= 0.9 * len(text) else ""


def _has_glyph(character: str) -> bool:
    """As the font was cut. Marks that turn the direction of reading are no glyphs."""
    code = ord(character)
    if any(first <= code <= last for first, last in _RANGES):
        return character.isprintable() or character == "\u3000"
    if character in _SINGLE:
        return True
    try:
        return len(character.encode("gb2312")) == 2 and code >= 0x4E00
    except UnicodeEncodeError:
        return False


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_FONT, size, layout_engine=ImageFont.Layout.BASIC)


def _lines(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, colour: str, *, width: float, most: int, bold: int = 0
) -> float:
    """Writes at most `most` lines; where they end, in pixels from the top."""
    left, top = at
    for line in wrapped(text, size, width=width, most=most):
        draw.text((left, top), line, fill=colour, font=_font(size), stroke_width=bold, stroke_fill=colour)
        top += round(size * 1.32)
    return top


def wrapped(text: str, size: int, *, width: float, most: int) -> list[str]:
    """Broken at spaces, and between any two characters of a script without them; what does not fit ends in an ellipsis."""
    font = _font(size)
    lines, line = [], ""
    for piece in _pieces(text):
        if line and font.getlength((line + piece).rstrip()) > width:
            lines.append(line.rstrip())
            line = piece.lstrip()
        else:
            line += piece
    lines.append(line.rstrip())
    if len(lines) > most or any(font.getlength(line) > width for line in lines):
        lines = lines[:most]
        lines[-1] += "…"
        lines = [_cut(line, font, width) for line in lines]
    return [line for line in lines if line]


def _pieces(text: str) -> list[str]:
    """What is not broken: a word with the space behind it; a character of a script without spaces with what may begin no line."""
    pieces: list[str] = []
    for character in text:
        last = pieces[-1] if pieces else ""
        goes_on = last and ord(last[-1]) < _WITHOUT_SPACES and ord(character) < _WITHOUT_SPACES and not last.endswith(" ")
        if goes_on or (last and character in _BEGIN_NO_LINE):
            pieces[-1] += character
        else:
            pieces.append(character)
    return pieces


def _cut(line: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    while len(line) > 1 and font.getlength(line) > width:
        line = line.removesuffix("…")[:-1].rstrip() + "…"
    return line


def _foot(draw: ImageDraw.ImageDraw, card: Card) -> None:
    """The facts on the left, whose store it is on the right."""
    top = SIZE[1] - MARGIN - 40
    draw.line([(MARGIN, top - 24), (SIZE[0] - MARGIN, top - 24)], fill=LINE, width=2)
    brand = "GPT Store"
    brand_left = SIZE[0] - MARGIN - _font(32).getlength(brand)
    draw.text((brand_left, top), brand, fill=INK, font=_font(32), stroke_width=1, stroke_fill=INK)
    left = float(MARGIN)
    for at, fact in enumerate(card.facts):
        room = brand_left - 40 - left
        if _font(32).getlength(fact) > room:
            break
        draw.text((left, top), fact, fill=ACCENT if at == len(card.facts) - 1 else SECOND, font=_font(32))
        left += _font(32).getlength(fact) + 44


# ---------------------------------------------------------------- the icon, as store.pages.templatetags.ui.glyph draws it


def _icon(full_name: str, kind: str) -> Image.Image:
    """The lower triangle of an attention map, drawn finer and brought down: Pillow has no smooth edges."""
    digest = hashlib.sha256(full_name.encode()).digest()
    hue = HUES[digest[0] % 8]
    cell = _oklch(0.97, 0.02, hue) if kind == "weights" else _oklch(0.45, 0.1, hue)
    tile = {"weights": _oklch(0.42, 0.075, hue), "adapter": _oklch(0.945, 0.03, hue)}.get(kind, (255, 255, 255))
    px = ICON_PX * FINER
    unit = px / 41
    image = Image.new("RGB", (px, px), PAPER)
    draw = ImageDraw.Draw(image)
    edge = _oklch(0.72, 0.06, hue) if kind == "prompt" else tile
    draw.rounded_rectangle((0, 0, px - 1, px - 1), radius=8.5 * unit, fill=tile, outline=edge, width=round(unit))
    cells = [(row, column) for row in range(5) for column in range(row + 1)]
    for byte, (row, column) in zip(digest[1:16], cells, strict=True):
        opacity = max(OPACITIES[byte % 4], OPACITIES[2] if row == column else 0.0)
        blended = tuple(round(opacity * own + (1 - opacity) * under) for own, under in zip(cell, tile, strict=True))
        _mark(draw, kind, (11.2 + 5 * column) * unit, (11 + 5 * row) * unit, unit, blended)
    return image.resize((ICON_PX, ICON_PX), Image.Resampling.LANCZOS)


def _given(picture: bytes) -> tuple[Image.Image, tuple[int, int], Image.Image]:
    """The picture, where it is pasted, and what of it: corners as round as those of icons that are drawn."""
    with Image.open(io.BytesIO(picture)) as opened:
        icon = opened.convert("RGBA").resize((ICON_PX, ICON_PX), Image.Resampling.LANCZOS)
    corners = Image.new("L", (ICON_PX * FINER, ICON_PX * FINER))
    radius = 8.5 / 41 * ICON_PX * FINER
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, ICON_PX * FINER - 1, ICON_PX * FINER - 1), radius=radius, fill=255)
    mask = ImageChops.multiply(icon.getchannel("A"), corners.resize(icon.size, Image.Resampling.LANCZOS))
    return icon.convert("RGB"), (MARGIN, MARGIN), mask


def _mark(draw: ImageDraw.ImageDraw, kind: str, x: float, y: float, unit: float, colour: tuple[int, ...]) -> None:
    if kind == "weights":
        draw.rounded_rectangle((x - 2 * unit, y - 2 * unit, x + 2 * unit, y + 2 * unit), radius=0.8 * unit, fill=colour)
    elif kind == "adapter":
        draw.ellipse((x - 2.15 * unit, y - 2.15 * unit, x + 2.15 * unit, y + 2.15 * unit), fill=colour)
    else:
        reach = 2.5 * unit
        draw.polygon([(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y)], fill=colour)


def _oklch(lightness: float, chroma: float, hue: float) -> tuple[int, int, int]:
    """CSS's oklch() in sRGB; the matrices are those of Björn Ottosson's Oklab."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    return _srgb(red), _srgb(green), _srgb(blue)


def _srgb(linear: float) -> int:
    linear = min(max(linear, 0.0), 1.0)
    curved = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(255 * curved)
