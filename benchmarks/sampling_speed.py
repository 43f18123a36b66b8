"""Drawing and training against diffusers on this CPU: same weights, U-Net, batch and number of network calls.

Four races, each run in turn and reported as the median ratio of the rounds:

- drawing at equal precision, fp32: our DDIM on the exported schedule, compiled (`prior.fast(precision=torch.float32,
  compile=True)`), against diffusers' pipeline as it comes, the same pictures to 1e-4;
- the same without compiling, where both run the very same operations;
- drawing in our fastest mode (bf16, channels last, compiled) against the same, the Frechet distance within 2 %;
- one training step: ours (bf16 where the processor has it, averaged weights included) against a plain fp32 loop of
  diffusers' parts as its tutorial writes it (add noise, predict it, clip, AdamW; no averaging).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.draw import Ruler
from benchmarks.harness import Fashion, Figure, Options, fashion, race, record, training_file
from benchmarks.train import PIXEL_UNET, trained
from oneprior.core import Rows
from oneprior.priors.diffusion.prior import DiffusionPrior
from oneprior.priors.diffusion.samplers import DDIM
from oneprior.priors.diffusion.schedule import DenoisingPrior

CALLS, BATCH = 20, 64


def run(options: Options) -> None:
    """The races."""
    data = fashion(options)
    rounds, calls = (1, 3) if options.quick else (9, CALLS)
    path = trained("diffusion", options)
    figures, table = _drawing(path, options, data, calls, rounds)
    more, rows = _training(options, rounds)
    record(
        "sampling_speed",
        {**figures, **more},
        options,
        table=[*table, *rows],
        claim=f"Against diffusers: same weights, batch {BATCH}, {calls} network calls, {options.threads} threads.",
        samples=_count(options),
        features=Ruler.of(options, data).network.name,
    )


# Drawing ------------------------------------------------------------------------------------------------------------


def _drawing(
    path: Path, options: Options, data: Fashion, calls: int, rounds: int
) -> tuple[dict[str, Figure], list[dict[str, Any]]]:
    from oneprior.training import load

    prior = load(path).prior()
    assert isinstance(prior, DiffusionPrior)
    with tempfile.TemporaryDirectory() as scratch:
        pipeline = exported(path, Path(scratch) / "diffusers")
    same = _on_their_steps(prior, calls)
    ours, _ = _compiled(prior, calls, torch.float32)
    quick, compile_seconds = _compiled(prior, calls, torch.bfloat16)
    noise = Rows(BATCH, seed=1).normal(*prior.event_shape)
    theirs = their_pictures(pipeline, calls, noise)
    apart = max(float((draw(p, noise).clamp(-1, 1) - theirs).abs().max()) / 2 for p in (same, ours))
    eager, equal, fastest = (
        race(lambda: their_pictures(pipeline, calls), lambda p=p: draw(p), rounds) for p in (same, ours, quick)
    )
    distance, count = Ruler.of(options, data), _count(options)
    found = [distance(_many(p, count)) for p in (ours, quick)]
    figures = {
        "equal_precision_speed": Figure(
            equal.ratio, equal.error, (">=", 1.0), "images per second over diffusers', fp32, ours compiled"
        ),
        "same_operations_speed": Figure(eager.ratio, eager.error, None, "the same, ours not compiled either"),
        "picture_difference": Figure(apart, None, ("<=", 1e-4), "largest, of the value range, fp32"),
        "fastest_speed": Figure(fastest.ratio, fastest.error, (">=", 1.5), "bf16, channels last, compiled"),
        "frechet_change": Figure(abs(found[1] / found[0] - 1), None, ("<=", 0.02), "fastest against fp32, same noise"),
        "compile_seconds": Figure(compile_seconds, note="first batch of the fastest mode"),
    }
    table = [
        _row("drawing, diffusers fp32", equal.first, 1.0, 1.0, None),
        _row("drawing, ours fp32", eager.second, eager.ratio, eager.cpu_ratio, None),
        _row("drawing, ours fp32, compiled", equal.second, equal.ratio, equal.cpu_ratio, found[0]),
        _row("drawing, ours fastest", fastest.second, fastest.ratio, fastest.cpu_ratio, found[1]),
    ]
    return figures, table


def exported(path: Path, folder: Path) -> Any:
    """The run as diffusers sees it: exported, and loaded by its `DiffusionPipeline`."""
    from diffusers import DiffusionPipeline

    from oneprior.models.diffusers_format import export_diffusers
    from oneprior.training import load

    export_diffusers(load(path).model, folder)
    pipeline = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _on_their_steps(prior: DiffusionPrior, calls: int) -> DiffusionPrior:
    """Our prior with DDIM on the steps that the exported pipeline takes."""
    return prior.with_sampler(DDIM(calls, prior.clock.grid(prior.schedule, calls)))


def _compiled(prior: DiffusionPrior, calls: int, precision: torch.dtype) -> tuple[DiffusionPrior, float]:
    """Our compiled prior on their steps, and the seconds that its first batch took."""
    start = time.perf_counter()
    quick = _on_their_steps(prior.fast(precision=precision, compile=True), calls)
    draw(quick)
    return quick, time.perf_counter() - start


def draw(prior: DenoisingPrior, noise: Tensor | None = None) -> Tensor:
    """A batch, from given noise or from rows."""
    with torch.no_grad():
        sampler = prior.sampler or DDIM()
        return prior.sample(Rows(BATCH, seed=0)) if noise is None else sampler(prior, x=noise)


def their_pictures(pipeline: Any, calls: int, noise: Tensor | None = None) -> Tensor:
    """The pipeline's batch in [-1, 1], from its own noise or from ours put in its place."""
    module = sys.modules[type(pipeline).__module__]
    own = module.randn_tensor
    with patch.object(module, "randn_tensor", own if noise is None else lambda *_, **__: noise.clone()):
        pictures = pipeline(batch_size=BATCH, num_inference_steps=calls, output_type="np").images
    return torch.from_numpy(pictures).movedim(-1, 1) * 2 - 1


