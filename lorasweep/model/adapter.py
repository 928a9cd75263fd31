"""A trial's LoRA adapter as one flat vector, and stacks of adapters of the same shape.

Shape legend: S adapters of a stack, I inputs and O outputs of a layer, R rank (padded to its
bucket), P numbers of an adapter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lorasweep.model.lora import AdapterLayer, initial_adapter, parameters_per_layer
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
    padded: the hyperparameters, with the bucket as the rank.
    weights_P, gradients_P: padded; rows of a `Stack` while the adapter is packed.
    """

    def __init__(
        self, layers: tuple[AdapterLayer, ...], hyperparameters: LoraHyperparameters, seed: int
    ) -> None:
        """Initialise an adapter as PEFT would."""
        self.layers, self.hyperparameters = layers, hyperparameters
        bucket = rank_bucket(hyperparameters.rank)
        self.padded = hyperparameters.model_copy(update={"rank": bucket})
        # What must agree for adapters to share a stack. Finer buckets would mean smaller stacks.
        self.shape = (hyperparameters.targets, bucket)
        self.weights_P = torch.zeros(_parameters(layers, self.padded))
        self.gradients_P = torch.zeros_like(self.weights_P)
        self.fill(initial_adapter(layers, hyperparameters, seed))

    def named(self) -> dict[str, Tensor]:
        """View the weights of every layer at their real rank, by PEFT's names."""
        return self.views(self.weights_P)

    def views(self, flat_P: Tensor) -> dict[str, Tensor]:
        """View a vector of the adapter's layout as the tensors of every layer, at its real rank."""
        views = {}
        for layer, padded in layer_tensors(flat_P, self.layers, self.padded):
            shapes = layer.shapes(self.hyperparameters)
            for (name, shape), tensor in zip(shapes.items(), padded, strict=True):
                views[name] = tensor[tuple(map(slice, shape))]
        return views

    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Copy tensors of the real rank into the adapter."""
        for name, view in self.named().items():
            view.copy_(values[name])

    def move(self, device: torch.device) -> None:
        """Move the adapter to a device."""
        self.weights_P.data = self.weights_P.to(device)
        self.gradients_P = self.gradients_P.to(device)

    @property
    def trainable(self) -> int:
        """Number of trained parameters, padding left out."""
        return _parameters(self.layers, self.hyperparameters)


def _parameters(layers: Sequence[AdapterLayer], hyperparameters: LoraHyperparameters) -> int:
    sizes = (parameters_per_layer(hyperparameters, one.inputs, one.outputs) for one in layers)
    return sum(sizes)


def layer_tensors(
    flat: Tensor, layers: Sequence[AdapterLayer], hyperparameters: LoraHyperparameters
) -> Iterator[tuple[AdapterLayer, tuple[Tensor, ...]]]:
    """View the last dimension of `flat` as the tensors of every layer, such as A and B."""
    first = 0
    # A vector holds all tensors of the first layer, then all of the second, and so on.
    for layer in layers:
        tensors = []
        for shape in layer.shapes(hyperparameters).values():
            last = first + math.prod(shape)
            tensors.append(flat[..., first:last].view(*flat.shape[:-1], *shape))
            first = last
        yield layer, tuple(tensors)


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
        layers, padded = adapters[0].layers, adapters[0].padded  # of the same shapes for all
        scaling = [adapter.hyperparameters.scaling for adapter in adapters]
        self.scaling_S11 = torch.tensor(scaling, device=device)[:, None, None]
        self.weights = {la.name: own for la, own in layer_tensors(weights_SP, layers, padded)}
        self.gradients = {la.name: own for la, own in layer_tensors(gradients_SP, layers, padded)}
