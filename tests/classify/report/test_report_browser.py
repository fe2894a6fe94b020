"""The page in a real browser: no error, no request, every chart drawn, sorted and filtered, and it fits a telephone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import BINARY, Chromium
from report_runs import make_varied_run, make_wide_run

from humeris.classify.report import html
from humeris.classify.report.blocks import Chart, Table
from humeris.classify.report.page import write_report

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no Chromium here")

LEADERS = "document.querySelector('#leaderboard table')"


@pytest.fixture(scope="session")
def pages(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports of a run with several heads, of one with 196 classes of hostile names, and of both side by side."""
    base = tmp_path_factory.getbasetemp()
    runs = {"varied": [make_varied_run(finished, base)], "wide": [make_wide_run(base)]}
    runs["both"] = [*runs["varied"], *runs["wide"]]
    folder = tmp_path_factory.mktemp("pages")
    return {name: write_report(found, folder / f"{name}.html", finished.cache).path for name, found in runs.items()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as found:
        yield found


def column(browser: Chromium, header: str) -> list[str]:
    """The cells of the leaderboard under a header, top down, those that are shown."""
    script = f"""(() => {{
      const table = {LEADERS};
      const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
      const at = names.indexOf({header!r});
      return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[at].textContent.trim());
    }})()"""
    return list(browser.evaluate(script))


def middle(browser: Chromium, element: str) -> tuple[float, float]:
    """Where in the window the middle of what a JavaScript expression finds is."""
    box = f"(() => {{ const box = {element}.getBoundingClientRect(); "
    x, y = browser.evaluate(box + "return [box.x + box.width / 2, box.y + box.height / 2]; })()")
    return x, y


def press(browser: Chromium, header: str) -> str:
    """Click on a header of the leaderboard; how it is sorted by then."""
    find = f"[...{LEADERS}.querySelectorAll('thead button')].find((button) => button.textContent.trim() === {header!r})"
    browser.evaluate(f"{find}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    browser.click(*middle(browser, find))
    return str(browser.evaluate(f"{find}.closest('th').getAttribute('aria-sort')"))


@pytest.mark.parametrize("name", ["varied", "wide", "both"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_no_error_no_request_and_no_overflow(
    name: str, width: int, dark: bool, pages: dict[str, Path], browser: Chromium
) -> None:
    browser.open(pages[name], width, dark)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    scheme = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (scheme == "rgb(20, 23, 27)") == dark
    shot = pages[name].with_name(f"{name}-{width}-{dark}.png")
    browser.screenshot(shot)
    assert shot.read_bytes()[:4] == b"\x89PNG"
    assert browser.problems == []
    assert [address for address in browser.requests if not address.startswith("data:")] == [pages[name].as_uri()]
    assert browser.evaluate("window.hit") is None


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_chart_is_drawn_once_with_marks_of_some_size(
    width: int, scripts: bool, pages: dict[str, Path], browser: Chromium
) -> None:
    browser.open(pages["varied"], width, scripts=scripts)
    text = pages["varied"].read_text()
    charts = len(re.findall(r'<figure class="chart', text))
    found = browser.evaluate("""[...document.querySelectorAll("figure.chart")].map((figure) => {
      const drawn = [...figure.querySelectorAll("svg")].filter((svg) => svg.getBoundingClientRect().width > 0);
      const marks = drawn.flatMap((svg) => [...svg.querySelectorAll("[role='graphics-symbol'] , path[aria-label]")]);
      return [drawn.length, drawn[0].getBoundingClientRect().width, drawn[0].getBoundingClientRect().height,
              marks.filter((mark) => mark.getBoundingClientRect().width > 0).length];
    })""")
    assert len(found) == charts >= 7
    for count, wide_, high, marks in found:
        assert count == 1
        assert 250 <= wide_ <= width
        assert 60 <= high <= 900
        assert marks >= 3


def test_the_leaderboard_is_sorted_by_a_click_and_the_other_way_by_the_next(
    pages: dict[str, Path], browser: Chromium
) -> None:
    browser.open(pages["varied"])
    before = [float(cell) for cell in column(browser, "log-loss")]
    assert before != sorted(before)
    assert press(browser, "log-loss") == "descending"
    assert [float(cell) for cell in column(browser, "log-loss")] == sorted(before, reverse=True)
    assert press(browser, "log-loss") == "ascending"
    assert [float(cell) for cell in column(browser, "log-loss")] == sorted(before)
    assert press(browser, "head") == "ascending"
    assert column(browser, "head") == sorted(column(browser, "head"))
    assert browser.evaluate(f"{LEADERS}.querySelectorAll('[aria-sort]').length") == 1
    assert press(browser, "rank") == "descending"
    assert press(browser, "rank") == "ascending"
    assert [float(cell) for cell in column(browser, "log-loss")] == before


def test_the_leaderboard_is_filtered_by_words(pages: dict[str, Path], browser: Chromium) -> None:
    browser.open(pages["varied"])
    every = column(browser, "head")
    browser.evaluate("document.querySelector('#leaderboard input[type=search]').focus()")
    browser.call("Input.insertText", text="KNN  block4")
    assert column(browser, "head") == ["knn"] * 6  # three numbers of neighbours, two ways to weigh them
    assert set(column(browser, "tap")) == {"block4_out:avg"}
    assert browser.evaluate("document.querySelector('#leaderboard output').textContent") == f"6 of {len(every)} rows"
    browser.evaluate(
        "(() => { const field = document.querySelector('#leaderboard input');"
        "field.value = ''; field.dispatchEvent(new Event('input')); })()"
    )
    assert column(browser, "head") == every


def test_what_is_not_known_is_sorted_to_the_end_both_ways(tmp_path: Path, browser: Chromium) -> None:
    rows = [["a", 2.0], ["b", None], ["c", 10.0], ["d", -1.0]]
    path = written(tmp_path, Table("t", ["name", "number"], rows, sortable=True))
    browser.open(path)
    orders = []
    for _ in range(2):
        browser.evaluate("document.querySelectorAll('thead button')[1].click()")
        orders.append(
            browser.evaluate("[...document.querySelectorAll('tbody th')].map((cell) => cell.textContent.trim()).join('')")
        )
    assert orders == ["cadb", "dacb"]


def written(folder: Path, part: Any) -> Path:
    """A page of one part."""
    drawn = html.render_part(part, "c1")
    block = {"id": "one", "kind": "one", "title": "One", "parts": [drawn], "sections": []}
    path = folder / "one.html"
    path.write_bytes(html.render_page([block], "one", "", [], "0"))
    return path


def test_a_mark_says_what_it_stands_for_beside_the_pointer_with_its_picture(tmp_path: Path, browser: Chromium) -> None:
    values = [{"image": f"cats/<{number}>.jpg", "x": number, "y": number} for number in range(3)]
    encoding = {name: {"field": name, "type": "quantitative"} for name in ("x", "y")}
    spec = {"data": {"values": values}, "mark": "point", "encoding": encoding}
    pixel = bytes.fromhex("524946461a000000574542505650384c0d0000002f00000010071011118888fe0700")
    path = written(tmp_path, Chart("a map", spec, None, {"cats/<1>.jpg": pixel}))
    browser.open(path)
    points = "[...document.querySelectorAll('.wide [role=graphics-symbol][aria-roledescription=point]')]"
    assert browser.evaluate(f"{points}.map((mark) => mark.getAttribute('aria-label'))") == [
        value["image"] for value in values
    ]
    seen = []
    for number in range(3):
        browser.move(*middle(browser, f"{points}[{number}]"))
        seen.append(browser.evaluate("[!tip.hidden, tip.textContent, tip.querySelectorAll('img').length]"))
    assert seen == [[True, f"cats/<{number}>.jpg", int(number == 1)] for number in range(3)]
    browser.move(2, 2)
    assert browser.evaluate("tip.hidden") is True
    assert browser.problems == []


def test_without_scripts_everything_is_there_to_read(pages: dict[str, Path], browser: Chromium) -> None:
    browser.open(pages["varied"], scripts=True)
    rows = browser.evaluate("document.querySelectorAll('tbody tr').length")
    browser.open(pages["varied"], scripts=False)
    assert browser.evaluate("document.querySelectorAll('tbody tr').length") == rows
    assert browser.evaluate("document.querySelectorAll('button, input').length") == 0
    assert browser.evaluate("[...document.querySelectorAll('tr')].every((row) => !row.hidden)")
    assert "Test accuracy" in browser.evaluate("document.body.innerText")
    assert browser.evaluate("tip.getBoundingClientRect().height") == 0
    browser.evaluate("document.querySelector('details').open = true")
    assert browser.evaluate("document.querySelector('details table').getBoundingClientRect().height") > 30
    assert browser.problems == []


def test_on_paper_tables_are_unfolded_and_nothing_is_left_of_buttons(pages: dict[str, Path], browser: Chromium) -> None:
    browser.open(pages["varied"], media="print")
    heights = browser.evaluate(
        "[...document.querySelectorAll('details table')].map((table) => table.getBoundingClientRect().height)"
    )
    assert len(heights) >= 4
    assert min(heights) > 30
    assert browser.evaluate(
        "[...document.querySelectorAll('nav, .filter, .command button')].every((each) => !each.getClientRects().length)"
    )
    assert browser.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowY") == "visible"
    assert browser.print_pdf().startswith(b"%PDF-")


CONTRAST = """(() => {
  const light = (value) => { const c = value / 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (rgb) => 0.2126 * light(rgb[0]) + 0.7152 * light(rgb[1]) + 0.0722 * light(rgb[2]);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const worst = {};
  const texts = "p, th, td, h1, h2, figcaption, a, summary, code, li > span, button";
  for (const element of document.querySelectorAll(texts)) {
    if (!element.textContent.trim() || !element.getClientRects().length || element.classList.contains("skip")) continue;
    const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    worst[element.tagName] = Math.min(worst[element.tagName] || 99, ratio);
  }
  return worst;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out_from_what_is_behind_it(dark: bool, pages: dict[str, Path], browser: Chromium) -> None:
    browser.open(pages["varied"], dark=dark)
    worst = browser.evaluate(CONTRAST)
    assert {"P", "TH", "TD", "A", "SUMMARY"} <= worst.keys()
    assert min(worst.values()) >= 4.5, worst


def test_with_the_keyboard_the_first_stop_skips_to_the_report_and_is_seen(pages: dict[str, Path], browser: Chromium) -> None:
    browser.open(pages["varied"])
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.evaluate("document.activeElement.hash") == "#content"
    assert browser.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    assert browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_class_names_are_beside_the_matrix_of_few_classes_and_not_of_196(pages: dict[str, Path], browser: Chromium) -> None:
    texts = "document.querySelectorAll('#confusion figure:first-of-type .role-axis-label text')"
    labels = f"[...{texts}].map((text) => text.textContent)"
    browser.open(pages["varied"])
    assert sorted(set(browser.evaluate(labels))) == ["blob", "noise", "stripes"]
    browser.open(pages["wide"])
    first = "document.querySelector('#confusion figure svg')"
    assert browser.evaluate(f"{first}.querySelectorAll('.role-axis-label text').length") == 0
    assert browser.evaluate(f"{first}.querySelectorAll('.mark-rect path').length") >= 196


OVERLAPS = """[...document.querySelectorAll("svg .role-axis")].flatMap((axis) => {
  const shown = (text) => text.textContent && text.getAttribute("opacity") !== "0" && text.getClientRects().length;
  const level = (text) => !text.getAttribute("transform").includes("rotate"); // the box of a slanted one is no measure
  const boxes = [...axis.querySelectorAll(".role-axis-label text")]
    .filter((text) => shown(text) && level(text))
    .map((text) => [text.textContent, text.getBoundingClientRect()]);
  const meet = (p, q) => p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3;
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) => meet(p, q)).map(([b]) => a + " | " + b));
})"""


def test_no_two_labels_of_an_axis_lie_on_each_other(pages: dict[str, Path], browser: Chromium) -> None:
    for name in ("varied", "wide", "both"):
        for width in (1280, 390):
            browser.open(pages[name], width)
            assert browser.evaluate(OVERLAPS) == [], (name, width)
