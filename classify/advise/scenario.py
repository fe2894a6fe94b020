"""The transfer-learning scenario that the evidence of a run supports, and its caveats.

The four scenarios combine the size of the data with its similarity to the pretraining data: B1 small and similar, B2 small
and different, B3 large and similar, B4 large and different.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..diagnose.depth_peak import LATE_DEPTH
from ..runs.advice import Peak, PretrainingGain, ScenarioSummary

SMALL, LARGE = 2_000, 1_000_000  # images
STRATEGIES = {
    "B1": "a frozen network with a head on a late tap",
    "B2": "a frozen network with a head on an early tap",
    "B3": "the whole network fine-tuned from its pretrained weights",
    "B4": "the whole network trained from scratch, or fine-tuned from its pretrained weights",
}
_SCENARIOS = {
    ("small", "similar"): "B1",
    ("small", "different"): "B2",
    ("large", "similar"): "B3",
    ("large", "different"): "B4",
}
_MANY_PER_CLASS = 1_000
_LARGE_GAIN, _SMALL_GAIN = 0.5, 0.25  # errors avoided by pretraining, as a fraction of those with random weights
_FEW_IMAGES, _FEW_PER_CLASS = 300, 20  # images
_WIDE_INTERVAL = 0.1  # of the confidence interval of the accuracy
_SIGNIFICANCE_LEVEL = 0.05
_NEAR_END = 0.9  # of the forward cost


@dataclass(frozen=True)
class Size:
    """The size of the data.

    Sizes are compared on a logarithmic scale from `SMALL` (0) to `LARGE` (1), as each doubling of the data helps about as
    much: the first third (up to 15,900 images) is small, the last third (from 126,000) is large. In between, data counts as
    large if it has at least a thousand images of each class, about as many as ImageNet, on which networks are trained from
    scratch; otherwise as small. Images of a group are redundant, so groups are counted instead of images.

    Parameters
    ----------
    n_images : int
        Images outside the test split.
    n_groups : int or None
        Groups of these images; None without groups.
    n_classes : int
        Classes.
    min_per_class : int
        Images of the rarest class.
    """

    n_images: int
    n_groups: int | None
    n_classes: int
    min_per_class: int

    @property
    def position(self) -> float:
        """The position on the scale, from 0 to 1."""
        return min(1.0, max(0.0, math.log(self._effective_count / SMALL) / math.log(LARGE / SMALL)))

    @property
    def category(self) -> str:
        """The size: `small`, `large`, or `between`."""
        return "small" if self.position < 1 / 3 else "large" if self.position > 2 / 3 else "between"

    @property
    def nearest_category(self) -> str:
        """The size that decides the scenario: `small` or `large`."""
        if self.category != "between":
            return self.category
        per_class = min(self._effective_count / self.n_classes, self.min_per_class)
        return "large" if per_class >= _MANY_PER_CLASS else "small"

    @property
    def _effective_count(self) -> int:
        return max(1, self.n_groups or self.n_images)

    @property
    def reason(self) -> str:
        """The size as evidence, in words."""
        groups = "" if self.n_groups is None else f" in {self.n_groups:,} groups (size is counted in groups)"
        per_class = self.n_images / self.n_classes
        is_balanced = self.min_per_class >= 0.9 * per_class
        count = f"{per_class:,.0f} per class" if is_balanced else f"{self.min_per_class:,} of the rarest class"
        return f"{self.n_images:,} training images{groups}, {count} (small: about {SMALL:,}; large: about {LARGE:,})"


@dataclass(frozen=True)
class ScenarioEvidence:
    """The evidence that a scenario is inferred from.

    Parameters
    ----------
    size : Size
        The size of the data.
    peak : Peak or None
        Where accuracy peaks in the winner's network; None if no depth is known.
    other_peaks : sequence of Peak
        Of the other networks.
    gain : PretrainingGain or None
        The gain over random weights; None for the reason in `gain_lacks`.
    gain_lacks : {"", "cached", "file", "features", "random", "few"}
        Features with random weights are not cached; the network is from a file; the data is a file of features; the winner's
        own weights are random; there are too few images.
    accuracy_95 : tuple of float
        95 % CI of the winner's accuracy on held-out images.
    majority_class_accuracy : float
        Accuracy of always predicting the most frequent class.
    chance_p_value : float
        p-value of the winner against the majority class, Bonferroni-corrected for the number of heads tried.
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
        """Whether the winner is not significantly better than the majority class."""
        return self.chance_p_value > _SIGNIFICANCE_LEVEL

    @property
    def peak_position(self) -> str:
        """Where accuracy peaks: `Peak.position`, or `unknown`."""
        return "unknown" if self.peak is None else self.peak.position

    @property
    def gain_category(self) -> str:
        """The gain from pretraining: `much`, `some` or `little`; "" if unknown."""
        if self.gain is None:
            return ""
        if self.gain.errors_avoided < _SMALL_GAIN or self.gain.difference_95[0] <= 0:
            return "little"
        return "much" if self.gain.errors_avoided >= _LARGE_GAIN else "some"

    @property
    def similarity(self) -> str | None:
        """Whether the data is `similar` to the pretraining data or `different`; None if undetermined.

        Data is similar if accuracy peaks in the last quarter of the forward cost, where features are most specific to the
        pretraining data, and different if it peaks earlier. If the peak is undetermined, random weights decide: similar if
        pretraining avoids at least half of their errors, different if it avoids less than a quarter, or not significantly
        any. A late peak with so small a gain is contradictory. The thresholds are our choice.

        References
        ----------
        Yosinski, Clune, Bengio and Lipson, "How transferable are features in deep neural networks?", NIPS 2014.
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
        """The scenario, `B1` to `B4`; None if the similarity is undetermined."""
        return _SCENARIOS.get((self.size.nearest_category, self.similarity or ""))

    def summarize(self) -> ScenarioSummary:
        """Return the scenario with its strategy, evidence and caveats."""
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
    """Format a scenario in one sentence, without the full stop."""
    size_text = "data between small and large" if summary.size == "between" else f"{summary.size} data"
    if summary.similarity is None:
        return f"{size_text}; its similarity to the pretraining data is undetermined"
    return (
        f"{size_text}, {summary.similarity} {'to' if summary.similarity == 'similar' else 'from'} the pretraining data "
        f"(scenario {summary.scenario}); usual strategy: {summary.strategy}"
    )


def _format_points(difference: float, low: float, high: float) -> str:
    return f"{100 * difference:.1f} points (95 % CI {100 * low:.1f} to {100 * high:.1f})"


def _explain_depth(peak: Peak | None) -> Iterator[str]:
    if peak is None or peak.n_layers == 1:
        return
    low, high = peak.tied_range
    tied_text = f"; layers from {low:.0%} to {high:.0%} are not significantly worse" if low < high else ""
    rival_text = ""
    if peak.gap_to_rival is not None and peak.position in {"end", "early"}:
        side = "before" if peak.position == "end" else "in"
        rival_text = f"; the best layer {side} the last quarter is worse by {_format_points(*peak.gap_to_rival)}"
    yield f"accuracy of {peak.backbone} peaks at {peak.layer}, {peak.depth:.0%} of the forward cost{tied_text}{rival_text}"


def _explain_gain(gain: PretrainingGain | None) -> Iterator[str]:
    if gain is not None:
        own, random = gain.pretrained_accuracy, gain.random_init_accuracy
        yield (
            f"cross-validated accuracy of {gain.head}: {own:.3f} with pretrained weights, {random:.3f} with random weights, "
            f"a gain of {_format_points(own - random, *gain.difference_95)}, "
            f"{max(0.0, gain.errors_avoided):.0%} of the errors avoided"
        )


def _list_size_caveats(size: Size) -> Iterator[str]:
    if size.n_images < _FEW_IMAGES or size.min_per_class < _FEW_PER_CLASS:
        yield (
            f"there are only {size.n_images:,} images, {size.min_per_class:,} of the rarest class: another sample might "
            "lead to another conclusion"
        )
    if size.category == "between":
        yield (
            f"the size is {size.position:.0%} of the way from small to large on a logarithmic scale; it counts as "
            f"{size.nearest_category} by the number of images per class"
        )


def _list_accuracy_caveats(evidence: ScenarioEvidence) -> Iterator[str]:
    low, high = evidence.accuracy_95
    if evidence.at_chance:
        yield (
            f"the winner's accuracy (95 % CI {low:.3f}–{high:.3f}) is not significantly better than the majority class "
            f"({evidence.majority_class_accuracy:.3f}), given the number of heads tried"
        )
    elif high - low > _WIDE_INTERVAL:
        yield f"the winner's accuracy is uncertain (95 % CI {low:.3f}–{high:.3f})"


def _list_depth_caveats(evidence: ScenarioEvidence) -> Iterator[str]:
    peak, position = evidence.peak, evidence.peak_position
    if peak is None:
        yield "the depth of the accuracy peak is unknown, as the depths of the winner's taps are unknown"
    elif peak.n_layers == 1:
        yield f"the depth of the accuracy peak is unknown, as only {peak.layer} was tried"
    elif position == "unknown":
        side = "before" if peak.shallowest >= LATE_DEPTH else "after"
        yield f"the depth of the accuracy peak is unknown, as no layer {side} {LATE_DEPTH:.0%} of the forward cost was tried"
    elif position == "unsure":
        yield f"the depth of the accuracy peak is uncertain: layers before and after {LATE_DEPTH:.0%} are equally good"
    elif position == "end" and peak.deepest < _NEAR_END:
        yield f"the deepest layer tried is at {peak.deepest:.0%} of the forward cost: the peak may be deeper"
    for other_peak in evidence.other_peaks:
        if {position, other_peak.position} == {"end", "early"}:
            yield (
                f"on {other_peak.backbone} accuracy peaks at {other_peak.depth:.0%} of the forward cost, which suggests the "
                "opposite"
            )


def _list_gain_caveats(evidence: ScenarioEvidence) -> Iterator[str]:
    reasons = {
        "cached": "no features of the same network with random weights are cached",
        "file": "a network from a file has no counterpart with random weights",
        "few": "there are too few images of a class for a comparison with random weights",
        "features": "a file of features has no network to compare or fine-tune",
    }
    if evidence.gain_lacks == "random":
        yield "the winner's network has random weights, so there is no pretraining data to compare with"
    elif evidence.gain is None:
        yield f"the gain from pretraining is unknown, as {reasons[evidence.gain_lacks]}"
    elif evidence.peak_position == "end" and evidence.gain_category == "little":
        yield "contradictory evidence: a late peak suggests similar data, a small gain from pretraining different data"
    elif evidence.peak_position == "end" and evidence.gain_category == "some":
        yield "the gain from pretraining is smaller than usual for images similar to the pretraining data"
    elif evidence.peak_position not in {"end", "early"}:
        mixed_text = "the gain from pretraining is between that of similar and that of different data"
        yield (
            mixed_text
            if evidence.gain_category == "some"
            else "similarity rests on the comparison with random weights alone"
        )
