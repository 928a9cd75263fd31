"""Many LoRA adapters on one frozen base: each row of a batch goes through its trial's adapter.

The base computes on all rows at once. Each adapted layer then adds, to the rows of each trial, what
that trial's adapter makes of them. Trials whose adapters have the same shape are stacked and share
one batched product; no trial's numbers ever enter another's, so a NaN stays where it arose, and on
a device whose kernels treat rows alike a trial computes the same bits in any company.

Shape legend: N tokens of the batch, S trials of a run, M tokens of each of them, I inputs and O
outputs of a layer, R rank (padded to its bucket), P numbers of an adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lorasweep.errors import ModelError
from lorasweep.model.adapter import Adapter, Stack
from lorasweep.model.lora import (
    GATE,
    AdapterLayer,
    adapter_layers,
    stores_transposed,
    target_modules,
)
from lorasweep.model.routing import Part, Routing, Run
from lorasweep.model.rows import attention_cost, cache_bytes, shares_rows
from lorasweep.spec.trial import TARGET_SETS, UNGATED, LoraHyperparameters


class _AddAdapters(torch.autograd.Function):
    """Compute a frozen linear layer plus its adapters; gradients of adapters are added in place."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        anchor: Tensor,  # noqa: ARG004 - wants a gradient where x may not
        layer: PackedLinear,
        runs: tuple[Run, ...],
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


def _masks(run: Run, x_SMI: Tensor, layer: int) -> Tensor | None:
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
        self, base: Any, name: str, section: str, number: int, routing: Routing, anchor: Tensor
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
        self.routing = Routing()
        self._anchor = torch.zeros((), device=device, requires_grad=True)
        sections: dict[str, str] = {}
        for section in ("attention", "mlp"):
            with suppress(ModelError):  # whoever asks for it gets the sentence
                sections |= dict.fromkeys(target_modules(base, section), section)
        # Not every adapter on the rest of the MLP stands on the gate too.
        sections |= {name: GATE for name in sections if name.rpartition(".")[2] == GATE}
        self.layers = {
            targets: _layers_or_error(base, targets) for targets in (*TARGET_SETS, UNGATED)
        }
        for number, name in enumerate(sorted(sections)):
            parent, _, leaf = name.rpartition(".")
            linear = base.get_submodule(name)
            packed = PackedLinear(linear, name, sections[name], number, self.routing, self._anchor)
            setattr(base.get_submodule(parent), leaf, packed)

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
        places: dict[int, tuple[Stack, int]] = {}
        for shape in dict.fromkeys(adapter.shape for adapter in ordered):
            alike = [adapter for adapter in ordered if adapter.shape == shape]
            stack = Stack(alike, self.device)
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

    @cached_property
    def shares_rows(self) -> bool:
        """Tell whether attention keeps apart examples in one row, each with positions from 0.

        Found out by asking, once.
        """
        with self.route(()) as base:
            return shares_rows(base, self.device)

    @property
    def vocabulary(self) -> int:
        """Count the tokens that the base embeds."""
        return int(self.base.config.get_text_config().vocab_size)

    @property
    def attention_cost(self) -> float:
        """Give the cost of attending to one more token over that of all else done for a token."""
        return attention_cost(self.base)


def _layers_or_error(base: Any, targets: str) -> tuple[AdapterLayer, ...] | ModelError:
    try:
        return adapter_layers(base, targets)
    except ModelError as error:
        return error


class PackedCopies:
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
    def cache_bytes(self) -> int:
        """Bound what keys and values of one row take, however long it grows."""
        return cache_bytes(self._packed.base)

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
