"""Published feature networks, rebuilt from the weight file that the user names. Nothing here is downloaded."""

from oneprior.evaluation.networks.inception import Inception
from oneprior.evaluation.networks.known import PUBLISHED, Identity, Published, identify
from oneprior.evaluation.networks.vision import VisionTransformer, clip, dinov2
from oneprior.evaluation.networks.weights import fill, read_state

__all__ = [
    "PUBLISHED",
    "Identity",
    "Inception",
    "Published",
    "VisionTransformer",
    "clip",
    "dinov2",
    "fill",
    "identify",
    "read_state",
]
