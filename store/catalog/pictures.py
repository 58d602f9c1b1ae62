"""Pictures that strangers send, made into icons: read as what they are, bounded before they are decoded, and drawn anew.

Nothing of the file that came is kept but its colours: no metadata, no other format's data behind the picture, no name.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import IO

from django.utils.translation import gettext as _
from PIL import Image, ImageOps, UnidentifiedImageError

from store.catalog.errors import PictureRejected

FORMATS = ("PNG", "JPEG", "WEBP")  # by content; SVG is a document, not a picture
MAX_BYTES = 4 * 1024 * 1024
MAX_PIXELS = 24_000_000
LEAST_SIDE = 64
SIDE, SMALL_SIDE = 256, 96  # of what is kept: for the page of a GPT, and for lists
BROKEN = (OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, struct.error)


def icons_of(file: IO[bytes]) -> tuple[bytes, bytes]:
    """The picture as WebP, SIDE and SMALL_SIDE pixels wide and high, cut to its middle square. Raises PictureRejected."""
    raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise PictureRejected(_("The picture is larger than %(limit)s MB.") % {"limit": MAX_BYTES // 1024**2}, param="icon")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, about which is decided here
            with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
                _require_bounded(opened)
                upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except UnidentifiedImageError as error:
        raise PictureRejected(_("This is no PNG, JPEG or WebP picture, whatever its name says."), param="icon") from error
    except Image.DecompressionBombError as error:  # Pillow's own bound, above the one here
        raise _too_many_pixels() from error
    except BROKEN as error:
        raise PictureRejected(_("The picture can't be read: it is damaged."), param="icon") from error
    return _drawn(upright, SIDE), _drawn(upright, SMALL_SIDE)


def _require_bounded(picture: Image.Image) -> None:
    """From its header, before anything is decoded."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels()
    if min(width, height) < LEAST_SIDE:
        raise PictureRejected(_("The picture is smaller than %(side)s pixels.") % {"side": LEAST_SIDE}, param="icon")
    if getattr(picture, "n_frames", 1) > 1:
        raise PictureRejected(_("The picture moves. Send one that stands still."), param="icon")


def _too_many_pixels() -> PictureRejected:
    return PictureRejected(_("The picture has more than %(limit)s million pixels.") % {"limit": MAX_PIXELS // 1_000_000}, param="icon")


def _drawn(picture: Image.Image, side: int) -> bytes:
    square = ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)
    bare = Image.new("RGBA", square.size)  # without what the file said of itself
    bare.paste(square)
    out = io.BytesIO()
    bare.save(out, "WEBP", quality=86, method=4)
    return out.getvalue()
