"""The page in a browser: sliders show what Python computes, nothing is logged, nothing leaves the page."""

import re
from pathlib import Path

import pytest

import polyattn as pa
from polyattn import catalog
from polyattn.study.report import report
from polyattn.study.report.candidates import candidates
from polyattn.study.report.sizes import freedom, start

TEXT = "x[N,C]; g[h,f] = 1/N*x[e,h]*x[e,f]; s[d] = g[h,f]*w1[h,d]*w2[f,d]; y[a,b] = x[a,d]*(s[d]*w3[d,b])"
SPECS = {"poly_nl": catalog.poly_nl(), "nl": catalog.nl(), "ba_transform": catalog.ba_transform(), "own": pa.Spec(TEXT)}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report(SPECS), encoding="utf-8")
    return path


class Watched:
    """A page whose messages and requests are kept; every request but for the page itself fails."""

    def __init__(self, browser, address: str, width: int = 1000, scheme: str = "light"):
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.on("console", lambda m: self.messages.append(m.text))
        self.page.on("pageerror", lambda e: self.messages.append(str(e)))
        self.context.route("**/*", lambda route: self._answer(route, address))
        self.page.goto(address)

    def _answer(self, route, address: str) -> None:
        if route.request.url == address:
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()

    def layer(self, name: str):
        return self.page.locator("section.layer").filter(has=self.page.get_by_role("heading", name=name, exact=True))

    def settle(self) -> None:
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.fixture
def watched(browser, file):
    made = Watched(browser, file.as_uri())
    yield made
    made.context.close()
    assert made.messages == []
    assert made.requests == []


def shown(layer, objective: str) -> list[str]:
    return layer.locator(f"[data-orders={objective}] [data-macs]").all_text_contents()


def expected(name: str, sizes: dict[str, int], objective: str) -> list[str]:
    """The costs by the plans' sympy expressions."""
    found = []
    for c in candidates(SPECS[name], start(SPECS[name], {}), objective):
        formula = c.plan.training_complexity if objective == "training" else c.plan.complexity
        found.append(f"{int(formula.subs({str(k): v for k, v in sizes.items()}).subs(_symbols(formula, sizes))):,}")
    return found


def _symbols(formula, sizes):
    return {s: sizes[str(s)] for s in formula.free_symbols}


def slide(layer, size: str, steps: int) -> int:
    slider = layer.locator(f"input[data-size={size}]")
    slider.focus()
    for _ in range(abs(steps)):
        slider.press("ArrowRight" if steps > 0 else "ArrowLeft")
    return int(layer.locator(f"input[data-size-field={size}]").input_value().replace(",", ""))


@pytest.mark.parametrize("name", SPECS)
def test_sliders_by_keyboard_change_the_numbers_to_what_python_computes(watched, name):
    layer = watched.layer(name)
    sizes = start(SPECS[name], {})
    assert shown(layer, "forward") == expected(name, sizes, "forward")
    moved = {"B": slide(layer, "B", 3), "C": slide(layer, "C", 5)}
    moved |= {n: slide(layer, n, -3) for n in ("N", "H") if n in freedom(SPECS[name]).free}
    assert all(sizes[n] != v for n, v in moved.items())
    watched.settle()
    now = sizes | moved
    if "M" in now:
        now["M"] = now["C"] // now["G"]
    assert shown(layer, "forward") == expected(name, now, "forward")
    layer.get_by_label("an evaluation and its backward pass").check()
    watched.settle()
    assert shown(layer, "training") == expected(name, now, "training")
    assert layer.locator("[data-orders=forward]").is_hidden()


def test_numbers_above_2_to_the_53_are_exact(watched):
    layer = watched.layer("poly_nl")
    sizes = {"B": 1, "N": 999_999_999_989, "C": 1_000_003}
    for size, number in sizes.items():
        layer.locator(f"input[data-size-field={size}]").fill(str(number))
    watched.settle()
    assert shown(layer, "forward") == expected("poly_nl", sizes, "forward")
    assert len(shown(layer, "forward")[0].replace(",", "")) > 20


def test_sizes_are_the_same_everywhere(watched):
    number = slide(watched.layer("poly_nl"), "N", 4)
    fields = watched.page.locator("input[data-size-field=N]")
    assert {f.replace(",", "") for f in fields.evaluate_all("fields => fields.map((f) => f.value)")} == {str(number)}


def test_maps_and_positions_are_compared_at_one_number_of_positions_only(watched):
    field = lambda size: watched.page.locator(f"#overview input[data-size-field={size}]")  # noqa: E731
    field("N").fill("1200")
    watched.settle()
    assert (field("H").input_value(), field("W").input_value()) == ("30", "40")
    field("W").fill("50")
    watched.settle()
    assert field("N").input_value() == "1,500"
    times = watched.page.locator("[data-overview] tbody td.number:nth-of-type(3)")
    assert all("×" in text for text in times.all_text_contents())
    watched.page.get_by_label("N = H·W").uncheck()
    field("N").fill("100")
    watched.settle()
    assert "different numbers of positions, 100 and 1,500" in watched.page.locator("[data-positions]").text_content()
    assert {*times.all_text_contents()} == {""}


