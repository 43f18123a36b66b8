"""`oneprior sample`: draws, interpolations, truncation sheets and encodings of a trained prior.

Sample k of a seed is the same whatever `--n`, `--first` and `--batch-size` are: a long job may be cut in pieces, and
the pieces written to one folder, where files are named by the number of the sample.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome, Stopped
from oneprior.apps.record import check_place

if TYPE_CHECKING:
    from torch import Tensor

    from oneprior.core import Rows
    from oneprior.training import Run

    Told = dict[str, Any] | None

_SAMPLERS = {"dpm": "DPMSolver", "ddim": "DDIM", "heun": "Heun", "ancestral": "Ancestral"}


@dataclass(frozen=True, kw_only=True)
class Law:
    """What the family's own sampling can be told; what is not given stays as the family has it.

    Args:
        steps: network calls of a diffusion's sampler.
        sampler: of a diffusion.
        cfg_scale: classifier-free guidance; 1 for none.
        truncation: of a gan; 1 for none.
        temperature: of the codes of a vqvae.
        top_k: likeliest codes kept by a vqvae; 0 for all.
        space: the latents of a StyleGAN2 that are Gaussian.
        decoder_noise: whether the noise of a vae or ppca is part of the picture.
    """

    steps: int | None = None
    sampler: Literal["dpm", "ddim", "heun", "ancestral"] | None = None
    cfg_scale: float | None = None
    truncation: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    space: Literal["z", "w", "w+"] | None = None
    decoder_noise: bool | None = None

    def options(self, run: Run) -> dict[str, Any]:
        """The options for `run.prior`.

        Raises:
            InputError: for an option that the family does not have.
        """
        from oneprior.core import InputError

        given = {name: value for name, value in vars(self).items() if value is not None}
        known = set(inspect.signature(run.model.prior).parameters) - {"condition"}
        if strange := sorted(set(given) - known):
            flags = ", ".join("--" + name.replace("_", "-") for name in strange)
            has = ", ".join("--" + name.replace("_", "-") for name in vars(self) if name in known) or "none of these"
            raise InputError(f"a {run.family} has no {flags}; it has {has}")
        if name := given.pop("sampler", None):
            from oneprior.priors.diffusion import samplers

            kind = getattr(samplers, _SAMPLERS[name])
            given["sampler"] = kind(steps=given.pop("steps")) if "steps" in given else kind()
        return given


@dataclass(frozen=True, kw_only=True)
class Sample(Command):
    """Draw from a trained prior.

    Args:
        run: a trained run.
        n: how many draws (64), stops of --interpolate (2), or rows of --truncation-sheet (8).
        out: samples.npz, a folder/, volume.nii.gz, clip.gif or grid.png; in the data's own type and units.
        condition: name=value, such as label=3, label=cat or mask=mask.png; may be repeated.
        first: the number of the first sample.
        batch_size: drawn at once.
        interpolate: walk from each draw to the next in so many steps.
        truncation_sheet: each draw at several truncations, side by side (gan).
        encode: pictures: a .npz of their latents and of what the decoder makes of them.
        law: what the family's sampling can be told.
    """

    run: tyro.conf.Positional[Path]
    n: int | None = None
    out: Path
    condition: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    first: int = 0
    batch_size: int = 64
    interpolate: int | None = None
    truncation_sheet: bool = False
    encode: Path | None = None
    law: Law = Law()

    def execute(self) -> Outcome:
        from oneprior.apps.conditions import for_rows, read_conditions
        from oneprior.core import Rows
        from oneprior.training import load

        self._check()
        check_place(self.out, self, ("n", "first", "batch_size"))
        n = self.n or (2 if self.interpolate else 8 if self.truncation_sheet else 64)
        run = load(self.run, device=self.common.torch_device())
        rows = Rows(range(self.first, self.first + n), seed=self.common.seed)
        asked, options = read_conditions(self.condition, run.conditions), self.law.options(run)
        if self.encode is not None:
            return self._encoded(run, asked, options)
        told = for_rows(asked, rows.index)
        self._rehearse(run)
        if self.interpolate is not None:
            return self._walked(run, rows, told, options)
        if self.truncation_sheet:
            return self._sheet(run, rows, told, options)
        return self._drawn(run, rows, told, options)

    def _check(self) -> None:
        given = [flag for flag in ("interpolate", "truncation_sheet", "encode") if getattr(self, flag)]
        if len(given) > 1:
            raise Mistake(f"--{' and --'.join(given)} are different things; give one of them".replace("_", "-"))
        if (self.n is not None and self.n < 1) or self.batch_size < 1 or self.first < 0:
            raise Mistake("--n and --batch-size must be at least 1, and --first at least 0")

    def _rehearse(self, run: Run) -> None:
        """Write one event under the same name elsewhere, so that a wrong --out is refused before the work."""
        import tempfile

        import torch

        from oneprior.core import InputError

        with tempfile.TemporaryDirectory() as folder:
            try:
                run.save(torch.zeros(1, *run.event_shape), Path(folder) / self.out.name)
            except InputError as error:
                raise Mistake(str(error).replace(folder, str(self.out.parent))) from None

    def _drawn(self, run: Run, rows: Rows, told: Told, options: dict[str, Any]) -> Outcome:
        import torch

        from oneprior.tasks import synthesise

        parts: list[Tensor] = []

        def grown() -> Iterator[int]:
            for part in synthesise(run, rows, condition=told, batch=self.batch_size, **options):
                parts.append(part.cpu())
                yield sum(map(len, parts))

        start = time.perf_counter()
        try:
            screen.track(grown(), f"sample {run.family}", lambda made: made / len(rows))
        except KeyboardInterrupt:
            if not parts:
                raise
            kept = self._kept(run, torch.cat(parts), {"stopped": True}, first=self.first)
            said = f"stopped; {sum(map(len, parts))} of {len(rows)} samples are in {self.out}"
            raise Stopped(said, kept) from None
        seconds = time.perf_counter() - start
        figures = {"samples_per_second": round(len(rows) / seconds, 2)}
        return self._kept(run, torch.cat(parts), figures, first=self.first)

    def _walked(self, run: Run, rows: Rows, told: Told, options: dict[str, Any]) -> Outcome:
        from oneprior.tasks import interpolate

        if told and any(len(set(map(str, value))) > 1 for value in told.values()):
            raise Mistake("a walk is told one value of each --condition")
        one = {name: value[:1] for name, value in told.items()} if told else None
        x = interpolate(run.prior(one, **options), rows, self.interpolate or 1)
        if self.out.suffix.lower() == ".png":  # a line for each part of the way, with both its ends
            steps = (self.interpolate or 1) + 1
            x = x.unfold(0, steps, steps - 1).movedim(-1, 1).flatten(0, 1)
            return self._kept(run, x, {}, columns=steps)
        return self._kept(run, x, {})

    def _sheet(self, run: Run, rows: Rows, told: Told, options: dict[str, Any]) -> Outcome:
        from oneprior.core import InputError
        from oneprior.tasks import truncation_sheet

        if "truncation" not in inspect.signature(run.model.prior).parameters:
            raise InputError(f"a {run.family} has no truncation; a gan has")
        if options.pop("truncation", None) is not None:
            raise Mistake("a --truncation-sheet shows several truncations; leave --truncation out")
        x = truncation_sheet(lambda psi: run.prior(told, truncation=psi, **options), rows)
        return self._kept(run, x.flatten(0, 1), {}, columns=x.shape[1])

    def _encoded(self, run: Run, told: Told, options: dict[str, Any]) -> Outcome:
        import torch

        from oneprior.apps.conditions import for_rows
        from oneprior.core import ShapeError
        from oneprior.data import open_dataset, write_arrays
        from oneprior.tasks import range_of

        if self.out.suffix != ".npz":
            raise Mistake(f"--out {self.out}: latents are written to a .npz")
        data = open_dataset(self.encode, labels=False, cache=False)
        if data.event_shape != run.event_shape:
            remedy = (
                "Bring the pictures to the size and channels of the run's events first; nothing is resized silently."
            )
            raise ShapeError(f"--encode {self.encode}", tuple(data.event_shape), tuple(run.event_shape), remedy)
        units, n = range_of(run, data.geometry, data.units), min(self.n or len(data), len(data))
        parts: list[tuple[Tensor, Tensor]] = []
        squares = 0.0

        def grown() -> Iterator[int]:
            nonlocal squares
            for start in range(0, n, self.batch_size):
                index = torch.arange(start, min(start + self.batch_size, n))
                x = units.to_model(data.units.to_units(data.batch(index).x.double())).float().to(run.model.device)
                with torch.no_grad():
                    z, again = _there_and_back(run, x, for_rows(told, index), options)
                squares += float((again - x).square().sum())
                parts.append((z.cpu(), units.to_units(again).cpu()))
                yield start + len(index)

        screen.track(grown(), f"encode with {run.family}", lambda made: made / n)
        z, again = (torch.cat(part) for part in zip(*parts, strict=True))
        rms = (squares / again.numel()) ** 0.5 * units.scale
        write_arrays(self.out, z=z, x=again)
        said = f"encoded {n}; the decoder gives them back to {rms:.3g} {units.unit} (root mean square)"
        return Outcome(self.out.parent, (self.out,), {"n": n, "rms": rms}, said)

    def _save(self, run: Run, x: Tensor, first: int = 0, columns: int | None = None) -> list[Path]:
        """Write the events, in a folder by their numbers; a sheet of rows that belong together keeps its columns."""
        return run.save(x, self.out, names=[f"{first + k:06d}" for k in range(len(x))], columns=columns)

    def _kept(self, run: Run, x: Tensor, figures: dict[str, Any], **places: Any) -> Outcome:
        """What was drawn, written."""
        written = self._save(run, x, **places)
        folder = self.out if self.out.is_dir() else self.out.parent
        outputs = (self.out,) if len(written) > 8 else tuple(written)
        return Outcome(folder, outputs, {"n": len(x), **figures}, f"{len(x)} of {run.family}: {self.out}")


def _there_and_back(run: Run, x: Tensor, told: Told, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The latents of events, and the events that these latents decode to."""
    from oneprior.priors.diffusion.schedule import DenoisingPrior
    from oneprior.tasks import encode

    model: Any = run.model
    if run.family == "vae":
        z, _ = model.encode(x)
        return z, run.prior(told, decoder_noise=False).decode(z.flatten(1))  # type: ignore[attr-defined]
    if run.family in ("vqvae", "ldm"):
        codec = model.codec()
        z = codec.encode(x)
        return z, codec.decode(z)
    prior = run.prior(told, **options)
    road: Any = prior.flow() if isinstance(prior, DenoisingPrior) else prior
    z = encode(road, x)
    return z, road.decode(z)
