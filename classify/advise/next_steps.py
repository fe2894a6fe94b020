"""What to try after a run: commands, at most three of them, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ...cache.formatting import format_size
from ...extract.backbones.graph import Layer
from ...extract.backbones.registry import allows_random_weights
from ..heads.registry import find_head_family
from ..runs.advice import Step
from .context import AdviceContext, repeat_option

MAX_STEPS = 3
_LATE_SHARE, _MIDDLE_SHARE = 0.75, 0.5  # shares of the cost of the tap from where the network is trained on
_LINEAR_HEADS = ("logreg", "svm", "ridge", "lda")
_STRENGTH_RANGE = 1e-12, 1e12  # of the values of the option for regularization
_OTHER_NETWORKS = ("resnet50", "efficientnet_v2_b0", "convnext_tiny")  # networks of three families
_OVERFIT_ACCURACY, _OVERFIT_GAP = (
    0.98,
    0.1,
)  # training accuracy, and how much lower the held-out one is, where a head overfits
_CHEAPER_SHARE = 0.9  # of the winner's cost, or less
_SIGNIFICANCE_LEVEL = 0.05
_VIEW_OPTIONS = ("--views", "4", "--augment", "flip,crop,color")


def suggest_steps(context: AdviceContext) -> list[Step]:
    """What to try next, the most promising first; `MAX_STEPS` at the most."""
    steps_by_scenario: dict[str, tuple[Callable[[AdviceContext], Iterator[Step]], ...]] = {
        "B1": (
            _finetune_tail,
            _widen_grid,
            _counter_overfitting,
            _try_other_heads,
            _extract_random_weights,
            _export_cheaper,
            _add_views,
        ),
        "B2": (
            _search_around_peak,
            _finetune_middle,
            _widen_grid,
            _try_other_network,
            _extract_random_weights,
            _counter_overfitting,
            _add_views,
        ),
        "B3": (_finetune_all, _finetune_tail, _widen_grid, _try_other_heads, _extract_random_weights, _export_cheaper),
        "B4": (_train_from_scratch, _finetune_all, _search_around_peak, _try_other_network, _extract_random_weights),
    }
    unknown_steps = (
        _try_pretrained,
        _spread_layers,
        _extract_random_weights,
        _widen_grid,
        _try_other_heads,
        _finetune_tail,
        _try_other_network,
    )
    at_chance_steps = (
        _try_pretrained,
        _spread_layers,
        _try_other_network,
        _extract_random_weights,
        _try_other_heads,
        _widen_grid,
    )
    chosen_steps: dict[str, Step] = {}
    for suggest in steps_by_scenario.get(
        context.evidence.scenario or "", at_chance_steps if context.evidence.at_chance else unknown_steps
    ):
        chosen_steps |= {step.command: step for step in suggest(context)}
    return list(chosen_steps.values())[:MAX_STEPS]


def _finetune_from_layer(context: AdviceContext, share: float, reason: str) -> Iterator[Step]:
    cut_point = None if context.start_trial is None else context.find_cut(context.start_trial, share)
    if cut_point is not None:
        layer, share_below = cut_point
        yield from _finetune(
            context,
            f"{reason}, the last {1 - share_below:.0%} of the cost; {_describe_cached_maps(context, layer)}",
            layer.name,
        )


def _describe_cached_maps(context: AdviceContext, layer: Layer) -> str:
    return f"caches {context.n_images:,} maps first, {format_size(context.count_map_bytes(layer))}"


def _finetune(context: AdviceContext, reason: str, *start: str) -> Iterator[Step]:
    if context.start_trial is not None:
        is_other = context.start_trial != context.best
        trial_options = ("--trial", context.start_trial.id) if is_other else ()
        if is_other:
            reason += f"; from the best {context.start_trial.head}, as the winner cannot be trained further"
        yield Step(context.build_command("finetune", context.run, "--from", *start, *trial_options), reason)


def _finetune_tail(context: AdviceContext) -> Iterator[Step]:
    yield from _finetune_from_layer(context, _LATE_SHARE, "fits the last layers to these images as well")


def _finetune_middle(context: AdviceContext) -> Iterator[Step]:
    yield from _finetune_from_layer(context, _MIDDLE_SHARE, "keeps the first layers and fits the others to these images")


def _finetune_all(context: AdviceContext) -> Iterator[Step]:
    yield from _finetune(context, "retrains the whole network from its pretrained weights, at a small rate", "input")


def _train_from_scratch(context: AdviceContext) -> Iterator[Step]:
    start_trial = context.start_trial
    if start_trial is not None and allows_random_weights(context.specs[start_trial.tap_refs[0].extraction]):
        yield from _finetune(context, "trains the same architecture from scratch", "input", "--weights", "random")


def _try_pretrained(context: AdviceContext) -> Iterator[Step]:
    """The same network with the weights that it comes with, where all there is are random ones."""
    backbone_spec = context.backbone_spec
    if context.evidence.gain_lacks == "random" and backbone_spec is not None:
        name = replace(backbone_spec, weights=backbone_spec.info.pretrained_weights, seed=0).title
        yield Step(context.build_repeat_command("run", "-b", name), "the same network with its pretrained weights")


def _widen_grid(context: AdviceContext) -> Iterator[Step]:
    """A wider grid, where the winner is the last value tried on either side."""
    best = context.best
    family = find_head_family(best.head)
    if family is None or family.regularization is None:
        return
    option = family.regularization.option
    similar_trials = [trial for trial in context.ranked_trials if (trial.tap_refs, trial.head) == (best.tap_refs, best.head)]
    values = sorted({float(trial.hyperparameters[option]) for trial in similar_trials if option in trial.hyperparameters})
    if len(values) < 2 or not _can_gain(context):
        return
    value = float(best.hyperparameters[option])
    new_values = [value * factor for factor in {values[0]: (0.01, 0.1, 1), values[-1]: (1, 10, 100)}.get(value, ())]
    if new_values and _STRENGTH_RANGE[0] <= new_values[0] and new_values[-1] <= _STRENGTH_RANGE[1]:
        is_strongest = (value == values[0]) == family.regularization.is_inverse
        head = f"{best.head},{option}={'/'.join(f'{new_value:g}' for new_value in new_values)}"
        reason = f"{option}={value:g} won, the {'strongest' if is_strongest else 'weakest'} regularisation that was tried"
        yield Step(context.build_repeat_command("sweep", "-l", context.taps, "--head", head), reason)


def _try_other_heads(context: AdviceContext) -> Iterator[Step]:
    """Other kinds of head, where the winner's taps have seen one kind only."""
    tried_heads = {trial.head for trial in context.ranked_trials if trial.tap_refs == context.best.tap_refs}
    if len(tried_heads) == 1 and not _uses_all_taps(context) and _can_gain(context):
        heads = dict.fromkeys([context.best.head, *_LINEAR_HEADS])
        reason = f"nothing but {context.best.head} was tried on the winner's tap; these take seconds"
        yield Step(context.build_repeat_command("sweep", "-l", context.taps, *repeat_option("--head", heads)), reason)


