"""`oneprior export` and `oneprior import`: runs, diffusers folders, StyleGAN files; `--to hub` sends a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from oneprior.apps.command import Command, Mistake, Outcome


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write a run as a folder that `diffusers.DiffusionPipeline.from_pretrained` loads, or send it to the hub.

    Args:
        run: a trained run.
        to: the format, or the Hugging Face hub.
        out: the folder; on the hub, the name of the repository ("user/name").
        scheduler: which one stands in the diffusers folder.
        private: on the hub, for your eyes only.
    """

    run: tyro.conf.Positional[Path]
    to: Literal["diffusers", "hub"] = "diffusers"
    out: str
    scheduler: Literal["ddim", "dpm"] = "ddim"
    private: bool = True

    def execute(self) -> Outcome:
        from oneprior.models.diffusers_format import export_diffusers, push_to_hub
        from oneprior.training import load
        from oneprior.training.zoo import located

        if self.to == "hub":
            where = push_to_hub(located(self.run), self.out, private=self.private)
            return Outcome(said=f"sent {self.run} to {where}")
        out = Path(self.out)
        export_diffusers(load(self.run).model, out, scheduler=self.scheduler)
        said = f'DiffusionPipeline.from_pretrained("{out}") loads it'
        return Outcome(out, (out,), said=said)


@dataclass(frozen=True, kw_only=True)
class Import(Command):
    """Make a run of a diffusers folder or of a StyleGAN network file; nothing in either is executed.

    Args:
        path: the folder (a UNet2DModel pipeline, an AutoencoderKL, a VQModel), or the file (.pkl) of a StyleGAN2
            generator that StyleGAN2-ADA (PyTorch) or the StyleGAN3 program wrote.
        out: the run folder.
        size: height x width of a folder's events, where it does not say: 256 or 256x320.
        network: which of a file's networks: the averaged one, or the one that was being trained.
        licence: of a file's weights, for the model card; it is yours to know.
    """

    path: tyro.conf.Positional[Path]
    out: Path
    size: str | None = None
    network: Literal["G_ema", "G"] = "G_ema"
    licence: str | None = None

    def execute(self) -> Outcome:
        if self.path.is_file():
            return self._network_file()
        if self.path.suffix == ".pkl":
            raise Mistake(f"{self.path} does not exist")
        from oneprior.data import parse_size
        from oneprior.models.diffusers_format import import_diffusers
        from oneprior.training import save

        size = parse_size(self.size)
        pair = (size, size) if isinstance(size, int) else size
        if pair is not None and len(pair) != 2:
            raise Mistake(f"--size {self.size}: a picture has a height and a width")
        model = import_diffusers(self.path, size=pair)
        run = save(model, self.out, data={"path": str(self.path)})
        shape = " x ".join(map(str, run.event_shape))
        return Outcome(
            self.out,
            (self.out,),
            said=f"{run.family} of {shape} events, values -1 .. 1 (a diffusers folder knows no units): {self.out}",
        )

    def _network_file(self) -> Outcome:
        """A StyleGAN network file."""
        from oneprior.training import import_run

        if self.size is not None:
            raise Mistake(f"--size {self.size}: a network file knows the size of its pictures; leave it out")
        run = import_run(self.path, self.out, network=self.network, licence=self.licence)
        shape = " x ".join(map(str, run.event_shape))
        classes = f" of {run.conditions[0].classes} labels" if run.conditions else ""
        said = f"{run.family} of {shape} pictures{classes}, grey levels 0 .. 255; nothing in {self.path} was executed"
        return Outcome(self.out, (self.out,), said=f"{said}: {self.out}. Its licence is yours to know")
