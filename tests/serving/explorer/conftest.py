"""A small shop from CSV tables, trained once, and its page in a browser."""

import contextlib
import os
import re
import runpy
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_run import mini_recipe
from utgrec.data.prepare import TableOptions, prepare_table
from utgrec.runs import run_recipe
from utgrec.serving.app import create_app
from utgrec.serving.generations import GenerationStore
from utgrec.serving.service import ServiceConfig
from utgrec.serving.users.events import Event
from utgrec.serving.users.sqlite import SQLiteUsers

ROOT = Path(__file__).parents[3]
SCREENSHOTS = Path(os.environ.get("UTGREC_SCREENSHOTS", ROOT / "build" / "screenshots"))
CHROMIUM = os.environ.get("UTGREC_CHROMIUM") or shutil.which("chromium")
# Bounds what hangs, and measures nothing: with a twentieth of a core, which is what a test may get
# beside others, loading the page once took more than 15 seconds.
PATIENCE_S = 60
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

REPORT = """<!doctype html><html lang="en"><title>A report</title>
<h1>A report</h1><script>document.querySelector("h1").textContent = "it ran"</script>"""


@pytest.fixture(scope="session")
def csv_shop(tmp_path_factory) -> Path:
    """The folder of a shop: CSV tables, pictures, and new arrivals."""
    folder = tmp_path_factory.mktemp("explorer") / "shop"
    with pytest.MonkeyPatch.context() as patch:
        arguments = [str(folder), "--items", "66", "--new", "6", "--people", "60"]
        patch.setattr(sys, "argv", ["csv_shop.py", *arguments])
        runpy.run_path(str(ROOT / "examples" / "csv_shop.py"), run_name="__main__")
    return folder


@pytest.fixture(scope="session")
def shop_run(csv_shop) -> Path:
    """A finished run on that shop, with a report that would like to run a script."""
    domain = csv_shop.parent / "domain"
    prepare_table(csv_shop, domain, TableOptions(name="kitchen", k_core=1))
    run_recipe(mini_recipe(), [domain], csv_shop.parent / "run")
    (csv_shop.parent / "run" / "report.html").write_text(REPORT)
    return csv_shop.parent / "run"


@pytest.fixture(scope="module")
def run_copy(shop_run, tmp_path_factory) -> Path:
    """The run, for the tests of one file to change."""
    folder = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(shop_run, folder)
    return folder


@contextlib.contextmanager
def listening(run: Path, **options) -> Iterator[str]:
    """Serve a run on a free port; its address."""
    import uvicorn

    app = create_app(GenerationStore(run), ServiceConfig(look_every_s=0.1), **options)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            waited = time.monotonic()
            while not server.started:
                assert thread.is_alive() and time.monotonic() - waited < 60
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, or a reason why there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium, or set UTGREC_CHROMIUM")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def users(run_copy) -> SQLiteUsers:
    """Histories, with those of two people in them."""
    store = SQLiteUsers(run_copy / "users.sqlite", "kitchen")
    ids = GenerationStore(run_copy).open().catalog.item_ids
    start = 1_767_225_600_000  # 2026
    for user, places in (("u42", range(0, 12, 3)), ("a/b ü", range(30))):
        store.add(
            [
                Event(
                    event_id=f"{user}-{place}",
                    user_id=user,
                    item_id=ids[place],
                    timestamp=start + 3_600_000 * number,
                )
                for number, place in enumerate(places)
            ]
        )
    return store


@pytest.fixture(scope="module")
def site(run_copy, users) -> Iterator[str]:
    """The address of a server of the shop, which keeps histories."""
    with listening(run_copy, users=users) as address:
        yield address


# A page hears of its new address by an event, a moment after it has it. What is on it until then
# is what was there before.
HEARS = """(() => {
  let heard = location.href;
  const { replaceState } = history;
  addEventListener("hashchange", (event) => (heard = event.newURL));
  history.replaceState = function (...given) {
    replaceState.apply(this, given);
    heard = location.href;
  };
  window.hasHeard = () => heard === location.href;
})()"""


class Visit:
    """One reader with a page of their own; what went wrong is kept."""

    def __init__(self, browser, site: str, **options) -> None:
        usual = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"}
        self.context = browser.new_context(**{**usual, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(1000 * PATIENCE_S)
        self.page.add_init_script(HEARS)
        self.site = site
        self.wrong: list[str] = []
        self.expected: list[str] = []  # words of messages that are no fault
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("console", self._heard)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _heard(self, message) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def go(self, view: str) -> None:
        """Open a view and wait until it is there."""
        self.page.goto(f"{self.site}/#/{view}")
        self.settle()

    def settle(self) -> None:
        """Wait until the view of the address is there and asks for nothing more."""
        self.until("hasHeard()")
        self.page.wait_for_selector("#main:not([aria-busy]) h1")
        self.until("!document.querySelector('#main [aria-busy=true]')")

    def until(self, expression: str) -> None:
        """Wait until something holds. (Playwright's own way needs eval, which the page forbids.)"""
        end = time.monotonic() + PATIENCE_S
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"never: {expression}"
            self.page.wait_for_timeout(25)

    def until_said(self, words: str) -> None:
        """Wait until a screen reader has been told something."""
        self.until(f"document.getElementById('status').textContent.includes({words!r})")

    def until_served(self, generation: int) -> None:
        """Wait until the server has another generation."""
        asked = "fetch('v1/overview').then((answer) => answer.json())"
        self.until(f"{asked}.then((one) => one.generation === {generation})")

    def title(self) -> str:
        """The heading of the view."""
        return self.page.locator("main h1").inner_text()

    def screenshot(self, name: str) -> None:
        """Keep a picture of what is seen, for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.until("[...document.images].every((one) => one.complete || one.loading === 'lazy')")
        self.page.screenshot(path=SCREENSHOTS / f"{re.sub('[^a-z0-9-]+', '-', name)}.png")


@pytest.fixture
def visit(browser, site):
    """Make readers; afterwards none may have met an error or asked another host."""
    made: list[Visit] = []

    def make(address: str = site, **options) -> Visit:
        made.append(Visit(browser, address, **options))
        return made[-1]

    yield make
    for one in made:
        one.context.close()
    for one in made:
        assert [w for w in one.wrong if not any(words in w for words in one.expected)] == []
        elsewhere = [url for url in one.asked if not url.startswith((one.site, f"blob:{one.site}"))]
        assert elsewhere == []
