"""Networks of smp, timm, torchvision and transformers: made symmetric, trained, saved, loaded."""

import pytest
import torch

from evenslice import uniform_stem
from evenslice.model.stem.probe import tensors_in

SIDE = 64


def _smp():
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(32, 16, 8))


def _timm():
    import timm

    return timm.create_model("convnext_atto", pretrained=False, features_only=True)


def _torchvision():
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)


def _segformer():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
    config = transformers.SegformerConfig(depths=[1, 1, 1, 1], **sizes)
    return transformers.SegformerForSemanticSegmentation(config)


def _vit():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(image_size=SIDE, intermediate_size=32, **sizes)
    return transformers.ViTModel(config)


MAKERS = {made.__name__[1:]: made for made in (_smp, _timm, _torchvision, _segformer, _vit)}
QUICK = {"vit"}  # test_families.py proves one of each library in the default run
EACH = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else (pytest.mark.slow,)) for name in MAKERS],
)


def even(name, slices):
    torch.manual_seed(0)
    return uniform_stem(MAKERS[name](), slices, "green")


def raw(slices, batch=2):
    """Raw windows of 8-bit grey values, (B, S, y, x)."""
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 255, (batch, slices, SIDE, SIDE), generator=draw).float()


def answers(network, x):
    with torch.no_grad():
        return list(tensors_in(network(x)))


def same(one, other, x):
    return all(torch.equal(*pair) for pair in zip(answers(one, x), answers(other, x), strict=True))


@EACH
@pytest.mark.parametrize("slices", [pytest.param(3, marks=pytest.mark.slow), 5])
def test_one_number_for_all_slots_keeps_any_order_alike_and_one_each_does_not(name, slices):
    network, x = even(name, slices).eval(), raw(slices)
    order = torch.randperm(slices, generator=torch.Generator().manual_seed(slices))
    order = order if order.tolist() != list(range(slices)) else order.flip(0)
    each = torch.linspace(30, 50, slices)[:, None, None]
    for std, alike in ((40.0, True), (each, False)):
        one, other = (answers(network, (windows - 128) / std) for windows in (x, x[:, order]))
        apart = max(
            float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True)
        )
        assert (apart < 1e-5) == alike, apart


@EACH
def test_a_step_of_training_reaches_the_stem_and_every_slot(name):
    network = even(name, 5).train()
    before = {key: value.clone() for key, value in network.named_parameters()}
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    sum(out.square().mean() for out in tensors_in(network((raw(5) - 128) / 40))).backward()
    optimiser.step()
    stems = [key for key, value in before.items() if value.ndim == 4 and value.shape[1] == 5]
    assert len(stems) == 1
    moved = (dict(network.named_parameters())[stems[0]] - before[stems[0]]).abs().sum(dim=(0, 2, 3))
    assert bool((moved > 0).all())


@EACH
def test_its_state_loads_into_another_one_made_even_alike(name, tmp_path):
    network = even(name, 5).eval()
    torch.save(network.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(9)
    other = uniform_stem(MAKERS[name](), 5, "blue").eval()
    x = (raw(5) - 128) / 40
    assert not torch.equal(answers(other, x)[-1], answers(network, x)[-1])
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert same(network, other, x)


@pytest.mark.parametrize("name", [pytest.param("segformer", marks=pytest.mark.slow), "vit"])
def test_transformers_save_and_load_it_with_its_number_of_slices(name, tmp_path):
    network = even(name, 5).eval()
    network.save_pretrained(tmp_path)
    again = type(network).from_pretrained(tmp_path, local_files_only=True).eval()
    assert again.config.num_channels == network.config.num_channels == 5
    assert same(network, again, (raw(5) - 128) / 40)
    assert uniform_stem(MAKERS[name](), 3).config.num_channels == 3
