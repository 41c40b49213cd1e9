"""Which addresses may be asked: the one an item means, the ones a URL may lead to.

The check of a network address is made on the very address that is connected to
(`utgrec.data.pictures.network`), so neither a redirect nor a changed DNS answer gets around it.
"""

import ipaddress
import json
from typing import Any, NamedTuple

from utgrec.data.pictures.outcomes import Result, failed

LONGEST = 4096  # characters of an address; servers refuse longer ones
SIZES = ("hi_res", "large", "url", "thumb")  # of one variant, best first

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Not public, though `ipaddress` calls them global: IETF protocol assignments (Oracle's metadata
# service among them), Azure's wire server, IPv4-compatible and site-local IPv6.
_REFUSED = [
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "168.63.129.16/32", "::/96", "fec0::/10", "64:ff9b:1::/48")
]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Target(NamedTuple):
    """One address that may be asked."""

    url: str  # normalised
    scheme: str
    host: str  # as it is connected to: no brackets, IDNA
    port: int
    path: str  # with the query
    authority: str  # for the Host header


def choose_address(value: Any) -> str | None:
    """The address that an item means: of several variants the main one, else the first.

    `value` is a text, a list of texts, a list of objects (`{"variant": "MAIN", "large": …}`), an
    object of lists (`{"variant": […], "large": […]}`), or JSON that spells one of these.
    """
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(("[", "{")):
            try:
                return choose_address(json.loads(text))
            except (ValueError, RecursionError):
                return text
        return text or None
    if isinstance(value, dict):
        if any(isinstance(entry, list) for entry in value.values()):
            return choose_address(_rows(value))
        return next((found for key in SIZES if (found := choose_address(value.get(key)))), None)
    if isinstance(value, (list, tuple)):
        variants = [entry for entry in value if entry]
        main = [e for e in variants if isinstance(e, dict) and _is_main(e.get("variant"))]
        return next((found for e in [*main, *variants] if (found := choose_address(e))), None)
    return None


def read_target(url: str, base: str | None = None) -> Target | Result:
    """Take an address apart, or say why it may not be asked.

    `base` is the address whose answer redirected to `url`, which may then be relative.
    """
    import httpx2

    wrong = "bad address" if base is None else "bad redirect"
    shown = repr(url[:120])
    if len(url) > LONGEST:
        return failed(wrong, f"longer than {LONGEST} characters: {shown}")
    if url.startswith("//"):
        url = f"https:{url}" if base is None else url
    try:
        parsed = httpx2.URL(url) if base is None else httpx2.URL(base).join(url)
        port = parsed.port
        host = parsed.raw_host.decode("ascii")
    except (httpx2.InvalidURL, ValueError, UnicodeError, TypeError) as error:
        return failed(wrong, f"{shown} ({error})")
    if parsed.scheme not in ("http", "https"):
        scheme = parsed.scheme or "no scheme"
        return failed("scheme not allowed" if base is None else wrong, f"{scheme}: {shown}")
    if parsed.userinfo:
        return failed("credentials in address", f"of the host {host}")
    labels = host.removesuffix(".").split(".")
    if "%" in host or not all(0 < len(label) < 64 for label in labels):
        return failed(wrong, f"no host: {shown}")
    if port is not None and not 0 < port < 65536:
        return failed(wrong, f"no port: {shown}")
    if parsed.fragment:
        parsed = parsed.copy_with(fragment=None)
    return Target(
        url=str(parsed),
        scheme=parsed.scheme,
        host=host,
        port=port or (443 if parsed.scheme == "https" else 80),
        path=parsed.raw_path.decode("ascii"),
        authority=parsed.netloc.decode("ascii"),
    )


def is_public(text: str) -> bool:
    """Whether a network address belongs to the public internet.

    Loopback, private, link-local (cloud metadata), carrier-grade NAT, multicast, reserved and
    documentation ranges do not; an IPv6 address that stands for an IPv4 address (mapped, 6to4,
    Teredo, NAT64) is judged by that one.
    """
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    inner = _embedded(address)
    if inner is not None:
        return is_public(str(inner))
    if any(address in network for network in _REFUSED if network.version == address.version):
        return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def _embedded(address: Address) -> Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    return address.teredo[1] if address.teredo is not None else None


def _is_main(variant: Any) -> bool:
    return isinstance(variant, str) and variant.strip().upper() == "MAIN"


def _rows(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """An object of lists as a list of objects."""
    lists = {key: entry for key, entry in columns.items() if isinstance(entry, list)}
    longest = max(len(entry) for entry in lists.values())
    return [
        {key: entry[place] for key, entry in lists.items() if place < len(entry)}
        for place in range(longest)
    ]
