"""The explorer in Chromium: every view as its reader meets it, without a single error or request
to elsewhere. Pictures of what was seen are kept in build/screenshots (UTGREC_SCREENSHOTS)."""

import json
import time
from itertools import pairwise

import pytest

from conftest import listening  # tests/serving/explorer
from utgrec.serving.generations import GenerationStore
from utgrec.serving.keys import add_key, read_keys

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def titles(page, inside="main"):
    """Titles of the cards that are shown."""
    return page.locator(f"{inside} .item-title").all_inner_texts()


def test_the_tree_is_wandered_in_down_to_an_item(visit):
    reader = visit()
    reader.go("tree")
    page = reader.page
    assert reader.title() == "Kitchen" or reader.title() == "kitchen"
    tiles = page.locator(".tile")
    counts = [int(text) for text in page.locator(".tile-count").all_text_contents()]
    assert sum(counts) == 60 and len(counts) == tiles.count()
    boxes = [tile.bounding_box() for tile in tiles.all()]
    areas = [box["width"] * box["height"] for box in boxes]
    assert areas.index(max(areas)) == counts.index(max(counts))
    assert min(min(box["width"], box["height"]) for box in boxes) >= 36
    reader.until("document.querySelectorAll('.tile .picture.loaded').length > 2")
    reader.screenshot("tree-desktop")

    page.locator(".tile").nth(counts.index(max(counts))).click()
    reader.until("location.hash.split('/').length === 3")
    reader.settle()
    assert page.locator(".crumbs a").count() == 2
    assert page.evaluate("document.activeElement === document.querySelector('h1')")
    page.locator(".tile").first.click()
    reader.until("location.hash.split('/').length === 4")
    reader.settle()
    assert page.locator(".item").count() >= 1
    title = titles(page)[0]
    page.locator(".item-link").first.click()
    page.wait_for_selector(".view-item")
    reader.settle()
    assert reader.title() == title
    assert page.locator(".plate").count() == 3
    page.go_back()
    page.wait_for_selector(".view-tree")
    assert titles(page)[0] == title


def test_tiles_do_not_overlap_and_fill_the_map(visit):
    """The law of the map, on weights of many kinds, in the code that the page runs."""
    page = visit()
    page.go("tree")
    found = page.page.evaluate("""async () => {
      const { layout, withFloor, neighbour } = await import("/explorer/treemap.js");
      const mixed = [...Array(200).keys()].map((n) => 1 + ((n * 7919) % 97));
      const cases = [[1], [5, 1, 1], Array(256).fill(1), mixed, [1e6, 1, 1, 1]];
      return cases.map((weights) => {
        const boxes = layout(weights, 800, 600);
        const wide = layout(weights, 800, 600, 20);
        return { weights, boxes, wide, floor: withFloor(weights, 100, 480000),
                 next: neighbour(boxes, 0, "ArrowRight") };
      });
    }""")
    for case in found:
        total = sum(case["weights"])
        for weight, box in zip(case["weights"], case["boxes"], strict=True):
            assert box["width"] * box["height"] == pytest.approx(480_000 * weight / total)
        for boxes in (case["boxes"], case["wide"]):
            assert sum(b["width"] * b["height"] for b in boxes) == pytest.approx(480_000)
            for one, other in pairwise(boxes):
                beside = other["x"] == pytest.approx(one["x"] + one["width"])
                below = other["y"] == pytest.approx(one["y"] + one["height"]) and other["x"] == 0
                assert (beside and other["y"] == one["y"]) or below
        assert min(box["width"] for box in case["wide"]) >= 19.99
        assert min(case["floor"]) >= min(100 * total / 480_000, min(case["weights"])) - 1e-9


