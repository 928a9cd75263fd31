"""Many LoRA adapters on one frozen base: each row of a batch goes through its trial's adapter.

The base computes on all rows at once. Each adapted layer then adds to the rows of each trial the
output of that trial's adapter. Trials whose adapters have the same shape are stacked and share one
batched product. No trial's numbers enter another's, so a NaN stays in its trial; and on a device
whose kernels compute a row alike whatever rows surround it, a trial gets the same bits in any
company.

Shape legend: N tokens of the batch, S trials of a group, M tokens of each of them, I inputs and O
outputs of a layer, R rank (padded to its bucket).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lorasweep.errors import ModelError
from lorasweep.model.adapter import Adapter, Stack
from lorasweep.model.layers import ModelLayers
from lorasweep.model.lora import AdapterLayer, stores_transposed
from lorasweep.model.routing import Group, Routing, TrialRows
from lorasweep.model.rows import attention_cost, cache_bytes, shares_rows, vocabulary_of
from lorasweep.model.targets import find_layers, layers_to_adapt
from lorasweep.spec.targets import BUILT_IN, OwnSets
from lorasweep.spec.trial import LoraHyperparameters


class _AddAdapters(torch.autograd.Function):
    """A frozen linear layer plus its adapters, with gradients of the adapters added in place.

    Written out instead of left to autograd: the base's output is updated in place, and nothing but
    the input, the rank-R products and the dropout masks is kept for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        anchor: Tensor,  # noqa: ARG004 - requires a gradient where x does not
        layer: PackedLinear,
        groups: tuple[Group, ...],
    ) -> Tensor:
        """Compute x W^T + bias, plus dropout(x) A^T B^T scaling on the rows of each group."""
        y: Tensor = layer.base(x)
        x_NI = x.reshape(-1, x.shape[-1])
        y_NO = y.view(-1, y.shape[-1])
        lows, masks = [], []
        for group in groups:
            a_SRI, b_SOR = (w[group.members] for w in group.stack.weights[layer.name])
            x_SMI = group.rows(x_NI).to(a_SRI.dtype)
            mask_SMI = _masks(group, x_SMI, layer.number)
            if mask_SMI is not None:
                x_SMI = x_SMI * mask_SMI
            low_SMR = torch.bmm(x_SMI, a_SRI.mT).mul_(group.stack.scaling_S11[group.members])
            y_SMO = group.rows(y_NO)
            # In place: y belongs to this layer, and a copy would double its activations.
            if y.dtype == low_SMR.dtype:
                y_SMO.baddbmm_(low_SMR, b_SOR.mT)
            else:  # a bf16 base: add in fp32 and round once
                y_SMO.copy_(torch.baddbmm(y_SMO.float(), low_SMR, b_SOR.mT))
            lows.append(low_SMR)
            masks.append(mask_SMI)
        ctx.layer, ctx.groups = layer, groups
        # Through ctx, masks too, so that gradient checkpointing drops and recomputes them.
        ctx.save_for_backward(x, *lows, *masks)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradient of x, and add the adapters' gradients to their stacks."""
        layer: PackedLinear = ctx.layer
        x, *saved = ctx.saved_tensors
        lows, masks = saved[: len(ctx.groups)], saved[len(ctx.groups) :]
        g_NO = gradient.reshape(-1, gradient.shape[-1])
        x_NI = x.reshape(-1, x.shape[-1])
        wanted = ctx.needs_input_grad[0]
        # Nothing below the first adapted layer needs a gradient.
        gx_NI = g_NO @ layer.weight_OI if wanted else None
        for group, low_SMR, mask_SMI in zip(ctx.groups, lows, masks, strict=True):
            stack, members = group.stack, group.members
            a_SRI, b_SOR = (w[members] for w in stack.weights[layer.name])
            ga_SRI, gb_SOR = (g[members] for g in stack.gradients[layer.name])
            g_SMO = group.rows(g_NO).to(low_SMR.dtype)
            x_SMI = group.rows(x_NI).to(low_SMR.dtype)
            if mask_SMI is not None:
                x_SMI = x_SMI * mask_SMI
            gb_SOR.baddbmm_(g_SMO.mT, low_SMR)
            glow_SMR = torch.bmm(g_SMO, b_SOR).mul_(stack.scaling_S11[members])
            ga_SRI.baddbmm_(glow_SMR.mT, x_SMI)
            if gx_NI is None:
                continue
            gx_SMI = group.rows(gx_NI)
            if mask_SMI is not None:
                gx_SMI.add_(torch.bmm(glow_SMR, a_SRI).mul_(mask_SMI))
            elif gx_NI.dtype == glow_SMR.dtype:
                gx_SMI.baddbmm_(glow_SMR, a_SRI)
            else:
                gx_SMI.copy_(torch.baddbmm(gx_SMI.float(), glow_SMR, a_SRI))
        return None if gx_NI is None else gx_NI.view_as(x), None, None, None


def _masks(group: Group, x_SMI: Tensor, layer: int) -> Tensor | None:
    """Draw the dropout factors of a group's inputs; None where its trials have no dropout."""
    if not group.dropouts:
        return None
    return torch.stack([dropout(layer, x_SMI.shape[-1]) for dropout in group.dropouts])


