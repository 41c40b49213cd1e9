"""The explorer for everybody: keyboard alone, screen readers, phones, dark rooms, calm screens."""

import itertools
from pathlib import Path

import pytest

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
VIEWS = (
    "tree",
    "tree/{root}",
    "search?q=kitchen",
    "item/{item}",
    "next",
    "next?h={item}",
    "users",
    "users/u42",
    "versions",
)
CONTROLS = {
    "button",
    "link",
    "textbox",
    "searchbox",
    "checkbox",
    "spinbutton",
    "DisclosureTriangle",
}

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def places(site):
    """An item and a root code that are there."""
    import httpx2

    tree = httpx2.get(f"{site}/v1/tree").json()
    branch = max(tree["branches"], key=lambda one: one["items"])
    return {"root": branch["code"], "item": branch["covers"][0]["item_id"]}


def names_of_controls(page):
    """Role and name of every control, as Chromium tells them to screen readers."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    told = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored")
    ]
    return [one for one in told if one[0] in CONTROLS], {role for role, _ in told}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_names_and_landmarks_of_every_view(visit, places, scheme):
    reader = visit(color_scheme=scheme)
    page = reader.page
    for view in VIEWS:
        reader.go(view.format(**places))
        reader.until("!document.querySelector('[aria-busy=true]')")
        found = page.evaluate(CONTRAST)
        assert found["seen"] > 10 and found["poor"] == [], view
        controls, roles = names_of_controls(page)
        assert len(controls) > 6
        assert [one for one in controls if not one[1].strip()] == [], view
        assert {"banner", "main", "navigation", "search", "contentinfo", "status"} <= roles, view
        assert page.locator("h1").count() == 1, view
        levels = page.locator("main :is(h1, h2, h3)").evaluate_all(
            "all => all.map((one) => +one.tagName[1])"
        )
        steps = [after - before for before, after in itertools.pairwise(levels)]
        assert max(steps, default=0) <= 1, (view, levels)
        ids = page.locator("[id]").evaluate_all("all => all.map((one) => one.id)")
        assert len(ids) == len(set(ids)), view
        if scheme == "dark":
            reader.screenshot(f"dark-{view.partition('?')[0].partition('/')[0]}")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, dark[4:-1].split(","))) < 200) == (scheme == "dark")


def test_the_check_of_contrast_finds_grey_on_grey(visit):
    reader = visit()
    reader.go("tree")
    reader.page.evaluate("document.querySelector('.lead').style.color = '#aaa'")
    assert len(reader.page.evaluate(CONTRAST)["poor"]) == 1


@pytest.mark.parametrize("view", VIEWS)
def test_phones_need_no_scrolling_sideways(visit, places, view):
    reader = visit(**PHONE)
    page = reader.page
    reader.go(view.format(**places))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.body.scrollWidth") <= 390
    aims = page.locator("button:visible, .tile, .main-nav a, #dock:visible a.primary")
    boxes = [aim.bounding_box() for aim in aims.all()]
    small = [box for box in boxes if min(box["width"], box["height"]) < 32]
    assert small == []
    reader.screenshot(f"phone-{view.partition('?')[0].partition('/')[0]}")


def test_the_keyboard_alone(visit):
    """From the first Tab to a recommendation, without a mouse."""
    reader = visit()
    reader.go("tree")
    page = reader.page
    press = page.keyboard.press

    def focused():
        return page.evaluate("document.activeElement.className || document.activeElement.id")

    page.evaluate("document.activeElement.blur()")
    press("Tab")
    assert focused() == "skip"
    press("Enter")
    assert focused() == "main"
    for _ in range(12):
        press("Tab")
        if focused() == "tile":
            break
    assert focused() == "tile"
    tile = "document.activeElement.getAttribute('aria-label')"
    first = page.evaluate(tile)
    press("End")
    last = page.evaluate(tile)
    assert last != first
    press("Home")
    assert page.evaluate(tile) == first
    before = page.evaluate("document.activeElement.getBoundingClientRect().x")
    press("ArrowRight")
    assert page.evaluate("document.activeElement.getBoundingClientRect().x") > before
    assert page.locator(".tile[tabindex='0']").count() == 1
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    reader.screenshot("keyboard")
    press("Enter")
    reader.until("location.hash.split('/').length === 3")
    reader.settle()
    page.locator(".tile").first.focus()
    press("Backspace")
    reader.until("location.hash === '#/tree'")
    reader.settle()
    press("/")
    page.keyboard.type("kit")
    reader.until("location.hash === '#/search?q=kit'")
    reader.settle()
    press("Enter")
    press("Tab")
    assert "add" in focused().split()
    press("Space")
    reader.until("document.getElementById('status').textContent.startsWith('Added')")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.get_by_role("link", name="What comes next").first.focus()
    press("Enter")
    page.wait_for_selector(".view-next")
    reader.settle()
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.locator(".found .item").count() == 12


def test_motion_only_where_it_is_wanted(visit):
    calm = visit()
    calm.go("tree")
    moved = "getComputedStyle(document.querySelector('.tile')).transitionDuration"
    assert calm.page.evaluate(moved) == "0s"
    lively = visit(reduced_motion="no-preference")
    lively.go("tree")
    assert lively.page.evaluate(moved) != "0s"
    lively.page.locator(".tile").first.click()
    lively.until("location.hash.split('/').length === 3")
    lively.settle()
    assert lively.page.locator(".tile").count() >= 1


def test_colours_can_be_chosen(visit):
    reader = visit(color_scheme="light")
    reader.go("tree")
    page = reader.page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.get_by_role("button", name="Colours")
    button.click()  # light
    button.click()  # dark
    assert page.evaluate(ground) != light
    page.reload()
    reader.settle()
    assert page.evaluate(ground) != light
    assert button.get_attribute("aria-label") == "Colours: dark. Switch to auto"
