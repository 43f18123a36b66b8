"""One of several processes that train together: `python spread.py OUT STEPS`, started with RANK and WORLD_SIZE."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.toys import Blobs, Duel, Toy, ToyConfig

from oneprior.models import FAMILIES, family
from oneprior.models.base import Recipe
from oneprior.training import TrainConfig, fit
from oneprior.training.order import seeded
from oneprior.training.parallel import Team, whole

SHAPE = (1, 8, 8)
QUICK = {"batch_size": 16, "ema": 0.0, "precision": "fp32", "tracker": "none", "preview_every": 0, "seed": 3}


def models():
    """A name and a tiny model for everything that has to agree."""
    from oneprior.models.configs import DiffusionConfig, GANConfig, VAEConfig, VQVAEConfig

    yield "toy", lambda: Toy(ToyConfig(), SHAPE)
    yield "duel", lambda: Duel(ToyConfig(), SHAPE)
    tiny = {
        "vae": VAEConfig(latent=3, width=4),
        "gan": GANConfig(latent=4, width=4, augment="adaptive", augment_images=64),
        "vqvae": VQVAEConfig(codes=8, latent=2, width=4, downsample=2, prior_width=8, prior_depth=1, prior_heads=2,
                             prior_start=0.0, dead=0.5),
        "diffusion": DiffusionConfig(width=8),
    }  # fmt: skip
    for name, config in tiny.items():
        yield name, lambda name=name, config=config: family(name)(config, SHAPE)
    assert set(tiny) < set(FAMILIES)


def train(name: str, build, steps: int, team: Team, folder: Path | None = None) -> dict[str, torch.Tensor]:
    """The state after a few steps, and the gradients' norms."""
    with seeded(name, team.rank if name == "toy" else 0):  # a toy starts differently everywhere: the first one counts
        model = build()
    recipe = Recipe(learning_rate=0.1, betas=(0.5, 0.0), clip=1.0, compile=False, optimiser="sgd")
    model.recipe = lambda player: recipe  # plain steps: Adam would make a step of a gradient's rounding
    config = TrainConfig(images=steps * 16, warmup_images=0, **QUICK)
    *_, last = fit(model, Blobs(64, SHAPE), config, folder, team=team)
    state = {key: whole(value.detach()).clone() for key, value in model.state_dict().items()}
    norms = {key: torch.tensor(value) for key, value in last.losses.items()}
    return {**state, **norms}


if __name__ == "__main__":
    torch.set_num_threads(1)
    out, steps = Path(sys.argv[1]), int(sys.argv[2])
    crew = Team("cpu")
    for name, build in models():
        state = train(name, build, steps, crew, out / "runs" / name)
        from oneprior.training.folder import write_tensors

        facts = {"size": crew.size, "weights": list(build().state_dict())}
        write_tensors(out / f"{name}.{crew.rank}.safetensors", state, facts)
    torch.distributed.destroy_process_group()
