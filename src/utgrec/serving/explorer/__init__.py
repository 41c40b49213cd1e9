"""What the explorer page asks of the server, and the page itself. See docs/explorer.md."""

__all__: list[str] = []
