"""The house: flow one way, a face that costs nothing, every public name described."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import structure
from conftest import SLOW

import humeris

ROOT = Path(humeris.__file__).parent
LIBRARY = ("cache", "extract", "classify")
FOLDERS = (*LIBRARY, "commands")
MODULES = [ROOT / "cli.py", *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
CODE = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]


def imported(path: Path) -> list[tuple[str, bool]]:
    """(module as a dotted path below the package, whether at import time) of every import of ours in a file."""
    tree = ast.parse(path.read_text())
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else [])]
            early = any(node is top for top in tree.body) and id(node) not in typing
            for alias in node.names:
                parts = [*base, alias.name]
                known = (ROOT.joinpath(*parts).with_suffix(".py")).exists()
                found.append((".".join(parts if known else base), early))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(name.split(".")[0] == "humeris" for name in names), f"{path}: an absolute import of ours"
    return found


# From the lowest room to the highest: a room may import the rooms before it, and no other.
ORDER = [
    "cache",
    "extract.config",
    "extract.memory",
    "extract.parallel",
    "extract.pixels",
    "extract.backbones",
    "extract.images",
    "extract.engine",
    "extract.api",
    "extract.doctor",
    "classify.evaluate",
    "classify.data",
    "classify.heads",
    "classify.runs",
    "classify.diagnose",
    "classify.export",
    "classify.advise",
    "classify.rank",
    "classify.report",
    "classify.sweep",
    "classify.tracking",
    "classify.finish_run",
    "classify.pipeline",
    "classify.finetune",
    "classify.api",
    "classify.demo",
    "commands",
    "cli",
]


def test_the_order_names_every_room_and_no_other() -> None:
    rooms = set(structure.build_graph(ROOT))
    assert rooms - set(ORDER) == set()
    assert set(ORDER) - rooms <= {"extract.parallel"}


def test_every_import_goes_down_whenever_it_happens() -> None:
    modules = structure.list_modules(ROOT)
    rooms = {module: structure.name_room(module, modules) for module in modules if not module.endswith("__init__")}
    wrong = [
        f"{module} imports {target}"
        for module, room in rooms.items()
        for target in sorted(structure.list_imports(module, modules[module], modules))
        if target in rooms and rooms[target] != room and ORDER.index(rooms[target]) > ORDER.index(room)
    ]
    assert wrong == []
    assert structure.find_circles(structure.build_graph(ROOT)) == []


def test_the_graph_of_rooms_sees_circles_and_arrows() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "c"}}
    assert structure.find_circles(graph) == [{"b", "c"}]
    assert structure.count_floors(graph) == {"a": 1, "b": 0, "c": 0, "d": 2}
    assert structure.build_graph(ROOT)["classify.data"] >= {"classify.evaluate"}


def test_every_folder_says_what_it_is_for_and_what_it_may_import() -> None:
    for folder in sorted({path.parent for path in MODULES} - {ROOT}):
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        assert "mport" in text, folder


@pytest.mark.parametrize("file", ["cache", "extract", "options", "terminal", "usage"])
def test_only_the_commands_of_classify_import_classify(file: str) -> None:
    assert [name for name, _ in imported(ROOT / f"commands/{file}.py") if name.startswith("classify")] == []


@pytest.mark.parametrize("path", [ROOT / "cli.py", *sorted((ROOT / "commands").glob("*.py"))], ids=lambda path: path.name)
def test_the_command_line_imports_the_library_when_a_command_needs_it(path: Path) -> None:
    early = {name for name, early in imported(path) if early and name.startswith(LIBRARY)}
    assert early <= {"cache.errors", "cache.formatting"}


def test_the_rule_would_notice_an_import_the_wrong_way(tmp_path: Path) -> None:
    assert ("cache.store", True) in imported(ROOT / "extract/images/load.py")
    assert ("cache.errors", True) in imported(ROOT / "classify/data/splits.py")
    assert any(name.startswith("extract") for name, _ in imported(ROOT / "classify/data/splits.py"))
    assert ("classify.pipeline", False) in imported(ROOT / "commands/classify.py")


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): [name for name, early in imported(path) if early]
        for path in MODULES
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in graph.get(name, []):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    assert len(done & set(graph)) == len(MODULES)


@pytest.mark.parametrize("name", [*NAMES, "__init__.py"])
def test_every_public_thing_has_a_docstring(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text())
    assert ast.get_docstring(tree), "the module"

    def check(body: list[ast.stmt], where: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                overrides = where and node.name == "render"  # rich's own method
                assert overrides or ast.get_docstring(node), f"{where}{node.name}"
                if isinstance(node, ast.ClassDef):
                    check(node.body, f"{node.name}.")

    check(tree.body, "")


@pytest.mark.parametrize("name", [*NAMES, "__init__.py"])
def test_every_function_has_type_hints(name: str) -> None:
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert node.returns is not None, node.name
            assert all(each.annotation or each.arg in {"self", "cls"} for each in arguments), node.name


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(LIBRARY)])
def test_the_library_never_prints(name: str) -> None:
    calls = [node.func for node in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]


@pytest.mark.parametrize("name", [*NAMES, "__init__.py"])
def test_nothing_is_loaded_that_can_run_code(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & CODE
        if isinstance(node, ast.ImportFrom):
            taken = {alias.name for alias in node.names}
            assert (node.module or "").split(".")[0] not in CODE
            assert not (node.module == "joblib" and taken & {"load", "dump"})
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            called = ast.unparse(node.func)
            for keyword, wanted in (("allow_pickle", False), ("safe_mode", True)):
                if keyword in keywords:
                    assert ast.literal_eval(keywords[keyword]) is wanted, called
            if called in {"np.load", "numpy.load"}:
                assert "allow_pickle" in keywords
            if called.endswith("saving.load_model"):
                assert "safe_mode" in keywords
            assert called not in {"eval", "exec", "joblib.load"}


def test_only_the_face_lies_at_the_root() -> None:
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["__init__.py", "cli.py"]


def test_no_file_is_longer_than_can_be_read_at_once() -> None:
    assert [name for name in NAMES if len((ROOT / name).read_text().splitlines()) > 400] == []


def list_functions_with_many_parameters(source: str) -> list[str]:
    """The functions and methods with more than eight parameters, `self` and `cls` not counted."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    counts = []
    for node in functions:
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        counts.append((node.name, len([each for each in parameters if each.arg not in {"self", "cls"}])))
    return [name for name, count in counts if count > 8]


