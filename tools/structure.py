"""How the package hangs together: rooms, floors, arrows, and figures of its code, read from the source with `ast`.

    python tools/structure.py              # of this checkout
    python tools/structure.py --root DIR   # of another one
    python tools/structure.py --dot        # the rooms and arrows for Graphviz

A room is a folder of modules; a folder with several folders inside is not one room but many, a module beside those folders
being a room of its own. An arrow is an import from one room to another, whenever it happens; a floor is the length of the
longest way down from a room. An arrow back lies on a circle of rooms.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("cache", "extract", "classify", "commands")
MAX_PARAMETERS = 8
Graph = Mapping[str, set[str]]


def list_modules(root: Path) -> dict[str, Path]:
    """The modules of the product: dotted name below the package -> file."""
    files = [root / "cli.py", *(path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py")))]
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in files}


def list_imports(module: str, path: Path, modules: Iterable[str]) -> set[str]:
    """The modules of ours that a module imports, anywhere in it."""
    names = set(modules)
    package = module.split(".")[:-1]
    imports = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                as_module, as_symbol = ".".join([*base, alias.name]), ".".join(base)
                imports |= {as_module} & names or {as_symbol} & names or {f"{as_symbol}.__init__"} & names
    return imports - {module}


def name_room(module: str, modules: Iterable[str]) -> str:
    """The room a module lies in."""
    *folders, _ = module.split(".")
    room: list[str] = []
    for depth, folder in enumerate(folders, 1):
        room.append(folder)
        inside = {
            other.split(".")[depth] for other in modules if other.split(".")[:depth] == room and other.count(".") > depth
        }
        if len(inside) < 2 or depth == 2:
            return ".".join(room)
    return module.removesuffix(".__init__")


def build_graph(root: Path) -> dict[str, set[str]]:
    """Room -> the rooms that it imports from."""
    modules = list_modules(root)
    rooms = {module: name_room(module, modules) for module in modules}
    graph: dict[str, set[str]] = {room: set() for module, room in rooms.items() if not module.endswith("__init__")}
    for module, path in modules.items():
        if module.endswith("__init__"):
            continue
        targets = {rooms[target] for target in list_imports(module, path, modules) if not target.endswith("__init__")}
        graph[rooms[module]] |= targets - {rooms[module]}
    return graph


def find_circles(graph: Graph) -> list[set[str]]:
    """Sets of more than one room, each reachable from the others."""
    reach = {room: set(targets) for room, targets in graph.items()}
    for middle in graph:
        for room in graph:
            if middle in reach[room]:
                reach[room] |= reach[middle]
    circles: list[set[str]] = []
    for room in graph:
        circle = {other for other in reach[room] if room in reach[other]}
        if len(circle) > 1 and circle not in circles:
            circles.append(circle)
    return circles


def count_floors(graph: Graph) -> dict[str, int]:
    """Room -> its floor, 0 where it imports nothing; rooms of one circle share a floor."""
    circles = find_circles(graph)
    group = {room: next((frozenset(circle) for circle in circles if room in circle), frozenset({room})) for room in graph}
    floors: dict[frozenset[str], int] = {}

    def climb(rooms: frozenset[str]) -> int:
        if rooms not in floors:
            below = {group[target] for room in rooms for target in graph[room]} - {rooms}
            floors[rooms] = 1 + max((climb(other) for other in below), default=-1)
        return floors[rooms]

    return {room: climb(group[room]) for room in graph}


def count_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters of a function, without self and cls."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([argument for argument in arguments if argument.arg not in {"self", "cls"}])


def measure(root: Path) -> dict[str, Any]:
    """Every figure, as JSON values."""
    graph = build_graph(root)
    circles = find_circles(graph)
    sources = {name: path.read_text(encoding="utf-8") for name, path in list_modules(root).items()}
    trees = {name: ast.parse(source) for name, source in sources.items()}
    lengths = {name: len(source.splitlines()) for name, source in sources.items() if not name.endswith("__init__")}
    functions = [
        (name, node)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    outside = [(name, node) for name, node in functions if not name.startswith("commands.")]
    longest = max(lengths, key=lambda name: lengths[name])
    return {
        "rooms": len(graph),
        "floors": 1 + max(count_floors(graph).values()),
        "arrows": sum(map(len, graph.values())),
        "arrows_back": sum(target in circle for circle in circles for room in circle for target in graph[room]),
        "circles": [sorted(circle) for circle in circles],
        "modules": len(lengths),
        "lines": sum(lengths.values()),
        "median_lines": statistics.median(lengths.values()),
        "longest": [longest, lengths[longest]],
        "functions": len(functions),
        "functions_over_eight_parameters": sorted(
            f"{name}:{node.name} {count_parameters(node)}"
            for name, node in outside
            if count_parameters(node) > MAX_PARAMETERS
        ),
        "any": sum(isinstance(node, ast.Name) and node.id == "Any" for tree in trees.values() for node in ast.walk(tree)),
    }


def main() -> None:
    """Print the figures, or the graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--dot", action="store_true")
    options = parser.parse_args()
    if options.dot:
        arrows = [
            f'  "{room}" -> "{target}"' for room, targets in build_graph(options.root).items() for target in sorted(targets)
        ]
        print("\n".join(["digraph {", "  rankdir=BT", *arrows, "}"]))
    else:
        print(json.dumps(measure(options.root), indent=2))


if __name__ == "__main__":
    main()
