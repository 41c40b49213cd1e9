"""What became of a picture's address: one name per reason, temporary or final."""

from typing import Any, NamedTuple

STORED = "stored"
LOCAL = "has a picture"
NO_ADDRESS = "no address"

# Name → what it means. A later run tries these again on its own …
TEMPORARY = {
    "timeout": "no answer, or not all of it, within the time limit",
    "connection failed": "the host could not be reached, or refused the connection",
    "connection lost": "the host closed the connection before the end",
    "bad response": "what the host sent is not HTTP",
    "server error": "the host answered 5xx",
    "busy": "the host asked to come back later (429, 503, or a long Retry-After)",
    "host given up": "so many requests to this host failed in a row that the rest was not tried",
}
# … and these only with --retry all or --retry REASON.
FINAL = {
    "bad address": "not an address at all",
    "scheme not allowed": "neither http nor https",
    "credentials in address": "the address holds a user name or a password",
    "private address": "the host, or one it redirects to, has no public address",
    "unknown host": "the name does not exist",
    "bad certificate": "the host cannot prove that it is the one named",
    "too many redirects": "more redirects than allowed, or a circle of them",
    "bad redirect": "a redirect that does not say where to, or not to a web address",
    "not found": "the host answered 404 or 410",
    "not allowed": "the host answered 401, 402, 403, 407 or 451",
    "refused": "the host gave another answer than a picture (other 4xx, 204 …)",
    "too many bytes": "more bytes than --max-bytes",
    "too many pixels": "more pixels than --max-pixels",
    "empty": "the answer holds no byte",
    "not a picture": "the bytes are no picture, whatever the name says: a web page, a text",
    "unsupported format": "a kind of file that is not read (SVG, TIFF, AVIF, PDF …)",
    "broken picture": "the decoder found an error: cut off, damaged",
    "crashes the decoder": "the decoding process died on it",
}
NOTHING_TO_DO = {
    STORED: "fetched and stored",
    LOCAL: "it came with a local picture, which stays",
    NO_ADDRESS: "the item names no picture",
}
MEANINGS = {**NOTHING_TO_DO, **TEMPORARY, **FINAL}


class Result(NamedTuple):
    """What became of one address."""

    outcome: str  # a key of MEANINGS
    detail: str = ""  # what exactly, for a person
    final_url: str = ""  # after redirects, where that differs
    digest: str = ""  # SHA-256 of the stored file
    size: int = 0  # bytes of the stored file
    width: int = 0  # of the stored picture, pixels
    height: int = 0
    source_format: str = ""  # of what was fetched
    source_width: int = 0
    source_height: int = 0
    source_size: int = 0  # bytes fetched

    @property
    def path(self) -> str | None:
        """Where the picture is stored, relative to the domain folder."""
        return stored_path(self.digest) if self.digest else None


def stored_path(digest: str) -> str:
    """The place of a fetched picture in a domain: named by its content."""
    return f"images/{digest[:2]}/{digest}.jpg"


def failed(outcome: str, detail: str = "", **more: Any) -> Result:
    """A result without a picture; `outcome` must be a known name."""
    assert outcome in MEANINGS, outcome
    return Result(outcome, detail[:300], **more)
