"""Many LoRA adapters on one frozen base: each row of a batch goes through its trial's adapter.

The base computes on all rows at once. Each adapted layer then adds, to the rows of each trial, what
that trial's adapter makes of them. Trials whose adapters have the same shape are stacked and share
one batched product; no trial's numbers ever enter another's, so a NaN stays where it arose, and on
a device whose kernels treat rows alike a trial computes the same bits in any company.

Shape legend: N tokens of the batch, S trials of a run, M tokens of each of them, I inputs and O
outputs of a layer, R rank (padded to its bucket), P numbers of an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lorasweep.errors import ModelError
from lorasweep.model.lora import (
    AdapterLayer,
    adapter_layers,
    initial_adapter,
    stores_transposed,
    target_modules,
)
from lorasweep.spec.trial import TARGET_SETS, LoraHyperparameters

SMALLEST_BUCKET = 8

# Gives the factors on a layer's inputs, 0 or 1 / (1 - p), from the layer's number and width.
Dropout = Callable[[int, int], Tensor]


def rank_bucket(rank: int) -> int:
    """Give the rank that an adapter is padded to: 8, 16, 32 and so on."""
    bucket = SMALLEST_BUCKET
    while bucket < rank:
        bucket *= 2
    return bucket


class Adapter:
    """Hold one trial's adapter, fp32, as one vector with a gradient beside it.

    The rank is padded with zeros to its bucket. Padding never moves: where A and B are both zero,
    so are both gradients, and optimizers leave a weight alone that is zero and has none.

    layers: that bear it, in the order of the model.
    scaling: factor on its output.
    weights_P, gradients_P: padded; while it is packed, rows of a stack.
    """

    def __init__(
        self, layers: tuple[AdapterLayer, ...], hyperparameters: LoraHyperparameters, seed: int
    ) -> None:
        """Draw a fresh adapter as PEFT would."""
        self.layers = layers
        self.rank, self.scaling = hyperparameters.rank, hyperparameters.scaling
        self.bucket = rank_bucket(self.rank)
        self.shape = (hyperparameters.targets, self.bucket)
        size = sum(self.bucket * (layer.inputs + layer.outputs) for layer in layers)
        self.weights_P = torch.zeros(size)
        self.gradients_P = torch.zeros(size)
        self.fill(initial_adapter(layers, self.rank, seed))

    def named(self) -> dict[str, Tensor]:
        """Give A and B of every layer at their real rank, by PEFT's names, as views."""
        return self._views(self.weights_P)

    def named_gradients(self) -> dict[str, Tensor]:
        """Give the gradients by the names of their weights, as views."""
        return self._views(self.gradients_P)

    def _views(self, flat_P: Tensor) -> dict[str, Tensor]:
        views = {}
        for layer, a_RI, b_OR in matrices(flat_P, self.layers, self.bucket):
            views[layer.a] = a_RI[: self.rank]
            views[layer.b] = b_OR[:, : self.rank]
        return views

    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Copy matrices of the real rank into the adapter."""
        for name, view in self.named().items():
            view.copy_(values[name])

    def move(self, device: torch.device) -> None:
        """Put the adapter on a device."""
        self.weights_P.data = self.weights_P.to(device)
        self.gradients_P = self.gradients_P.to(device)

    @property
    def trainable(self) -> int:
        """Count the parameters, padding left out."""
        return sum(self.rank * (layer.inputs + layer.outputs) for layer in self.layers)


def matrices(
    flat: Tensor, layers: Sequence[AdapterLayer], rank: int
) -> Iterator[tuple[AdapterLayer, Tensor, Tensor]]:
    """Give A (R x I) and B (O x R) of every layer as views of the last dimension of `flat`."""
    first = 0
    for layer in layers:
        middle = first + rank * layer.inputs
        last = middle + rank * layer.outputs
        a = flat[..., first:middle].view(*flat.shape[:-1], rank, layer.inputs)
        b = flat[..., middle:last].view(*flat.shape[:-1], layer.outputs, rank)
        yield layer, a, b
        first = last


class _Stack:
    """Hold adapters of one shape, one below the other, and the views that the layers compute with.

    a_SRI, b_SOR, and their gradients: by the layer's name.
    """

    def __init__(self, adapters: Sequence[Adapter], device: torch.device) -> None:
        self.adapters = list(adapters)
        weights_SP = torch.stack([adapter.weights_P.detach() for adapter in adapters]).to(device)
        gradients_SP = torch.stack([adapter.gradients_P for adapter in adapters]).to(device)
        for i, adapter in enumerate(adapters):
            adapter.weights_P.data = weights_SP[i]  # the optimizer goes on holding this tensor
            adapter.gradients_P = gradients_SP[i]
        layers, bucket = adapters[0].layers, adapters[0].bucket
        scaling = [adapter.scaling for adapter in adapters]
        self.scaling_S11 = torch.tensor(scaling, device=device)[:, None, None]
        self.weights = {la.name: (a, b) for la, a, b in matrices(weights_SP, layers, bucket)}
        self.gradients = {la.name: (a, b) for la, a, b in matrices(gradients_SP, layers, bucket)}


@dataclass(frozen=True)
class _Run:
    """Name trials that stand side by side in batch and stack, and have equally many tokens.

    first, last: their tokens, in rows laid end to end.
    members: their places in the stack.
    dropouts: of each of them, or none.
    """

    first: int
    last: int
    stack: _Stack
    members: slice
    dropouts: tuple[Dropout, ...]

    def rows(self, flat: Tensor) -> Tensor:
        """Cut the run's tokens out of N, trial by trial."""
        count = self.members.stop - self.members.start
        return flat[self.first : self.last].view(count, -1, flat.shape[-1])


