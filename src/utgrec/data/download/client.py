"""Connections for downloads: settings, proxies and certificates from the usual variables.

HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name proxies; SSL_CERT_FILE, REQUESTS_CA_BUNDLE or
CURL_CA_BUNDLE name a file of certificates to trust, SSL_CERT_DIR a folder of them.
"""

import dataclasses

import httpx2

import utgrec
from utgrec.config import require
from utgrec.data.web import certificates
from utgrec.errors import BadConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """How patient and how polite downloads are."""

    attempts: int = 6
    """Tries in a row that bring nothing new before a file is given up."""
    connect_timeout_s: float = 20.0
    """Longest wait for a connection (s)."""
    read_timeout_s: float = 60.0
    """Longest silence of a server in the middle of a file (s)."""
    first_wait_s: float = 1.0
    """Wait before the second try (s); it doubles from try to try."""
    longest_wait_s: float = 120.0
    """Longest wait between tries (s); a server that asks for more (Retry-After) is given up."""
    per_host: int = 2
    """Connections to one host at the same time."""
    redirects: int = 8
    """Most redirects of one request."""
    chunk_bytes: int = 2**20
    """Bytes that are written at once."""

    def __post_init__(self) -> None:
        for name in ("attempts", "per_host", "chunk_bytes"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}; it must be 1 or more")
        for name in ("connect_timeout_s", "read_timeout_s", "longest_wait_s"):
            value = getattr(self, name)
            require(value > 0, f"{name} is {value}; it must be above 0")
        require(
            self.first_wait_s >= 0, f"first_wait_s is {self.first_wait_s}; it must be 0 or more"
        )
        require(self.redirects >= 0, f"redirects is {self.redirects}; it must be 0 or more")


def make_client(config: DownloadConfig) -> httpx2.Client:
    """A client for downloads; close it, or use it as a context manager.

    Raises:
        BadConfig: the environment names certificates or a proxy that cannot be used.
    """
    try:
        return httpx2.Client(
            headers={"User-Agent": f"utgrec/{utgrec.__version__}", "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(config.read_timeout_s, connect=config.connect_timeout_s),
            follow_redirects=True,
            max_redirects=config.redirects,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=8),
            verify=certificates() or True,
        )
    except (ValueError, httpx2.InvalidURL) as error:
        raise BadConfig(f"a proxy of the environment cannot be used ({error})") from error
