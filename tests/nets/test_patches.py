"""Codes of patches: any size in any dimension, and each place sees its own patch only."""

import pytest
import torch

from oneprior.nets.patches import PatchDecoder, PatchEncoder


@pytest.mark.parametrize("shape", [(2, 30), (1, 16, 16), (3, 13, 18), (1, 9, 8, 10)], ids=str)
@pytest.mark.parametrize("downsample", [1, 2, 4])
@torch.no_grad()
def test_grids_and_events_of_any_size_in_any_dimension(shape, downsample):
    encoder = PatchEncoder(shape, 6, downsample=downsample, width=8)
    decoder = PatchDecoder(shape, 6, downsample=downsample, width=8)
    z = encoder(torch.randn(2, *shape))
    assert z.shape == (2, 6, *(-(-s // downsample) for s in shape[1:])) == (2, 6, *encoder.grid)
    assert decoder(z).shape == (2, *shape)


@torch.no_grad()
def test_a_place_sees_its_own_patch_only():
    encoder, decoder = PatchEncoder((3, 12, 8), 5, width=8), PatchDecoder((3, 12, 8), 5, width=8)
    x = torch.randn(1, 3, 12, 8)
    other = x.clone()
    other[..., 4:8, 0:4] += 1.0
    apart = (encoder(x) - encoder(other)).abs().amax((0, 1))
    assert apart[1, 0] > 1e-4
    apart[1, 0] = 0
    assert apart.max() == 0
    z = torch.randn(1, 5, 3, 2)
    changed = z.clone()
    changed[..., 2, 1] += 1.0
    apart = (decoder(z) - decoder(changed)).abs().amax((0, 1))
    assert apart[8:, 4:].min() > 0
    assert apart[:8].max() == apart[:, :4].max() == 0
