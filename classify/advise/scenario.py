"""Which of the four classic cases of transfer learning the figures of a run speak for, and how plainly.

They are those of every course on fine-tuning, by the size of the data and by how similar it is to what the network learnt
from: B1 small and similar, B2 small and different, B3 large and similar, B4 large and different.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..diagnose.depth_peak import LATE_DEPTH
from ..runs.advice import Peak, PretrainingGain, ScenarioSummary

SMALL, LARGE = 2_000, 1_000_000  # images, as the courses have it
STRATEGIES = {
    "B1": "a frozen network with a head on a late tap",
    "B2": "a frozen network with a head on an early tap",
    "B3": "the whole network retrained from its pretrained weights",
    "B4": "the whole network trained from scratch, or retrained from its pretrained weights",
}
_SCENARIOS = {
    ("small", "similar"): "B1",
    ("small", "different"): "B2",
    ("large", "similar"): "B3",
    ("large", "different"): "B4",
}
_MANY_PER_CLASS = 1_000
_LARGE_GAIN, _SMALL_GAIN = 0.5, 0.25  # of the errors on random weights that the own ones avoid
_FEW_IMAGES, _FEW_PER_CLASS = 300, 20  # images
_WIDE_INTERVAL = 0.1  # of an interval
_SIGNIFICANCE_LEVEL = 0.05
_NEAR_END = 0.9  # of the forward cost


@dataclass(frozen=True)
class Size:
    """How large the data is.

    n_images: that may be learnt from; n_groups: that they are in, None where each stands for itself; min_per_class: images
    of the rarest class.

    On a logarithmic scale from `SMALL`, 0, to `LARGE`, 1, since twice as many images bring about as much all along: the
    first third (to 15,900 images) is small, the last (from 126,000) large, and what lies between is neither. There it
    leans to large with a thousand images or more of each class, about as many as ImageNet has, on which networks are trained
    from scratch; else to small. Images of a group repeat each other, so that where there are groups these are counted.
    """

    n_images: int
    n_groups: int | None
    n_classes: int
    min_per_class: int

    @property
    def position(self) -> float:
        """Where on the scale, from 0 to 1."""
        return min(1.0, max(0.0, math.log(self._effective_count / SMALL) / math.log(LARGE / SMALL)))

    @property
    def category(self) -> str:
        """`small`, `large`, or `between`."""
        return "small" if self.position < 1 / 3 else "large" if self.position > 2 / 3 else "between"

    @property
    def nearest_category(self) -> str:
        """`small` or `large`."""
        if self.category != "between":
            return self.category
        return "large" if self._effective_count / self.n_classes >= _MANY_PER_CLASS else "small"

    @property
    def _effective_count(self) -> int:
        return max(1, self.n_groups or self.n_images)

    @property
    def reason(self) -> str:
        """The figures in words."""
        groups = "" if self.n_groups is None else f" in {self.n_groups:,} groups, which are what counts"
        return (
            f"{self.n_images:,} images to learn from{groups}, {self.n_images / self.n_classes:,.0f} a class "
            f"(small is about {SMALL:,}, large about {LARGE:,})"
        )


@dataclass(frozen=True)
class ScenarioEvidence:
    """What a scenario is judged by.

    peak: of the winner's network, None where no depth is known; other_peaks: of the other networks. gain: over random
    weights, or None for the reason in `gain_lacks`: `cached` (no such features are), `file`, `features`, `random` (the
    winner's own are), `few`. accuracy_95: of the winner on the images it was chosen by. majority_class_accuracy: of always
    predicting the commonest class. chance_p_value: how often, at most, the best of as many heads that know nothing would do
    as well (Bonferroni).
    """

    size: Size
    peak: Peak | None
    other_peaks: Sequence[Peak]
    gain: PretrainingGain | None
    gain_lacks: str
    accuracy_95: tuple[float, float]
    majority_class_accuracy: float
    chance_p_value: float

    @property
    def at_chance(self) -> bool:
        """Whether the winner may be no better than always naming the commonest class."""
        return self.chance_p_value > _SIGNIFICANCE_LEVEL

    @property
    def peak_position(self) -> str:
        """Where the accuracy peaks, as `Peak.position` has it."""
        return "unknown" if self.peak is None else self.peak.position

    @property
    def gain_category(self) -> str:
        """Whether the own weights bring `much`, `some` or `little`; "" where that is not known."""
        if self.gain is None:
            return ""
        if self.gain.errors_avoided < _SMALL_GAIN or self.gain.difference_95[0] <= 0:
            return "little"
        return "much" if self.gain.errors_avoided >= _LARGE_GAIN else "some"

    @property
    def similarity(self) -> str | None:
        """`similar` or `different`; None where the figures do not say.

        Similar is where the accuracy peaks in the last quarter of the forward cost, whose features are the most specific to
        what the network learnt from (Yosinski, Clune, Bengio, Lipson, How transferable are features in deep neural
        networks?, NIPS 2014); different where it peaks before. Where that cannot be told, random weights decide: similar
        where the own ones avoid half of their errors, different where they avoid less than a quarter, or none that could not
        be chance. A late peak and so small a gap contradict each other. The shares are ours: no literature fixes them.
        """
        if self.at_chance or self.gain_lacks == "random":
            return None
        if self.peak_position == "end":
            return None if self.gain_category == "little" else "similar"
        if self.peak_position == "early":
            return "different"
        return {"much": "similar", "little": "different"}.get(self.gain_category)

    @property
    def scenario(self) -> str | None:
        """`B1` to `B4`, or None."""
        return _SCENARIOS.get((self.size.nearest_category, self.similarity or ""))

    def summarize(self) -> ScenarioSummary:
        """The scenario, the strategy that goes with it, what speaks for it, and what makes that unsure."""
        return ScenarioSummary(
            scenario=self.scenario,
            size=self.size.category,
            similarity=self.similarity,
            strategy=STRATEGIES.get(self.scenario or ""),
            reasons=(self.size.reason, *_explain_depth(self.peak), *_explain_gain(self.gain)),
            caveats=(
                *_list_size_caveats(self.size),
                *_list_accuracy_caveats(self),
                *_list_depth_caveats(self),
                *_list_gain_caveats(self),
            ),
        )


def format_scenario(summary: ScenarioSummary) -> str:
    """What a summary says, in a sentence without its full stop."""
    size_text = "data between small and large" if summary.size == "between" else f"{summary.size} data"
    if summary.similarity is None:
        return f"{size_text}; whether it is similar to what the network learnt from, these figures do not say"
    return (
        f"{size_text}, {summary.similarity} to what the network learnt from (case {summary.scenario} of four): "
        f"the classic answer is {summary.strategy}"
    )


def _format_points(difference: float, low: float, high: float) -> str:
    return f"{100 * difference:.1f} points (95 %: {100 * low:.1f} to {100 * high:.1f})"


def _explain_depth(peak: Peak | None) -> Iterator[str]:
    if peak is None or peak.n_layers == 1:
        return
    low, high = peak.tied_range
    tied_text = f"; layers from {low:.0%} to {high:.0%} are not told apart from it" if low < high else ""
    rival_text = ""
    if peak.gap_to_rival is not None and peak.position in {"end", "early"}:
        side = "before" if peak.position == "end" else "in"
        rival_text = f"; the best one {side} the last quarter is behind by {_format_points(*peak.gap_to_rival)}"
    yield f"{peak.backbone}: accuracy peaks at {peak.layer}, {peak.depth:.0%} of the forward cost{tied_text}{rival_text}"


def _explain_gain(gain: PretrainingGain | None) -> Iterator[str]:
    if gain is not None:
        own, random = gain.pretrained_accuracy, gain.random_init_accuracy
        yield (
            f"cross-validated anew, {gain.head} has {own:.3f} on the network's own weights, {random:.3f} on "
            f"random ones: {_format_points(own - random, *gain.difference_95)}, "
            f"{max(0.0, gain.errors_avoided):.0%} of the errors avoided"
        )


def _list_size_caveats(size: Size) -> Iterator[str]:
    if size.n_images < _FEW_IMAGES or size.min_per_class < _FEW_PER_CLASS:
        yield (
            f"{size.n_images:,} images, {size.min_per_class:,} of the rarest class, are few: others might say something else"
        )
    if size.category == "between":
        yield (
            f"the size lies {size.position:.0%} of the way from small to large, on a logarithmic scale; "
            f"taken as {size.nearest_category} for the number of images in a class"
        )


def _list_accuracy_caveats(evidence: ScenarioEvidence) -> Iterator[str]:
    low, high = evidence.accuracy_95
    if evidence.at_chance:
        yield (
            f"the winner's accuracy ({low:.3f} to {high:.3f}) is what the best of so many can have by chance, where always "
            f"naming the commonest class gets {evidence.majority_class_accuracy:.3f}: nothing may have been learnt"
        )
    elif high - low > _WIDE_INTERVAL:
        yield f"the winner's accuracy is known no better than {low:.3f} to {high:.3f}"


def _list_depth_caveats(evidence: ScenarioEvidence) -> Iterator[str]:
    peak, position = evidence.peak, evidence.peak_position
    if peak is None:
        yield "where accuracy peaks is not known: no depth of the winner's taps is"
    elif peak.n_layers == 1:
        yield f"where accuracy peaks is not known: only {peak.layer} was tried"
    elif position == "unknown":
        side = "before" if peak.shallowest >= LATE_DEPTH else "beyond"
        yield f"where accuracy peaks is not known: no layer {side} {LATE_DEPTH:.0%} of the forward cost was tried"
    elif position == "unsure":
        yield f"where accuracy peaks is unsure: layers before and beyond {LATE_DEPTH:.0%} of the cost do equally well"
    elif position == "end" and peak.deepest < _NEAR_END:
        yield f"the deepest layer tried lies at {peak.deepest:.0%} of the forward cost: the peak may lie beyond it"
    for other_peak in evidence.other_peaks:
        if {position, other_peak.position} == {"end", "early"}:
            yield (
                f"on {other_peak.backbone} accuracy peaks at {other_peak.depth:.0%} of the forward cost, which says "
                "otherwise"
            )


def _list_gain_caveats(evidence: ScenarioEvidence) -> Iterator[str]:
    reasons = {
        "cached": "no features of the same network with random weights are cached",
        "file": "a network that is a file has no counterpart with random weights",
        "few": "there are too few images of a class to compare it with random ones",
        "features": "from a file of features no network can be compared with, or trained on",
    }
    if evidence.gain_lacks == "random":
        yield "the winner's network has random weights: there is nothing it learnt from that images could be similar to"
    elif evidence.gain is None:
        yield f"what the network's own weights bring is unknown: {reasons[evidence.gain_lacks]}"
    elif evidence.peak_position == "end" and evidence.gain_category == "little":
        yield "a late peak says similar, and weights that bring so little say different: they contradict each other"
    elif evidence.peak_position == "end" and evidence.gain_category == "some":
        yield "its own weights bring the network less than they would for images that are close to what it learnt from"
    elif evidence.peak_position not in {"end", "early"}:
        mixed_text = "what the network's own weights bring lies between what is said of similar and of different images"
        yield (
            mixed_text
            if evidence.gain_category == "some"
            else "similarity rests on the comparison with random weights alone"
        )
