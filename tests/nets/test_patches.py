"""Codes of patches: each place sees its own patch only. Sizes and dimensions: `test_autoencoder`."""

import torch

from oneprior.nets.patches import PatchDecoder, PatchEncoder


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