def _extract_random_weights(context: AdviceContext) -> Iterator[Step]:
    """Features of the same network with random weights, where none are cached and they would tell something."""
    backbone_spec = context.backbone_spec
    if context.evidence.gain_lacks == "cached" and backbone_spec is not None and backbone_spec.source.allows_random_weights:
        reason = "random weights, to compare with: type the command of this run again afterwards"
        name = replace(backbone_spec, weights="random").title
        yield Step(context.build_repeat_command("extract", "-b", name, *_build_layer_options(context)), reason)


def _counter_overfitting(context: AdviceContext) -> Iterator[Step]:
    """Augmented views, where the winner's curves say that it knows by heart what it learnt from."""
    fit_info = context.scores[context.best].fit_info
    curves, last_epoch = fit_info.get("curves") or {}, int(fit_info.get("epochs") or 0) - 1
    train_accuracy, val_accuracy = curves.get("accuracy") or [], curves.get("val_accuracy") or []
    if (
        0 <= last_epoch < min(len(train_accuracy), len(val_accuracy))
        and train_accuracy[last_epoch] >= _OVERFIT_ACCURACY
        and train_accuracy[last_epoch] - val_accuracy[last_epoch] >= _OVERFIT_GAP
    ):
        accuracies = f"{train_accuracy[last_epoch]:.3f} on what it learnt from, {val_accuracy[last_epoch]:.3f} held out"
        yield from _augment(context, f"the head overfits ({accuracies}): views of each image work against that")


