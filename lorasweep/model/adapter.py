"""A trial's LoRA adapter as one flat vector, and stacks of adapters of the same shape.

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
    """Round a rank up to 8, 16, 32 and so on, so that more trials share a batched product."""
    bucket = SMALLEST_BUCKET
    while bucket < rank:
        bucket *= 2
    return bucket


class Adapter:
    """One trial's LoRA adapter in fp32, as one vector with its gradient.

    The rank is padded with zeros to its bucket. The padding stays zero: where A and B are both
    zero, so are both gradients, and optimizers do not move a zero weight without a gradient.

    layers: that are adapted, in the order of the model.
    scaling: factor on the adapter's output.
    weights_P, gradients_P: padded; rows of a `Stack` while the adapter is packed.
    """

    def __init__(
        self, layers: tuple[AdapterLayer, ...], hyperparameters: LoraHyperparameters, seed: int
    ) -> None:
        """Initialise an adapter as PEFT would."""
        self.layers = layers
        self.rank, self.scaling = hyperparameters.rank, hyperparameters.scaling
        self.bucket = rank_bucket(self.rank)
        # What must agree for adapters to share a stack. Finer buckets would mean smaller stacks.
        self.shape = (hyperparameters.targets, self.bucket)
        size = sum(self.bucket * (layer.inputs + layer.outputs) for layer in layers)
        self.weights_P = torch.zeros(size)
        self.gradients_P = torch.zeros(size)
        self.fill(initial_adapter(layers, self.rank, seed))

    def named(self) -> dict[str, Tensor]:
        """View the weights A and B of every layer at their real rank, by PEFT's names."""
        return self.views(self.weights_P)

    def views(self, flat_P: Tensor) -> dict[str, Tensor]:
        """View a vector of the adapter's layout as A and B of every layer at their real rank."""
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
        """Move the adapter to a device."""
        self.weights_P.data = self.weights_P.to(device)
        self.gradients_P = self.gradients_P.to(device)

    @property
    def trainable(self) -> int:
        """Number of trained parameters, padding left out."""
        return sum(self.rank * (layer.inputs + layer.outputs) for layer in self.layers)


def matrices(
    flat: Tensor, layers: Sequence[AdapterLayer], rank: int
) -> Iterator[tuple[AdapterLayer, Tensor, Tensor]]:
    """View the last dimension of `flat` as A (R x I) and B (O x R) of every layer."""
    first = 0
    # A vector holds A and then B of the first layer, A and B of the second, and so on.
    for layer in layers:
        middle = first + rank * layer.inputs
        last = middle + rank * layer.outputs
        a = flat[..., first:middle].view(*flat.shape[:-1], rank, layer.inputs)
        b = flat[..., middle:last].view(*flat.shape[:-1], layer.outputs, rank)
        yield layer, a, b
        first = last


class Stack:
    """Adapters of one shape in one tensor, so that a layer multiplies by all of them at once.

    weights, gradients: a_SRI and b_SOR by the layer's name, views of that tensor.
    """

    def __init__(self, adapters: Sequence[Adapter], device: torch.device) -> None:
        weights_SP = torch.stack([adapter.weights_P.detach() for adapter in adapters]).to(device)
        gradients_SP = torch.stack([adapter.gradients_P for adapter in adapters]).to(device)
        for i, adapter in enumerate(adapters):
            # Through .data, so that weights_P stays the tensor that the optimizer updates.
            adapter.weights_P.data = weights_SP[i]
            adapter.gradients_P = gradients_SP[i]
        layers, bucket = adapters[0].layers, adapters[0].bucket  # the same for all of one shape
        scaling = [adapter.scaling for adapter in adapters]
        self.scaling_S11 = torch.tensor(scaling, device=device)[:, None, None]
        self.weights = {la.name: (a, b) for la, a, b in matrices(weights_SP, layers, bucket)}
        self.gradients = {la.name: (a, b) for la, a, b in matrices(gradients_SP, layers, bucket)}
