"""Which address an item means, and which addresses may be asked."""

import json

import pytest

from utgrec.data.pictures.addresses import Target, choose_address, is_public, read_target
from utgrec.data.pictures.outcomes import Result


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        (None, None),
        ("", None),
        ("  https://a/b.jpg ", "https://a/b.jpg"),
        ([], None),
        ([None, "", "https://a/2.jpg", "https://a/3.jpg"], "https://a/2.jpg"),
        ({"large": "l", "hi_res": "h", "thumb": "t"}, "h"),
        ({"large": None, "hi_res": None, "thumb": "t"}, "t"),
        ([{"variant": "PT01", "large": "p"}, {"variant": "MAIN", "large": "m"}], "m"),
        ([{"variant": "PT01", "large": "p"}, {"variant": "main", "large": None}], "p"),
        ({"variant": ["PT01", "MAIN"], "large": ["p", "m"], "hi_res": ["ph", None]}, "m"),
        ({"large": [], "thumb": []}, None),
        (7, None),
        ("[not json", "[not json"),
    ],
)
def test_the_main_variant_else_the_first(value, chosen):
    assert choose_address(value) == chosen
    if isinstance(value, (list, dict)):
        assert choose_address(json.dumps(value)) == chosen


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("file:///etc/passwd", "scheme not allowed"),
        ("javascript:alert(1)", "scheme not allowed"),
        ("data:image/png;base64,AAAA", "scheme not allowed"),
        ("ftp://a/b.jpg", "scheme not allowed"),
        ("gopher://a:70/x", "scheme not allowed"),
        ("C:\\pictures\\a.jpg", "scheme not allowed"),
        ("images/a.jpg", "scheme not allowed"),
        ("http://user:secret@a/b.jpg", "credentials in address"),
        ("http://user@a/b.jpg", "credentials in address"),
        ("http://", "bad address"),
        ("http:///b.jpg", "bad address"),
        ("http://[::1/b.jpg", "bad address"),
        ("http://[fe80::1%25eth0]/b.jpg", "bad address"),
        ("http://a:99999/b.jpg", "bad address"),
        ("http://a:x/b.jpg", "bad address"),
        ("http://a/\x00b.jpg", "bad address"),
        ("http://a/" + "b" * 5000, "bad address"),
        ("http://" + "a" * 64 + "..com/", "bad address"),
    ],
)
def test_addresses_that_are_not_asked(url, outcome):
    found = read_target(url)
    assert isinstance(found, Result), found
    assert found.outcome == outcome
    assert "secret" not in found.detail


def test_addresses_are_taken_apart():
    assert read_target("HTTP://Shop.Example:8080/a b.jpg?x=1#part") == Target(
        url="http://shop.example:8080/a%20b.jpg?x=1",
        scheme="http",
        host="shop.example",
        port=8080,
        path="/a%20b.jpg?x=1",
        authority="shop.example:8080",
    )
    plain = read_target("//cdn.example/ä.jpg")
    assert isinstance(plain, Target)
    assert (plain.scheme, plain.port, plain.path) == ("https", 443, "/%C3%A4.jpg")
    six = read_target("http://[2606:4700::1]:81/a.jpg")
    assert isinstance(six, Target)
    assert (six.host, six.port, six.authority) == ("2606:4700::1", 81, "[2606:4700::1]:81")
    name = read_target("http://bücher.example/")
    assert isinstance(name, Target) and name.host == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("where", "leads_to"),
    [
        ("/b.jpg", "http://shop.example/b.jpg"),
        ("c.jpg", "http://shop.example/a/c.jpg"),
        ("//cdn.example/b.jpg", "http://cdn.example/b.jpg"),
        ("https://cdn.example/b.jpg", "https://cdn.example/b.jpg"),
        ("file:///etc/passwd", "bad redirect"),
        ("http://u:p@a/", "credentials in address"),
        ("http://[::1", "bad redirect"),
    ],
)
def test_redirects_are_read_from_where_they_are(where, leads_to):
    found = read_target(where, base="http://shop.example/a/b")
    assert (found.url if isinstance(found, Target) else found.outcome) == leads_to


REFUSED = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255"),
    *("192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192"),
    *("192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255"),
    *("240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "::127.0.0.1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1"),
    *("64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::", "fe80::1"),
    *("2001:0:1:2:3:4:80ff:fffe", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254"),
    *("ff02::1", "2001:db8::1", "not-an-address"),
]
PUBLIC = [
    *("8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.1", "100.63.255.255"),
    *("100.128.0.0", "11.0.0.1", "223.255.255.255", "2606:4700::1111", "::ffff:8.8.8.8"),
    *("64:ff9b::808:808", "2002:808:808::1"),
]


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert is_public(address)