def test_no_function_below_the_commands_has_more_than_eight_parameters() -> None:
    files = [path for path in MODULES if path.parent.name != "render" and path.parent.name != "commands"]
    files += [path for folder in ("examples", "benchmarks") for path in (ROOT / folder).glob("*.py")]
    offenders = {
        f"{path.relative_to(ROOT)}:{name}"
        for path in files
        for name in list_functions_with_many_parameters(path.read_text())
    }
    assert offenders == set()


def test_keyword_only_parameters_are_counted_and_self_is_not() -> None:
    assert list_functions_with_many_parameters("def f(a, b, c, d, e, *, f, g, h, i): ...") == ["f"]
    assert list_functions_with_many_parameters("class A:\n    def f(self, a, b, c, d, e, *, f, g, h): ...") == []


def test_the_packages_listed_are_the_folders_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = project["tool"]["setuptools"]["packages"]
    folders = {path.relative_to(ROOT).parent for path in MODULES} - {Path()}
    assert sorted(listed) == sorted(["humeris", *(f"humeris.{'.'.join(folder.parts)}" for folder in folders)])
    there = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "examples", "benchmarks"}
    assert there == set(FOLDERS)


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == humeris.__version__


def test_the_data_files_that_ship_are_listed() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert data["humeris.extract.backbones"] == ["nano.weights.h5"]
    assert (ROOT / "extract/backbones/nano.weights.h5").is_file()
    assert (ROOT / "extract/backbones/nano.weights.h5").stat().st_size < 1_000_000
    assert (ROOT / "py.typed").is_file()