@dataclass(frozen=True)
class Part:
    """Hold one trial's share of a batch, whose rows follow those of the part before it.

    tokens: in its rows, padding included; None for equal shares.
    """

    adapter: Adapter
    tokens: int | None = None
    dropout: Dropout | None = None


@dataclass
class _Routing:
    """Hold which rows of the coming batch belong to whom; all adapted layers look here."""

    parts: tuple[Part, ...] = ()
    places: dict[int, tuple[_Stack, int]] = field(default_factory=dict)
    runs: dict[tuple[str, int], tuple[_Run, ...]] = field(default_factory=dict)

    def of(self, layer: str, section: str, tokens: int) -> tuple[_Run, ...]:
        """Give the runs of a layer; the layers of one section of a block share them."""
        key = (section, tokens)
        if key not in self.runs:
            self.runs[key] = tuple(self._find(layer, tokens))
        return self.runs[key]

    def _find(self, layer: str, tokens: int) -> Iterator[_Run]:
        shares = [part.tokens or tokens // max(1, len(self.parts)) for part in self.parts]
        if self.parts and sum(shares) != tokens:
            raise ValueError(f"the parts must add up to the batch, got {shares} of {tokens}")
        ends = [0]
        for share in shares:
            ends.append(ends[-1] + share)
        pending: list[tuple[int, int, _Stack, int, Dropout | None]] = []
        for part, (first, last) in zip(self.parts, pairwise(ends), strict=True):
            stack, place = self.places[id(part.adapter)]
            if layer not in stack.weights:
                continue
            here = (first, last, stack, place, part.dropout)
            if pending and not _beside(pending[-1], here):
                yield _run(pending)
                pending = []
            pending.append(here)
        if pending:
            yield _run(pending)


def _beside(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Tell whether two trials can share a product: neighbours with equally many tokens.

    A trial that drops inputs computes in another order, so it does not share with one that does
    not.
    """
    return bool(
        one[1] == other[0]
        and one[2] is other[2]
        and one[3] + 1 == other[3]
        and one[1] - one[0] == other[1] - other[0]
        and (one[4] is None) == (other[4] is None)
    )


def _run(pending: list[tuple[int, int, _Stack, int, Dropout | None]]) -> _Run:
    dropouts = tuple(item[4] for item in pending if item[4] is not None)
    members = slice(pending[0][3], pending[-1][3] + 1)
    return _Run(pending[0][0], pending[-1][1], pending[0][2], members, dropouts)


class _AddAdapters(torch.autograd.Function):
    """Compute a frozen linear layer plus its adapters; gradients of adapters are added in place."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        anchor: Tensor,  # noqa: ARG004 - wants a gradient where x may not
        layer: PackedLinear,
        runs: tuple[_Run, ...],
    ) -> Tensor:
        """Give x W^T + bias, and for the rows of each run also dropout(x) A^T B^T scaling."""
        y: Tensor = layer.base(x)
        x_NI = x.reshape(-1, x.shape[-1])
        y_NO = y.view(-1, y.shape[-1])
        lows, masks = [], []
        for run in runs:
            a_SRI, b_SOR = (w[run.members] for w in run.stack.weights[layer.name])
            x_SMI = run.rows(x_NI).to(a_SRI.dtype)
            mask_SMI = _masks(run, x_SMI, layer.number)
            if mask_SMI is not None:
                x_SMI = x_SMI * mask_SMI
            low_SMR = torch.bmm(x_SMI, a_SRI.mT).mul_(run.stack.scaling_S11[run.members])
            y_SMO = run.rows(y_NO)
            if y.dtype == low_SMR.dtype:
                y_SMO.baddbmm_(low_SMR, b_SOR.mT)
            else:  # a bf16 base: add in fp32, round once
                y_SMO.copy_(torch.baddbmm(y_SMO.float(), low_SMR, b_SOR.mT))
            lows.append(low_SMR)
            masks.append(mask_SMI)
        ctx.layer, ctx.runs = layer, runs
        # Masks, too, so that recomputing activations does not keep them.
        ctx.save_for_backward(x, *lows, *masks)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradient of x; add those of the adapters to their stacks."""
        layer: PackedLinear = ctx.layer
        x, *saved = ctx.saved_tensors
        lows, masks = saved[: len(ctx.runs)], saved[len(ctx.runs) :]
        g_NO = gradient.reshape(-1, gradient.shape[-1])
        x_NI = x.reshape(-1, x.shape[-1])
        wanted = ctx.needs_input_grad[0]
        gx_NI = g_NO @ layer.weight_OI if wanted else None
        for run, low_SMR, mask_SMI in zip(ctx.runs, lows, masks, strict=True):
            stack, members = run.stack, run.members
            a_SRI, b_SOR = (w[members] for w in stack.weights[layer.name])
            ga_SRI, gb_SOR = (g[members] for g in stack.gradients[layer.name])
            g_SMO = run.rows(g_NO).to(low_SMR.dtype)
            x_SMI = run.rows(x_NI).to(low_SMR.dtype)
            if mask_SMI is not None:
                x_SMI = x_SMI * mask_SMI
            gb_SOR.baddbmm_(g_SMO.mT, low_SMR)
            glow_SMR = torch.bmm(g_SMO, b_SOR).mul_(stack.scaling_S11[members])
            ga_SRI.baddbmm_(glow_SMR.mT, x_SMI)
            if gx_NI is None:
                continue
            gx_SMI = run.rows(gx_NI)
            if mask_SMI is not None:
                gx_SMI.add_(torch.bmm(glow_SMR, a_SRI).mul_(mask_SMI))
            elif gx_NI.dtype == glow_SMR.dtype:
                gx_SMI.baddbmm_(glow_SMR, a_SRI)
            else:
                gx_SMI.copy_(torch.baddbmm(gx_SMI.float(), glow_SMR, a_SRI))
        return None if gx_NI is None else gx_NI.view_as(x), None, None, None


def _masks(run: _Run, x_SMI: Tensor, layer: int) -> Tensor | None:
    """Give the dropout factors of a run's inputs, or None where its trials drop none."""
    if not run.dropouts:
        return None
    return torch.stack([dropout(layer, x_SMI.shape[-1]) for dropout in run.dropouts])


class PackedLinear(nn.Module):
    """Stand in a model for one of its linear layers.

    section: of the block, `attention` or `mlp`.
    number: position among the model's adapted layers, from which dropout draws.
    """

    def __init__(
        self, base: Any, name: str, section: str, number: int, routing: _Routing, anchor: Tensor
    ) -> None:
        super().__init__()
        self.base, self.name, self.section, self.number = base, name, section, number
        self._routing, self._anchor = routing, anchor

    @property
    def weight(self) -> Tensor:
        """The frozen weight, under the name that models look for."""
        weight: Tensor = self.base.weight
        return weight

    @property
    def weight_OI(self) -> Tensor:
        """The frozen weight as outputs x inputs."""
        return self.weight.mT if stores_transposed(self.base) else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Compute the frozen layer, and add the adapters of the trials that are routed."""
        runs = self._routing.of(self.name, self.section, x.numel() // x.shape[-1])
        if not runs:
            y: Tensor = self.base(x)
            return y
        # The anchor wants a gradient, so that autograd records a layer whose input wants none.
        added: Tensor = _AddAdapters.apply(x, self._anchor, self, runs)  # type: ignore[no-untyped-call]
        return added


class PackedModel:
    """Hold a frozen base whose linear layers take the adapters of several trials at once.

    base: the transformers model; call it for a batch, after `route`.
    """

    def __init__(self, base: Any, device: torch.device) -> None:
        """Put packed layers in the place of all that an adapter may stand on."""
        self.base, self.device = base, device
        self.routing = _Routing()
        self._anchor = torch.zeros((), device=device, requires_grad=True)
        sections: dict[str, str] = {}
        for section in ("attention", "mlp"):
            with suppress(ModelError):  # whoever asks for it gets the sentence
                sections |= dict.fromkeys(target_modules(base, section), section)
        self.layers = {targets: _layers_or_error(base, targets) for targets in TARGET_SETS}
        for number, name in enumerate(sorted(sections)):
            parent, _, leaf = name.rpartition(".")
            linear = base.get_submodule(name)
            packed = PackedLinear(linear, name, sections[name], number, self.routing, self._anchor)
            setattr(base.get_submodule(parent), leaf, packed)
        self._shares_rows: bool | None = None

    def adapter(self, hyperparameters: LoraHyperparameters, seed: int) -> Adapter:
        """Make a fresh adapter.

        Raises:
            ModelError: the model has no layers by the names that the targets stand for.
        """
        layers = self.layers[hyperparameters.targets]
        if isinstance(layers, ModelError):
            raise layers
        return Adapter(layers, hyperparameters, seed)

    def hold(self, adapters: Sequence[Adapter]) -> list[Adapter]:
        """Stack adapters by their shape, in place of those held so far.

        Returns:
            The adapters in the order in which a batch had best have them.
        """
        ordered = sorted(adapters, key=lambda adapter: adapter.shape)
        places: dict[int, tuple[_Stack, int]] = {}
        for shape in dict.fromkeys(adapter.shape for adapter in ordered):
            alike = [adapter for adapter in ordered if adapter.shape == shape]
            stack = _Stack(alike, self.device)
            places |= {id(adapter): (stack, place) for place, adapter in enumerate(alike)}
        self.routing.places = places
        self.routing.parts, self.routing.runs = (), {}
        return ordered

    @contextmanager
    def route(self, parts: Sequence[Part]) -> Iterator[Any]:
        """Give the base with rows routed to parts; without any it is the plain base."""
        before = (self.routing.parts, self.routing.runs)
        self.routing.parts, self.routing.runs = tuple(parts), {}
        try:
            yield self.base
        finally:
            self.routing.parts, self.routing.runs = before

    @property
    def shares_rows(self) -> bool:
        """Tell whether attention keeps apart examples in one row, each with positions from 0.

        Found out by asking, once: whether the second of two examples in a row is what it is in a
        row of its own, whatever the first one says.
        """
        if self._shares_rows is None:
            self._shares_rows = self._try_shared_row()
        return self._shares_rows

    @torch.no_grad()
    def _try_shared_row(self) -> bool:
        ids_BT = torch.arange(36, device=self.device).remainder_(self.vocabulary).view(3, 12)
        first, second, other = ids_BT
        rows_BT = torch.stack([torch.cat([first, second]), torch.cat([other, second])])
        one = torch.arange(12, device=self.device)
        training = self.base.training
        self.base.eval()
        try:
            with self.route(()) as base:
                alone = (
                    base(input_ids=second[None], position_ids=one[None], use_cache=False)
                    .logits[0]
                    .float()
                )
                shared = (
                    base(input_ids=rows_BT, position_ids=one.repeat(2, 2), use_cache=False)
                    .logits[:, 12:]
                    .float()
                )
        except TypeError:  # a model that takes no positions
            return False
        finally:
            self.base.train(training)
        scale = float(alone.std())
        apart = float((shared[0] - shared[1]).abs().max())
        moved = float((shared[0] - alone).abs().max())
        return apart < 1e-5 * scale and moved < 0.05 * scale

    @property
    def vocabulary(self) -> int:
        """Count the tokens that the base embeds."""
        return int(self.base.config.get_text_config().vocab_size)

    @property
    def attention_cost(self) -> float:
        """Give the cost of attending to one more token over that of all else done for a token.

        Both in multiply-adds of a forward pass: two products of the hidden size in each layer, and
        the weights.
        """
        text = self.base.config.get_text_config()
        weights = int(sum(p.numel() for p in self.base.parameters()))
        return 2 * float(text.num_hidden_layers * text.hidden_size) / weights


def _layers_or_error(base: Any, targets: str) -> tuple[AdapterLayer, ...] | ModelError:
    try:
        return adapter_layers(base, targets)
    except ModelError as error:
        return error


class Served:
    """Give a model for evaluation: the base alone, or as several trials have tuned it.

    copies: tuned models that answer side by side. A batch has the same rows for each of them, all
        of the first copy's, then all of the second's.
    """

    def __init__(self, packed: PackedModel, adapters: Sequence[Adapter] = ()) -> None:
        """Serve adapters that are held, in this order; without any, the base."""
        self._packed, self._adapters = packed, tuple(adapters)

    @property
    def copies(self) -> int:
        """Count the models that answer."""
        return max(1, len(self._adapters))

    @property
    def shares_rows(self) -> bool:
        """Tell whether several texts may stand in one row, each with positions from 0."""
        return self._packed.shares_rows

    @contextmanager
    def together(self) -> Iterator[Any]:
        """Give the model, with rows in equal shares for all copies, without gradients."""
        with self._evaluating(self._adapters) as model:
            yield model

    @contextmanager
    def alone(self, copy: int) -> Iterator[Any]:
        """Give the model as one copy, with all rows its own, without gradients."""
        with self._evaluating(self._adapters[copy : copy + 1]) as model:
            yield model

    @contextmanager
    def _evaluating(self, adapters: Sequence[Adapter]) -> Iterator[Any]:
        base = self._packed.base
        training = base.training
        base.eval()
        try:
            with self._packed.route([Part(adapter) for adapter in adapters]), torch.no_grad():
                yield base
        finally:
            base.train(training)


@contextmanager
def predictions_at(base: Any, places_K: Tensor) -> Iterator[None]:
    """Let the model compute logits only at some tokens, counted over rows laid end to end."""
    head = base.get_output_embeddings()

    def keep(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTD, *rest = inputs
        return (hidden_BTD.flatten(0, 1).index_select(0, places_K).unsqueeze(0), *rest)

    handle = head.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
