"""What people write about a GPT: made harmless to show beside what others wrote, and comparable with it."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from django.utils.translation import gettext_lazy as _

from store.ratings.errors import InvalidRating

COMPARED_BYTES = 36  # of UTF-8, about seven English words or twelve Chinese characters; who writes less may well write the same

# Characters that show nothing, or turn the direction of what follows: soft hyphen, Arabic letter mark, fillers of Hangul, zero-width
# space, marks, embeddings, overrides and isolates of direction, word joiners, byte order mark, annotation marks, tags.
_UNSEEN = re.compile(
    "[\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_BREAKS = re.compile("\r\n|[\r\u0085\u2028\u2029]")
_MARKS = re.compile("(\\w?)([\u0300-\u036f]{3})[\u0300-\u036f]+")  # more than three on one letter run over the lines beside it


def cleaned(text: str, *, most: int) -> str:
    """`text` in NFC with `\\n` line ends, without what nobody sees; "" where nothing is left to read.

    The joiners of emoji and of Persian and Indic words stay. Raises InvalidRating for control characters and too much text.
    """
    text = _MARKS.sub(r"\1\2", unicodedata.normalize("NFC", _UNSEEN.sub("", _BREAKS.sub("\n", text)))).strip()
    if len(text) > most:
        raise InvalidRating(_("Write at most %(most)s characters.") % {"most": most}, param="text")
    if any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t" for character in text):
        raise InvalidRating(_("The text contains control characters. Remove them."), param="text")
    return text if any(unicodedata.category(character)[0] in "LNPS" for character in text) else ""


def fingerprint(text: str) -> str:
    """The same for texts that differ only in case, width, spaces, punctuation or what is unseen; "" for a text too short to compare."""
    read = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold())).encode()
    return hashlib.sha256(read).hexdigest()[:32] if len(read) >= COMPARED_BYTES else ""
