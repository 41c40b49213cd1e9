"""The view of users in Chromium: what is kept of somebody, what they get and why, deletion."""

import shutil

import pytest

from conftest import listening  # tests/serving/explorer
from utgrec.serving.changes import CatalogEditor
from utgrec.serving.generations import GenerationStore
from utgrec.serving.keys import add_key, read_keys
from utgrec.serving.users.events import Event
from utgrec.serving.users.sqlite import SQLiteUsers

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def test_somebody_is_looked_up_with_the_keyboard_alone(visit, run_copy, users):
    catalog = GenerationStore(run_copy).open().catalog
    reader = visit()
    reader.go("tree")
    page = reader.page
    page.get_by_role("link", name="Users", exact=True).focus()
    page.keyboard.press("Enter")
    reader.until("document.activeElement.id === 'user-id'")
    assert "POST /v1/events" in page.locator("main").inner_text()
    reader.screenshot("users-empty")
    page.keyboard.type("u42")
    with page.expect_response("**/recommend?*") as asked:
        page.keyboard.press("Enter")
    reader.until("location.hash === '#/users/u42'")
    reader.settle()
    assert reader.title() == "User u42"
    assert page.evaluate("document.activeElement.tagName") == "H1"
    reader.until_said("4 entries kept, 24 recommendations")
    kept = users.history("u42")
    titles = [catalog[catalog.index_of(one.item_id)].title for one in reversed(kept)]
    assert page.locator(".entry-title").all_inner_texts() == titles
    times = page.locator(".history time").evaluate_all("all => all.map((one) => one.dateTime)")
    assert times[-1] == "2026-01-01T00:00:00.000Z" and times == sorted(times, reverse=True)

    items = asked.value.json()["items"]
    cards = page.locator(".results .item")
    assert cards.count() == len(items) == 24
    assert any(item["why"] for item in items)
    for number, item in enumerate(items[:6]):
        said = cards.nth(number).inner_text()
        assert item["title"] in said
        for reason in item["why"]:
            assert reason["title"] in said
    reader.screenshot("users-desktop")

    page.get_by_role("link", name="Try changes to it").click()
    page.wait_for_selector(".view-next")
    reader.settle()
    assert page.locator(".history a > span:last-child").all_inner_texts() == titles[::-1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_and_with_an_odd_id(visit, scheme):
    reader = visit(**PHONE, color_scheme=scheme)
    reader.go("users")
    page = reader.page
    page.get_by_label("Id of a user").fill("a/b ü")
    page.get_by_role("button", name="Look up").click()
    reader.until("location.hash === '#/users/a%2Fb%20%C3%BC'")
    reader.settle()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".history li").count() == 5
    reader.screenshot(f"phone-users-{scheme}")
    page.get_by_role("button", name="Show all 30").click()
    assert page.locator(".history li").count() == 30
    assert page.evaluate("document.activeElement.closest('li').previousElementSibling !== null")


def test_somebody_unknown_gets_what_fits_everybody(visit):
    reader = visit()
    reader.go("users/nobody")
    shown = reader.page.locator("main").inner_text()
    assert "Nothing is kept of this user" in shown and "what fits everybody" in shown
    assert reader.page.locator(".results .item").count() == 24
    assert reader.page.get_by_role("button", name="Delete this user").count() == 0
    reader.screenshot("users-unknown")


def test_deleting_asks_first_and_is_complete(visit, site, users):
    users.add(
        [Event(event_id="gone", user_id="gone", item_id="KIT00001", timestamp=1_767_225_600_000)]
    )
    reader = visit()
    reader.go("users/gone")
    page = reader.page
    delete = page.get_by_role("button", name="Delete this user")
    delete.click()
    assert page.evaluate("document.activeElement.textContent") == "Keep"
    reader.screenshot("users-delete")
    page.keyboard.press("Escape")
    reader.until("document.activeElement.textContent === 'Delete this user'")
    assert len(users.history("gone")) == 1
    delete.click()
    page.get_by_role("button", name="Delete for good").click()
    reader.until("location.hash === '#/users'")
    reader.settle()
    assert "1 entry deleted" in page.locator(".verdict").inner_text()
    reader.until_said("Nothing is kept of “gone” any more")
    assert users.history("gone") == []
    reader.go("users/gone")
    assert page.locator(".verdict").count() == 0  # said once


def test_a_late_deletion_does_not_call_back_who_goes_elsewhere(visit, users):
    users.add(
        [Event(event_id="late", user_id="late", item_id="KIT00001", timestamp=1_767_225_600_000)]
    )
    reader = visit()
    reader.go("users/late")
    page = reader.page
    held = []
    page.route("**/v1/users/late", lambda route: held.append(route))
    page.get_by_role("button", name="Delete this user").click()
    page.get_by_role("button", name="Delete for good").click()
    while not held:
        page.wait_for_timeout(10)
    reader.go("tree")
    held[0].continue_()
    reader.until_said("Nothing is kept of “late” any more")
    assert page.evaluate("location.hash") == "#/tree"
    reader.go("users")
    assert page.locator(".verdict").count() == 0


def test_an_item_that_the_version_lacks_is_named(visit, run_copy, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_copy, run)
    store = GenerationStore(run)
    CatalogEditor(store).add([{"item_id": "LATE", "title": "A late cup"}])
    CatalogEditor(store).remove(["KIT00002"])
    store.activate(1)
    users = SQLiteUsers(run / "users.sqlite", "kitchen")
    for item in ("LATE", "KIT00002"):
        users.add([Event(event_id=item, user_id="u", item_id=item, timestamp=1)])
    with listening(run, users=users) as address:
        reader = visit(address)
        reader.go("users/u")
        assert "LATE" in reader.page.locator(".history li:first-child, .history").first.inner_text()
        assert "not in this version" in reader.page.locator(".history").inner_text()
        reader.context.close()


def test_a_reading_key_deletes_nobody_and_a_server_may_keep_no_histories(
    visit, run_copy, users, tmp_path
):
    path = tmp_path / "keys.json"
    words = {role: add_key(path, role, role) for role in ("read", "write")}
    for role, word in words.items():
        again = SQLiteUsers(run_copy / "users.sqlite", "kitchen")
        with listening(run_copy, keys=read_keys(path), users=again) as address:
            reader = visit(address)
            page = reader.page
            page.goto(f"{address}/#/users/u42")
            page.get_by_label("API key").fill(word)
            page.keyboard.press("Enter")
            reader.settle()
            delete = page.get_by_role("button", name="Delete this user")
            assert page.locator(".history li").count() == 4
            assert delete.count() == (1 if role == "write" else 0)
            reader.expected = ["401"]
            reader.context.close()
    with listening(run_copy) as address:
        reader = visit(address)
        reader.go("users/u42")
        assert "keeps no histories" in reader.page.locator("main").inner_text()
        assert reader.page.get_by_role("link", name="Users", exact=True).count() == 0
        reader.context.close()
