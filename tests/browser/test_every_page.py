"""Accessibility and layout of every page, opened once for each measurement."""

from tests.support.accessibility import CONTRAST, SIZES, STRUCTURE, problems_of
from tests.support.browser import every_page
from tests.support.databases import on_sqlite

pytestmark = on_sqlite  # a page is the same from both


def test_no_page_scrolls_sideways_and_every_target_is_large_enough(page, site, address):
    found = []
    for name in every_page(page, site, address):
        for width in (375, 320, 1280):
            page.set_viewport_size({"width": width, "height": 667})
            found += [f"{name} at {width}: {problem}" for problem in problems_of(page, SIZES)]
    assert found == []


def test_all_text_stands_out_from_its_background_in_light_and_dark(page, site, address):
    found = []
    for name in every_page(page, site, address):
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for frame in page.frames:
                found += [f"{name}, {scheme}: {problem}" for problem in problems_of(frame, CONTRAST)]
    assert found == []


def test_every_field_has_a_label_and_every_page_a_sound_structure(page, site, address):
    found = []
    for name in every_page(page, site, address):
        found += [f"{name}: {problem}" for problem in problems_of(page, STRUCTURE)]
    assert found == []


def test_the_colours_follow_the_system(new_context):
    backgrounds = {}
    for scheme in ("light", "dark"):
        page = new_context(color_scheme=scheme).new_page()
        page.goto("/password-reset/")
        backgrounds[scheme] = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert backgrounds["light"] == "rgb(255, 255, 255)"
    assert backgrounds["dark"] != backgrounds["light"]
