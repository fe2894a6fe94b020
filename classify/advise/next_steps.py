"""Next steps after a run: at most three commands, each with its reason."""

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
_LATE_SHARE, _MIDDLE_SHARE = 0.75, 0.5  # of the forward cost of the tap, where fine-tuning starts
_LINEAR_HEADS = ("logreg", "svm", "ridge", "lda")
_STRENGTH_RANGE = 1e-12, 1e12  # range of regularization values to suggest
_OTHER_NETWORKS = ("resnet50", "efficientnet_v2_b0", "convnext_tiny")  # networks of three families
_OVERFIT_ACCURACY, _OVERFIT_GAP = 0.98, 0.1  # training accuracy, and gap to held-out accuracy, of a head that overfits
_CHEAPER_SHARE = 0.9  # largest cost of a cheaper model, relative to the winner's
_SIGNIFICANCE_LEVEL = 0.05
_VIEW_OPTIONS = ("--views", "4", "--augment", "flip,crop,color")


def suggest_steps(context: AdviceContext) -> list[Step]:
    """Return at most `MAX_STEPS` next steps, the most promising first."""
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
            reason += f"; starts from the best {context.start_trial.head}, as the winner cannot be fine-tuned"
        yield Step(context.build_command("finetune", context.run, "--from", *start, *trial_options), reason)


def _finetune_tail(context: AdviceContext) -> Iterator[Step]:
    yield from _finetune_from_layer(context, _LATE_SHARE, "fine-tune the last layers")


def _finetune_middle(context: AdviceContext) -> Iterator[Step]:
    yield from _finetune_from_layer(context, _MIDDLE_SHARE, "keep the first layers frozen and fine-tune the others")


def _finetune_all(context: AdviceContext) -> Iterator[Step]:
    yield from _finetune(
        context, "fine-tune the whole network from its pretrained weights, with a low learning rate", "input"
    )


def _train_from_scratch(context: AdviceContext) -> Iterator[Step]:
    start_trial = context.start_trial
    if start_trial is not None and allows_random_weights(context.specs[start_trial.tap_refs[0].extraction]):
        yield from _finetune(context, "train the same architecture from scratch", "input", "--weights", "random")


def _try_pretrained(context: AdviceContext) -> Iterator[Step]:
    """Suggest the network's pretrained weights, if the winner's are random."""
    backbone_spec = context.backbone_spec
    if context.evidence.gain_lacks == "random" and backbone_spec is not None:
        name = replace(backbone_spec, weights=backbone_spec.info.pretrained_weights, seed=0).title
        yield Step(context.build_repeat_command("run", "-b", name), "use the same network with its pretrained weights")


def _widen_grid(context: AdviceContext) -> Iterator[Step]:
    """Suggest a wider grid, if the winner is at either end of the values tried."""
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
        strength = "strongest" if is_strongest else "weakest"
        reason = f"extend the grid: the best {option}={value:g} is the {strength} regularization tried"
        yield Step(context.build_repeat_command("sweep", "-l", context.taps, "--head", head), reason)


def _try_other_heads(context: AdviceContext) -> Iterator[Step]:
    """Suggest other heads, if only one was tried on the winner's taps."""
    tried_heads = {trial.head for trial in context.ranked_trials if trial.tap_refs == context.best.tap_refs}
    if len(tried_heads) == 1 and not _uses_all_taps(context) and _can_gain(context):
        heads = dict.fromkeys([context.best.head, *_LINEAR_HEADS])
        reason = f"try other heads: only {context.best.head} was tried on the winner's tap, and these take seconds"
        yield Step(context.build_repeat_command("sweep", "-l", context.taps, *repeat_option("--head", heads)), reason)


