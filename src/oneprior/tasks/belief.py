"""The law that a restoration believes in: which of a run's laws, in which latent space, and what is said of it.

A GAN with a mapping network (StyleGAN2, trained here or imported) is a map of Gaussian noise in three spaces
(`GAN.prior`): z, as it was trained; w, with the Gaussian of the mapping network's own draws; w+, a w for each layer.
w is flatter and easier to search; w+ reaches pictures that the generator never learned to make, and its law of pictures
is wider than that of the data. What the decoder cannot say (`priors.residual`) is believed on top, in each space as it
was measured there (`training.residual`); a run that knows it in z only is believed with that, and it is said.

Where it was measured in w, w is what is asked by default: of films behind a StyleGAN2 the mean of 19 draws is some
tenths of a dB nearer than in z, and most where little was measured (benchmarks/results/domains.json).

Published optimisers are kept as they are: BRGM works on w+ where there is one, and on the surface alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oneprior.core import IncompatiblePrior, InputError
from oneprior.inference import Sampler
from oneprior.priors.base import Prior
from oneprior.priors.pushforward import Tilted
from oneprior.priors.residual import ResidualPrior
from oneprior.priors.styles import Space
from oneprior.tasks.methods import on_surface
from oneprior.training.residual import residual_space
from oneprior.training.run import Run


@dataclass(frozen=True)
class Belief:
    """What of a run's knowledge a restoration takes.

    Args:
        residual: whether what a run's decoder cannot say of real events is part of its law.
        overlap: entries that neighbouring tiles share, where the event is larger than the prior's.
        space: of a GAN's latents; by default w where its residual was measured, else z, and w+ for BRGM.
        truncation: psi of a GAN, 0 < psi: w (of other GANs z) is drawn towards its average; 1 by default.
    """

    residual: bool = True
    overlap: int | None = None
    space: Space | None = None
    truncation: float | None = None

    def check(self, prior: Prior | Tilted | Run) -> None:
        """Raises where the prior has no such space or truncation, before any work.

        Raises:
            InputError: for a prior that is no run, whose space was chosen when it was made; for a truncation below 0.
            IncompatiblePrior: for a family, or networks, without it.
        """
        asked = [name for name, value in (("space", self.space), ("truncation", self.truncation)) if value is not None]
        if not asked:
            return
        if not isinstance(prior, Run):
            raise InputError(f"{asked[0]} is chosen when a prior is made: give the run, or run.prior({asked[0]}=...)")
        spaces = prior.model.spaces
        if not spaces:
            raise IncompatiblePrior(
                f"a {prior.family} has no {asked[0]} to choose: only GANs have, w and w+ those with a mapping network "
                "(trained with network stylegan2, or imported)"
            )
        if self.space is not None and self.space not in spaces:
            if self.space not in ("z", "w", "w+"):
                raise InputError(f"space is z, w or w+, got {self.space!r}")
            raise IncompatiblePrior(
                f"space {self.space} needs a GAN with a mapping network, and {prior.path} has none: leave it out, "
                "train one with network stylegan2, or import a StyleGAN"
            )
        if self.truncation is not None and not self.truncation > 0:
            raise InputError(
                f"truncation is above 0, where all pictures are one, and 1 for none; got {self.truncation}"
            )

    def law(
        self, run: Run, condition: Mapping[str, Any] | None, method: str | Sampler | None
    ) -> tuple[Prior, dict[str, str]]:
        """The prior of a run, and in words what was chosen of it.

        Args:
            run: the run.
            condition: of the rows.
            method: that will draw; None where the table chooses.
        """
        spaces, published = run.model.spaces, on_surface(method)
        space = self.space or self._usual(run, published)
        about: dict[str, str] = {}
        if len(spaces) > 1 or (published and spaces):
            about["space"] = space or spaces[0]
        if self.truncation is not None:
            about["truncation"] = f"{self.truncation:g}"
        options = {k: v for k, v in {"space": space, "truncation": self.truncation}.items() if v is not None}
        if published or not self.residual:
            return run.prior(condition, **options), about
        prior = run.whole_prior(condition, **options)
        if space not in (None, "z") and isinstance(prior, ResidualPrior) and residual_space(run.path, space) != space:
            about["residual"] = f"measured in z, and too wide for {space}: training.measure_residual measures its own"
        return prior, about

    def _usual(self, run: Run, published: bool) -> Space | None:
        """The space where none is asked for; None for the prior's own."""
        if published:
            return "w+" if "w+" in run.model.spaces else None
        known = self.residual and "w" in run.model.spaces and residual_space(run.path, "w") == "w"
        return "w" if known else None
