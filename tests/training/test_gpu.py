"""The same laws on a GPU, where there is one."""

import pytest
import torch
from training.toys import Blobs, Toy, ToyConfig

from oneprior.models import FAMILIES, family
from oneprior.training import TrainConfig, fit, load
from oneprior.training.order import seeded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "ldm"])
def test_families_train_with_the_defaults_and_load_on_the_cpu(tmp_path, name):
    model = family(name)(FAMILIES[name][0](), (1, 16, 16))
    config = TrainConfig(images=640, batch_size=32, tracker="none", previews=4)
    *_, last = fit(model, Blobs(64, (1, 16, 16)), config, tmp_path)
    assert last.finished
    assert model.device.type == "cuda"
    ours, theirs = model.state_dict(), load(tmp_path).model.state_dict()
    assert all(torch.equal(value.cpu(), theirs[key]) for key, value in ours.items())


def test_a_gpu_takes_the_steps_of_a_cpu():
    ends = []
    for device in ("cpu", "cuda"):
        from oneprior.training.parallel import Team

        with seeded("toy"):
            model = Toy(ToyConfig(), (1, 4, 4))
        config = TrainConfig(images=64, batch_size=16, precision="fp32", tracker="none", preview_every=0)
        list(fit(model, Blobs(), config, team=Team(device)))
        ends.append(torch.cat([p.detach().cpu().flatten() for p in model.parameters()]))
    assert float((ends[0] - ends[1]).abs().max()) < 1e-4
