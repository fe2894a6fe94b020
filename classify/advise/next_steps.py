"""What to try after a run: commands, at most three of them, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

from ...cache.formatting import size
from ...extract.backbones.graph import Layer
from .context import Situation, options

MOST = 3
_LATE, _MIDDLE = 0.75, 0.5  # shares of the cost of the tap from where the network is trained on
_LINEAR = ("logreg", "svm", "ridge", "lda")
_STRENGTH = {"logreg": "C", "svm": "C", "ridge": "alpha"}  # the option that says how much a head may fit
_BOUNDS = 1e-12, 1e12  # of its values
_OTHERS = ("resnet50", "efficientnet_v2_b0", "convnext_tiny")  # networks of three families
_FITS, _BELOW = 0.98, 0.1  # training accuracy, and how much lower the held-out one is, where a head overfits
_CHEAPER = 0.9  # of the winner's cost, or less
_SURE = 0.05
_VIEWS = ("--views", "4", "--augment", "flip,crop,color")


@dataclass(frozen=True)
class Step:
    """A command to paste, and why."""

    command: str
    why: str

    def to_dict(self) -> dict[str, str]:
        """JSON values."""
        return asdict(self)


def steps(found: Situation) -> list[Step]:
    """What to try next, the most promising first; `MOST` at the most."""
    kinds: dict[str, tuple[Callable[[Situation], Iterator[Step]], ...]] = {
        "B1": (_tail, _edge, _overfits, _heads, _random, _cheaper, _views),
        "B2": (_around_the_peak, _middle, _edge, _another_network, _random, _overfits, _views),
        "B3": (_whole, _tail, _edge, _heads, _random, _cheaper),
        "B4": (_from_scratch, _whole, _around_the_peak, _another_network, _random),
    }
    unknown = (_pretrained, _spread, _random, _edge, _heads, _tail, _another_network)
    at_chance = (_pretrained, _spread, _another_network, _random, _heads, _edge)
    chosen: dict[str, Step] = {}
    for make in kinds.get(found.figures.case or "", at_chance if found.figures.at_chance else unknown):
        chosen |= {step.command: step for step in make(found)}
    return list(chosen.values())[:MOST]


def _from_a_layer(found: Situation, share: float, what: str) -> Iterator[Step]:
    place = None if found.start is None else found.cut(found.start, share)
    if place is not None:
        layer, below = place
        yield from _finetune(found, f"{what}, the last {1 - below:.0%} of the cost; {_cached(found, layer)}", layer.name)


def _cached(found: Situation, layer: Layer) -> str:
    return f"caches {found.images:,} maps first, {size(found.bytes(layer))}"


def _finetune(found: Situation, why: str, *start: str) -> Iterator[Step]:
    if found.start is not None:
        other = found.start != found.best
        trial = ("--trial", found.start.id) if other else ()
        if other:
            why += f"; from the best {found.start.head}, as the winner cannot be trained further"
        yield Step(found.command("finetune", found.run, "--from", *start, *trial), why)


def _tail(found: Situation) -> Iterator[Step]:
    yield from _from_a_layer(found, _LATE, "fits the last layers to these images as well")


def _middle(found: Situation) -> Iterator[Step]:
    yield from _from_a_layer(found, _MIDDLE, "keeps the first layers and fits the others to these images")


def _whole(found: Situation) -> Iterator[Step]:
    yield from _finetune(found, "retrains the whole network from its pretrained weights, at a small rate", "input")


def _from_scratch(found: Situation) -> Iterator[Step]:
    start = found.start
    if start is not None and not found.specs[start.sources[0].extraction].file:
        yield from _finetune(found, "trains the same architecture from scratch", "input", "--weights", "random")


def _pretrained(found: Situation) -> Iterator[Step]:
    """The same network with the weights that it comes with, where all there is are random ones."""
    network = found.network
    if found.figures.gap_lacks == "random" and network is not None and network.application is not None:
        name = replace(network, weights=network.application.pretrained, seed=0).title
        yield Step(found.again("run", "-b", name), "the same network with its pretrained weights")


def _edge(found: Situation) -> Iterator[Step]:
    """A wider grid, where the winner is the last value tried on either side."""
    best = found.best
    option = _STRENGTH.get(best.head, "")
    alike = [trial for trial in found.ranked if (trial.sources, trial.head) == (best.sources, best.head)]
    values = sorted({float(trial.setting[option]) for trial in alike if option in trial.setting})
    if len(values) < 2 or not _can_gain(found):
        return
    value = float(best.setting[option])
    wider = [value * factor for factor in {values[0]: (0.01, 0.1, 1), values[-1]: (1, 10, 100)}.get(value, ())]
    if wider and _BOUNDS[0] <= wider[0] and wider[-1] <= _BOUNDS[1]:
        strongest = (value == values[0]) == (option == "C")
        head = f"{best.head},{option}={'/'.join(f'{each:g}' for each in wider)}"
        why = f"{option}={value:g} won, the {'strongest' if strongest else 'weakest'} regularisation that was tried"
        yield Step(found.again("sweep", "-l", found.taps, "--head", head), why)


def _heads(found: Situation) -> Iterator[Step]:
    """Other kinds of head, where the winner's taps have seen one kind only."""
    tried = {trial.head for trial in found.ranked if trial.sources == found.best.sources}
    if len(tried) == 1 and found.best.head != "head2toe" and _can_gain(found):
        heads = dict.fromkeys([found.best.head, *_LINEAR])
        why = f"nothing but {found.best.head} was tried on the winner's tap; these take seconds"
        yield Step(found.again("sweep", "-l", found.taps, *options("--head", heads)), why)


