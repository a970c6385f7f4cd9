"""Groups of turns and reflections of the plane, and convolutions that commute with them.

Group convolutions after Cohen & Welling 2016 (arXiv:1602.07576), filters after Weiler & Cesa 2019 (arXiv:1911.08251).
Feature maps are fields of the regular representation: (B, N F, H, W) for a group of N elements and F fields, the F
channels of the first element before those of the second. Turning the image turns every channel and moves each to
another element's place.

These are ours, not escnn's: through its dependencies escnn pins numpy below 2, so that it has to be installed with
``--no-deps``. What is needed of it are a few hundred lines, which are exact and export to plain convolutions
(`galgaze.models.equivariant.export`).
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

# Of the steerable filters' rings. Measured on plane waves, wider rings, or harmonics up to 3 r, span little more and
# are less exact. A ring of radius r px is 2 pi r px long and cannot sample harmonics beyond pi r.
RING_SIGMA_PX = 0.5


def highest_frequency(ring_px: int) -> int:
    """Of the harmonics on a ring of this radius."""
    return 2 * ring_px + 1 if ring_px else 0


@dataclass(frozen=True)
class Group:
    """Turns by multiples of 360 / `rotations` degrees, with reflections or without.

    Element ``m * rotations + r`` is R^r M^m: first the mirror M (the columns reversed) m times, then r turns R,
    anticlockwise where the first row is drawn on top, as `torch.rot90` turns.

    Attributes
    ----------
    rotations : int
        1, or a multiple of 4.
    reflections : bool
        Whether the mirror belongs to it.
    """

    rotations: int
    reflections: bool = False

    @property
    def order(self) -> int:
        """Number of elements."""
        return self.rotations * (2 if self.reflections else 1)

    def product(self, a: int, b: int) -> int:
        """The element that does b, then a: R^p M^s R^q M^t = R^(p + (-1)^s q) M^(s + t)."""
        s, p = divmod(a, self.rotations)
        t, q = divmod(b, self.rotations)
        return (s + t) % 2 * self.rotations + (p + (-1) ** s * q) % self.rotations

    def inverse(self, a: int) -> int:
        """The element that undoes a."""
        return next(b for b in range(self.order) if self.product(a, b) == 0)

    def quotients(self) -> torch.Tensor:
        """The element a^-1 b in row a and column b. (N, N) int64."""
        elements = range(self.order)
        return torch.tensor([[self.product(self.inverse(a), b) for b in elements] for a in elements])

    def angle_rad(self, a: int) -> float:
        """By how much the element turns (after its mirror)."""
        return 2 * math.pi * (a % self.rotations) / self.rotations

    def mirrors(self, a: int) -> bool:
        """Whether the element is a reflection."""
        return a >= self.rotations

    def exact_elements(self) -> list[int]:
        """The elements that turn by multiples of 90 degrees: pixels move to pixels."""
        return [a for a in range(self.order) if 4 * (a % self.rotations) % self.rotations == 0]

    def act(self, a: int, image: torch.Tensor) -> torch.Tensor:
        """Turn and mirror images (..., H, W) by one of the `exact_elements`.

        Raises
        ------
        ValueError
            If the element moves pixels to between pixels.
        """
        if a not in self.exact_elements():
            raise ValueError(f"element {a} turns by {math.degrees(self.angle_rad(a)):g} degrees, no multiple of 90")
        mirrored = image.flip(-1) if self.mirrors(a) else image
        return torch.rot90(mirrored, 4 * (a % self.rotations) // self.rotations, (-2, -1))

    def act_on_fields(self, a: int, features: torch.Tensor) -> torch.Tensor:
        """What turning the image by a makes of features of the regular representation. (B, N F, H, W) -> same."""
        moved = torch.empty_like(features)
        old, new = self.by_element(features), self.by_element(moved)
        for b in range(self.order):
            new[:, self.product(a, b)] = self.act(a, old[:, b])
        return moved

    def by_element(self, features: torch.Tensor) -> torch.Tensor:
        """(B, N F, H, W) -> (B, N, F, H, W), no copy."""
        return features.unflatten(1, (self.order, -1))


GROUPS = {
    "trivial": Group(1),
    **{f"C{n}": Group(n) for n in (4, 8, 16)},
    **{f"D{n}": Group(n, reflections=True) for n in (4, 8, 16)},
}


# ----------------------------------------------------------------------------------------------- filters


def turned_basis(group: Group, kernel_size: int) -> torch.Tensor:
    """The filters that convolutions are combined of, turned by each element of the group.

    Where pixels move to pixels, the basis is every pixel for itself: any filter can be had. Other groups have the
    steerable basis, see `steerable_basis`.

    Parameters
    ----------
    group : Group
        With N elements.
    kernel_size : int
        Side of the filters k, odd, in pixels.

    Returns
    -------
    torch.Tensor
        (N, b, k, k) float32; the norms of the b filters are about 1: those of a cosine and its sine on average.
    """
    if len(group.exact_elements()) == group.order:
        pixels = torch.eye(kernel_size**2).view(-1, kernel_size, kernel_size)
        return torch.stack([group.act(a, pixels) for a in range(group.order)])
    return torch.stack(
        [steerable_basis(kernel_size, group.angle_rad(a), group.mirrors(a)) for a in range(group.order)]
    ).float()


def steerable_basis(kernel_size: int, angle_rad: float = 0.0, mirrored: bool = False) -> torch.Tensor:
    """Gaussian rings times circular harmonics, sampled where the turned pixels lie (Weiler & Cesa 2019).

    exp(-(|x| - r)^2 / 2 sigma^2) cos(m phi), and sin, for rings r = 0, 1, ... k // 2 px and m from 0 to 2 r + 1. A
    turned filter is a combination of filters of the basis: turning by any angle is exact, but for what the pixels do
    not sample. Of the k^2 dimensions 8 are spanned for k = 3, 19 for 5, 34 for 7 and 53 for 9.

    Harmonics of m > 1 are blind to even light and to gradients, but sampled they are not (m = 4 is all plus on the
    axes and all minus on the diagonals, and the two have not the same number of pixels): this is taken out of them.

    Parameters
    ----------
    kernel_size : int
        Side k, odd, in pixels.
    angle_rad : float
        By which to turn, anticlockwise.
    mirrored : bool
        Whether to reverse the columns first.

    Returns
    -------
    torch.Tensor
        (b, k, k) float64.
    """
    outermost = kernel_size // 2
    row, column = torch.meshgrid(*[torch.arange(-outermost, outermost + 1, dtype=torch.float64)] * 2, indexing="ij")
    radius, upright = torch.hypot(row, column), torch.atan2(-row, column)
    azimuth = upright - angle_rad
    if mirrored:
        azimuth = math.pi - azimuth
    filters = []
    for ring in range(outermost + 1):
        profile = torch.exp(-((radius - ring) ** 2) / (2 * RING_SIGMA_PX**2)) if ring else (radius == 0).double()
        filters.append(profile / profile.norm())
        profile = profile * (radius > 0)  # a harmonic has no value at the centre
        norm = profile.norm() / math.sqrt(2)  # of cosine and sine together, so that one can turn into the other
        for frequency in range(1, highest_frequency(ring) + 1):
            for wave in (torch.cos(frequency * azimuth), torch.sin(frequency * azimuth)):
                blind_to = (torch.ones_like(row), row, column) if frequency > 1 else ()
                harmonic = profile * wave
                spurious = [(harmonic * light).sum() / (profile * light**2).sum() * light for light in blind_to]
                filters.append((harmonic - profile * sum(spurious)) / norm)
    return torch.stack(filters)


# ------------------------------------------------------------------------------------------------ layers


class GroupConvolution(nn.Module):
    """Convolution from images, or from fields of the regular representation, to such fields.

    out[a] = sum over b of in[b] * (a psi[a^-1 b]), a psi the filter turned by a (Cohen & Welling 2016);
    from an image: out[a] = in * (a psi). Same size, zeros around, no bias: batch normalisation follows.

    Parameters
    ----------
    in_fields, out_fields : int
        Of the features; of an image: its channels.
    kernel_size : int
        Side of the filters, odd, in pixels.
    group : Group
        With N elements.
    lifting : bool
        Whether it reads an image rather than fields.
    """

    def __init__(self, in_fields: int, out_fields: int, kernel_size: int, group: Group, lifting: bool = False):
        super().__init__()
        turned = turned_basis(group, kernel_size)  # (N, b, k, k)
        quotients = torch.zeros(group.order, 1, dtype=torch.int64) if lifting else group.quotients()
        self.register_buffer("turned", turned, persistent=False)
        self.register_buffer("quotients", quotients, persistent=False)
        inputs = in_fields * quotients.shape[1]
        # the filters of the basis have norm 1, so that this keeps a ReLU network's variance (He et al. 2015)
        sigma = math.sqrt(2 / (inputs * turned.shape[1]))
        shape = (out_fields, in_fields, quotients.shape[1], turned.shape[1])
        self.coefficients = nn.Parameter(torch.randn(shape) * sigma)

    def filters(self) -> torch.Tensor:
        """The same as a plain convolution's weight: (N out, N in, k, k), of an image (N out, in, k, k)."""
        coefficients = self.coefficients[:, :, self.quotients]  # (out, in, a, b, basis)
        turned = torch.einsum("oiabf,afyx->aobiyx", coefficients, self.turned)
        return turned.flatten(2, 3).flatten(0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N in, H, W), an image (B, in, H, W), to (B, N out, H, W)."""
        return F.conv2d(x, self.filters(), padding=self.turned.shape[-1] // 2)


class FieldBatchNorm(nn.BatchNorm2d):
    """Batch normalisation with one mean and one variance a field, the same for all N elements of the group."""

    def __init__(self, fields: int, group: Group):
        super().__init__(fields)
        self.group = group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N F, H, W) -> same. Elements count as more images, or as wider ones: whichever needs no copy."""
        batch, _, height, width = x.shape
        if not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x.reshape(-1, self.num_features, height, width)).view(x.shape)
        wide = x.permute(0, 2, 3, 1).reshape(batch, height, -1, self.num_features)  # (B, H, W N, F)
        normalised = super().forward(wide.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return normalised.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def pool_group(x: torch.Tensor, order: int, by: str = "max") -> torch.Tensor:
    """Fields to invariant channels, which turn with the image and do not move: (B, N F, H, W) -> (B, F, H, W).

    Parameters
    ----------
    x : torch.Tensor
        Fields of the regular representation.
    order : int
        N, elements of the group.
    by : {"max", "mean"}
        What is kept of a field's values.
    """
    elements = x.unflatten(1, (order, -1))  # (B, N, F, H, W)
    return elements.mean(dim=1) if by == "mean" else elements.amax(dim=1)