def test_the_tree_as_a_list_and_its_dead_codes(visit):
    reader = visit()
    reader.go("tree")
    page = reader.page
    page.get_by_role("button", name="List").click()
    rows = page.locator(".codes-table tbody tr")
    assert rows.count() >= 2
    assert sum(int(text) for text in page.locator(".bar-cell .figure").all_inner_texts()) == 60
    reader.screenshot("tree-list")
    dead = page.locator("summary", has_text="Dead codes")
    if dead.count():
        dead.click()
        assert page.locator(".ghost").count() == 6 - rows.count()
    rows.first.get_by_role("link").click()
    reader.until("location.hash.split('/').length === 3")
    reader.settle()
    page.get_by_role("button", name="Map").click()
    assert page.locator(".tile").count() >= 1


def test_search(visit):
    reader = visit()
    reader.go("tree")
    page = reader.page
    page.keyboard.press("/")
    page.keyboard.type("cooking")
    reader.until("location.hash === '#/search?q=cooking'")
    reader.settle()
    found = titles(page)
    assert found and page.evaluate("document.activeElement.id") == "query"
    reader.until_said("found for")
    reader.screenshot("search")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.className") == "item-link"
    reader.go("search?q=zzzzz")
    assert "No item has such words" in page.locator("main").inner_text()
    reader.go("search?q=k")  # begins every id
    page.get_by_role("button", name="Show more").click()
    reader.until("document.querySelectorAll('.item').length === 48")


def test_a_search_that_is_due_does_not_call_back_who_goes_elsewhere(visit):
    reader = visit()
    reader.go("tree")
    page = reader.page
    page.evaluate(
        """() => {
          const { setTimeout, clearTimeout } = window;
          let due = null;
          window.setTimeout = (action) => ((due = action), 1);
          window.clearTimeout = () => (due = null);
          const query = document.getElementById("query");
          query.value = "kit";
          query.dispatchEvent(new Event("input"));
          document.querySelector("#nav [data-view=versions]").click();
          due?.(); // before the page has heard that its address is another
          Object.assign(window, { setTimeout, clearTimeout });
        }"""
    )
    page.wait_for_selector(".view-versions")
    assert page.evaluate("location.hash") == "#/versions"


def test_going_back_finds_the_place_and_a_link_the_beginning(visit):
    reader = visit(viewport={"width": 390, "height": 400})
    page = reader.page

    def follow(view, scrolled=0):
        reader.settle()
        page.evaluate(
            """([view, scrolled]) => {
              scrollTo(0, scrolled);
              const link = document.querySelector(`#nav [data-view=${view}]`);
              link.focus({ preventScroll: true });
            }""",
            [view, scrolled],
        )
        page.keyboard.press("Enter")
        page.wait_for_selector(f".view-{view}")
        reader.settle()
        return page.evaluate("scrollY")

    reader.go("tree")
    follow("versions", scrolled=150)
    page.go_back()
    page.wait_for_selector(".view-tree")
    reader.settle()
    assert page.evaluate("scrollY") == 150
    follow("versions", scrolled=150)
    assert follow("tree") == 0


def test_a_search_by_enter_does_not_wait(visit):
    reader = visit()
    reader.go("tree")
    reader.page.evaluate(
        """() => {
          document.getElementById("query").value = "kit";
          document.getElementById("find").requestSubmit();
        }"""
    )
    assert reader.page.evaluate("location.hash") == "#/search?q=kit"


def test_an_answer_that_comes_late_does_not_call_back_who_goes_elsewhere(visit):
    reader = visit()
    reader.go("tree")
    page = reader.page
    page.evaluate(
        """() => {
          const { fetch } = window;
          const answer = { ok: true, json: async () => ({ answers: [{ items: [] }] }) };
          window.fetch = (address, ...more) =>
            String(address).includes("recommend")
              ? new Promise((given) => (window.give = () => given(answer)))
              : fetch(address, ...more);
          location.hash = "#/next";
        }"""
    )
    reader.until("'give' in window")
    page.evaluate("() => { give(); location.hash = '#/versions'; }")
    page.wait_for_selector(".view-versions")
    assert page.evaluate("location.hash") == "#/versions"


