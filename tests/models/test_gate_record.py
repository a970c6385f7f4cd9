import math

import pytest
import torch

from galgaze.models.gate_record import collapse_warnings, gate_record


def disc(radius: float, side: int = 64, count: int = 1, wobble: float = 0.0) -> torch.Tensor:
    """Even discs around the middle, radii in units of half the side."""
    place = (torch.arange(side) + 0.5) / side * 2 - 1
    distance = torch.hypot(place[:, None], place[None])
    radii = radius * (1 + wobble * torch.linspace(-1, 1, count))
    return (distance[None] < radii[:, None, None]).double()


def test_an_even_map_covers_everything():
    (gate,) = gate_record([torch.ones(3, 200, 200) * 0.2 + 0.01 * torch.rand(3, 200, 200)])
    assert gate.entropy == pytest.approx(1, abs=1e-3)
    assert gate.area_share == pytest.approx(1, abs=1e-3)
    # the mean distance of a square's points from its middle, half the side being 1
    assert gate.centre_distance == pytest.approx((math.sqrt(2) + math.asinh(1)) / 3, rel=1e-3)


def test_a_disc_has_its_area_and_two_thirds_of_its_radius():
    (gate,) = gate_record([disc(0.6, 400)])
    assert gate.area_share == pytest.approx(math.pi * 0.36 / 4, rel=2e-3)
    assert gate.centre_distance == pytest.approx(0.4, rel=2e-3)
    assert gate.entropy == pytest.approx(math.log(math.pi * 0.36 / 4 * 400**2) / math.log(400**2), rel=1e-3)
    assert (gate.blank_share, gate.distance_scatter, gate.similarity) == (0, 0, None)


def test_one_pixel():
    maps = torch.zeros(2, 11, 11)
    maps[:, 5, 5] = 3
    (gate,) = gate_record([maps])
    assert (gate.entropy, gate.area_share, gate.centre_distance) == (0, pytest.approx(1 / 121), 0)
    assert gate.similarity == pytest.approx(1)


def test_scale_does_not_matter_and_maps_of_different_size_can_be_compared():
    maps = torch.rand(5, 32, 32)
    fine = maps.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    one, other, twice = gate_record([maps, maps * 1e-3, fine])
    assert other.area_share == pytest.approx(one.area_share)
    assert other.similarity == pytest.approx(one.similarity)
    assert twice.area_share == pytest.approx(one.area_share)
    assert twice.centre_distance == pytest.approx(one.centre_distance, rel=0.02)


def test_blank_maps_do_not_count_in_the_means():
    maps = disc(0.5, count=4)
    maps[1], maps[2, 0, 0] = 0, math.nan
    (gate,) = gate_record([maps])
    (alone,) = gate_record([maps[[0, 3]]])
    assert gate.blank_share == 0.5
    assert gate.centre_distance == alone.centre_distance


@pytest.mark.parametrize(
    "maps",
    [
        torch.zeros(8, 16, 16),
        torch.full((8, 16, 16), 1 / 256),  # a softmax that prefers nothing
        0.9 + 0.001 * torch.rand(8, 16, 16),  # a sigmoid that has saturated
        1e-8 * torch.rand(8, 16, 16),
        torch.full((8, 16, 16), math.nan),
    ],
    ids=["zero", "flat", "saturated", "nothing", "nan"],
)
def test_blank_gates_are_told(maps):
    record = gate_record([torch.rand(8, 16, 16), maps])
    assert record[1].blank_share == 1
    assert record[1].entropy is None
    assert collapse_warnings(record) == [
        "gate 2 has gone blank: for most images its map is flat or zero, so it tells nothing"
    ]


def dead_but_for_a_pixel(count: int = 8, elsewhere: bool = False) -> torch.Tensor:
    """What range normalisation makes of a gate that is all but flat: 0.9 to 1, and 0 in one pixel."""
    maps = (0.9 + 0.1 * torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(1))).repeat(count, 1, 1)
    maps.flatten(1)[range(count), torch.arange(count) * (7 if elsewhere else 0) + 3] = 0
    return maps


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same pixel", "another pixel each"])
def test_a_flat_map_is_blank_though_one_pixel_is_dark(elsewhere):
    record = gate_record([torch.rand(8, 16, 16), dead_but_for_a_pixel(elsewhere=elsewhere)])
    assert record[1].blank_share == 0
    assert record[1].area_share > 0.98
    assert collapse_warnings(record) == [
        "gate 2 has gone blank: for most images its map is flat or zero, so it tells nothing"
    ]


def test_a_gate_that_sees_the_centre_of_every_image_is_told():
    looks = disc(0.2, count=8) + 0.001 * torch.rand(8, 64, 64)
    (told,) = collapse_warnings(gate_record([looks]))
    assert told.startswith("gate 1 looks only at the centre")


@pytest.mark.parametrize(
    "maps",
    [
        disc(0.2, count=8, wobble=0.5),  # follows the sizes of sources in the middle
        disc(0.9, count=8),  # wide
        torch.rand(8, 64, 64),
        disc(0.2, count=1),  # one image cannot tell
        dead_but_for_a_pixel(1),
        1 - 0.55 * disc(0.5, count=8),  # the same for all, but not everywhere
        torch.cat([1 - disc(0.3, count=1).roll(12 * k, dims=2) for k in range(-2, 3)]),  # wide, and follows
        torch.cat([disc(0.3, count=8, wobble=0.2), torch.zeros(4, 64, 64)]),
    ],
    ids=["sizes", "wide", "noise", "one", "one flat", "hole", "wide and follows", "some blank"],
)
def test_healthy_gates_are_not_warned_of(maps):
    assert collapse_warnings(gate_record([maps])) == []


def test_small_maps_count_too():
    """The last estimator of a network for 32 px sees 8 x 8 pixels."""
    maps = torch.zeros(20, 8, 8)
    maps[:, 3:5, 3:5] = 0.25
    (told,) = collapse_warnings(gate_record([maps]))
    assert "centre" in told


def test_a_network_without_gates_has_no_record():
    assert gate_record([]) == []
    assert collapse_warnings([]) == []