class PackedLinear(nn.Module):
    """A linear layer of the base that applies the routed trials' adapters.

    number: of the layer among all that can be adapted; part of the dropout seed.
    """

    def __init__(self, base: Any, name: str, number: int, routing: Routing, anchor: Tensor) -> None:
        super().__init__()
        self.base, self.name, self.number = base, name, number
        self._routing, self._anchor = routing, anchor

    @property
    def weight(self) -> Tensor:
        """The frozen weight, under the name that models expect."""
        weight: Tensor = self.base.weight
        return weight

    @property
    def weight_OI(self) -> Tensor:
        """The frozen weight as outputs x inputs."""
        return self.weight.mT if stores_transposed(self.base) else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """Compute the frozen layer, and add the adapters of the routed trials."""
        groups = self._routing.groups_of(self.name, x.numel() // x.shape[-1])
        if not groups:
            y: Tensor = self.base(x)
            return y
        # The anchor requires a gradient, so that autograd records a layer whose input needs none.
        added: Tensor = _AddAdapters.apply(x, self._anchor, self, groups)  # type: ignore[no-untyped-call]
        return added


class PackedModel:
    """A frozen base whose linear layers apply the adapters of several trials at once.

    base: the transformers model; call it inside `route`.
    """

    def __init__(self, base: Any, device: torch.device, own: OwnSets | None = None) -> None:
        """Replace all linear layers that can be adapted by packed ones.

        Args:
            own: the sets of targets that the sweep defines.
        """
        self.base, self.device = base, device
        self.routing = Routing()
        self._anchor = torch.zeros((), device=device, requires_grad=True)
        found = find_layers(base)
        self.layers = {
            targets: _layers_or_error(base, found, targets, own or {})
            for targets in (*BUILT_IN, *(own or ()))
        }
        # Numbered over all layers that can be adapted, so that the dropout of a layer does not
        # depend on which targets are adapted.
        for number, name in enumerate(sorted(layer.name for layer in found.layers)):
            parent, _, leaf = name.rpartition(".")
            linear = base.get_submodule(name)
            packed = PackedLinear(linear, name, number, self.routing, self._anchor)
            setattr(base.get_submodule(parent), leaf, packed)

    def adapter(self, hyperparameters: LoraHyperparameters, seed: int) -> Adapter:
        """Initialise an adapter for a trial.

        Raises:
            ModelError: the model has no layers by the names that the targets stand for.
        """
        layers = self.layers[hyperparameters.targets]
        if isinstance(layers, ModelError):
            raise layers
        return Adapter(layers, hyperparameters, seed)

    def stack(self, adapters: Sequence[Adapter]) -> list[Adapter]:
        """Stack adapters by their shape, instead of those stacked before.

        Returns:
            The adapters in the order that lets most of them share a product in a batch.
        """
        ordered = sorted(adapters, key=lambda adapter: adapter.shape)
        stacked: dict[int, tuple[Stack, int]] = {}
        for shape in dict.fromkeys(adapter.shape for adapter in ordered):
            alike = [adapter for adapter in ordered if adapter.shape == shape]
            stack = Stack(alike, self.device)
            stacked |= {id(adapter): (stack, index) for index, adapter in enumerate(alike)}
        self.routing.restack(stacked)
        return ordered

    @contextmanager
    def route(self, trials: Sequence[TrialRows]) -> Iterator[Any]:
        """Route the rows of a batch to the trials' adapters; without trials, use the plain base.

        Stay inside until the backward pass is done: gradient checkpointing runs layers again.
        """
        before = (self.routing.trials, self.routing.groups)
        self.routing.trials, self.routing.groups = tuple(trials), {}
        try:
            yield self.base
        finally:
            self.routing.trials, self.routing.groups = before

    @cached_property
    def shares_rows(self) -> bool:
        """Whether attention keeps apart several examples in one row; tried out once."""
        with self.route(()) as base:
            return shares_rows(base, self.device)

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the base embeds."""
        return vocabulary_of(self.base)

    @property
    def attention_cost(self) -> float:
        """Cost of attending to one more token, relative to all other work for a token."""
        return attention_cost(self.base)


def _layers_or_error(
    base: Any, found: ModelLayers, targets: str, own: OwnSets
) -> tuple[AdapterLayer, ...] | ModelError:
    try:
        return layers_to_adapt(base, found, targets, own)
    except ModelError as error:  # raised only for a trial with these targets
        return error


class PackedCopies:
    """The base under evaluation, alone or with the adapters of several trials side by side.

    `Served` describes the interface.
    """

    def __init__(self, packed: PackedModel, adapters: Sequence[Adapter] = ()) -> None:
        """Evaluate stacked adapters in this order; without any, the base."""
        self._packed, self._adapters = packed, tuple(adapters)

    @property
    def copies(self) -> int:
        """Number of models."""
        return max(1, len(self._adapters))

    @property
    def cache_bytes(self) -> int:
        """Upper bound on the bytes that one row takes in the key-value cache."""
        return cache_bytes(self._packed.base)

    @contextmanager
    def all_copies(self) -> Iterator[Any]:
        """Evaluate all copies at once, each on an equal share of the rows, without gradients."""
        with self._evaluating(self._adapters) as model:
            yield model

    @contextmanager
    def one_copy(self, copy: int) -> Iterator[Any]:
        """Evaluate one copy on all rows, without gradients."""
        with self._evaluating(self._adapters[copy : copy + 1]) as model:
            yield model

    @contextmanager
    def _evaluating(self, adapters: Sequence[Adapter]) -> Iterator[Any]:
        base = self._packed.base
        training = base.training
        base.eval()
        try:
            with self._packed.route([TrialRows(adapter) for adapter in adapters]), torch.no_grad():
                yield base
        finally:
            base.train(training)