def test_a_transition_that_begins_late_shows_nothing_old(visit):
    reader = visit(reduced_motion="no-preference")
    reader.go("tree")
    page = reader.page
    page.evaluate(
        """() => {
          document.startViewTransition = (action) => {
            delete document.startViewTransition; // the next one is the browser's own
            window.begin = action;
            const [ready, finished] = [Promise.resolve(), Promise.resolve()];
            const updateCallbackDone = new Promise((end) => (window.end = end));
            return { ready, finished, updateCallbackDone };
          };
          location.hash = "#/versions";
        }"""
    )
    reader.until("'begin' in window")
    reader.go("search")
    page.evaluate("() => { begin(); end(); }")
    reader.settle()
    assert page.locator(".view-search").count() == 1
    assert page.evaluate("document.activeElement.id") == "query"


def test_tiles_have_their_sizes_at_once(visit):
    """Not one frame later, when they have been seen."""
    reader = visit()
    reader.go("versions")
    sides = reader.page.evaluate(
        """async () => {
          requestAnimationFrame = () => 0; // no frame is waited for
          ResizeObserver.prototype.observe = () => {};
          location.hash = "#/tree";
          while (!document.querySelector(".view-tree:last-child .tile"))
            await new Promise((later) => setTimeout(later, 1));
          return [...document.querySelectorAll(".tile")].map((one) => one.clientWidth);
        }"""
    )
    assert min(sides) >= 36


def test_an_item(visit, run_copy):
    catalog = GenerationStore(run_copy).open().catalog
    place = next(n for n, image in enumerate(catalog.images) if image)
    reader = visit()
    reader.go(f"item/{catalog.item_ids[place]}")
    page = reader.page
    item = catalog[place]
    assert reader.title() == item.title
    shown = page.locator("article.about").inner_text()
    assert item.text in shown and item.attributes["brand"] in shown
    assert page.get_by_role("img", name=f"Picture of {item.title}").count() == 1
    page.wait_for_selector("section:has(#near-title) .item, section:has(#near-title) .note")
    page.wait_for_selector("section:has(#after-title) .item")
    reader.screenshot("item-desktop")
    reader.go("item/nobody")
    assert "never had an item" in page.get_by_role("alert").inner_text()
    reader.expected = ["404"]  # Chromium names every one


def test_a_history_by_clicking_with_live_recommendations(visit):
    reader = visit()
    reader.go("search?q=kitchen")
    page = reader.page
    added = titles(page)[:2]
    for number in range(2):
        page.locator(".item .add").nth(number).click()
    dock = page.locator("#dock")
    assert dock.locator(".dock-count").inner_text() == "2 items"
    page.wait_for_selector("#dock .dock-next a")
    reader.screenshot("dock-desktop")
    dock.get_by_role("link", name="See what comes next").click()
    page.wait_for_selector(".view-next")
    reader.settle()
    assert page.locator(".history a > span:last-child").all_inner_texts()[-2:] == added
    before = titles(page, ".found")
    assert len(before) == 12
    assert page.evaluate("location.hash").count("h=KIT") == 2
    reader.screenshot("next-desktop")

    with page.expect_response("**/v1/recommend"):
        page.locator(".found .add").first.click()
    reader.until("document.querySelector('#found-lead').textContent.includes('3 items')")
    reader.settle()
    assert titles(page, ".found") != before
    reader.until("document.getElementById('status').textContent.includes('after 3 items')")
    with page.expect_response("**/v1/recommend"):
        page.locator(".history button").first.click()
    reader.until("document.querySelector('#found-lead').textContent.includes('2 items')")
    address = page.url
    other = visit()  # the address alone says it all
    other.page.goto(address)
    other.settle()
    assert other.page.locator(".history li").count() == 2
    assert titles(other.page, ".found") == titles(page, ".found")


