"""Ids in URLs: any text at all, percent-encoded, also one with slashes or line breaks."""

from starlette.convertors import Convertor, register_url_convertor


class IdConvertor(Convertor[str]):
    """The rest of a URL as an id; starlette's own `path` ends at a line break."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """From a URL."""
        return value

    def to_string(self, value: str) -> str:
        """Into a URL."""
        return value


def register_ids() -> None:
    """Let routes say {name:id}."""
    register_url_convertor("id", IdConvertor())
