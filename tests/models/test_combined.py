import math

import pytest
import torch
from torch import nn

from galgaze.models.agcnn import AGCNN
from galgaze.models.attention_vgg import AttentionVGG
from galgaze.models.bar_network import BarNetwork
from galgaze.models.combined import VIEWS, Ensemble, TurnedViews, combine, log_mean_probability, rotate
from galgaze.models.network import AttentionNetwork, Examination
from galgaze.models.questions import answer_fractions

torch.set_num_threads(1)


def settled(network: nn.Module, size_px: int = 48) -> nn.Module:
    """With statistics as after some training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(noise(size_px, 8))
    return network.eval()


def agcnn(seed: int = 0, classes: int = 3, **settings) -> AGCNN:
    torch.manual_seed(seed)
    return settled(AGCNN(1, classes, (3, 4, 5, 6), **{"gate_pooling": "mean", "aggregation": "concat", **settings}))


def vgg(seed: int = 0) -> AttentionVGG:
    torch.manual_seed(seed)
    return settled(AttentionVGG(1, 3, (4, 4, 6, 6, 8, 8), normalisation="sigmoid"))


def bar_network(seed: int = 0) -> BarNetwork:
    torch.manual_seed(seed)
    return settled(BarNetwork(1, 3, widths=(4, 4, 6, 6)), 64)


def noise(size_px: int, count: int = 2) -> torch.Tensor:
    """Clouds, coarse and fine."""
    random = torch.Generator().manual_seed(7)
    clouds = sum(
        nn.functional.interpolate(torch.randn(count, 1, grain, grain, generator=random), size=size_px, mode="bilinear")
        for grain in (3, 6, 12)
    )
    return torch.tanh(clouds)


class Corner(AttentionNetwork):
    """As little invariant as can be: its logits are single pixels, its map is the image."""

    attention_reductions, normalisation = (1,), "tanh"

    def __init__(self):
        super().__init__()
        self.batch_sizes = []

    def examine(self, image):
        self.batch_sizes.append(len(image))
        a = image[:, 0]
        return Examination(a[:, 0, :3], [a], a[:, 0, :5])

    def padding_px(self, size_px):
        return (-size_px) % 8


def symmetries(x: torch.Tensor, mirrored: bool):
    """The eight (or four) exact pictures of (..., H, W)."""
    for quarters in range(4):
        turned = torch.rot90(x, quarters, dims=(-2, -1))
        yield turned
        if mirrored:
            yield turned.flip(-1)


# ---------------------------------------------------------------------------------------------- rotation


@pytest.mark.parametrize("size", [12, 13])
def test_rotation_by_90_degrees_is_exact(size):
    image = noise(size)
    for quarters in range(4):
        turned = rotate(image, 90.0 * quarters, outside=-1.0)
        torch.testing.assert_close(turned, torch.rot90(image, -quarters, dims=(2, 3)), atol=1e-5, rtol=0)


def test_rotation_keeps_the_scale_and_goes_from_columns_to_rows():
    image = torch.full((1, 1, 41, 41), -1.0)
    image[0, 0, 20, 30] = 1.0  # 10 px to the right of the centre
    light = rotate(image, 45.0, outside=-1.0)[0, 0] + 1
    row, column = (torch.arange(41.0) * light.sum(dim=1)).sum(), (torch.arange(41.0) * light.sum(dim=0)).sum()
    assert float(row / light.sum()) == pytest.approx(20 + 10 / math.sqrt(2), abs=0.1)
    assert float(column / light.sum()) == pytest.approx(20 + 10 / math.sqrt(2), abs=0.1)


def test_rotation_fills_with_blank_and_keeps_what_it_need_not_touch():
    turned = rotate(torch.ones(1, 2, 40, 40), 45.0, outside=-1.0)
    assert (turned[0, :, 0, 0] == -1).all()
    torch.testing.assert_close(turned[0, :, 20, :], torch.ones(2, 40))
    assert (rotate(torch.full((1, 1, 20, 30), -1.0), 22.5, outside=-1.0) == -1).all()


def test_rotation_of_oblong_images_keeps_angles():
    image = torch.zeros(1, 1, 30, 50)
    image[0, 0, 15:, 24:26] = 1  # a bar below the centre
    turned = rotate(image, 90.0)[0, 0]
    assert turned[15, 15] == pytest.approx(1, abs=1e-4)  # is now to the left of it, as wide and as long
    assert float(turned.sum()) == pytest.approx(30, rel=1e-4)


def test_rotation_of_half_precision_is_that_of_single():
    image = noise(40)
    turned = rotate(image.bfloat16(), 22.5)
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned.float(), rotate(image.bfloat16().float(), 22.5), atol=0.01, rtol=0.01)


# ----------------------------------------------------------------------------------------- turned views


@pytest.mark.parametrize("size", [49, 50])
@pytest.mark.parametrize("turns", [4, 8, 16, 32])
@pytest.mark.parametrize("inner", [Corner, agcnn, vgg])
def test_exact_invariance(inner, turns, size):
    network, image = TurnedViews(inner(), turns), noise(size)
    with torch.inference_mode():
        said = network.examine(image)
        assert said.logits.std(dim=0).max() > 1e-4  # it tells the images apart
        pictures = zip(
            symmetries(image, turns > 4), zip(*(symmetries(a, turns > 4) for a in said.maps), strict=True), strict=True
        )
        for picture, maps in pictures:
            turned = network.examine(picture)
            torch.testing.assert_close(turned.logits, said.logits, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(turned.features, said.features, atol=1e-5, rtol=1e-5)
            for a, b in zip(turned.maps, maps, strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_answers_are_averaged_too():
    network, image = TurnedViews(bar_network(), 8), noise(64)
    with torch.inference_mode():
        answers = network.examine(image).answers
        turned = network.examine(image.transpose(2, 3)).answers
        assert (network.network.examine(image).answers - answers).abs().max() > 1e-4
    torch.testing.assert_close(turned, answers, atol=1e-5, rtol=1e-5)


def test_without_mirrors_a_reflection_counts():
    network, image = TurnedViews(agcnn(), 4), noise(48)
    with torch.inference_mode():
        assert (network(image) - network(image.flip(-1))).abs().max() > 1e-4


def test_one_view_is_the_network_itself():
    inner, image = agcnn(), noise(50)
    said, own = TurnedViews(inner, 1).examine(image), inner.examine(image)
    assert torch.equal(said.logits, own.logits)
    assert all(torch.equal(a, b) for a, b in zip(said.maps, own.maps, strict=True))


def test_logits_are_averaged_by_hand():
    image = torch.arange(36.0).reshape(1, 1, 6, 6) / 36
    expected = torch.stack([picture[:, 0, 0, :3] for picture in symmetries(image, True)]).mean(dim=0)
    torch.testing.assert_close(TurnedViews(Corner(), 8)(image), expected)


@pytest.mark.parametrize("turns", [4, 8])
def test_a_map_that_turns_with_the_image_stays_what_it_is(turns):
    image = noise(21)
    torch.testing.assert_close(TurnedViews(Corner(), turns).examine(image).maps[0], image[:, 0])


@pytest.mark.parametrize("turns", [16, 32])
def test_maps_of_slanted_views_are_turned_back(turns):
    grid = torch.arange(64.0) - 31.5
    blob = torch.exp(-((grid[None, :] - 9) ** 2 + (grid[:, None] + 5) ** 2) / 32)[None, None]
    a = TurnedViews(Corner(), turns).examine(blob * 2 - 1).maps[0][0]
    inside = torch.hypot(grid[None, :], grid[:, None]) < 30
    torch.testing.assert_close(a[inside], (blob[0, 0] * 2 - 1)[inside], atol=0.05, rtol=0)


class Even(Corner):
    """Attends everywhere alike."""

    def examine(self, image):
        said = super().examine(image)
        return Examination(said.logits, [torch.full_like(said.maps[0], 0.3)], said.features)


def test_corners_count_only_the_views_that_show_them():
    a = TurnedViews(Even(), 32).examine(noise(33)).maps[0]
    torch.testing.assert_close(a, torch.full_like(a, 0.3))


def test_more_views_change_less_when_the_image_turns_by_45_degrees():
    grid = torch.arange(96.0) - 47.5
    x, y = torch.meshgrid(grid, grid, indexing="xy")
    image = (2 * torch.exp(-(((x - 6) / 14) ** 2) - (y / 4) ** 2) - 1)[None, None]  # an off-centre bar
    slanted, inner = rotate(image, 45.0, outside=-1.0), agcnn()
    with torch.inference_mode():
        change = {
            turns: (TurnedViews(inner, turns)(image) - TurnedViews(inner, turns)(slanted)).abs().max()
            for turns in (1, 8, 16)
        }
    assert change[16] < 0.5 * change[8]
    assert change[16] < 0.5 * change[1]


@pytest.mark.parametrize("turns", sorted(VIEWS))
def test_views_pass_one_after_the_other(turns):
    inner = Corner()
    TurnedViews(inner, turns)(noise(16, count=3))
    assert inner.batch_sizes == [3] * turns


def test_what_is_passed_through():
    network = TurnedViews(Corner(), 8)
    assert (network.attention_reductions, network.normalisation) == ((1,), "tanh")
    assert (network.padding_px(150), network.padding_px(152)) == (2, 0)
    assert not list(network.parameters())
    assert len(list(TurnedViews(agcnn(), 8).parameters())) == len(list(agcnn().parameters()))


def test_saliency_of_the_mean_turns_with_the_image():
    network, image = TurnedViews(agcnn(), 8), noise(48, 1)
    gradients = []
    for picture in (image, torch.rot90(image, 1, dims=(2, 3))):
        picture = picture.clone().requires_grad_()
        gradients += torch.autograd.grad(network(picture)[0, 0], picture)
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(torch.rot90(gradients[0], 1, dims=(2, 3)), gradients[1], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("turns", [0, 2, 12])
def test_other_numbers_of_views_are_refused(turns):
    with pytest.raises(ValueError, match="1, 4, 8, 16, 32"):
        TurnedViews(Corner(), turns)


# --------------------------------------------------------------------------------------------- ensembles


def test_log_mean_probability():
    logits = [torch.tensor([[100.0, 0.0, -300.0]]), torch.tensor([[0.0, 0.0, 0.0]])]
    expected = torch.tensor([[2 / 3, 1 / 6, 1 / 6]])
    torch.testing.assert_close(log_mean_probability(logits).exp(), expected)


def test_the_mean_probability_is_the_mean_of_the_members():
    ensemble, image = Ensemble([agcnn(seed) for seed in range(3)]), noise(50, 4)
    with torch.inference_mode():
        members = ensemble.member_probabilities(image)
        assert members.shape == (3, 4, 3)
        assert members.std(dim=0).max() > 1e-3
        torch.testing.assert_close(members.sum(dim=2), torch.ones(3, 4))
        said = ensemble.examine(image)
        torch.testing.assert_close(said.logits.softmax(dim=1), members.mean(dim=0))
        apart = [member.examine(image) for member in ensemble.networks]
        for level, a in enumerate(said.maps):
            torch.testing.assert_close(a, sum(one.maps[level] for one in apart) / 3)
        assert torch.equal(said.features, torch.cat([one.features for one in apart], dim=1))
        assert torch.equal(combine(ensemble.examine_members(image)).logits, said.logits)
    assert said.answers is None


def test_equal_members_say_what_one_says():
    member, image = bar_network(), noise(64, 3)
    with torch.inference_mode():
        said, own = Ensemble([member, bar_network(), bar_network()]).examine(image), member.examine(image)
    torch.testing.assert_close(said.logits.softmax(dim=1), own.logits.softmax(dim=1))
    torch.testing.assert_close(answer_fractions(said.answers), answer_fractions(own.answers))
    for a, b in zip(said.maps, own.maps, strict=True):
        torch.testing.assert_close(a, b)


def test_order_does_not_matter():
    members, image = [bar_network(seed) for seed in range(3)], noise(64)
    with torch.inference_mode():
        one, other = Ensemble(members).examine(image), Ensemble(members[::-1]).examine(image)
    torch.testing.assert_close(one.logits, other.logits)
    torch.testing.assert_close(one.answers, other.answers)
    for a, b in zip(one.maps, other.maps, strict=True):
        torch.testing.assert_close(a, b)


def test_fractions_of_answers_are_the_mean_of_the_members():
    members, image = [bar_network(seed) for seed in range(2)], noise(64)
    with torch.inference_mode():
        said = Ensemble(members).examine(image)
        apart = torch.stack([answer_fractions(member.examine(image).answers) for member in members])
    assert (apart[0] - apart[1]).abs().max() > 1e-3
    torch.testing.assert_close(answer_fractions(said.answers), apart.mean(dim=0))


def test_one_confident_member_does_not_outvote_the_others():
    probabilities = torch.tensor([[0.999999, 0.000001], [0.3, 0.7], [0.3, 0.7]])
    members = [Examination(one.log()[None], [], torch.zeros(1, 1)) for one in probabilities]
    torch.testing.assert_close(combine(members).logits.exp(), probabilities.mean(dim=0)[None])


def test_views_and_ensembles_go_into_each_other():
    members, image = [agcnn(seed) for seed in range(2)], noise(48)
    with torch.inference_mode():
        for network in (Ensemble([TurnedViews(one, 8) for one in members]), TurnedViews(Ensemble(members), 8)):
            torch.testing.assert_close(network(image), network(image.flip(-2)), atol=1e-5, rtol=1e-5)
            assert network.attention_reductions == (4, 2, 1)
            assert len(network.examine(image).maps) == 3
            assert network.padding_px(48) == 0


def test_members_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])
    with pytest.raises(ValueError, match=r"gates: the first has \(4, 2, 1\), number 2 has \(4, 2\)"):
        Ensemble([agcnn(), agcnn(gates=2)])
    with pytest.raises(ValueError, match="normalisations: the first has range_norm, number 3 has tanh"):
        Ensemble([agcnn(), agcnn(), agcnn(normalisation="tanh")])
    with pytest.raises(ValueError, match="numbers of classes: the first has 3, number 2 has 2"):
        Ensemble([agcnn(), agcnn(classes=2)])(noise(48))
    members = [Examination(torch.zeros(1, 2), [torch.zeros(1, side, side)], torch.zeros(1, 1)) for side in (38, 37)]
    with pytest.raises(ValueError, match=r"maps' sizes: .*38, 38.*37, 37"):
        combine(members)
    Ensemble([agcnn(gates=0), agcnn(gates=0, normalisation="tanh")])(noise(48))  # no maps, nothing to differ


def test_paddings_must_agree():
    unpadded = Corner()
    unpadded.padding_px = lambda size_px: 0
    ensemble = Ensemble([Corner(), unpadded])
    assert ensemble.padding_px(152) == 0
    with pytest.raises(ValueError, match="paddings: the first has 2, number 2 has 0"):
        ensemble.padding_px(150)