def test_why_is_what_the_server_says(visit, run_copy):
    ids = GenerationStore(run_copy).open().catalog.item_ids[:6]
    reader = visit()
    with reader.page.expect_response("**/v1/recommend") as asked:
        reader.go("next?" + "&".join(f"h={one}" for one in ids))
    items = asked.value.json()["answers"][0]["items"]
    cards = reader.page.locator(".found .item")
    assert any(item["why"] for item in items)
    for number, item in enumerate(items):
        card = cards.nth(number)
        assert f"{item['title']}" in card.inner_text()
        for place, reason in enumerate(item["why"]):
            said = card.locator(".why li").nth(place).inner_text()
            shared = reason["shared_codes"]
            told = f"shares {shared} of 3 codes with" if shared else "no codes in common with"
            assert told in said and reason["title"] in said
            assert f"{100 * reason['attention']:.0f} %" in said
            assert card.locator(".why li").nth(place).locator(".dot:not(.off)").count() == shared
        assert card.locator(".why li").count() == len(item["why"])


def test_on_the_way_to_what_comes_next_it_is_asked_for_once(visit, run_copy):
    ids = GenerationStore(run_copy).open().catalog.item_ids[:3]
    reader = visit()
    reader.page.route("**/v1/facets", lambda route: (time.sleep(0.6), route.continue_()))
    asked = []
    reader.page.on("request", lambda one: "recommend" in one.url and asked.append(one.post_data))
    reader.go("next?" + "&".join(f"h={one}" for one in ids))
    assert [json.loads(one)["attention"] for one in asked] == [True]


def test_filters(visit, run_copy):
    catalog = GenerationStore(run_copy).open().catalog
    facts = {one.item_id: one.attributes for one in catalog}
    reader = visit()
    reader.go("next")
    page = reader.page
    assert "without any history" in page.locator("#found-lead").inner_text()
    assert page.locator(".starters button").count() >= 2
    reader.screenshot("next-empty")

    def shown():
        reader.settle()
        return [
            facts[one]
            for one in page.locator(".found .item").evaluate_all(
                "all => all.map((one) => one.dataset.id)"
            )
        ]

    brand = page.locator(".facet", has_text="brand").get_by_role("checkbox").first
    name = brand.get_attribute("value")
    with page.expect_response("**/v1/recommend"):
        brand.check()
    reader.until("location.hash.includes('c.brand')")
    assert {one["brand"] for one in shown()} == {name}
    assert page.evaluate("document.activeElement.value") == name  # the focus stays where it was
    with page.expect_response("**/v1/recommend"):
        brand.uncheck()
    with page.expect_response("**/v1/recommend"):
        page.get_by_role("spinbutton", name="Highest price").fill("20")
    reader.until("location.hash === '#/next?max.price=20'")
    assert max(one["price"] for one in shown()) <= 20
    assert page.locator(".bars .off").count() > 0
    stock = page.locator(".facet-flags").get_by_role("button", name="no")
    with page.expect_response("**/v1/recommend"):
        stock.click()
    reader.until("location.hash.includes('is.in_stock=false')")
    assert {one["in_stock"] for one in shown()} <= {False}
    reader.screenshot("next-filtered")
    page.reload()
    reader.settle()
    assert page.get_by_role("spinbutton", name="Highest price").input_value() == "20"
    with page.expect_response("**/v1/recommend"):
        page.get_by_role("button", name="Clear all filters").click()
    reader.until("location.hash === '#/next'")


def test_the_report_is_shown_and_can_run_nothing(visit):
    reader = visit()
    reader.go("report")
    frame = reader.page.frame_locator("iframe.report")
    assert frame.locator("h1").inner_text() == "A report"
    assert reader.page.locator("iframe.report").get_attribute("sandbox") == ""
    reader.screenshot("report")
    # The report's own script was refused: that is what Chromium complains about, and all.
    reader.expected = ["script"]
    while not reader.wrong:  # the complaint comes from the frame's own process
        reader.page.wait_for_timeout(25)


