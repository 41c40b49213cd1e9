"""What all downloads share: waits, proxies of the usual variables, certificates."""

import pytest

from utgrec.data.pictures.options import ImageOptions
from utgrec.data.web import Proxies, certificates, read_proxy, retry_after, wait_before
from utgrec.errors import BadConfig


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        *((text, None) for text in ("", "soon", "-5", "١٢", "²", None)),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, 1000.0) == seconds


def test_waits_double_and_spread() -> None:
    for tries, most in ((1, 1.0), (2, 2.0), (5, 16.0), (9, 60.0), (2000, 60.0)):
        waits = {wait_before(tries, 1.0, 60.0) for _ in range(50)}
        assert len(waits) > 10 and min(waits) >= most / 2 and max(waits) <= most


def test_proxies_of_the_usual_variables() -> None:
    found = Proxies(
        "env",
        {
            "http": "http://plain.example:3128",
            "all": "https://me:p%40ss@safe.example",
            "no": "localhost,.inside.example",
        },
    )
    assert found.of("http", "shop.example") == ("http", "plain.example", 3128, "")
    assert found.of("https", "shop.example") == (
        "https",
        "safe.example",
        443,
        "Basic bWU6cEBzcw==",
    )
    assert found.of("https", "a.inside.example") is None and found.of("http", "localhost") is None
    everywhere = Proxies("proxy.example:8080")
    assert everywhere.of("https", "localhost") == ("http", "proxy.example", 8080, "")
    assert Proxies("env", {}).of("http", "shop.example") is None


@pytest.mark.parametrize(
    "url", ["socks5://x.example", "http://", "http://x.example:port", "ftp://x"]
)
def test_proxies_that_cannot_be_used(url: str) -> None:
    with pytest.raises(BadConfig, match="the proxy"):
        read_proxy(url)
    with pytest.raises(BadConfig, match="the proxy"):
        ImageOptions(proxy=url)


def test_certificates_that_cannot_be_read(tmp_path, monkeypatch) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    assert certificates() is None
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path))
    assert certificates() is not None
    (tmp_path / "cert.pem").write_text("no certificate")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "cert.pem"))
    with pytest.raises(BadConfig, match=r"REQUESTS_CA_BUNDLE is .*no certificates"):
        certificates()
