"""Features without a published network: a network of one's own, with or without labels, and principal components.

Principal components (Pearson 1901) are the directions in which real events vary most: the leading eigenvectors of C'C
for centred events C, (n, d). With fewer events than pixels they come from the smaller matrix CC', whose eigenvectors v
give C'v. All in float64; the sign of an axis makes its largest entry positive, so that a fit is reproducible.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oneprior.core import InputError, ShapeError
from oneprior.evaluation.features import Classifier


class Own(nn.Module):
    """A trained network's features, and the activations after each of its four convolutions."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.dimension = 4 * classifier.width

    def forward(self, x: Tensor) -> Tensor:
        """(n, *event_shape) -> (n, d)."""
        fits(x, self.classifier.event_shape, self.classifier.name)
        return self.classifier.features(x)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Activations from fine to coarse, (n, channels, *space) each."""
        fits(x, self.classifier.event_shape, self.classifier.name)
        found = []
        for layer in self.classifier.body:
            x = layer(x)
            if isinstance(layer, nn.SiLU):
                found.append(x)
        return found


class Pixels(nn.Module):
    """The pixels themselves, in one row."""

    def __init__(self, event_shape: torch.Size) -> None:
        super().__init__()
        self.event_shape, self.dimension = event_shape, event_shape.numel()

    def forward(self, x: Tensor) -> Tensor:
        """(n, *event_shape) -> (n, d)."""
        fits(x, self.event_shape, "pixels")
        return x.flatten(1)


class Principal(nn.Module):
    """Coordinates along the first principal components of the pixels.

    Args:
        events: real ones, (n, channels, *space).
        components: how many.

    Raises:
        InputError: if the events are not finite, or vary in fewer directions.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, events: Tensor, components: int) -> None:
        super().__init__()
        self.event_shape, self.dimension = events.shape[1:], components
        pixels = events.flatten(1).double()
        if not bool(torch.isfinite(pixels).all()):
            raise InputError("the events to fit principal components on hold nan or infinity")
        n, d = pixels.shape
        mean = pixels.mean(0)
        centred = pixels - mean
        values, vectors = torch.linalg.eigh(centred @ centred.T if n < d else centred.T @ centred)
        values, vectors = values.flip(0), vectors.flip(1)
        rank = int((values > values.amax() * max(n, d) * torch.finfo(values.dtype).eps).sum())
        if not 1 <= components <= rank:
            raise InputError(
                f"{components} principal components were asked for, and the {n} events of {d} pixels vary in {rank} "
                f"directions; give pca:{rank} or less, or more events"
            )
        axes = vectors[:, :components]
        if n < d:
            axes = centred.T @ axes / values[:components].sqrt()
        signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        self.register_buffer("mean", mean)
        self.register_buffer("axes", axes * signs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *event_shape) -> (n, components)."""
        fits(x, self.event_shape, "the principal components")
        return ((x.flatten(1).double() - self.mean) @ self.axes).to(x.dtype)


def fits(x: Tensor, event_shape: torch.Size, what: str) -> None:
    """Refuse events of another shape.

    Raises:
        ShapeError: what was given, and what is needed.
    """
    if x.shape[1:] != event_shape:
        raise ShapeError(f"events for {what}", tuple(x.shape), ("n", *event_shape), "It knows one shape only.")