def _many(prior: DenoisingPrior, count: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([prior.sample(Rows(range(k, k + BATCH), seed=2)) for k in range(0, count, BATCH)])[:count]


def _count(options: Options) -> int:
    return 2 * BATCH if options.quick else options.samples // 2


def _row(name: str, seconds: float, ratio: float, cpu_ratio: float, distance: float | None) -> dict[str, Any]:
    return {
        "": name,
        "ms per image": 1000 * seconds / BATCH,
        "images per second, ratio": ratio,
        "the same in CPU time": cpu_ratio,
        "Frechet distance": distance,
    }


# Training -----------------------------------------------------------------------------------------------------------


def _training(options: Options, rounds: int) -> tuple[dict[str, Figure], list[dict[str, Any]]]:
    from oneprior.data import open_dataset
    from oneprior.models.configs.diffusion import DiffusionConfig
    from oneprior.models.diffusion import Diffusion
    from oneprior.training import TrainConfig, fit

    data = open_dataset(training_file(options))
    config = DiffusionConfig(**PIXEL_UNET, moments_rank=0)
    model = Diffusion(config, data.event_shape)
    unet: Any = model.network.core.net
    theirs = _their_loop(type(unet).from_config(unet.config), fashion(options).train)
    how: dict[str, Any] = {"images": 10**9, "batch_size": BATCH, "preview_every": 0, "tracker": "none"}
    steps = 1 if options.quick else 5
    figures, rows = {}, []
    for name, compiled in (("ours", "off"), ("ours, compiled", "on")):
        ours = fit(Diffusion(config, data.event_shape), data, TrainConfig(**{**how, "compile": compiled}))
        start = time.perf_counter()
        next(ours)
        first = time.perf_counter() - start
        found = race(lambda: _ahead(theirs, steps), lambda ours=ours: _ahead(ours, steps), rounds)
        ours.close()  # type: ignore[attr-defined]
        if not rows:
            rows.append(_row("training step, diffusers fp32", found.first / steps, 1.0, 1.0, None))
        rows.append(_row(f"training step, {name}", found.second / steps, found.ratio, found.cpu_ratio, None))
        if compiled == "off":
            figures["training_speed"] = Figure(found.ratio, found.error, (">=", 1.2), "steps per second, default")
        else:
            figures["training_speed_compiled"] = Figure(found.ratio, found.error, None, "steps per second, compiled")
            figures["training_compile_seconds"] = Figure(first, note="first step of the compiled training")
    return figures, rows


def _their_loop(unet: Any, x: Tensor) -> Iterator[None]:
    """The loop of diffusers' training tutorial, fp32."""
    from diffusers import DDPMScheduler

    scheduler: Any = DDPMScheduler(num_train_timesteps=1000)
    optimiser = torch.optim.AdamW(unet.parameters(), lr=1e-4)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), BATCH, shuffle=True, drop_last=True)
    unet.train()
    while True:
        for (clean,) in loader:
            noise = torch.randn_like(clean)
            index = torch.randint(0, 1000, (len(clean),))
            out = unet(scheduler.add_noise(clean, noise, index), index, return_dict=False)[0]
            torch.nn.functional.mse_loss(out, noise).backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            yield


def _ahead(loop: Iterator[Any], steps: int) -> None:
    for _ in range(steps):
        next(loop)
