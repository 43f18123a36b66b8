"""What "auto" means, and that compiling leaves a plain module behind."""

import pytest
import torch
from training.toys import Blobs, Duel, Toy, ToyConfig

from oneprior.training import TrainConfig, fit
from oneprior.training.numerics import choose_numerics
from oneprior.training.players import recipes

CPU = torch.device("cpu")


def chosen(model, **settings):
    config = TrainConfig(**settings)
    return choose_numerics(config, CPU, model, recipes(model, config))


def test_a_small_network_and_a_penalty_keep_fp32():
    assert not chosen(Toy(ToyConfig(), (1, 4, 4))).bf16
    assert not chosen(Duel(ToyConfig(), (1, 800, 800))).bf16
    assert chosen(Duel(ToyConfig(), (1, 4, 4)), precision="bf16").bf16


def test_a_large_network_takes_bf16_where_the_processor_has_it():
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    numerics = chosen(Toy(ToyConfig(hidden=64), (1, 64, 64)))
    assert numerics.bf16 == native
    assert not chosen(Toy(ToyConfig(hidden=64), (1, 64, 64)), precision="fp32").bf16


def test_volumes_take_it_with_any_network():
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert chosen(Toy(ToyConfig(hidden=2), (1, 16, 16, 16))).bf16 == native
    assert not chosen(Toy(ToyConfig(hidden=2), (1, 64, 64))).bf16
    assert not chosen(Toy(ToyConfig(hidden=2), (1, 4, 4, 4))).bf16


def test_channels_last_is_for_compiled_bf16_on_a_cpu():
    large = Toy(ToyConfig(hidden=64), (1, 64, 64))
    assert not chosen(large, precision="bf16", compile="off").channels_last
    assert chosen(large, precision="bf16", compile="on").channels_last
    assert not chosen(large, precision="fp32", compile="on").channels_last


def test_channels_last_is_for_pictures():
    assert chosen(Toy(ToyConfig(), (1, 4, 4)), channels_last="on").channels_last
    assert not chosen(Toy(ToyConfig(), (1, 16)), channels_last="on").channels_last


def test_compiling_is_never_automatic_under_an_image_budget_on_a_cpu():
    large = Toy(ToyConfig(hidden=64), (1, 64, 64))
    assert not chosen(large, images=10**9).compile
    assert chosen(large, minutes=120.0, precision="bf16").compile
    assert not chosen(Duel(ToyConfig(), (1, 4, 4)), minutes=120.0, precision="bf16").compile
    assert chosen(large, images=10, compile="on").compile


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_learning_works_in_either_precision(precision):
    config = TrainConfig(
        images=3200, batch_size=32, precision=precision, channels_last="on", tracker="none", preview_every=0
    )
    states = list(fit(Toy(ToyConfig(), (1, 4, 4)), Blobs(), config))
    assert states[-1].losses["square"] < 0.8 * states[0].losses["square"]


def test_the_parts_are_compiled_and_plain_again(monkeypatch):
    """The compiler itself is replaced by a count: a minute of C++ is not for a test."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    config = TrainConfig(images=32, batch_size=16, compile="on", tracker="none", preview_every=0)
    list(fit(Toy(ToyConfig(), (1, 4, 4)), Blobs(), config))
    assert compiled == ["Linear", "Linear"]
    compiled.clear()
    list(fit(Duel(ToyConfig(), (1, 4, 4)), Blobs(), config))
    assert compiled == []
