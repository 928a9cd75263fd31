"""One trial's LoRA adapter as one vector, and stacks of those that have one shape.

Shape legend: S adapters of a stack, I inputs and O outputs of a layer, R rank (padded to its
bucket), P numbers of an adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lorasweep.model.lora import AdapterLayer, initial_adapter
from lorasweep.spec.trial import LoraHyperparameters

SMALLEST_BUCKET = 8


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


class Stack:
    """Hold adapters of one shape, one below the other, and the views that the layers compute with.

    a_SRI, b_SOR, and their gradients: by the layer's name.
    """

    def __init__(self, adapters: Sequence[Adapter], device: torch.device) -> None:
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
