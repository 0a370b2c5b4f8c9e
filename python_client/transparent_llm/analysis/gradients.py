"""What a number of a row hangs on, by gradients: one pass there and back next to the weights, for all places at once.

Saliency and input x gradient (Simonyan et al., 2013; Shrikumar et al., 2016), integrated gradients (Sundararajan et
al., 2017), attribution patching (Nanda, 2023): estimates of what sweeps measure exactly. `occlusion` is such a sweep.
In a mixture of experts the gradient goes through the experts that were chosen, as if no other could have been.

With `edits` it is all of the run as it is with these: what stands at a site, and the gradient by it, are those after
the edits there. The gradient goes through what they do; what they set or freeze is a constant.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, get_args

import torch

from transparent_llm.analysis.choices import checked_choice
from transparent_llm.analysis.differentiation import (
    DIRECT,
    Differentiation,
    Form,
    Frozen,
    Path,
    SiteGradient,
)
from transparent_llm.analysis.gradient_grids import (
    OfPositions,
    Places,
    axis_of,
    chosen_layers,
    differentiable,
    differentiated,
    grid,
    said,
    sites_of,
)
from transparent_llm.analysis.labelled import Labelled, OnAxes
from transparent_llm.analysis.metrics import Metric
from transparent_llm.analysis.rows import Row
from transparent_llm.analysis.sweeps import ablation_sweep, patch_sweep
from transparent_llm.analysis.token_names import TokenName, token_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import Intervention, Site, neurons, residual_in

__all__ = [
    "DIRECT",
    "Metric",
    "attribution_patching",
    "gradient",
    "gradient_x_activation",
    "input_x_gradient",
    "integrated_gradients",
    "occlusion",
    "saliency",
]


def gradient(
    llm: TransparentLlm,
    site: Site,
    metric: Metric,
    *,
    batch_i: int = 0,
    frozen: Collection[Frozen] = (),
    form: Form = "gradient",
    edits: Sequence[Intervention] = (),
) -> Labelled:
    """The gradient of a number of a row by one tensor of its run.

    Args:
        llm: An object with a current run, without edits.
        site: Any but the scales of norms and neurons of experts: see `interventions`.
        metric: What is differentiated: see `metrics`.
        batch_i: The row.
        frozen: Constants of the backward pass; `DIRECT`: all, which leaves the direct effect on the output.
        form: "gradient", "times_activation" or "norm": see `differentiation.Form`.
        edits: Of the run as it is differentiated; rows are those of the whole run.

    Returns:
        One tensor named as the form, on the axes of the site without the batch. The title has the metric.

    Raises:
        NotSupportedError: the object has no gradients, the model nothing at the site, or it is quantised.
        TooLargeError: more than the server computes at once.
        InvalidRequestError, IndexOutOfRangeError: what makes no sense, or is not there.
    """
    row = Row.of(llm, batch_i)
    asked = SiteGradient(site, form)
    found = differentiated(llm, row, metric, [asked], frozen, edits)
    tensor, dims = found.sites[0][0], asked.dims[1:]
    words = row.words(llm)
    axes = tuple(axis_of(name, size, words) for name, size in zip(dims, tensor.shape, strict=True))
    return Labelled(f"{form} of {said(metric, found)} by {site}", axes, {form: OnAxes(tensor, dims)})


def saliency(
    llm: TransparentLlm,
    metric: Metric,
    *,
    batch_i: int = 0,
    site: Site | None = None,
    frozen: Collection[Frozen] = (),
    edits: Sequence[Intervention] = (),
) -> Labelled:
    """The length of the gradient at each position [pos], by the embedding or another site of the stream or a branch.

    Raises: as `gradient`.
    """
    return gradient(llm, site or residual_in(0), metric, batch_i=batch_i, frozen=frozen, form="norm", edits=edits)


def input_x_gradient(
    llm: TransparentLlm,
    metric: Metric,
    *,
    batch_i: int = 0,
    frozen: Collection[Frozen] = (),
    edits: Sequence[Intervention] = (),
) -> Labelled:
    """The embedding times its gradient, summed [pos]. Positions are in the embedding where the model adds them to it.

    Raises: as `gradient`.
    """
    return gradient(llm, residual_in(0), metric, batch_i=batch_i, frozen=frozen, form="times_activation", edits=edits)


def gradient_x_activation(
    llm: TransparentLlm,
    places: Places,
    metric: Metric,
    *,
    batch_i: int = 0,
    layer: int | None = None,
    frozen: Collection[Frozen] = (),
    edits: Sequence[Intervention] = (),
) -> Labelled:
    """What stands at each place times the gradient by it: to first order, what the metric loses where it is set to 0.

    Args:
        llm: An object with a current run, without edits.
        places: A site of the stream or a branch [layer pos]; "head" [layer pos head]; "neurons" [layer pos neuron].
        metric: What is differentiated: see `metrics`.
        batch_i: The row.
        layer: This one alone. None: all.
        frozen: As in `gradient`.
        edits: As in `gradient`.

    Returns:
        `value`. The title has the metric.

    Raises: as `gradient`.
    """
    row = Row.of(llm, batch_i)
    layers = chosen_layers(llm, layer)
    asked = [SiteGradient(site, "times_activation") for site in sites_of(places, layers)]
    found = differentiated(llm, row, metric, asked, frozen, edits)
    return grid(llm, row, layers, asked, found, f"{places} times gradient of {said(metric, found)}", "value")


def integrated_gradients(
    llm: TransparentLlm,
    metric: Metric,
    *,
    baseline: Literal["zero"] | TokenName | TransparentLlm = "zero",
    steps: int = 50,
    batch_i: int = 0,
    site: Site | None = None,
    edits: Sequence[Intervention] = (),
) -> Labelled:
    """How a number of a row comes about between a baseline and what the run has at a site: gradients along the straight
    way.

    Args:
        llm: An object with a current run, without edits.
        metric: What is differentiated: see `metrics`. One that is KL of the run itself is 0 at its end.
        baseline: "zero"; the id or the text of a token: what the model has at the site, without edits, where it stands
            at all positions; or an object whose current run has as many rows, each of as many tokens. A token with the
            text "zero" is named by its id.
        steps: Nodes of the Gauss-Legendre rule: as many gradients are computed.
        batch_i: The row.
        site: `residual_in`, `residual_out`, `attn_out`, `ffn_out` or `head`, at all positions. None: the embedding,
            `residual_in(0)`.
        edits: As in `gradient`. The way ends at what those at the site left; what is put at the site on the way is
            edited no more there.

    Returns:
        `by_element` on the axes of the site, [pos d_model] or [pos head d_head], and `value`, its sum over the last,
        [pos] or [pos head]; `delta`: how far the sum of all is
        from the difference of the metric at both ends, which the title says. More steps make it smaller. From zeros it
        can stay large, as the first norm makes most of its turn next to them: compare with the baseline of a token.

    Raises: as `gradient`.
    """
    row = Row.of(llm, batch_i)
    start = token_of(llm, "baseline", baseline) if isinstance(baseline, str) and baseline != "zero" else baseline
    path = Path(start, steps, site or residual_in(0))  # type: ignore[arg-type]  # a text is "zero" now, or was looked up
    asked = Differentiation(metric.of_ids(llm, row.index), rows=(row.index,), path=path, edits=tuple(edits))
    found = differentiable(llm).gradients(asked)
    assert found.integrated is not None  # of a path
    values = found.integrated.values[0]
    before, after = float(found.integrated.baseline_metric[0]), float(found.metric[0])
    words, dims = row.words(llm), path.dims[1:]
    axes = tuple(axis_of(name, size, words) for name, size in zip(dims, values.shape, strict=True))
    tensors = {
        "value": OnAxes(values.sum(dim=-1), dims[:-1]),
        "by_element": OnAxes(values, dims),
        "delta": OnAxes(found.integrated.delta[0], ()),
    }
    where = "" if site is None else f" by {site}"
    return Labelled(f"integrated gradients of {metric}{where} from {before:.4g} to {after:.4g}", axes, tensors)


def occlusion(llm: TransparentLlm, metric: Metric, *, batch_i: int = 0, site: OfPositions = "residual_in") -> Labelled:
    """What the metric becomes where the embedding of one position is 0: `value` and `change` [pos]. Measured, by an
    ablation sweep, and no estimate.

    Raises: as `ablation_sweep`.
    """
    swept = ablation_sweep(llm, checked_choice("site", site, get_args(OfPositions)), metric, batch_i=batch_i, layer=0)
    axes = tuple(axis for axis in swept.axes if axis.name == "pos")
    tensors = {name: OnAxes(one.tensor[0], ("pos",)) for name, one in swept.tensors.items()}
    return Labelled(swept.title, axes, tensors)


def attribution_patching(
    clean: TransparentLlm,
    corrupt: TransparentLlm,
    places: Places,
    metric: Metric,
    *,
    clean_row: int = 0,
    corrupt_row: int = 0,
    layer: int | None = None,
    units: Sequence[int] | None = None,
    verify: bool = False,
) -> Labelled:
    """What the metric of the corrupt row gains, to first order, where one place has what the clean row had there:
    (clean - corrupt) times the gradient at the corrupt row. It estimates `patch_sweep` by one pass; the estimate is
    exact where the metric is linear in the place.

    Args:
        clean: An object whose current run has the clean row.
        corrupt: An object of the same model whose current run, without edits, has the corrupt row, of as many tokens.
        places: A site of the stream or a branch [layer pos]; "head", at all positions [layer head]; "neurons", of one
            layer at all positions [layer neuron].
        metric: What is differentiated: see `metrics`.
        clean_row: Of the clean run.
        corrupt_row: Of the corrupt run.
        layer: This one alone. None: all; neurons need one.
        units: With "neurons", these alone. None: all.
        verify: Also patch each place, for comparison; neurons need `units` then.

    Returns:
        `value`: positive where moving toward the clean row raises the metric. With `verify` also `patched`, what
        patching gains, and the title has the correlation of both, where they have one.

    Raises: as `gradient` and `patch_sweep`.
    """
    source, row = Row.of(clean, clean_row), Row.of(corrupt, corrupt_row)
    if source.n_tokens != row.n_tokens:
        raise InvalidRequestError(
            f"the clean row has {source.n_tokens} tokens, the corrupt one {row.n_tokens}: they must have as many, so "
            "that each position has one to be taken from"
        )
    if places == "neurons" and (layer is None or (verify and units is None)):
        raise InvalidRequestError("attribution patching of neurons is of one layer, and verified of some `units`")
    layers = chosen_layers(corrupt, layer)
    sites = [neurons(layers[0], units)] if places == "neurons" else sites_of(places, layers)
    asked = [SiteGradient(site, "times_difference", clean, (source.index,)) for site in sites]
    found = differentiated(corrupt, row, metric, asked)
    title = f"attribution patching of {places}: {said(metric, found)}"
    estimated = grid(corrupt, row, layers, asked, found, title, "value", over_positions=places in ("head", "neurons"))
    if not verify:
        return estimated
    swept = patch_sweep(
        clean, corrupt, places, metric, clean_row=clean_row, corrupt_row=corrupt_row, layer=layer, units=units
    )
    patched = swept["value"].reshape(estimated["value"].shape) - float(found.metric[0])
    tensors = {**estimated.tensors, "patched": OnAxes(patched, estimated.tensors["value"].axes)}
    return Labelled(f"{title}{_correlation(estimated['value'], patched)}", estimated.axes, tensors)


def _correlation(estimated: torch.Tensor, patched: torch.Tensor) -> str:
    """In words; none where there is no such number, as of a single place, or of places that are all the same."""
    both = torch.stack([estimated.double().flatten(), patched.flatten().to(estimated.device)])
    if both.shape[1] < 2 or not bool((both.std(dim=1) > 0).all()):
        return ""
    return f" (correlation with patching {torch.corrcoef(both)[0, 1]:.3f})"
