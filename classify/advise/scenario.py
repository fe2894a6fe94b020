"""Which of the four classic cases of transfer learning the figures of a run speak for, and how plainly.

They are those of every course on fine-tuning, by the size of the data and by how similar it is to what the network learnt
from: B1 small and similar, B2 small and different, B3 large and similar, B4 large and different.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..diagnose.depth_peak import BEFORE_THE_END, Peak
from ..diagnose.random_baseline import Gap

SMALL, LARGE = 2_000, 1_000_000  # images, as the courses have it
STRATEGY = {
    "B1": "a frozen network with a head on a late tap",
    "B2": "a frozen network with a head on an early tap",
    "B3": "the whole network retrained from its pretrained weights",
    "B4": "the whole network trained from scratch, or retrained from its pretrained weights",
}
_CASES = {
    ("small", "similar"): "B1",
    ("small", "different"): "B2",
    ("large", "similar"): "B3",
    ("large", "different"): "B4",
}
_MANY_OF_A_CLASS = 1_000
_MUCH, _LITTLE = 0.5, 0.25  # of the errors on random weights that the own ones avoid
_FEW, _FEW_OF_A_CLASS = 300, 20  # images
_WIDE = 0.1  # of an interval
_SURE = 0.05
_NEARLY_ALL = 0.9  # of the forward cost


@dataclass(frozen=True)
class Size:
    """How large the data is.

    images: that may be learnt from; groups: that they are in, None where each stands for itself; fewest: images of the
    rarest class.

    On a logarithmic scale from `SMALL`, 0, to `LARGE`, 1, since twice as many images bring about as much all along: the
    first third (to 15,900 images) is small, the last (from 126,000) large, and what lies between is neither. There it
    leans to large with a thousand images or more of each class, about as many as ImageNet has, on which networks are trained
    from scratch; else to small. Images of a group repeat each other, so that where there are groups these are counted.
    """

    images: int
    groups: int | None
    classes: int
    fewest: int

    @property
    def place(self) -> float:
        """Where on the scale, from 0 to 1."""
        return min(1.0, max(0.0, math.log(self._counted / SMALL) / math.log(LARGE / SMALL)))

    @property
    def word(self) -> str:
        """`small`, `large`, or `between`."""
        return "small" if self.place < 1 / 3 else "large" if self.place > 2 / 3 else "between"

    @property
    def leans(self) -> str:
        """`small` or `large`."""
        if self.word != "between":
            return self.word
        return "large" if self._counted / self.classes >= _MANY_OF_A_CLASS else "small"

    @property
    def _counted(self) -> int:
        return max(1, self.groups or self.images)

    @property
    def why(self) -> str:
        """The figures in words."""
        groups = "" if self.groups is None else f" in {self.groups:,} groups, which are what counts"
        return (
            f"{self.images:,} images to learn from{groups}, {self.images / self.classes:,.0f} a class "
            f"(small is about {SMALL:,}, large about {LARGE:,})"
        )


@dataclass(frozen=True)
class Figures:
    """What a case is judged by.

    peak: of the winner's network, None where no depth is known; others: of the other networks. gap: over random weights, or
    None for the reason in `gap_lacks`: `cached` (no such features are), `file`, `features`, `random` (the winner's own are),
    `few`. accuracy_95: of the winner on the images it was chosen by. commonest: what always naming the commonest class gets.
    chance: how often, at most, the best of as many heads that know nothing would do as well (Bonferroni).
    """

    size: Size
    peak: Peak | None
    others: Sequence[Peak]
    gap: Gap | None
    gap_lacks: str
    accuracy_95: tuple[float, float]
    commonest: float
    chance: float

    @property
    def at_chance(self) -> bool:
        """Whether the winner may be no better than always naming the commonest class."""
        return self.chance > _SURE

    @property
    def place(self) -> str:
        """Where the accuracy peaks, as `Peak.place` has it."""
        return "unknown" if self.peak is None else self.peak.place

    @property
    def bulk(self) -> str:
        """Whether the own weights bring `much`, `some` or `little`; "" where that is not known."""
        if self.gap is None:
            return ""
        if self.gap.avoided < _LITTLE or self.gap.difference_95[0] <= 0:
            return "little"
        return "much" if self.gap.avoided >= _MUCH else "some"

    @property
    def similarity(self) -> str | None:
        """`similar` or `different`; None where the figures do not say.

        Similar is where the accuracy peaks in the last quarter of the forward cost, whose features are the most specific to
        what the network learnt from (Yosinski, Clune, Bengio, Lipson, How transferable are features in deep neural
        networks?, NIPS 2014); different where it peaks before. Where that cannot be told, random weights decide: similar
        where the own ones avoid half of their errors, different where they avoid less than a quarter, or none that could not
        be chance. A late peak and so small a gap contradict each other. The shares are ours: no literature fixes them.
        """
        if self.at_chance or self.gap_lacks == "random":
            return None
        if self.place == "end":
            return None if self.bulk == "little" else "similar"
        if self.place == "early":
            return "different"
        return {"much": "similar", "little": "different"}.get(self.bulk)

    @property
    def case(self) -> str | None:
        """`B1` to `B4`, or None."""
        return _CASES.get((self.size.leans, self.similarity or ""))

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the case, the strategy that goes with it, what speaks for it, and what makes that unsure."""
        return {
            "case": self.case,
            "size": self.size.word,
            "similarity": self.similarity,
            "strategy": STRATEGY.get(self.case or ""),
            "why": [self.size.why, *_about_depth(self.peak), *_about_gap(self.gap)],
            "thin": [*_of_size(self.size), *_of_accuracy(self), *_of_depth(self), *_of_gap(self)],
        }


def sentence(found: Mapping[str, Any]) -> str:
    """What `Figures.to_dict` says, in a sentence without its full stop."""
    size = "data between small and large" if found["size"] == "between" else f"{found['size']} data"
    if found["similarity"] is None:
        return f"{size}; whether it is similar to what the network learnt from, these figures do not say"
    return (
        f"{size}, {found['similarity']} to what the network learnt from (case {found['case']} of four): "
        f"the classic answer is {found['strategy']}"
    )


def _points(difference: float, low: float, high: float) -> str:
    return f"{100 * difference:.1f} points (95 %: {100 * low:.1f} to {100 * high:.1f})"


def _about_depth(peak: Peak | None) -> Iterator[str]:
    if peak is None or peak.taps == 1:
        return
    low, high = peak.level
    level = f"; layers from {low:.0%} to {high:.0%} are not told apart from it" if low < high else ""
    rival = ""
    if peak.rival is not None and peak.place in {"end", "early"}:
        side = "before" if peak.place == "end" else "in"
        rival = f"; the best one {side} the last quarter is behind by {_points(*peak.rival)}"
    yield f"{peak.backbone}: accuracy peaks at {peak.layer}, {peak.depth:.0%} of the forward cost{level}{rival}"


def _about_gap(gap: Gap | None) -> Iterator[str]:
    if gap is not None:
        yield (
            f"cross-validated anew, {gap.head} has {gap.own:.3f} on the network's own weights, {gap.random:.3f} on random "
            f"ones: {_points(gap.own - gap.random, *gap.difference_95)}, {max(0.0, gap.avoided):.0%} of the errors avoided"
        )


def _of_size(size: Size) -> Iterator[str]:
    if size.images < _FEW or size.fewest < _FEW_OF_A_CLASS:
        yield f"{size.images:,} images, {size.fewest:,} of the rarest class, are few: others might say something else"
    if size.word == "between":
        yield (
            f"the size lies {size.place:.0%} of the way from small to large, on a logarithmic scale; "
            f"taken as {size.leans} for the number of images in a class"
        )


def _of_accuracy(found: Figures) -> Iterator[str]:
    low, high = found.accuracy_95
    if found.at_chance:
        yield (
            f"the winner's accuracy ({low:.3f} to {high:.3f}) is what the best of so many can have by chance, where always "
            f"naming the commonest class gets {found.commonest:.3f}: nothing may have been learnt"
        )
    elif high - low > _WIDE:
        yield f"the winner's accuracy is known no better than {low:.3f} to {high:.3f}"


def _of_depth(found: Figures) -> Iterator[str]:
    peak, place = found.peak, found.place
    if peak is None:
        yield "where accuracy peaks is not known: no depth of the winner's taps is"
    elif peak.taps == 1:
        yield f"where accuracy peaks is not known: only {peak.layer} was tried"
    elif place == "unknown":
        side = "before" if peak.first >= BEFORE_THE_END else "beyond"
        yield f"where accuracy peaks is not known: no layer {side} {BEFORE_THE_END:.0%} of the forward cost was tried"
    elif place == "unsure":
        yield f"where accuracy peaks is unsure: layers before and beyond {BEFORE_THE_END:.0%} of the cost do equally well"
    elif place == "end" and peak.last < _NEARLY_ALL:
        yield f"the deepest layer tried lies at {peak.last:.0%} of the forward cost: the peak may lie beyond it"
    for other in found.others:
        if {place, other.place} == {"end", "early"}:
            yield f"on {other.backbone} accuracy peaks at {other.depth:.0%} of the forward cost, which says otherwise"


def _of_gap(found: Figures) -> Iterator[str]:
    reasons = {
        "cached": "no features of the same network with random weights are cached",
        "file": "a network that is a file has no counterpart with random weights",
        "few": "there are too few images of a class to compare it with random ones",
        "features": "from a file of features no network can be compared with, or trained on",
    }
    if found.gap_lacks == "random":
        yield "the winner's network has random weights: there is nothing it learnt from that images could be similar to"
    elif found.gap is None:
        yield f"what the network's own weights bring is unknown: {reasons[found.gap_lacks]}"
    elif found.place == "end" and found.bulk == "little":
        yield "a late peak says similar, and weights that bring so little say different: they contradict each other"
    elif found.place == "end" and found.bulk == "some":
        yield "its own weights bring the network less than they would for images that are close to what it learnt from"
    elif found.place not in {"end", "early"}:
        between = "what the network's own weights bring lies between what is said of similar and of different images"
        yield between if found.bulk == "some" else "similarity rests on the comparison with random weights alone"