def _random(found: Situation) -> Iterator[Step]:
    """Features of the same network with random weights, where none are cached and they would tell something."""
    network = found.network
    if found.figures.gap_lacks == "cached" and network is not None and network.file is None:
        why = "random weights, to compare with: type the command of this run again afterwards"
        name = replace(network, weights="random").title
        yield Step(found.again("extract", "-b", name, *_layers(found)), why)


def _overfits(found: Situation) -> Iterator[Step]:
    """Augmented views, where the winner's curves say that it knows by heart what it learnt from."""
    detail = found.scores[found.best].detail
    curves, last = detail.get("curves") or {}, int(detail.get("epochs") or 0) - 1
    fits, held = curves.get("accuracy") or [], curves.get("val_accuracy") or []
    if 0 <= last < min(len(fits), len(held)) and fits[last] >= _FITS and fits[last] - held[last] >= _BELOW:
        said = f"{fits[last]:.3f} on what it learnt from, {held[last]:.3f} held out"
        yield from _augmented(found, f"the head overfits ({said}): views of each image work against that")


def _views(found: Situation) -> Iterator[Step]:
    yield from _augmented(found, "augmented views of each image, of which there are few")


def _augmented(found: Situation, why: str) -> Iterator[Step]:
    if found.network is not None and not found.views["count"] and found.best.head != "head2toe":
        words = ("-b", found.network.title, *_layers(found), "--head", found.best.head, *_VIEWS)
        yield Step(found.again("sweep", "--extract", *words), why)


def _cheaper(found: Situation) -> Iterator[Step]:
    """The runner-up, where it is not told apart from the winner and costs less."""
    compared = found.runner_up
    if compared is None or compared.p_value <= _SURE or not found.from_images:
        return
    other = next(trial for trial in found.ranked if trial.id == compared.runner_up)
    cost, its = found.cost(found.best), found.cost(other)
    if 0 < its <= _CHEAPER * cost:
        why = f"the runner-up, which is not told apart from the winner, at {its / cost:.0%} of its cost"
        yield Step(found.command("export", found.run, "--trial", other.id, "-o", "cheaper.keras"), why)


def _spread(found: Situation) -> Iterator[Step]:
    """Layers over the whole depth, where so few were tried that there is no telling where accuracy peaks."""
    if found.network is not None and found.figures.place == "unknown":
        why = "up to eight layers over the whole depth: where accuracy peaks tells similar from different"
        yield Step(found.again("sweep", "--extract", "-b", found.network.title), why)


def _around_the_peak(found: Situation) -> Iterator[Step]:
    """Layers between the best one and its neighbours among those that were tried."""
    network, peak = found.network, found.figures.peak
    if network is None or peak is None:
        return
    layers = found.layers.get(peak.extraction, ())
    tried = {source.layer for trial in found.ranked for source in trial.sources if source.extraction == peak.extraction}
    known = [number for number, layer in enumerate(layers) if layer.name in tried]
    here = next((number for number in known if layers[number].name == peak.layer), None)
    if here is None:
        return
    low = max((number for number in known if number < here), default=-1)
    high = min((number for number in known if number > here), default=len(layers))
    between = [layer for layer in layers[low + 1 : high] if layer.finished and layer.cut and layer.name not in tried]
    names = [layer.name for layer in between if len(layer.shape) > 1]
    if names:
        some = dict.fromkeys(names[round(share * (len(names) - 1))] for share in (0, 0.5, 1))
        words = ("-b", network.title, *options("-l", [*some, peak.layer]), "--head", found.best.head)
        why = f"layers on either side of {peak.layer}, the best one, that were not tried"
        yield Step(found.again("sweep", "--extract", *words), why)


def _another_network(found: Situation) -> Iterator[Step]:
    used = {spec.backbone for spec in found.specs.values()}
    other = next((name for name in _OTHERS if name not in used), None)
    if found.from_images and other is not None:
        yield Step(found.again("run", "-b", other), "a network of another family, which may know more of such images")


def _layers(found: Situation) -> list[str]:
    return options("-l", (f"{source.layer}:{source.pool}" for source in found.best.sources))


def _can_gain(found: Situation) -> bool:
    """Whether another head on the same taps can be tried, and could be any better."""
    return bool(found.taps) and found.scores[found.best].accuracy < 1
