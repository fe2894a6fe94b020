"""The page: what is in it, that it is one file that asks for nothing, and that it comes whatever the run lacks."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from markup import Markup
from report_runs import HOSTILE, change_origin, copy_run, make_varied_run, make_wide_run

from humeris.cache.errors import CacheError, RunError
from humeris.cache.typed_json import to_json
from humeris.classify.report import charts, page
from humeris.classify.report.blocks import Section
from humeris.classify.report.page import write_report
from humeris.classify.report.run_snapshot import RunSnapshot

SECTIONS = ["summary", "depth", "curves", "confusion", "gallery", "label-issues", "leaderboard", "reproduce"]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def written(finished: Any, base: Path) -> str:
    """The page of the run with several heads."""
    return read(make_varied_run(finished, base), base / "varied.html", finished.cache)


@pytest.fixture(scope="session")
def hostile(base: Path) -> str:
    """The page of the run with 196 classes, some of hostile names."""
    return read(make_wide_run(base), base / "wide.html", base / "no-cache")


def read(run: Path, out: Path, cache: Path) -> str:
    write_report([run], out, cache)
    return out.read_text(encoding="utf-8")


HEAVY = {"label-issues", "features", "pretraining", "cost"}  # sections with tests of their own


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what takes most of the time: the drawings, and what learns from the features."""
    monkeypatch.setattr(charts, "_render_svg", lambda spec, *_: json.dumps(spec).replace("<", "&lt;"))
    light = [(name, title, partial(_empty, name, title) if name in HEAVY else make) for name, title, make in page._SECTIONS]
    monkeypatch.setattr(page, "_SECTIONS", tuple(light))


def _empty(name: str, title: str, evidence: RunSnapshot) -> Section:
    return Section(name, title, ())


def section(found: Markup, name: str) -> str:
    return next(each for each in found.find_all("section") if each.attributes["id"] == name).text


def test_the_answer_comes_first_with_the_figures_of_the_run(finished: Any, tmp_path: Path) -> None:
    done = write_report([finished.path], tmp_path / "page.html", finished.cache)
    assert done.omissions == ()
    assert done.n_bytes == (tmp_path / "page.html").stat().st_size
    found = Markup((tmp_path / "page.html").read_text())
    test = finished.run.result.test
    low, high = (100 * bound for bound in test.accuracy_95)
    first = found.find_all("section")[0]
    assert first.attributes["id"] == "summary"
    assert f"Test accuracy {100 * test.accuracy:.1f} % (95 % CI {low:.1f}–{high:.1f}) on 18 images: " in first.text
    assert "the majority class alone scores 33.3 %" in first.text
    assert f"humeris export {finished.path} -o model.keras --cache {finished.cache}" in first.text


def test_the_page_has_its_sections_in_order_each_with_an_anchor_of_its_own(written: str) -> None:
    found = Markup(written)
    ids = [each.attributes["id"] for each in found.elements if "id" in each.attributes]
    assert len(set(ids)) == len(ids)
    there = [each.attributes["id"] for each in found.find_all("section")]
    assert [name for name in there if name in SECTIONS] == SECTIONS
    links = [each.attributes["href"] for each in found.find_all("a")]
    assert links == ["#content", *(f"#{name}" for name in there)]
    assert {"content", *there} <= set(ids)