def test_the_public_names_are_sorted_importable_and_all_there_is() -> None:
    assert humeris.__all__ == ["__version__", *sorted(humeris.__all__[1:])]
    assert dir(humeris) == sorted(humeris.__all__)
    for name in humeris.__all__:
        assert getattr(humeris, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = humeris.nothing  # type: ignore[attr-defined]


def test_type_checkers_see_the_public_names_and_no_other() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    branch = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = {
        alias.asname: (alias.name, node.module)
        for node in branch.body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert imports == {name: (name, module) for name, module in humeris._MODULES.items()}
    assert len(imports) == sum(len(node.names) for node in branch.body if isinstance(node, ast.ImportFrom))


HEAVY = ["tensorflow", "keras", "h5py", "sklearn", "joblib", "PIL", "rich", "typer", "platformdirs", "numpy", "scipy"]


def heavy_after(code: str) -> list[str]:
    """Which heavy modules are loaded after `code`, in a fresh process."""
    ask = f"{code}\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert heavy_after("import humeris") == []


def test_the_errors_are_light() -> None:
    assert heavy_after("from humeris import HumerisError") == []


PREPOSITION = re.compile(
    "of|at|by|with|without|within|in|into|on|onto|over|under|above|below|besides?|between|beyond|behind|before|after|about|"
    "across|along|among|around|until|till|upon|via|per|since|like|near|off|out|up|down|through|toward|against|during|except|"
    "inside|outside|than|whose|which|what|where|when|why|how|there|now|then|again|already|also|alike|alone|apart|together|"
    "instead|else|even|ever|only|just|still|rather|soon|too|very|away|back|once"
)
IRREGULAR = re.compile(
    "made|found|told|kept|given|done|gone|seen|known|taken|chosen|written|drawn|shown|shrunk|left|held|sent|built|begun|bound|"
    "brought|bought|caught|fed|fought|hidden|hung|laid|led|lent|lost|meant|met|paid|said|sold|shaken|shot|slept|spent|spoken|"
    "stood|stolen|struck|stuck|swept|taught|thought|thrown|torn|understood|worn|woven|won|broken|frozen|forgotten"
)
VERBS = {"embed", "feed", "need", "seed", "exceed", "proceed", "speed", "shed"}
NOUNS_OF_THE_FIELD = {"paired_difference_ci", "grouped_difference_ci", "supervised_contrastive_loss"}
VAGUE = {"found", "told", "made", "kept", "given", "done"}


def is_misnamed(name: str) -> bool:
    """Whether a function is called by a participle, a preposition or an adverb; `from_…`, `to_…` and `as_…` convert."""
    if name in NOUNS_OF_THE_FIELD:
        return False
    first = name.strip("_").split("_")[0]
    participle = (first.endswith(("ed", "ing")) and first not in VERBS) or IRREGULAR.fullmatch(first)
    return bool(participle or PREPOSITION.fullmatch(first)) or name.strip("_") in {"from", "to", "as"}


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_verbs_and_locals_say_what_they_hold(name: str) -> None:
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("__"):
            decorators = {ast.unparse(each).split(".")[-1] for each in node.decorator_list}
            assert decorators & {"property", "cached_property"} or not is_misnamed(node.name), (
                f"{name}:{node.lineno} {node.name}"
            )
        stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id
        argument = isinstance(node, ast.arg) and node.arg
        assert not {stored, argument} & VAGUE, f"{name}:{getattr(node, 'lineno', 0)} {stored or argument}"


@pytest.mark.parametrize("name", ["decoded", "of", "with_", "alike", "_seeing", "kept"])
def test_the_rule_of_names_knows_a_participle(name: str) -> None:
    assert is_misnamed(name)
    assert not any(map(is_misnamed, ("decode", "from_dict", "to_dict", "embed", "fit", "log_loss", "_feed")))


def test_the_citation_and_the_workflow_agree_with_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    assert "make test" in workflow
    assert '["3.11", "3.13"]' in workflow


def test_what_is_marked_slow_is_there() -> None:
    files = [path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    assert [start for start in SLOW if not any(file.startswith(start) for file in files)] == []
