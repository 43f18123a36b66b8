"""The recipes of a model's players, with the user's settings in place of the family's."""

import pytest

from oneprior.models.vae import VAE, VAEConfig
from oneprior.training import TrainConfig
from oneprior.training.players import recipes


def test_every_players_rate_is_scaled():
    model = VAE(VAEConfig(spatial=True, adversarial=0.1), (1, 16, 16))
    usual, slow = (recipes(model, TrainConfig(learning_rate_scale=scale)) for scale in (1.0, 0.1))
    assert len(usual) == 2
    assert {player: one.learning_rate for player, one in slow.items()} == pytest.approx(
        {player: one.learning_rate / 10 for player, one in usual.items()}
    )
    told = recipes(model, TrainConfig(learning_rate=1e-2, learning_rate_scale=0.5))
    assert all(one.learning_rate == pytest.approx(5e-3) for one in told.values())