def test_every_tag_is_closed_and_headings_go_down_one_step_at_a_time(written: str, hostile: str) -> None:
    for text in (written, hostile):
        found = Markup(text)
        assert found.faults == []
        levels = [int(each.tag[1]) for each in found.elements if re.fullmatch("h[1-6]", each.tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


def test_tables_have_captions_and_scopes_and_stand_in_boxes_that_a_keyboard_reaches(written: str) -> None:
    found = Markup(written)
    tables = found.find_all("table")
    assert len(tables) > 8
    for table in tables:
        assert [each.tag for each in table.descendants].count("caption") == 1
        assert all(each.attributes.get("scope") in {"col", "row"} for each in table.descendants if each.tag == "th")
        rows = [each for each in table.descendants if each.tag == "tr"]
        assert len({sum(cell.tag in {"th", "td"} for cell in row.descendants) for row in rows}) == 1
        assert all(row.descendants[0].tag == "th" for row in rows)
    boxes = found.find_all("div", class_="scroll")
    assert len(boxes) == len(tables)
    assert all(box.attributes["tabindex"] == "0" and box.attributes["aria-label"] for box in boxes)


def test_charts_are_drawn_with_words_for_every_mark_and_a_table_behind(written: str) -> None:
    figures = [each for each in Markup(written).find_all("figure") if each.attributes["class"].startswith("chart")]
    assert len(figures) >= 7
    for figure in figures:
        title = next(each.text for each in figure.descendants if each.tag == "figcaption")
        drawings = [each for each in figure.descendants if each.tag == "svg"]
        assert drawings
        for svg in drawings:
            assert svg.attributes["aria-label"] == title.strip()
            assert "viewbox" in svg.attributes
            marks = [
                each
                for each in svg.descendants
                if each.attributes.get("role") == "graphics-symbol" and "axis" not in str(each.attributes)
            ]
            assert marks, title
            assert all(mark.attributes["aria-label"] for mark in marks)


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(written: str) -> None:
    found = Markup(written)
    (policy,) = [each.attributes["content"] for each in found.find_all("meta", http_equiv="Content-Security-Policy")]
    allowed = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert allowed.keys() == {"default-src", "img-src", "style-src", "script-src", "base-uri", "form-action"}
    assert (allowed["default-src"], allowed["img-src"], allowed["base-uri"]) == ("'none'", "data:", "'none'")
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (own,) = [each for each in found.find_all(tag) if "type" not in each.attributes]
        digest = base64.b64encode(hashlib.sha256(own.text.encode()).digest()).decode()
        assert allowed[rule] == f"'sha256-{digest}'"
    assert not [each for each in found.elements if "style" in each.attributes and "svg" not in (*each.parents, each.tag)]
    assert not [name for each in found.elements for name in each.attributes if name.startswith("on")]


def test_nothing_in_the_page_points_outside_of_it(written: str, hostile: str) -> None:
    for text in (written, hostile):
        for each in Markup(text).elements:
            assert each.tag not in {"link", "iframe", "object", "embed", "base", "form", "audio", "video"}
            for name in ("href", "src", "srcset", "xlink:href", "data", "action", "poster"):
                value = each.attributes.get(name)
                assert value is None or value.startswith(("#", "data:image/webp;base64,")), (each.tag, value)
        style = re.sub(r"sha256-\S+", "", text)
        assert "@import" not in style
        assert not re.search(r"url\((?!#)", style)


def test_ids_in_drawings_differ_and_are_found_where_they_are_meant(written: str) -> None:
    meant = set(re.findall(r"url\(#([^)]+)\)", written))
    there = re.findall(r'\bid="([^"]+)"', written)
    assert meant <= set(there)
    assert len(there) == len(set(there))


def test_nothing_is_drawn_in_black_or_white_which_one_of_the_themes_would_swallow(written: str, hostile: str) -> None:
    for text in (written, hostile):
        for each in Markup(text).elements:
            if "svg" in each.parents:
                assert {each.attributes.get("fill"), each.attributes.get("stroke")}.isdisjoint(
                    {"black", "white", "#000", "#fff", "#000000", "#ffffff"}
                )


def test_the_same_run_gives_the_same_page_byte_for_byte(finished: Any, tmp_path: Path) -> None:
    first, second = (read(finished.path, tmp_path / f"{number}.html", finished.cache) for number in (1, 2))
    assert first == second


def test_by_default_the_page_lies_in_the_first_run(finished: Any, base: Path, tmp_path: Path, quick: None) -> None:
    run, other = (copy_run(make_varied_run(finished, base), tmp_path / name) for name in ("run", "other"))
    assert write_report([run, other], cache=finished.cache).path == run / "report.html"
    assert (run / "report.html").exists()
    assert not (other / "report.html").exists()
    assert not [path for path in run.iterdir() if "-" in path.name]  # no draft


def test_a_page_is_written_whole_or_not_at_all(
    finished: Any, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "page.html"
    out.write_text("an older one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match=r"no space left to write .* or give another file with -o"):
        write_report([finished.path], out, finished.cache)
    assert out.read_text() == "an older one"
    assert list(tmp_path.glob("*")) == [out]


def test_without_a_run_there_is_no_page(tmp_path: Path, finished: Any) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        write_report([finished.path, tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# What is missing


def test_a_page_says_at_its_top_what_is_missing_and_comes_all_the_same(finished: Any, tmp_path: Path) -> None:
    data = to_json(change_origin(finished.run.metadata.data, root=str(tmp_path / "nowhere")))
    run = copy_run(finished.path, tmp_path / "run", data=data)
    other = copy_run(finished.path, tmp_path / "other", format=99)
    (run / "probabilities.npy").unlink()
    done = write_report([run, other], tmp_path / "page.html", finished.cache)
    found = Markup((tmp_path / "page.html").read_text())
    (box,) = found.find_all("aside")
    for words in (
        "run.json has format 99",
        f"the images are no longer at {tmp_path / 'nowhere'}",
        "probabilities.npy cannot be read",
    ):
        assert words in box.text
        assert any(words in line for line in done.omissions)
    assert list(dict.fromkeys(each.text for each in box.descendants if each.tag == "li")) == list(done.omissions)
    assert "Test accuracy" in section(found, "run1-summary")
    assert "Best accuracy so far" in section(found, "run2-summary")
    assert "The test scores cannot be read" in section(found, "run2-summary")


def test_an_interrupted_run_shows_who_is_ahead_and_how_to_finish(
    finished: Any, base: Path, tmp_path: Path, quick: None
) -> None:
    run = copy_run(make_varied_run(finished, base), tmp_path / "run", result=None)
    lines = (run / "trials.jsonl").read_text().splitlines(keepends=True)
    (run / "trials.jsonl").write_text("".join(lines[:4]) + lines[4][:50])
    for path in run.iterdir():
        if path.name not in {"run.json", "trials.jsonl"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = Markup(read(run, tmp_path / "page.html", finished.cache))
    assert "Best accuracy so far" in section(found, "summary")
    assert "The test split has not been scored" in section(found, "summary")
    assert "resume it with: humeris sweep" in found.text
    assert "1 of the 5 lines of trials.jsonl are corrupt" in found.text
    assert "humeris export" not in found.text
    assert len(found.find_all("table")) >= 2
    assert [each.attributes["id"] for each in found.find_all("section")][:4] == SECTIONS[:4]


def test_a_run_of_which_nothing_is_left_but_a_torn_description_has_a_page(finished: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"format": 3, "config_hash"')
    done = write_report([run], tmp_path / "page.html", finished.cache)
    found = Markup((tmp_path / "page.html").read_text())
    assert "No trial of this run has finished" in section(found, "summary")
    assert len(done.omissions) >= 2
    assert found.faults == []


@pytest.mark.parametrize("value", [None, 3, "text", [1], {"a": 1}])
def test_no_value_of_another_type_keeps_the_page_from_coming(
    value: Any, finished: Any, base: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [
        each for each in page._SECTIONS if each[0] in {"summary", "depth", "curves", "confusion", "leaderboard", "reproduce"}
    ]
    monkeypatch.setattr(page, "_SECTIONS", tuple(own))
    run = make_varied_run(finished, base)
    described = json.loads((run / "run.json").read_bytes())
    for number, name in enumerate(described):
        changed = copy_run(run, tmp_path / str(number), **{name: value})
        write_report([changed], tmp_path / "page.html", finished.cache)
        assert "Leaderboard" in Markup((tmp_path / "page.html").read_text()).text


@pytest.mark.parametrize("name", ["confusion", "per_class", "reliability", "accuracy_95", "images"])
def test_a_run_without_a_score_says_which_and_every_section_is_there(
    name: str, finished: Any, tmp_path: Path, quick: None
) -> None:
    result = json.loads((finished.path / "run.json").read_bytes())["result"]
    del result["test"][name]
    done = write_report([copy_run(finished.path, tmp_path / "run", result=result)], tmp_path / "page.html", finished.cache)
    found = Markup((tmp_path / "page.html").read_text())
    assert [each.attributes["id"] for each in found.find_all("section") if each.attributes["id"] in SECTIONS] == SECTIONS
    assert section(found, "depth").count("accuracy") > 1
    assert done.omissions[0].startswith(f"run.json cannot be read (result.test.{name}: expected ")
    assert f"result.test.{name}" in found.text


def test_a_section_that_cannot_be_made_says_so_and_the_others_are_there(finished: Any, tmp_path: Path, quick: None) -> None:
    result = json.loads((finished.path / "run.json").read_bytes())["result"]
    result["test"]["confusion"] = [[1]]
    done = write_report([copy_run(finished.path, tmp_path / "run", result=result)], tmp_path / "page.html", finished.cache)
    found = Markup((tmp_path / "page.html").read_text())
    assert [each.attributes["id"] for each in found.find_all("section") if each.attributes["id"] in SECTIONS] == SECTIONS
    assert section(found, "depth").count("accuracy") > 1
    assert "cannot be shown" in section(found, "confusion")
    (omission,) = done.omissions
    assert omission.startswith(
        "Confusion matrix cannot be shown (ValueError: the confusion matrix has shape (1, 1), but there are 3 classes"
    )


def test_a_page_that_cannot_be_made_small_enough_is_made_all_the_same(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MAX_BYTES", 1)
    done = write_report([finished.path], tmp_path / "page.html", finished.cache)
    assert done.n_bytes > 1
    assert len(done.omissions) < 100
    assert all(len(words) < 300 for words in done.omissions)


def test_a_page_is_never_larger_than_its_limit_and_says_what_gave_way(
    finished: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MAX_BYTES", 60_000)
    done = write_report([make_varied_run(finished, base)], tmp_path / "page.html", finished.cache)
    assert done.n_bytes <= 60_000
    gave_way = [words for words in done.omissions if "omitted: the page would be larger" in words]
    assert gave_way
    found = Markup((tmp_path / "page.html").read_text())
    assert all(words in found.text for words in gave_way)
    assert "Test accuracy" in section(found, "summary")


def test_before_anything_is_left_out_the_drawings_for_narrow_screens_give_way(
    finished: Any, base: Path, tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MAX_BYTES", len(written.encode()) - 5_000)
    done = write_report([make_varied_run(finished, base)], tmp_path / "page.html", finished.cache)
    found = Markup((tmp_path / "page.html").read_text())
    assert (done.n_bytes <= page.MAX_BYTES, done.omissions) == (True, ())
    both = [len(Markup(text).find_all("svg")) for text in (written, (tmp_path / "page.html").read_text())]
    assert both[0] > both[1] >= len([each for each in found.find_all("figure") if "chart" in each.attributes["class"]])


def test_pages_are_far_below_two_megabytes(written: str, hostile: str) -> None:
    assert len(written.encode()) < 600_000
    assert len(hostile.encode()) < 1_200_000


# Names that nobody would choose


def test_hostile_class_names_are_text_and_nothing_else(hostile: str) -> None:
    found = Markup(hostile)
    assert [each for each in found.elements if each.tag == "script" and "type" not in each.attributes][1:] == []
    assert not [each for each in found.find_all("img") if not each.attributes["src"].startswith("data:")]
    for sign in "\u202e\u2066\x1b\x07\x00":
        assert sign not in hostile
    hostile.encode("utf-8")  # no lone surrogate
    text = " ".join(found.text.split())
    for name in HOSTILE:
        shown = "".join(sign if sign.isprintable() else sign.encode("unicode_escape", "replace").decode() for sign in name)
        assert " ".join(shown.split()) in text
    cells = [each for each in found.find_all("th", scope="row") if "hit=1" in each.text or "مرحبا" in each.text]
    assert len(cells) >= 5
    assert all(any(inner.tag == "bdi" for inner in cell.descendants) for cell in cells)


def test_hostile_names_of_files_folders_and_runs_are_text_too(finished: Any, tmp_path: Path, quick: None) -> None:
    evil = "<img src=x onerror=alert(1)>\u202e"
    described = json.loads((finished.path / "run.json").read_text().replace("blob", evil.replace("\u202e", "\\u202e")))
    described["data"]["origin"]["root"], described["command"] = f"/{evil}", f"humeris sweep '{evil}' && <b>"
    described["data"]["refused"] = [{"name": evil, "reason": evil, "detail": evil}]
    run = copy_run(finished.path, tmp_path / evil, **described)
    for name in ("images.csv", "predictions.csv"):
        (run / name).write_text((run / name).read_text().replace("blob", evil))
    done = write_report([run, finished.path], tmp_path / "page.html", finished.cache)
    found = Markup((tmp_path / "page.html").read_text())
    assert found.faults == []
    assert "\u202e" not in (tmp_path / "page.html").read_text()
    assert not [each for each in found.find_all("img") if "onerror" in each.attributes]
    assert found.find_all("h1")[0].text.strip().startswith("<img src=x onerror=alert(1)>\\u202e")
    assert any(evil in words for words in done.omissions)


# Several runs


def test_two_runs_stand_side_by_side_and_then_one_after_the_other(finished: Any, base: Path, tmp_path: Path) -> None:
    run = make_varied_run(finished, base)
    write_report([run, finished.path], tmp_path / "page.html", finished.cache)
    found = Markup((tmp_path / "page.html").read_text())
    ids = [each.attributes["id"] for each in found.elements if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    sections = [each.attributes["id"] for each in found.find_all("section")]
    assert sections[0] == "comparison"
    for prefix in ("run1-", "run2-"):
        assert [name for name in sections if name in {prefix + each for each in SECTIONS}] == [
            prefix + each for each in SECTIONS
        ]
    told = section(found, "comparison")
    assert told.count(": Test accuracy ") == 2
    assert "varied vs run, on the same test images (18)" in told
    assert [each.tag for each in found.elements if each.tag in {"h1", "h2"}] == ["h1", "h2", "h2", "h2"]


def test_runs_of_one_name_are_told_apart(finished: Any, tmp_path: Path, quick: None) -> None:
    first, second = (copy_run(finished.path, tmp_path / name / "run") for name in ("a", "b"))
    write_report([first, second, second], tmp_path / "page.html", finished.cache)
    titles = [each.text.strip() for each in Markup((tmp_path / "page.html").read_text()).find_all("h2")[1:]]
    assert titles == [str(first), f"{second} (2)", f"{second} (3)"]


# The command


def test_the_command_says_where_the_page_is_and_how_large(
    finished: Any, tmp_path: Path, humeris: Callable[..., Any], quick: None
) -> None:
    out = tmp_path / "page.html"
    done = humeris("report", finished.path, "-o", out, "--cache", finished.cache)
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(rf"report: {re.escape(str(out))} \([\d.]+ kB\)\n", done.out)
    done = humeris("report", finished.path, "-o", out, "--cache", finished.cache, "--json")
    assert (done.code, done.json) == (0, {"report": str(out), "bytes": out.stat().st_size, "left_out": []})
    done = humeris("report", finished.path, "-o", out, "--cache", finished.cache, "-q")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_the_command_lists_what_is_missing_and_ends_with_1(
    finished: Any, tmp_path: Path, humeris: Callable[..., Any], quick: None
) -> None:
    run = copy_run(finished.path, tmp_path / "run", format=99)
    done = humeris("report", run, "--cache", finished.cache)
    assert done.code == 1
    assert done.out.splitlines()[0].startswith("missing: run.json has format 99")
    assert (run / "report.html").exists()


def test_the_command_refuses_what_is_no_run_in_one_line(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    done = humeris("report", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"humeris: {tmp_path}: not a run folder (no run.json in it); `humeris sweep` creates one\n"
    assert list(tmp_path.iterdir()) == []