def _add_views(context: AdviceContext) -> Iterator[Step]:
    yield from _augment(context, "augmented views of each image, of which there are few")


def _augment(context: AdviceContext, reason: str) -> Iterator[Step]:
    if context.backbone_spec is not None and not context.views.count and not _uses_all_taps(context):
        words = (
            "-b",
            context.backbone_spec.title,
            *_build_layer_options(context),
            "--head",
            context.best.head,
            *_VIEW_OPTIONS,
        )
        yield Step(context.build_repeat_command("sweep", "--extract", *words), reason)


def _export_cheaper(context: AdviceContext) -> Iterator[Step]:
    """The runner-up, where it is not told apart from the winner and costs less."""
    comparison = context.runner_up
    if comparison is None or comparison.p_value <= _SIGNIFICANCE_LEVEL or not context.from_images:
        return
    runner_up_trial = next(trial for trial in context.ranked_trials if trial.id == comparison.runner_up)
    cost, other_cost = context.compute_cost(context.best), context.compute_cost(runner_up_trial)
    if 0 < other_cost <= _CHEAPER_SHARE * cost:
        reason = f"the runner-up, which is not told apart from the winner, at {other_cost / cost:.0%} of its cost"
        yield Step(
            context.build_command("export", context.run, "--trial", runner_up_trial.id, "-o", "cheaper.keras"), reason
        )


def _spread_layers(context: AdviceContext) -> Iterator[Step]:
    """Layers over the whole depth, where so few were tried that there is no telling where accuracy peaks."""
    if context.backbone_spec is not None and context.evidence.peak_position == "unknown":
        reason = "up to eight layers over the whole depth: where accuracy peaks tells similar from different"
        yield Step(context.build_repeat_command("sweep", "--extract", "-b", context.backbone_spec.title), reason)


def _search_around_peak(context: AdviceContext) -> Iterator[Step]:
    """Layers between the best one and its neighbours among those that were tried."""
    backbone_spec, peak = context.backbone_spec, context.evidence.peak
    if backbone_spec is None or peak is None:
        return
    layers = context.layers.get(peak.extraction, ())
    tried_layers = {
        tap_ref.layer
        for trial in context.ranked_trials
        for tap_ref in trial.tap_refs
        if tap_ref.extraction == peak.extraction
    }
    tried_indices = [index for index, layer in enumerate(layers) if layer.name in tried_layers]
    peak_index = next((index for index in tried_indices if layers[index].name == peak.layer), None)
    if peak_index is None:
        return
    low = max((index for index in tried_indices if index < peak_index), default=-1)
    high = min((index for index in tried_indices if index > peak_index), default=len(layers))
    new_layers = [
        layer
        for layer in layers[low + 1 : high]
        if layer.is_block_end and layer.is_cut_point and layer.name not in tried_layers
    ]
    names = [layer.name for layer in new_layers if len(layer.shape) > 1]
    if names:
        chosen_names = dict.fromkeys(names[round(share * (len(names) - 1))] for share in (0, 0.5, 1))
        words = ("-b", backbone_spec.title, *repeat_option("-l", [*chosen_names, peak.layer]), "--head", context.best.head)
        reason = f"layers on either side of {peak.layer}, the best one, that were not tried"
        yield Step(context.build_repeat_command("sweep", "--extract", *words), reason)


def _try_other_network(context: AdviceContext) -> Iterator[Step]:
    used_backbones = {spec.backbone for spec in context.specs.values()}
    other_network = next((name for name in _OTHER_NETWORKS if name not in used_backbones), None)
    if context.from_images and other_network is not None:
        yield Step(
            context.build_repeat_command("run", "-b", other_network),
            "a network of another family, which may know more of such images",
        )


def _build_layer_options(context: AdviceContext) -> list[str]:
    return repeat_option("-l", (f"{tap_ref.layer}:{tap_ref.pool}" for tap_ref in context.best.tap_refs))


def _uses_all_taps(context: AdviceContext) -> bool:
    family = find_head_family(context.best.head)
    return family is not None and family.uses_all_taps


def _can_gain(context: AdviceContext) -> bool:
    """Whether another head on the same taps can be tried, and could be any better."""
    return bool(context.taps) and context.scores[context.best].accuracy < 1
