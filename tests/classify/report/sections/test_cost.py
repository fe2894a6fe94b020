"""What taps cost: counted, measured, drawn, and said where it is not known."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import change_metadata, change_origin

from humeris.cache.errors import RunError
from humeris.cache.store import Store
from humeris.classify.diagnose import latency
from humeris.classify.evaluate.trial import TrialScores
from humeris.classify.report.blocks import Chart, Command, Section, Table, Text
from humeris.classify.report.charts import draw
from humeris.classify.report.run_snapshot import RunSnapshot
from humeris.classify.report.sections import cost
from humeris.classify.runs.run import Run
from humeris.extract.backbones.metadata import BackboneMetadata


@pytest.mark.parametrize("seed", range(8))
def test_the_front_is_what_nothing_beats(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = [(float(a), float(b)) for a, b in random.integers(0, 6, (12, 2))]
    kept = cost.find_pareto_front(pairs)
    for place, (price, good) in enumerate(pairs):
        beaten = [
            other
            for other, (less, more) in enumerate(pairs)
            if less <= price and more >= good and ((less, more) != (price, good) or other < place)
        ]
        assert (place in kept) == (not beaten)
    assert [pairs[place] for place in kept] == sorted(pairs[place] for place in kept)


def test_the_front_of_nothing_is_empty() -> None:
    assert cost.find_pareto_front([]) == []


@pytest.fixture
def evidence(finished: Any, tmp_path: Path) -> RunSnapshot:
    """The finished run in a folder of its own, with a cache of its own."""
    shutil.copytree(finished.path, tmp_path / "run")
    shutil.copytree(finished.cache, tmp_path / "own")
    return RunSnapshot.read(tmp_path / "run", tmp_path / "own")


def words(section: Section, kind: str = "plain") -> str:
    return "\n".join(part.text for part in section.parts if isinstance(part, Text) and part.kind == kind)


def some(section: Section, kind: type) -> list[Any]:
    return [part for part in section.parts if isinstance(part, kind)]


def nano() -> Any:
    from humeris.extract.backbones.backbone_spec import BackboneSpec
    from humeris.extract.backbones.build import build

    return build(BackboneSpec.parse("nano"))


def test_costs_are_those_of_the_cut_network_and_of_the_stored_rows(evidence: RunSnapshot) -> None:
    found = {each.tap_refs[0].layer: each for each in cost.compute_costs(evidence, None)}
    assert list(found) == ["block4_out", "block5_out"]  # the cheapest first
    graph = nano().graph
    for layer in graph.layers:
        if layer.name in found:
            each = found[layer.name]
            assert (each.multiply_adds, each.parameters) == (layer.cost, layer.parameters)
            stored = evidence.open_features(each.tap_refs)
            assert stored is not None
            row = stored[0].read(np.array([evidence.images[0].digest], "S32"))[0]
            assert each.bytes_per_image == row.nbytes
            assert each.depth == evidence.tap_depths[each.tap_refs[0]]
    for each in found.values():
        tried = {trial: score for trial, score in evidence.scores.items() if trial.tap_refs == each.tap_refs}
        assert each.accuracy == tried[each.trial].accuracy
        assert each.trial == next(trial for trial in evidence.ranked_trials if trial in tried)
        assert each.training_seconds == pytest.approx(sum(score.seconds for score in tried.values()))


def test_taps_side_by_side_cost_the_deepest_of_each_backbone(evidence: RunSnapshot) -> None:
    assert evidence.best is not None
    both = tuple(sorted(evidence.tap_depths, key=lambda source: source.layer))
    trial = replace(evidence.best, tap_refs=both)
    alone = {each.tap_refs[0].layer: each for each in cost.compute_costs(evidence, None)}
    (found,) = cost.compute_costs(replace(evidence, scores=TrialScores({trial: next(iter(evidence.scores.values()))})), None)
    assert found.multiply_adds == alone["block5_out"].multiply_adds
    assert found.parameters == alone["block5_out"].parameters
    assert found.bytes_per_image == (alone["block4_out"].bytes_per_image or 0) + (alone["block5_out"].bytes_per_image or 0)
    assert found.depth is None


def test_of_one_set_of_taps_there_is_no_front_to_speak_of(evidence: RunSnapshot) -> None:
    scores = {trial: score for trial, score in evidence.scores.items() if trial.tap_refs[0].layer == "block5_out"}
    assert "There is only one set of taps" in words(cost.build_section(replace(evidence, scores=TrialScores(scores))))
    assert "2 of 2 sets of taps" in words(cost.build_section(evidence)) or "1 of 2 sets" in words(
        cost.build_section(evidence)
    )


def test_without_a_measurement_multiply_adds_are_drawn_and_the_command_is_told(evidence: RunSnapshot) -> None:
    section = cost.build_section(evidence)
    (chart,) = some(section, Chart)
    (table,) = some(section, Table)
    assert chart.spec["layer"][1]["encoding"]["x"]["axis"]["title"] == "multiply-adds per image (million)"
    assert "latency (ms per image)" not in table.header
    (line,) = [part.line for part in some(section, Command)]
    assert shlex.split(line)[:3] == ["humeris", "report", str(evidence.path)]
    assert shlex.split(line)[-1] == "--latency"
    assert words(section, "missing") == ""
    assert "count the parameters" not in words(section)


def test_the_chart_has_a_mark_for_all_taps_and_the_chosen_ones_stand_out(evidence: RunSnapshot) -> None:
    (chart,) = some(cost.build_section(evidence), Chart)
    values = chart.spec["data"]["values"]
    assert [value["role"] for value in values].count("selected") == 1
    assert evidence.best is not None
    (chosen,) = [value for value in values if value["role"] == "selected"]
    assert chosen["label"].startswith(f"{evidence.best.tap_refs[0]}; ")
    svg = draw(chart, "m").wide
    assert all(f'aria-label="{value["label"]}"' in svg for value in values)
    assert "selected</text>" in svg
    assert chart.table is not None
    assert [row[0] for row in chart.table.rows] == [str(source) for source in sorted(evidence.tap_depths, key=str)]


def test_the_command_measures_and_the_page_then_shows_the_time(evidence: RunSnapshot, humeris: Callable[..., Any]) -> None:
    (line,) = [part.line for part in some(cost.build_section(evidence), Command)]
    result = humeris(*shlex.split(line)[1:], "--json")
    assert result.code == 0
    measured = latency.read(Run(evidence.path))
    assert measured is not None
    assert measured.device == "cpu"
    assert measured.omissions == ()
    assert len(measured.latencies) == 2
    for each in measured.latencies.values():
        assert 0 < each.seconds_per_image < each.seconds_per_batch < 60
    shallow, deep = (measured.latencies[latency.make_key((source,))] for source in sorted(evidence.tap_depths, key=str))
    parameters = {layer.name: layer.parameters for layer in nano().graph.layers}
    assert (shallow.n_parameters, deep.n_parameters) == (parameters["block4_out"], parameters["block5_out"])

    section = cost.build_section(evidence)
    (chart,) = some(section, Chart)
    (table,) = some(section, Table)
    assert chart.spec["layer"][1]["encoding"]["x"]["axis"]["title"] == "latency (ms per image)"
    assert [value["cost"] for value in chart.spec["data"]["values"]] == [
        1000 * shallow.seconds_per_image,
        1000 * deep.seconds_per_image,
    ]
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert row["latency (ms per image)"] == 1000 * shallow.seconds_per_image
    assert row["images per second"] == round(32 / shallow.seconds_per_batch)
    assert "on cpu with" in words(section)
    assert some(section, Command) == []
    assert "latency (ms per image)" in Path(result.json["report"]).read_text()


def test_a_backbone_that_is_gone_is_left_out_of_the_measurement(
    evidence: RunSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "_time_calls", lambda calls, _: [0.001 * count for _, count in calls])
    assert evidence.metadata is not None
    ((name, spec),) = evidence.metadata.specs.items()
    results = []
    for other in (replace(spec, file="/nowhere/my.keras"), replace(spec, weights_sha256="ab" * 32)):
        run = Run(evidence.path)
        run.write_json("run.json", replace(evidence.metadata, specs={name: other}).to_dict())
        results.append(latency.measure(run))
    measured, again = results
    assert measured.latencies == again.latencies == {}
    assert "/nowhere/my.keras" in measured.omissions[0]
    assert "the network is not the one that the features were extracted with" in again.omissions[0]
    assert latency.read(Run(evidence.path)) == again
    section = cost.build_section(evidence)
    (chart,) = some(section, Chart)
    assert chart.spec["layer"][1]["encoding"]["x"]["axis"]["title"].startswith("multiply-adds")


def test_only_what_was_measured_is_drawn_by_time(evidence: RunSnapshot) -> None:
    first = cost.compute_costs(evidence, None)[0].tap_refs
    taps = [list(each) for each in latency.make_key(first)]
    about = {"format": 2, "device": "gpu:0", "threads": 3, "batch_size": 32, "omissions": ["my.keras: gone"]}
    listed = [{"tap_keys": taps, "seconds_per_image": 0.002, "seconds_per_batch": 0.02, "n_parameters": 7}]
    (evidence.path / "latency.json").write_text(json.dumps({**about, "taps": listed}))
    section = cost.build_section(evidence)
    (chart,) = some(section, Chart)
    assert [value["cost"] for value in chart.spec["data"]["values"]] == [2.0]
    assert "Not measured for 1 more: my.keras: gone" in words(section)
    assert "on gpu:0 with 3 CPU threads" in words(section)
    assert [row[7] for row in some(section, Table)[0].rows] == [2.0, None]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 3}',
        b'{"format": 2, "batch_size": 32, "taps": [{"tap_keys": 3}]}',
        b"[" * 100_000,
        b"\xff\x00",
    ],
)
def test_a_torn_measurement_is_as_none(evidence: RunSnapshot, content: bytes) -> None:
    (evidence.path / "latency.json").write_bytes(content)
    assert latency.read(Run(evidence.path)) is None
    assert "latency" not in str(some(cost.build_section(evidence), Chart)[0].spec)


@pytest.mark.parametrize("change", [{"format": 1}, {"batch_size": 8}])
def test_a_measurement_of_another_kind_is_as_none(evidence: RunSnapshot, change: dict[str, int]) -> None:
    about = {"format": 2, "device": "cpu", "threads": 1, "batch_size": 32, "omissions": [], "taps": []}
    (evidence.path / "latency.json").write_text(json.dumps(about))
    assert latency.read(Run(evidence.path)) == latency.LatencyResult("cpu", 1, {})
    (evidence.path / "latency.json").write_text(json.dumps(about | change))
    assert latency.read(Run(evidence.path)) is None


def test_layers_whose_parameters_were_not_counted_are_costed_without(evidence: RunSnapshot, tmp_path: Path) -> None:
    (path,) = (tmp_path / "own").glob("features/*/layers.json")
    layers = [
        {name: value for name, value in each.items() if name != "parameters"} for each in json.loads(path.read_bytes())
    ]
    path.chmod(0o644)
    path.write_text(json.dumps(layers))
    evidence = replace(evidence, store=Store(tmp_path / "own"))
    found = cost.compute_costs(evidence, None)
    assert all(each.parameters is None and each.multiply_adds and each.bytes_per_image for each in found)
    section = cost.build_section(evidence)
    assert "and count the parameters, which the cache does not have" in words(section)
    assert some(section, Command)[0].line.endswith("--latency")
    timed = {
        latency.make_key(each.tap_refs): latency.Latency(latency.make_key(each.tap_refs), 0.1, 1.0, 5) for each in found
    }
    assert [each.parameters for each in cost.compute_costs(evidence, latency.LatencyResult("cpu", 1, timed))] == [5, 5]
    card = BackboneMetadata.from_backbone(nano())
    uncounted = card.to_dict() | {"layers": layers}
    with pytest.raises(TypeError, match="parameters"):
        BackboneMetadata.from_dict(uncounted)


@pytest.mark.parametrize("store", [None, "empty"])
def test_without_the_cache_the_page_says_which_command_brings_it_back(
    evidence: RunSnapshot, store: str | None, tmp_path: Path
) -> None:
    section = cost.build_section(replace(evidence, store=None if store is None else Store(tmp_path / store)))
    assert some(section, Chart) == []
    assert "the cache that records it is missing" in words(section, "missing")
    assert some(section, Command)[0].line.startswith("humeris extract ")
    (table,) = some(section, Table)
    assert [row[3] for row in table.rows] == [evidence.tap_depths[each] for each in sorted(evidence.tap_depths, key=str)]


@pytest.mark.parametrize("architecture", ["keras.applications.VGG16()", ""])
def test_a_file_of_features_does_not_say_what_its_network_costs(evidence: RunSnapshot, architecture: str) -> None:
    assert evidence.metadata is not None
    specs = {name: replace(spec, architecture=architecture) for name, spec in evidence.metadata.specs.items()}
    described = change_metadata(evidence, data=change_origin(evidence.metadata.data, kind="features"), specs=specs)
    section = cost.build_section(replace(described, store=None))
    assert "A file of features does not record" in words(section)
    assert [part.line.endswith("--latency") for part in some(section, Command)] == ([True] if architecture else [])


def test_of_a_run_without_trials_there_is_nothing_to_say(evidence: RunSnapshot) -> None:
    section = cost.build_section(replace(evidence, scores=TrialScores({})))
    assert "No trial" in words(section, "missing")
    assert len(section.parts) == 1


def test_without_a_description_there_is_a_table_all_the_same(evidence: RunSnapshot) -> None:
    section = cost.build_section(replace(evidence, metadata=None))
    assert some(section, Table)


def test_there_is_nothing_to_measure_where_there_is_no_run(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    with pytest.raises(RunError, match=r"not a run folder \(no run\.json in it\)"):
        latency.measure_all([Run(tmp_path / "none")])
    result = humeris("report", tmp_path / "none", "--latency")
    assert result.code == 2
    assert "not a run folder (no run.json in it)" in result.err
    assert not (tmp_path / "none").exists()


def test_a_report_with_all_its_sections_imports_neither_keras_nor_tensorflow(evidence: RunSnapshot, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from humeris.classify.report import page; "
        f"done = page.write_report([Path({str(evidence.path)!r})], Path({str(tmp_path / 'page.html')!r}), "
        f"Path({str(tmp_path / 'own')!r})); "
        "print(done.omissions, {'keras', 'tensorflow'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "() set()\n"
    page = (tmp_path / "page.html").read_text()
    for name in ("gallery", "label-issues", "features", "pretraining", "cost"):
        assert f'id="{name}"' in page
    assert "cannot be shown" not in page