def _extract_random_weights(context: AdviceContext) -> Iterator[Step]:
    """Suggest extracting features with random weights, if none are cached and a comparison is possible."""
    backbone_spec = context.backbone_spec
    if context.evidence.gain_lacks == "cached" and backbone_spec is not None and backbone_spec.source.allows_random_weights:
        reason = "measure the gain from pretraining: extract the same taps with random weights, then run this command again"
        name = replace(backbone_spec, weights="random").title
        yield Step(context.build_repeat_command("extract", "-b", name, *_build_layer_options(context)), reason)


def _counter_overfitting(context: AdviceContext) -> Iterator[Step]:
    """Suggest augmented views, if the winner's training curves show overfitting."""
    fit_info = context.scores[context.best].fit_info
    curves, last_epoch = fit_info.get("curves") or {}, int(fit_info.get("epochs") or 0) - 1
    train_accuracy, val_accuracy = curves.get("accuracy") or [], curves.get("val_accuracy") or []
    if (
        0 <= last_epoch < min(len(train_accuracy), len(val_accuracy))
        and train_accuracy[last_epoch] >= _OVERFIT_ACCURACY
        and train_accuracy[last_epoch] - val_accuracy[last_epoch] >= _OVERFIT_GAP
    ):
        accuracies = (
            f"{train_accuracy[last_epoch]:.3f} on training images, {val_accuracy[last_epoch]:.3f} on held-out images"
        )
        yield from _augment(context, f"train on augmented views, as the head overfits (accuracy {accuracies})")


def _add_views(context: AdviceContext) -> Iterator[Step]:
    yield from _augment(context, "train on augmented views, as there are few images")


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
    """Suggest exporting the runner-up, if it is not significantly worse than the winner and cheaper."""
    comparison = context.runner_up
    if comparison is None or comparison.p_value <= _SIGNIFICANCE_LEVEL or not context.from_images:
        return
    runner_up_trial = next(trial for trial in context.ranked_trials if trial.id == comparison.runner_up)
    cost, other_cost = context.compute_cost(context.best), context.compute_cost(runner_up_trial)
    if 0 < other_cost <= _CHEAPER_SHARE * cost:
        reason = f"export the runner-up: not significantly worse than the winner, at {other_cost / cost:.0%} of its cost"
        yield Step(
            context.build_command("export", context.run, "--trial", runner_up_trial.id, "-o", "cheaper.keras"), reason
        )


def _spread_layers(context: AdviceContext) -> Iterator[Step]:
    """Suggest layers over the whole depth, if too few were tried to see where accuracy peaks."""
    if context.backbone_spec is not None and context.evidence.peak_position == "unknown":
        reason = "try up to eight layers over the whole depth: where accuracy peaks shows how similar the data is"
        yield Step(context.build_repeat_command("sweep", "--extract", "-b", context.backbone_spec.title), reason)


def _search_around_peak(context: AdviceContext) -> Iterator[Step]:
    """Suggest untried layers between the best one and its neighbors among those tried."""
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
        reason = f"try layers on either side of {peak.layer}, the best one"
        yield Step(context.build_repeat_command("sweep", "--extract", *words), reason)


def _try_other_network(context: AdviceContext) -> Iterator[Step]:
    used_backbones = {spec.backbone for spec in context.specs.values()}
    other_network = next((name for name in _OTHER_NETWORKS if name not in used_backbones), None)
    if context.from_images and other_network is not None:
        yield Step(
            context.build_repeat_command("run", "-b", other_network),
            "try a network of another family",
        )


def _build_layer_options(context: AdviceContext) -> list[str]:
    return repeat_option("-l", (f"{tap_ref.layer}:{tap_ref.pool}" for tap_ref in context.best.tap_refs))


def _uses_all_taps(context: AdviceContext) -> bool:
    family = find_head_family(context.best.head)
    return family is not None and family.uses_all_taps


def _can_gain(context: AdviceContext) -> bool:
    """Return whether another head can be tried on the same taps, and could be better."""
    return bool(context.taps) and context.scores[context.best].accuracy < 1