def test_the_best_order_is_marked_and_the_overview_is_sorted(watched):
    layer = watched.layer("poly_nl")
    best = layer.locator("[data-orders=forward] tr.best th").all_text_contents()
    layer.locator("input[data-size-field=N]").fill("10")
    watched.settle()
    assert layer.locator("[data-orders=forward] tr.best th").all_text_contents() != best
    cells = watched.page.locator("[data-overview] tbody td.number:nth-of-type(2)").all_text_contents()
    numbers = [int(t.replace(",", "")) for t in cells]
    assert numbers == sorted(numbers)
    assert len(numbers) == len(SPECS)


def test_a_size_that_does_not_divide_is_said(watched):
    layer = watched.layer("ba_transform")
    layer.locator("input[data-size-field=C]").fill("6")
    watched.settle()
    assert "4 does not divide 6" in layer.locator("[data-status]").text_content()
    assert set(shown(layer, "forward")) == {"—"}


@pytest.mark.parametrize("bad", ["0", "-3", "x", "1.5", "9" * 16, "<b>1</b>"])
def test_what_is_no_size_is_marked_and_changes_nothing(watched, bad):
    layer = watched.layer("nl")
    before = shown(layer, "forward")
    field = layer.locator("input[data-size-field=N]")
    field.fill(bad)
    watched.settle()
    assert field.get_attribute("aria-invalid") == "true"
    assert shown(layer, "forward") == before
    field.blur()
    assert field.input_value() == "784"


def test_the_curves_are_the_numbers_of_their_table(watched):
    layer = watched.layer("nl")
    layer.locator("[data-axis]").select_option("C")
    layer.get_by_text("The curves as numbers").click()
    rows = layer.locator("[data-numbers] tbody tr")
    for row in rows.all()[:: max(1, rows.count() // 4)]:
        first, *macs = row.locator("td").all_text_contents()
        assert macs == expected("nl", {"B": 8, "N": 784, "C": int(first.replace(",", ""))}, "forward")
    assert layer.locator("[data-chart] path.curve").count() == len(macs)


@pytest.mark.parametrize("width", [360, 1000])
def test_the_page_does_not_scroll_sideways(browser, file, width):
    made = Watched(browser, file.as_uri(), width)
    for summary in made.page.locator("summary").all():
        summary.evaluate("s => { s.parentElement.open = true; }")
    inner, scrolled = made.page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    made.context.close()
    assert scrolled <= inner == width


@pytest.mark.parametrize(("scheme", "choice"), [("dark", None), ("light", "Dark"), ("dark", "Light"), ("light", None)])
def test_text_stands_out_in_light_and_dark(browser, file, scheme, choice):
    made = Watched(browser, file.as_uri(), scheme=scheme)
    if choice:
        made.page.get_by_role("button", name=choice).click()
    colours = made.page.evaluate(
        """() => ["body", ".status", ".badge", "a", ".tick", "thead th", "pre"].map((s) => {
            const e = document.querySelector(s), style = getComputedStyle(e);
            let under = e;
            while (under && getComputedStyle(under).backgroundColor.endsWith(", 0)")) under = under.parentElement;
            return [s, s === ".tick" ? style.fill : style.color, getComputedStyle(under).backgroundColor];
        })"""
    )
    made.context.close()
    dark = (choice or scheme).lower() == "dark"
    for name, ink, paper in colours:
        assert contrast(ink, paper) >= 4.5, name
        assert (luminance(paper) < 0.2) == dark


def luminance(colour: str) -> float:
    parts = [int(p) / 255 for p in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    dark, light = sorted([luminance(first), luminance(second)])
    return (light + 0.05) / (dark + 0.05)


def test_by_keyboard_the_first_stop_leads_to_the_content_and_focus_is_seen(watched):
    watched.page.keyboard.press("Tab")
    assert watched.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    outline = watched.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    watched.page.keyboard.press("Enter")
    assert watched.page.evaluate("document.activeElement.id") == "main"


def test_controls_have_names_and_the_page_has_landmarks(watched):
    unnamed = watched.page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, [tabindex='0']")].filter((e) =>
            !(e.labels && e.labels.length) && !e.getAttribute("aria-label") && !e.textContent.trim()).length"""
    )
    assert unnamed == 0
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert watched.page.get_by_role(landmark).count() == 1
    assert watched.page.locator("html").get_attribute("lang") == "en"


def test_equations_are_typeset(watched):
    math = watched.layer("poly_nl").locator("math[display=block]")
    assert math.evaluate("m => m.namespaceURI") == "http://www.w3.org/1998/Math/MathML"
    assert math.bounding_box()["height"] > 30
    sub, sup = (math.locator("msubsup").first.locator(f"> :nth-child({k})").bounding_box() for k in (2, 3))
    assert sup["y"] < sub["y"]


def test_a_request_would_be_seen(browser, file):
    made = Watched(browser, file.as_uri())
    made.page.evaluate("fetch('http://127.0.0.1:9/').catch(() => {})")
    made.page.evaluate("document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/a.png' }))")
    made.settle()
    made.context.close()
    assert made.messages  # the page's own policy refuses both before they are requests
    assert any("Content Security Policy" in m for m in made.messages)


def test_the_page_is_small(file):
    assert Path(file).stat().st_size < 3_000_000
