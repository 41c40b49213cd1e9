"""How pictures are fetched: limits, politeness, what is tried again."""

import dataclasses

from utgrec.config import require
from utgrec.data.images import PILLOW_LIMIT
from utgrec.data.pictures.outcomes import FINAL, TEMPORARY
from utgrec.data.web import Proxies


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How pictures are fetched by their addresses."""

    column: str = "image_url"
    """Item attribute that holds the addresses: a text, a list, or variants of a picture."""
    max_side: int = 512
    """A larger picture is made smaller until its longer side has this many pixels."""
    max_bytes: int = 20 * 2**20
    """Most bytes of one answer, before and after decompression."""
    max_pixels: int = 40_000_000
    """Most pixels (width × height) of a picture as fetched."""
    max_redirects: int = 5
    """Most redirects from one address."""
    timeout_s: float = 60.0
    """Most time for one try of one picture, all redirects included (s)."""
    connect_timeout_s: float = 10.0
    """Most time to connect (s)."""
    read_timeout_s: float = 20.0
    """Longest silence of a host in the middle of an answer (s)."""
    attempts: int = 3
    """Tries of one address in one run, if what goes wrong is temporary."""
    max_wait_s: float = 60.0
    """Longest wait that a host may ask for (Retry-After); if it asks for more, it is left (s)."""
    connections: int = 1024
    """Most connections at a time."""
    per_host: int = 32
    """Most connections at a time to one host."""
    workers: int = 0
    """Processes that decode; 0 = one for each processor, at most 16."""
    retry: tuple[str, ...] = ("temporary",)
    """Earlier failures that are tried again: temporary, all, or names of outcomes."""
    refetch: bool = False
    """Forget what was fetched before."""
    proxy: str = ""
    """Address of a proxy that connects to all hosts; env = the usual variables say which; empty =
    none. It is asked for addresses that were checked here, never for names."""
    allow_private_addresses: bool = False
    """Also connect to addresses that are not public. For tests and a company's own network. A proxy
    is asked for names then, and decides itself."""

    def __post_init__(self) -> None:
        positive = ("max_side", "max_bytes", "attempts", "connections", "per_host")
        for name in (*positive, "timeout_s", "connect_timeout_s", "read_timeout_s"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("max_redirects", "max_wait_s", "workers"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be ≥ 0")
        require(
            1 <= self.max_pixels <= PILLOW_LIMIT,
            f"max_pixels is {self.max_pixels}; it must be 1 … {PILLOW_LIMIT}",
        )
        require(self.max_side <= 8192, f"max_side is {self.max_side}; it must be 1 … 8192")
        if self.proxy:
            Proxies(self.proxy)
        known = ["temporary", "all", *sorted(TEMPORARY), *sorted(FINAL)]
        unknown = sorted(set(self.retry) - set(known))
        require(not unknown, f"retry: no outcome {', '.join(unknown)}; known: {', '.join(known)}")

    def tries_again(self, outcome: str) -> bool:
        """Whether an address that came to this outcome in an earlier run is tried again."""
        if outcome in TEMPORARY:
            return bool({"temporary", "all", outcome} & set(self.retry))
        return outcome in FINAL and bool({"all", outcome} & set(self.retry))
