"""Read a report the way a browser does: tags, attributes and texts."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "line", "circle", "rect", "polyline"}


class Page(HTMLParser):
    """Every element with its attributes and all the text inside it; wrong nesting is an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {[tag for tag, _ in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        texts: list[str] = []
        self.elements.append((tag, {name: value or "" for name, value in attrs}, texts))
        if tag not in VOID:
            self._open.append((tag, texts))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"<{opened}> is closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        for _, texts in self._open:
            texts.append(data)

    def texts(self, tag: str, **wanted: str) -> list[str]:
        """The text of every element of a tag that has the wanted attribute values (`class_`)."""
        return [
            " ".join("".join(texts).split())
            for found, attributes, texts in self.elements
            if found == tag
            and all(attributes.get(name.rstrip("_")) == value for name, value in wanted.items())
        ]

    def attributes(self, tag: str, name: str) -> list[str]:
        """The values of one attribute of every element of a tag that has it."""
        return [attrs[name] for found, attrs, _ in self.elements if found == tag and name in attrs]


def part(html: str, start: str, end: str) -> str:
    """The piece of a page from one text to the next place of another."""
    begin = html.index(start)
    return html[begin : html.index(end, begin) + len(end)]
