"""Clean an item's texts and render them as the one sentence that the models read.

Rule (the paper's, with the brand added): title, brand, features, categories, description, then
further texts; each cleaned of HTML and control characters, lists joined by ", ", each part ended
by ". ". The space after the last part is left out.
"""

import html
import re
from collections.abc import Iterable, Sequence

# Tags inside a word; all others stand between words.
INLINE_TAGS = "a|abbr|b|big|em|font|i|mark|s|small|span|strong|sub|sup|tt|u"

_HIDDEN = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_INLINE = re.compile(rf"</?(?:{INLINE_TAGS})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][^<>]*>|<![a-z][^<>]*>", re.IGNORECASE)
# Invisible characters: zero-width space, soft hyphen, text direction marks, byte order mark,
# noncharacters. The joiners U+200C and U+200D stay: Persian, Indic scripts and emoji need them. So
# does U+FFFD, which says that a character was lost: `inspect` counts it.
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc\ufffe\uffff\ud800-\udfff\ufdd0-\ufdef]"
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_MARKUP = re.compile("[<&]")
# Printable ASCII between single spaces, without < and &: clean as it is, as most texts are.
_CLEAN = re.compile("[!-%'-;=-~]+(?: [!-%'-;=-~]+)*")

# Text escaped more than once (&amp;amp;) is common in shop exports; deeper nesting is not.
MAX_PASSES = 6


def clean_text(text: str) -> str:
    """Text without HTML tags, entities, control characters and repeated white space.

    Cleaning twice gives the same as cleaning once (up to six levels of escaping).
    """
    if _CLEAN.fullmatch(text):
        return text
    for _ in range(MAX_PASSES):
        if not _MARKUP.search(text):
            break
        before = text
        text = _HIDDEN.sub(" ", text)
        text = _INLINE.sub("", text)
        text = _TAG.sub(" ", text)
        text = html.unescape(text)
        if text == before:
            break
    text = _CONTROL.sub(" ", _INVISIBLE.sub("", text))
    return " ".join(text.split())


def clean_list(values: Iterable[str]) -> list[str]:
    """Cleaned texts in their order, without empty ones and repetitions."""
    return list(dict.fromkeys(cleaned for value in values if (cleaned := clean_text(value))))


def render_sentence(parts: Sequence[str | Sequence[str] | None]) -> str:
    """One sentence from cleaned parts; lists are joined by ", ", empty parts are left out."""
    texts = (part if isinstance(part, str) else ", ".join(part or ()) for part in parts)
    stripped = (text.strip().rstrip(" .") for text in texts)
    return " ".join(f"{text}." for text in stripped if text)
