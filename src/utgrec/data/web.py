"""What all who fetch from the web share: certificates, proxies, waits between tries."""

import base64
import datetime
import email.utils
import os
import random
import ssl
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

from utgrec.errors import BadConfig

CERTIFICATE_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PORTS = {"http": 80, "https": 443}


def certificates() -> ssl.SSLContext | None:
    """The certificates that the usual variables name, a file or a folder; None if they name none.

    Raises:
        BadConfig: they cannot be read.
    """
    for name in CERTIFICATE_FILES:
        path = os.environ.get(name)
        if not path:
            continue
        try:
            if os.path.isdir(path):
                return ssl.create_default_context(capath=path)
            return ssl.create_default_context(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise BadConfig(
                f"{name} is {path!r}, which holds no certificates that can be read ({error})"
            ) from error
    return None


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, a number or a date; None if it is neither.

    `now` is the time in seconds since 1970.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, moment.timestamp() - now)


def wait_before(tries: int, first_s: float, longest_s: float) -> float:
    """Seconds to wait after so many tries: doubled from try to try, up to a limit.

    Spread by chance, so that many who failed together do not come back together.
    """
    return min(first_s * 2.0 ** min(tries - 1, 20), longest_s) * random.uniform(0.5, 1.0)


class Proxy(NamedTuple):
    """A proxy that connects to others (CONNECT)."""

    scheme: str  # http, or https: the way to the proxy itself is encrypted
    host: str
    port: int
    authorization: str  # value of the header, or ""


class Proxies:
    """Which proxy is asked for which host."""

    def __init__(self, told: str, environment: Mapping[str, str] | None = None) -> None:
        """`told` is the address of a proxy for all, or "env": the usual variables say which.

        Raises:
            BadConfig: an address that is none, or of another kind than http and https.
        """
        found = {"all": told}
        if told == "env":
            found = dict(environment or urllib.request.getproxies_environment())
        self._bypass = {"no": found.pop("no", "")}
        self._by_scheme = {scheme: read_proxy(url) for scheme, url in found.items() if url}

    def of(self, scheme: str, host: str) -> Proxy | None:
        """The proxy for a host; None = it is asked directly."""
        bypassed = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
        if self._bypass["no"] and bypassed(host, self._bypass):
            return None
        return self._by_scheme.get(scheme, self._by_scheme.get("all"))


def environment_names_proxy() -> bool:
    """Whether the usual variables name a proxy."""
    return any(scheme != "no" for scheme in urllib.request.getproxies_environment())


def read_proxy(url: str) -> Proxy:
    """Take the address of a proxy apart; without a scheme it is http.

    Raises:
        BadConfig: no such address.
    """
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadConfig(f"the proxy {url!r} is no address ({error})") from error
    if parts.scheme not in PORTS or not host:
        raise BadConfig(
            f"the proxy {url!r} cannot be used; it is an address such as http://proxy.example:3128"
        )
    who = ":".join(
        urllib.parse.unquote(part) for part in (parts.username, parts.password) if part is not None
    )
    basic = base64.b64encode(who.encode()).decode()
    return Proxy(parts.scheme, host, port or PORTS[parts.scheme], f"Basic {basic}" if who else "")
