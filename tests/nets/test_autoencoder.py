"""Encoders and decoders: shapes in every dimension, odd sizes, what is told, diffusers' networks."""

import pytest
import torch

from oneprior.core import InputError, ShapeError
from oneprior.nets.autoencoder import (
    ConvDecoder,
    ConvEncoder,
    DiffusersAutoencoder,
    MLPDecoder,
    MLPEncoder,
    diffusers_autoencoder,
    latent_grid,
)
from oneprior.nets.patches import PatchDecoder, PatchEncoder

SHAPES = [(2, 30), (1, 16, 16), (3, 13, 18), (1, 9, 8, 10)]
PAIRS = {"convolutions": (ConvEncoder, ConvDecoder), "patches": (PatchEncoder, PatchDecoder)}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("downsample", [1, 2, 4])
@torch.no_grad()
def test_grids_and_events_of_any_size_in_any_dimension(shape, downsample, pair):
    encoder = PAIRS[pair][0](shape, 6, downsample=downsample, width=8)
    decoder = PAIRS[pair][1](shape, 3, downsample=downsample, width=8)
    z = encoder(torch.randn(2, *shape))
    assert z.shape == (2, 6, *(-(-s // downsample) for s in shape[1:])) == (2, 6, *encoder.grid)
    assert decoder(z[:, :3]).shape == (2, *shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_vectors_and_what_is_told(shape):
    encoder = ConvEncoder(shape, 5, width=8, vector=True, told=4)
    decoder = ConvDecoder(shape, 5, width=8, vector=True, told=4)
    x, told = torch.randn(1, *shape).expand(2, *shape), torch.randn(2, 4)
    z = encoder(x, told)
    assert z.shape == (2, 5)
    assert (z[0] - z[1]).abs().max() > 1e-4
    y = decoder(z[:1].expand(2, 5), told)
    assert y.shape == (2, *shape)
    assert (y[0] - y[1]).abs().max() > 1e-5


@torch.no_grad()
def test_perceptrons_keep_the_shape_and_hear_what_is_told():
    encoder, decoder = MLPEncoder((1, 8, 8), 6, width=16, told=3), MLPDecoder((1, 8, 8), 6, width=16, told=3)
    z = encoder(torch.zeros(2, 1, 8, 8), torch.eye(3)[:2])
    assert (z[0] - z[1]).abs().max() > 1e-4
    assert decoder(z, torch.eye(3)[:2]).shape == (2, 1, 8, 8)


@torch.no_grad()
def test_padding_repeats_the_edge_and_is_cut_off_in_the_middle():
    """A 6-pixel event padded by hand to 8 must give what the encoder gives, and the crop must be the same place."""
    torch.manual_seed(0)
    small, large = ConvEncoder((1, 6), 2, width=8), ConvEncoder((1, 8), 2, width=8)
    large.load_state_dict(small.state_dict())
    x = torch.randn(3, 1, 6)
    padded = torch.cat([x[..., :1], x, x[..., -1:]], -1)
    torch.testing.assert_close(small(x), large(padded))
    cut, whole = ConvDecoder((1, 6), 2, width=8), ConvDecoder((1, 8), 2, width=8)
    whole.load_state_dict(cut.state_dict())
    z = torch.randn(3, 2, 2)
    torch.testing.assert_close(cut(z), whole(z)[..., 1:7])


@pytest.mark.parametrize("codes", [0, 8])
@torch.no_grad()
def test_diffusers_networks_agree_with_their_own_calls(codes):
    torch.manual_seed(0)
    net = diffusers_autoencoder(1, 4, downsample=4, width=8, codes=codes).eval()
    part = DiffusersAutoencoder(net, (1, 16, 8))
    x = torch.randn(2, 1, 16, 8)
    h = part.encode(x)
    assert h.shape == (2, 4 if codes else 8, 4, 2)
    if codes:
        torch.testing.assert_close(h, net.encode(x).latents)
        torch.testing.assert_close(part.decode(h), net.decode(h, force_not_quantize=True).sample)
    else:
        torch.testing.assert_close(h[:, :4], net.encode(x).latent_dist.mean)
        torch.testing.assert_close(part.decode(h[:, :4]), net.decode(h[:, :4]).sample)
    odd = DiffusersAutoencoder(net, (1, 13, 7))
    assert odd.decode(odd.encode(torch.randn(2, 1, 13, 7))[:, :4]).shape == (2, 1, 13, 7)


def test_errors_say_what_is_needed():
    with pytest.raises(InputError, match="power of two"):
        latent_grid((16, 16), 3)
    with pytest.raises(InputError, match="at most 4"):
        latent_grid((16, 5), 8)
    with pytest.raises(ShapeError, match=r"needed \(1, height, width\)"):
        DiffusersAutoencoder(diffusers_autoencoder(1, 4, width=8), (3, 16, 16))
