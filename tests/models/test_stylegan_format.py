"""Network files of StyleGAN2-ADA and StyleGAN3: the same pictures as the network they hold, and refusals by name."""

from pathlib import Path

import network_files
import pytest
import torch
from network_files import module, official, snapshot, write

from oneprior.core import ConditionSpec, InputError, Rows
from oneprior.models.stylegan_format import import_stylegan
from oneprior.nets.adversarial import Given
from oneprior.nets.style_generator import StyleGenerator

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "stylegan2"
LABELS = (ConditionSpec("label", "class", classes=3),)


def make(shape=(3, 16, 16), conditions=(), clamp=0.0, **options):
    torch.manual_seed(0)
    sizes = {"latent": 6, "style": 8, "width": 4, "max_width": 8, "mapping_layers": 3, **options}
    generator = StyleGenerator(shape, conditions, clamp=clamp, **sizes)
    for name, value in generator.named_parameters():
        if name.endswith(("noise_strength", "bias")):
            torch.nn.init.normal_(value, std=0.1)
    generator.mapping.w_avg.normal_()
    return generator.eval()


def pictures(generator, given=Given(), n=3):
    z, noise = Rows(n).normal(generator.latent), Rows(n, seed=1).normal(generator.noise_size)
    with torch.no_grad():
        ws = generator.mapping(z, given, 0.7)
        return torch.stack([generator.synthesis(ws), generator.synthesis(ws, noise)])


@pytest.mark.skipif(not REFERENCE.exists(), reason="the official generator's figures are not at hand")
@pytest.mark.parametrize("name", ["unconditional", "conditional_grey"])
@pytest.mark.parametrize("network", ["G", "G_ema"])
def test_an_official_file_gives_the_official_pictures(name, network):
    from safetensors.torch import load_file

    model, io = (
        import_stylegan(REFERENCE / f"{name}.pkl", network=network),
        load_file(REFERENCE / f"{name}_io.safetensors"),
    )
    generator, near = model.generator, {"rtol": 0, "atol": 1e-4}
    given = Given({"label": io["c"].argmax(1)}) if model.conditions else Given()
    silent = torch.zeros(4, generator.noise_size)
    for psi in ("1.0", "0.7"):
        ws = generator.mapping(io["z"], given, float(psi))
        torch.testing.assert_close(ws, io[f"w_psi{psi}"], **near)
        torch.testing.assert_close(generator.synthesis(ws), io[f"image_psi{psi}_noise_const"], **near)
        torch.testing.assert_close(generator.synthesis(ws, silent), io[f"image_psi{psi}_noise_none"], **near)
        prior = model.prior(dict(given.values), truncation=float(psi))
        torch.testing.assert_close(prior.decode(io["z"]), io[f"image_psi{psi}_noise_const"], **near)
    torch.testing.assert_close(generator.synthesis(io["w_plus"]), io["image_w_plus_noise_const"], **near)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("conditions", [(), LABELS], ids=["plain", "labels"])
def test_a_file_gives_the_network_it_was_made_of(tmp_path, protocol, conditions):
    ours = make(conditions=conditions)
    model = import_stylegan(write(tmp_path / "a.pkl", snapshot(official(ours)), protocol))
    config = model.config
    assert (config.latent, config.style, config.width, config.max_width) == (6, 8, 4, 8)
    assert (config.mapping_layers, config.clamp, model.event_shape) == (3, 0.0, torch.Size((3, 16, 16)))
    assert model.conditions == conditions
    given = Given({"label": torch.tensor([0, 1, 2])}) if conditions else Given()
    torch.testing.assert_close(pictures(model.generator, given), pictures(ours, given), rtol=1e-5, atol=1e-5)


def test_an_untold_label_is_the_mean_of_the_classes(tmp_path):
    embed = import_stylegan(
        write(tmp_path / "a.pkl", snapshot(official(make(conditions=LABELS))))
    ).generator.mapping.embed
    torch.testing.assert_close(embed.absent["label"], embed.embed["label"].weight.mean(0))


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), (4, 32, 32)], ids=str)
def test_sizes_and_channels_follow_from_the_weights(tmp_path, shape):
    ours = make(shape)
    model = import_stylegan(write(tmp_path / "a.pkl", official(ours)))  # the network alone, without its snapshot
    torch.testing.assert_close(pictures(model.generator), pictures(ours), rtol=1e-5, atol=1e-5)