def test_versions_and_going_back(visit, run_copy):
    from utgrec.serving.changes import CatalogEditor

    store = GenerationStore(run_copy)
    added = CatalogEditor(store).add([{"item_id": "NEW1", "title": "A teapot of moonlight"}])
    reader = visit()
    page = reader.page
    page.goto(reader.site)
    reader.until_served(added.generation)
    reader.go("versions")
    shown = page.locator("main").inner_text()
    assert f"Generation {added.generation} serves" in shown and "How far it has drifted" in shown
    assert page.locator(".versions > li").count() == len(store.numbers)
    reader.screenshot("versions")
    page.get_by_role("button", name="Serve generation 1").click()
    page.get_by_role("button", name="Serve it").click()
    reader.until("document.querySelector('main').textContent.includes('Generation 1 serves')")
    assert store.current == 1


def test_the_foot_of_the_page_names_the_generation_that_answers(visit, run_copy):
    from utgrec.serving.changes import CatalogEditor

    store = GenerationStore(run_copy)
    store.activate(1)
    reader = visit()
    reader.page.goto(reader.site)
    reader.until_served(1)
    reader.go("tree")

    def until_named(generation):
        reader.until_served(generation)
        for view in ("search?q=cup", "versions", "tree"):  # whatever is looked at next
            reader.go(view)
            said = f"generation {generation} ·"
            reader.until(f"document.getElementById('served').textContent.includes({said!r})")

    reader.until("document.getElementById('served').textContent.includes('generation 1 ·')")
    added = CatalogEditor(store).add([{"item_id": "NEW2", "title": "A cup of starlight"}])
    try:
        until_named(added.generation)  # somebody else's doing: this page never asked for it
        assert "61 items" in reader.page.locator("#served").inner_text()
    finally:
        store.activate(1)
    until_named(1)


def test_a_key_is_asked_for_and_kept_in_this_tab_only(visit, run_copy, tmp_path):
    path = tmp_path / "keys.json"
    word = add_key(path, "reader", "read")
    with listening(run_copy, keys=read_keys(path)) as address:
        reader = visit(address)
        page = reader.page
        page.goto(f"{address}/#/tree")
        page.get_by_label("API key").fill("a guess")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="That key is not known here").wait_for()
        page.get_by_label("API key").fill(word)
        page.get_by_role("button", name="Use this key").click()
        reader.settle()
        page.wait_for_selector(".tile .picture.loaded img[src^='blob:']")  # pictures need it, too
        assert page.evaluate("Object.keys(localStorage)") == []
        assert page.evaluate("sessionStorage.getItem('utgrec.key')") == word
        assert not any(word in url for url in reader.asked)
        reader.go("versions")
        assert page.get_by_role("button", name="Serve generation").count() == 0  # reads only
        reader.go("report")
        assert page.frame_locator("iframe.report").locator("h1").inner_text() == "A report"
        reader.expected = ["401", "script"]
        reader.context.close()


def test_titles_are_never_read_as_html(visit, run_copy):
    from utgrec.serving.changes import CatalogEditor

    store = GenerationStore(run_copy)
    hostile = "<img src=x onerror=alert(1)>/../x?#&<script>alert(2)</script>"
    made = CatalogEditor(store).add([{"item_id": hostile, "description": "Without a title."}])
    try:
        reader = visit()
        page = reader.page
        page.on("dialog", lambda dialog: reader.wrong.append(dialog.message))
        page.goto(reader.site)
        reader.until_served(made.generation)
        reader.go("search?q=alert")
        assert any(title.startswith("<img") for title in titles(page))
        page.locator(".item-link").first.click()
        page.wait_for_selector(".view-item")
        reader.settle()
        assert reader.title().startswith("<img src=x")
        page.get_by_role("button", name="Add to your history").click()
        reader.go("next")
        assert page.locator(".history a > span:last-child").last.inner_text().startswith("<img")
    finally:
        store.activate(1)
