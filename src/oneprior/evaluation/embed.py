"""Features: what a distribution distance looks at, and what its number may then be called.

Distances between sets of events are distances between features, phi(x) in R^d, and mean something only beside the name
of phi. Four kinds, from the most to the least comparable:

- a published network (Inception, DINOv2, CLIP) whose file is known by its checksum: its numbers may stand beside those
  of papers, under the papers' names (FID, FD-DINOv2, FD-CLIP), if the number of events and the preparation agree too;
- a network of one's own, trained on the data by `evaluation.features`;
- any function or torch module of the user's;
- the pixels, or their first principal components.

All but the first compare only with themselves. Their distance is named after them, "Frechet distance (pixels)", and
never an FID; and every network's name ends in digits that tell it from others.

Stein et al. 2023 ("Exposing flaws of generative model evaluation metrics") found people to agree with DINOv2 more
than with Inception; neither has seen volumes or medical pictures.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from oneprior.core import InputError, ShapeError, user_function
from oneprior.evaluation.features import Classifier
from oneprior.evaluation.frechet import FeatureStatistics
from oneprior.evaluation.networks.plain import Own, Pixels, Principal

_DISTANCES = {"inception": ("FID", "KID"), "dinov2": ("FD-DINOv2", "KD-DINOv2"), "clip": ("FD-CLIP", "KD-CLIP")}
_OPTIONS = {"inception": "resize", "dinov2": "positions", "clip": "activation"}
_FITTED = 4096  # events that principal components are fitted on: more move them little and cost much

WORDS = {
    "inception": "inception:FILE[#resize=tensorflow|torch]",
    "dinov2": "dinov2:FILE[#positions=official|transformers]",
    "clip": "clip:FILE[#activation=quick_gelu|gelu]",
    "own": "own:FILE",
    "pixels": "pixels",
    "pca": "pca:COMPONENTS",
}


@dataclass(frozen=True)
class Features:
    """A named function from events to feature vectors.

    Args:
        name: what tables call it; of a network, with the first 8 digits of its hash.
        dimension: d.
        network: events in [-1, 1], (n, channels, *space) -> (n, d); a module or a function.
        published: inception, dinov2 or clip, if it is one whose file has a known checksum; otherwise empty.
        stages: activations on the grid, from fine to coarse, for `perceptual_distance`; None if it has none.
    """

    name: str
    dimension: int
    network: Callable[[Tensor], Tensor]
    published: str = ""
    stages: Callable[[Tensor], list[Tensor]] | None = None

    @property
    def comparable(self) -> bool:
        """Whether its numbers may stand beside published ones."""
        return bool(self.published)

    @property
    def distance_name(self) -> str:
        """What a Frechet distance of these features is called."""
        return _DISTANCES[self.published][0] if self.published else f"Frechet distance ({self.name})"

    @property
    def kernel_name(self) -> str:
        """What a kernel distance of these features is called."""
        return _DISTANCES[self.published][1] if self.published else f"kernel distance ({self.name})"

    def __call__(self, x: Tensor) -> Tensor:
        """The features of events, (n, channels, *space) -> (n, d), without gradients.

        Raises:
            InputError: if events or features are not finite.
            ShapeError: if x is no batch of events, or the function returns anything but (n, d).
        """
        if x.dim() < 3:
            raise ShapeError("events", tuple(x.shape), "(n, channels, *space)")
        bad = ~torch.isfinite(x.flatten(1)).all(1)
        if bool(bad.any()):
            raise InputError(f"{int(bad.sum())} of {len(x)} events hold nan or infinity; the samples diverged")
        with torch.no_grad():
            found = self.network(x)
        if not isinstance(found, Tensor) or found.shape != (len(x), self.dimension):
            needed = (len(x), self.dimension)
            raise ShapeError(f"what {self.name} returns", _described(found), needed, "One vector an event.")
        if not bool(torch.isfinite(found).all()):
            raise InputError(f"{self.name} returned nan or infinity for finite events")
        return found

    def embed(self, x: Tensor, batch: int = 100) -> Tensor:
        """The features of any number of events, some at a time, (n, d)."""
        if batch < 1:
            raise InputError(f"a batch has at least one event, got {batch}")
        return torch.cat([self(part) for part in x.split(batch)] if len(x) else [x.new_zeros(0, self.dimension)])

    def to(self, device: torch.device | str) -> Features:
        """Itself, its module moved to another device; a plain function stays as it is."""
        if isinstance(self.network, nn.Module):
            self.network.to(device)
        return self


def statistics(features: Features, batches: Iterable[Tensor], batch: int = 100) -> FeatureStatistics:
    """Mean and scatter of the features of a set that need not fit in memory.

    Args:
        features: what to look at.
        batches: the events, any number at a time, (n_i, channels, *space).
        batch: events embedded at once.

    Raises:
        InputError: for no events at all.
    """
    total: FeatureStatistics | None = None
    for events in batches:
        for part in events.split(batch):
            found = FeatureStatistics.of(features(part))
            total = found if total is None else total + found
    if total is None or not total.count:
        raise InputError("there are no events to take features of")
    return total


def open_features(word: str | nn.Module | Callable[[Tensor], Tensor], events: Tensor | None = None) -> Features:
    """The features that a word of the command line means, or a Python object.

    Args:
        word: `inception:FILE`, `dinov2:FILE`, `clip:FILE`, `own:FILE` or a path that ends in .safetensors, `pixels`,
            `pca:K`, `module:function`; or a torch module or function x -> (n, d). After the file of a published network
            options may stand, as `#resize=torch,sha256=0123456789abcdef`; the latter vouches for an unknown file.
        events: real ones, (n, channels, *space): `pca` is fitted on them, and `pixels`, functions and modules take
            their dimension from the first.

    Raises:
        InputError: for an unknown word, a file that cannot be read or is not known, a function that is not there.
    """
    if not isinstance(word, str):
        return function_features(word, _needed(events, "a function"))
    kind, colon, rest = word.partition(":")
    if kind in _OPTIONS and rest:
        path, sha256, options = _file(kind, rest)
        return published_features(kind, path, sha256, **options)
    if word.endswith(".safetensors") and (not colon or Path(word).is_file()):
        return own_features(word)
    if kind == "own" and rest:
        return own_features(rest)
    if word == "pixels":
        return pixel_features(_needed(events, word))
    if kind == "pca" and rest:
        if not rest.isdecimal() or not int(rest):
            raise InputError(f"{word}: write pca:K with the number of components, as pca:64")
        return principal_features(_needed(events, word), int(rest))
    if colon and rest and kind not in WORDS:
        try:
            function = user_function(word)
        except InputError as error:
            raise InputError(f"{_near(kind)}{error}") from error
        return function_features(function, _needed(events, word), word)
    raise InputError(
        f"no features are called {word!r}; {_near(kind)}There are {', '.join(WORDS.values())}, module:function"
    )


def published_features(kind: str, path: Path | str, sha256: str | None = None, **options: str) -> Features:
    """Inception, DINOv2 or CLIP with the weights in a file.

    Args:
        kind: inception, dinov2 or clip.
        path: PyTorch state dict or safetensors file.
        sha256: leading digits of the file's hash (at least 16), which vouch for a file that is not known.
        options: `resize` for Inception, `positions` for DINOv2, `activation` for CLIP; see their modules.

    Raises:
        InputError: if the file is missing, unknown, damaged or another network's.
    """
    from oneprior.evaluation.networks import Inception, clip, dinov2, fill, identify, read_state

    unknown = set(options) - {_OPTIONS[kind]}
    if unknown:
        raise InputError(f"{kind} has no option {unknown.pop()!r}; it has {_OPTIONS[kind]} and sha256")
    identity = identify(path, kind, sha256)
    state = read_state(path)
    published, stages, usual = identity.published, None, True
    label = published.label if published else kind
    if kind == "inception":
        network = Inception(**options)  # pyright: ignore[reportArgumentType]
        fill(network, state, "Inception-v3 of the FID")
        label, stages = f"{label}-{network.resize}", network.stages
    else:
        network = (dinov2 if kind == "dinov2" else clip)(state, **options)  # pyright: ignore[reportArgumentType]
        chosen = options.get(_OPTIONS[kind])
        usual = chosen in (None, "official", "quick_gelu")  # what the published numbers were measured with
        label = label if usual else f"{label}-{chosen}"
    name = f"{label}-{identity.sha256[:8]}"
    return Features(name, network.dimension, network, kind if published and usual else "", stages)


def own_features(network: Path | str | Classifier) -> Features:
    """A network trained on the data, with labels or without, from its file or as it is."""
    own = Own(network if isinstance(network, Classifier) else Classifier.load(network))
    return Features(own.classifier.name, own.dimension, own, stages=own.stages)


def pixel_features(events: Tensor) -> Features:
    """The pixels themselves; the events (n, channels, *space) tell their shape."""
    pixels = Pixels(events.shape[1:])
    return Features("pixels", pixels.dimension, pixels)


def principal_features(events: Tensor, components: int) -> Features:
    """Coordinates along the first principal components of real events.

    Args:
        events: real ones, (n, channels, *space); of more than 4096, evenly spaced ones are used.
        components: how many.

    Raises:
        InputError: if the events vary in fewer directions, or are not finite.
    """
    fitted = events[:: max(1, -(-len(events) // _FITTED))]
    return Features(f"pca{components}-{_digits(fitted)}", components, Principal(fitted, components))


def function_features(function: Callable[[Tensor], Tensor], events: Tensor, name: str = "") -> Features:
    """A torch module or function of the user's.

    Args:
        function: x in [-1, 1], (n, channels, *space) -> (n, d); a module must be in evaluation mode.
        events: the first tells d.
        name: what tables call it, otherwise its own name; a module's ends in the digits of its weights' hash.

    Raises:
        InputError: if it is a module in training mode, or fails on the first event.
        ShapeError: if it returns anything but (n, d).
    """
    name = name or getattr(function, "__name__", type(function).__name__)
    if isinstance(function, nn.Module):
        if function.training:
            raise InputError(f"{name} is in training mode, where features depend on the batch; call its eval() first")
        name = f"{name}-{_digits(*(value for _, value in sorted(function.state_dict().items())))}"
    try:
        with torch.no_grad():
            found = function(events[:1])
    except Exception as error:
        raise InputError(
            f"{name} fails on one event of shape {tuple(events.shape[1:])}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != 1:
        raise ShapeError(f"what {name} returns for one event", _described(found), "(1, d)", "It must map x to (n, d).")
    return Features(name, found.shape[1], function)


def _digits(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


def _described(found: object) -> str:
    return str(tuple(found.shape)) if isinstance(found, Tensor) else type(found).__name__


def _needed(events: Tensor | None, word: str) -> Tensor:
    if events is None or not len(events):
        raise InputError(f"the features {word} need real events to know their shape; give the data")
    return events


def _file(kind: str, rest: str) -> tuple[str, str | None, dict[str, str]]:
    """The path, the digits that vouch for it, and the other options after its last #."""
    path, mark, text = rest.rpartition("#")
    if not mark or "=" not in text:
        return rest, None, {}
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(sign for _, sign, _ in pairs):
        raise InputError(f"{kind}:{rest}: options after # are written name=value, with commas between")
    options = {key: value for key, _, value in pairs}
    return path, options.pop("sha256", None), options


def _near(word: str) -> str:
    close = difflib.get_close_matches(word, list(WORDS), 2, 0.5)
    return f"did you mean {' or '.join(WORDS[name] for name in close)}? " if close else ""