def test_clamps_and_learning_rates_are_kept(tmp_path):
    ours = make(clamp=0.5)
    assert float((pictures(ours) - pictures(make())).abs().max()) > 0.1  # the clamp is felt
    model = import_stylegan(write(tmp_path / "a.pkl", snapshot(official(ours, clamp=0.5, rate=0.002))))
    assert model.config.clamp == 0.5
    torch.testing.assert_close(pictures(model.generator), pictures(ours), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_every_space_draws_where_z_and_w_differ_in_length(tmp_path, space):
    model = import_stylegan(write(tmp_path / "a.pkl", snapshot(official(make()))))
    prior = model.prior(space=space, truncation=0.7)
    assert prior.noise_shape == {"z": (6,), "w": (8,), "w+": (6, 8)}[space]
    assert prior.sample(Rows(2)).shape == (2, 3, 16, 16)
    assert model.prior(space=space, noise="random").sample(Rows(2)).shape == (2, 3, 16, 16)


def test_source_in_the_file_is_never_run(tmp_path):
    marker = tmp_path / "marker"
    source = f"open({str(marker)!r}, 'w').close()"
    import_stylegan(write(tmp_path / "a.pkl", snapshot(official(make(), source=source))))
    assert not marker.exists()


def _alias_free():
    synthesis = module(
        "SynthesisNetwork", modules={"input": module("SynthesisInput"), "L0_36_512": module("SynthesisLayer")}
    )
    return module("Generator", modules={"mapping": module("MappingNetwork"), "synthesis": synthesis})


def _endless():
    inner = module("Generator")
    inner.state["_modules"] = {"mapping": module("MappingNetwork"), "synthesis": module("SynthesisNetwork")}
    for _ in range(40):
        inner = module("Generator", modules={"mapping": inner, "synthesis": inner})
    return inner


def _changed(path, change):
    network = official(make())
    inner = network
    for name in path.split("."):
        inner = inner.state["_modules"][name]
    change(inner.state)
    return network


_FIRST = "synthesis.b8.conv0"
REFUSED = {
    "alias-free": (_alias_free, "alias-free StyleGAN3"),
    "endless": (_endless, "without end"),
    "discriminator": (lambda: module("Discriminator"), "holds a 'Discriminator'"),
    "resnet": (lambda: official(make(), block={"architecture": "resnet"}), "architecture 'resnet'"),
    "orig": (lambda: official(make(), block={"architecture": "orig"}), "architecture 'orig'"),
    "activation": (lambda: official(make(), layer={"activation": "relu"}), "activation 'relu'"),
    "no noise": (lambda: official(make(), layer={"use_noise": False}), "use_noise False"),
    "filter": (lambda: official(make(), taps=torch.full((2, 2), 0.25)), "another filter"),
    "clamp of some": (lambda: _changed(_FIRST, lambda s: s.update(conv_clamp=1.0)), "clamped differently"),
    "clamp of text": (lambda: _changed(_FIRST, lambda s: s.update(conv_clamp="1")), "conv_clamp '1'"),
    "gain": (lambda: _changed("mapping.fc0", lambda s: s.update(weight_gain=float("nan"))), "weight_gain nan"),
    "missing": (lambda: _changed(_FIRST, lambda s: s["_parameters"].pop("bias")), "lacks synthesis.b8.conv0.bias"),
    "strange": (lambda: _changed(_FIRST, lambda s: s["_buffers"].update(x=torch.ones(1))), "b8.conv0.x"),
    "shape": (lambda: _changed(_FIRST, lambda s: s["_parameters"].update(bias=torch.ones(9))), "has shape"),
    "nan": (lambda: _changed(_FIRST, lambda s: s["_parameters"].update(bias=torch.full((8,), float("nan")))), "nan"),
    "levels": (lambda: _changed("synthesis", lambda s: s["_modules"].pop("b8")), "no levels"),
    "no mapping": (lambda: _changed("mapping", lambda s: s.update(_modules={})), "no layers"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_networks_are_refused_by_name(tmp_path, kind):
    build, said = REFUSED[kind]
    with pytest.raises(InputError, match=said):
        import_stylegan(write(tmp_path / "a.pkl", snapshot(build())))


def test_a_file_without_the_network_names_those_it_holds(tmp_path):
    path = write(tmp_path / "a.pkl", {"G": official(make()), "D": None})
    with pytest.raises(InputError, match="holds no network G_ema; it holds G"):
        import_stylegan(path)
    with pytest.raises(InputError, match="holds a list, and no networks"):
        import_stylegan(write(tmp_path / "b.pkl", [1, 2]))
    with pytest.raises(InputError, match="is no file"):
        import_stylegan(tmp_path)


def test_the_names_of_the_other_program_are_gone_after_writing(tmp_path):
    import sys

    write(tmp_path / "a.pkl", network_files.snapshot(None))
    assert "torch_utils" not in sys.modules
