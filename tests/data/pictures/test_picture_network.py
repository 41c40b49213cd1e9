"""No way to a private address: not by name, by number, by redirect, nor by a changed DNS answer."""

import asyncio
import ssl
import subprocess
from pathlib import Path

import httpcore2
import pytest
from picture_shops import outcomes_of, rows_of, write_pictured
from picture_web import Reply, Request, Web, edge_names, picture, serving

from utgrec.data.pictures.fetch import fetch_images
from utgrec.data.pictures.network import CheckedBackend, Edge, RefusedAddress
from utgrec.data.pictures.options import ImageOptions

ONE = ImageOptions(attempts=1, workers=1)
PUBLIC = "93.184.216.34"


def test_without_the_flag_nothing_local_is_asked(tmp_path):
    with serving(lambda request: Reply(picture(1))) as web:
        hosts = ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0.0.0.0"]
        hosts += ["[::1]", "[::ffff:127.0.0.1]", "[::]", "169.254.169.254", "10.0.0.1"]
        urls = [f"http://{host}:{web.port}/a.jpg" for host in hosts]
        folder = write_pictured(tmp_path / "shop", urls)
        fetch_images(folder, ONE)
        assert outcomes_of(folder) == dict.fromkeys(urls, "private address")
        assert web.asked.total() == 0


def test_a_redirect_leads_to_no_private_address(tmp_path):
    def handler(request: Request) -> Reply:
        if request.path == "/good.jpg":
            return Reply(picture(1))
        where = {
            "/local.jpg": "http://127.0.0.1/x",
            "/metadata.jpg": "http://169.254.169.254/latest/meta-data/",
            "/name.jpg": "http://inside.example/x",
            "/on.jpg": "http://cdn.example/good.jpg",
        }[request.path]
        return Reply(status=302, headers=(("Location", where),))

    with serving(handler) as web:
        resolve, backend = edge_names(
            {
                "shop.example": [PUBLIC],
                "cdn.example": ["::ffff:8.8.8.8"],
                "inside.example": ["10.1.2.3"],
            },
            web,
        )
        paths = ("/good.jpg", "/local.jpg", "/metadata.jpg", "/name.jpg", "/on.jpg")
        urls = [f"http://shop.example{path}" for path in paths]
        folder = write_pictured(tmp_path / "shop", urls)
        fetch_images(folder, ONE, edge=Edge(resolve=resolve, backend=backend))
        found = list(outcomes_of(folder).values())
        assert found == ["stored", *["private address"] * 3, "stored"]
        assert web.hosts == {"shop.example": 5, "cdn.example": 1}  # names, not numbers
        details = [row["detail"] for row in rows_of(folder)][1:4]
        assert "127.0.0.1" in details[0] and "169.254" in details[1] and "10.1.2.3" in details[2]


def test_the_checked_address_is_the_one_connected_to():
    """A second answer of the DNS is never asked for between the check and the connection."""
    answers, connected = [["93.184.216.34"], ["127.0.0.1"], ["10.0.0.1", "8.8.8.8"]], []

    async def resolve(host: str, port: int) -> list[str]:
        return answers.pop(0)

    class Noted(CheckedBackend):
        async def connect_tcp(self, host, port, timeout=None, local_address=None, options=None):
            connected.append(host)
            return httpcore2.AsyncMockStream([])

    backend = CheckedBackend(
        Edge(resolve=resolve, backend=Noted(Edge(), allow_private=False)), allow_private=False
    )

    async def three() -> None:
        await backend.connect_tcp("shop.example", 80)
        with pytest.raises(RefusedAddress, match=r"shop.example is 127\.0\.0\.1"):
            await backend.connect_tcp("shop.example", 80)
        await backend.connect_tcp("shop.example", 80)
        with pytest.raises(RefusedAddress):
            await backend.connect_unix_socket("/run/docker.sock")

    asyncio.run(three())
    assert connected == ["93.184.216.34", "8.8.8.8"] and answers == []


def test_a_changed_answer_is_checked_again(tmp_path):
    """Every new connection resolves and checks; here the host closes each after one answer."""
    close = (("Connection", "close"),)
    with serving(lambda request: Reply(picture(1), headers=close)) as web:
        resolve, backend = edge_names({"shop.example": [PUBLIC, PUBLIC, "127.0.0.1"]}, web)
        urls = [f"http://shop.example/{n}.jpg" for n in range(3)]
        folder = write_pictured(tmp_path / "shop", urls)
        options = ImageOptions(attempts=1, workers=1, per_host=1)
        fetch_images(folder, options, edge=Edge(resolve=resolve, backend=backend))
        assert list(outcomes_of(folder).values()) == ["stored", "stored", "private address"]
        assert web.asked.total() == 2


def test_tls_asks_for_the_name_and_checks_the_certificate(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names_and_files = ["-subj", "/CN=shop", "-addext", "subjectAltName=DNS:shop.example"]
    names_and_files += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names_and_files], check=True, capture_output=True)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(cert, key)
    names = []
    served.sni_callback = lambda sock, name, context: names.append(name)
    trusting = ssl.create_default_context(cafile=cert)
    with Web(lambda request: Reply(picture(1)), served) as web:
        hosts = {"shop.example": [PUBLIC], "other.example": [PUBLIC]}
        urls = ["https://shop.example/a.jpg", "https://other.example/a.jpg"]
        for context, expected in (
            (trusting, ["stored", "bad certificate"]),
            (None, ["bad certificate", "bad certificate"]),
        ):
            resolve, backend = edge_names(hosts, web)
            folder = write_pictured(tmp_path / f"shop{len(names)}", urls)
            edge = Edge(resolve=resolve, backend=backend, ssl_context=context)
            fetch_images(folder, ONE, edge=edge)
            assert list(outcomes_of(folder).values()) == expected, [
                row["detail"] for row in rows_of(folder)
            ]
    assert set(names) == {"shop.example", "other.example"}
