"""The live page in a browser: errors under their place as one types, layers, verdicts, and no request elsewhere."""

import re

import pytest

from polyattn import catalog


@pytest.fixture
def live(browser, port):
    context = browser.new_context(viewport={"width": 900, "height": 900})
    page = context.new_page()
    messages, requests = [], []
    page.on("console", lambda m: messages.append(m.text))
    page.on("pageerror", lambda e: messages.append(str(e)))
    page.on("request", lambda r: requests.append(r.url))
    page.set_default_timeout(60_000)
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("#result math")
    yield page
    context.close()
    assert messages == []
    assert all(r.startswith((f"http://127.0.0.1:{port}/", "data:")) for r in requests)


def up_to_date(page):
    page.get_by_text("Up to date.").wait_for()


def test_a_layer_is_shown_and_proved_against_the_catalogue(live):
    up_to_date(live)
    found = live.locator("#verdicts .verdict summary").all_text_contents()
    assert [f.split()[-1] for f in found] == list(catalog.names())
    assert "equal poly_nl" in [" ".join(f.split()) for f in found]
    assert live.locator("#result [data-macs]").first.text_content().replace(",", "").isdigit()
    field = live.locator("input[data-size-field=N]")
    field.fill("49")
    live.get_by_text("Plan at the sliders' sizes").click()
    live.get_by_role("heading", name="N = 49").wait_for()


def test_an_error_is_under_its_place_and_goes_away(live):
    text = live.locator("#text")
    text.fill("x[N,C]\ny[a,b] = x[a,d]*w[d,b")
    live.get_by_role("alert").wait_for()
    reason = live.locator("#problem p").text_content()
    line, column = map(int, re.findall(r"Line (\d+), column (\d+)", reason)[0])
    assert line == 2
    caret = live.locator("#problem pre").text_content().split("\n")[1]
    assert caret == " " * (column - 1) + "^"
    place, box = live.locator("#squiggle").bounding_box(), text.bounding_box()
    assert box["x"] < place["x"] < box["x"] + box["width"]
    assert 20 < place["y"] - box["y"] < 60
    assert text.get_attribute("aria-invalid") == "true"
    text.press("End")
    text.press("Control+End")
    text.type("]")
    live.locator("#problem").wait_for(state="hidden")
    up_to_date(live)


def test_sizes_of_a_plan_stay_as_the_text_changes_and_are_in_the_address(live):
    up_to_date(live)
    live.locator("input[data-size-field=N]").fill("49")
    live.get_by_role("button", name="Plan at the sliders' sizes").press("Enter")
    live.get_by_role("heading", name="N = 49").wait_for()
    text = live.locator("#text")
    text.fill("x[N,C]; y[a,b] = 1/N*x[a,d]*w[d,f]*x[e,f]*x[e,b]")
    assert live.locator("#result").get_attribute("aria-busy") == "true"
    live.locator("#result[aria-busy=false]").wait_for()
    live.get_by_role("heading", name="N = 49").wait_for()
    address, value = live.url, text.input_value()
    live.goto("about:blank")
    live.goto(address)
    live.get_by_role("heading", name="N = 49").wait_for()
    assert live.locator("#text").input_value() == value


def test_markup_in_a_text_stays_text(live):
    live.locator("#text").fill("x[N,C]\ny[a,b] = x[a,b]*<img src=x onerror=alert(1)>")
    live.get_by_role("alert").wait_for()
    assert "<img src=x" in live.locator("#problem pre").text_content()
    assert live.locator("img").count() == 0


def test_an_example_is_taken_over(live):
    live.locator("#example").select_option("nl")
    assert live.locator("#text").input_value() == str(catalog.nl())
    up_to_date(live)


def test_the_page_fits_a_phone(live):
    live.set_viewport_size({"width": 360, "height": 700})
    assert live.evaluate("document.documentElement.scrollWidth") <= 360
