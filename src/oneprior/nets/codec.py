"""Encoder and decoder as one part."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Codec(nn.Module, ABC):
    """x -> z -> x, deterministic both ways; z has the shape `latent_shape` and about unit variance."""

    latent_shape: torch.Size

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """(n, *event_shape) -> (n, *latent_shape)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """(n, *latent_shape) -> (n, *event_shape)."""
