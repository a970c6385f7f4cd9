"""How much predictions change when parts of the network are dropped: MC dropout.

Gal & Ghahramani 2016 (arXiv:1506.02142). Here a pass is one thinned network, the same for all images: what is dropped
hangs on the seed, the pass and the place in the network alone, so that a source's numbers do not depend on the sources
beside it, on their order or on the device.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import nn

ELEMENTWISE = (nn.Dropout,)
CHANNELWISE = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def dropout_probabilities(
    network: nn.Module, image: torch.Tensor, passes: int, seed: int, temperature: float = 1.0
) -> torch.Tensor:
    """Class probabilities of thinned networks, ``softmax(logits / temperature)``.

    Everything but dropout is as in evaluation (statistics of batch normalisation too), and the network is left as it
    was: its mode, and without hooks.

    Parameters
    ----------
    network : nn.Module
        From images to logits (B, K). Without dropout all passes are equal, and one is computed.
    image : torch.Tensor
        (B, C, H, W) in -1..1, on the network's device.
    passes : int
        P, thinned networks.
    seed : int
        Of what is dropped.
    temperature : float
        Of the calibration.

    Returns
    -------
    torch.Tensor
        (P, B, K) float64, on the CPU.

    Raises
    ------
    ValueError
        If there are no passes, or the temperature is not above 0.
    """
    if passes < 1:
        raise ValueError(f"passes must be 1 or more, not {passes}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    different = passes if dropout_modules(network) else 1
    probabilities = []
    with _evaluating(network), torch.no_grad():
        for number in range(different):
            with thinned(network, seed, number):
                logits = network(image)
            probabilities.append(torch.softmax(logits.cpu().double() / temperature, dim=1))  # (B, K)
    return torch.stack(probabilities * (passes // different))


def dropout_modules(network: nn.Module) -> list[nn.Module]:
    """Return the network's dropout modules that drop anything (p > 0), at any depth, in its order."""
    return [module for module in network.modules() if isinstance(module, ELEMENTWISE + CHANNELWISE) and module.p > 0]


@contextlib.contextmanager
def thinned(network: nn.Module, seed: int, number: int) -> Iterator[None]:
    """Drop the same parts for all images, while the context lasts; for networks in evaluation mode.

    Each dropout module multiplies by a mask, 0 for a share p and 1 / (1 - p) for the rest. `nn.Dropout` drops values,
    the mask (1, C, ...); the others whole channels, (1, C, 1, ...). A module's mask follows from seed, pass, the
    module's number in the network and the mask's shape. So the views of `galgaze.models.combined.TurnedViews` are
    thinned alike; and a module that a network uses in several places of the same shape thins them alike too.

    Parameters
    ----------
    network : nn.Module
        Any.
    seed, number : int
        Of the run, and of the pass.
    """
    with contextlib.ExitStack() as hooks:
        for index, module in enumerate(dropout_modules(network)):
            handle = module.register_forward_hook(_thin(f"{seed}:{number}:{index}"))
            hooks.callback(handle.remove)
        yield


def _thin(key: str):
    """A forward hook that multiplies a module's output by its mask."""

    def hook(module: nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        shape = list(output.shape[1:])
        if isinstance(module, CHANNELWISE):
            shape = [shape[0], *(1 for _ in shape[1:])]
        return output * _mask(key, shape, module.p).to(output)

    return hook


def _mask(key: str, shape: list[int], share: float) -> torch.Tensor:
    """Mask (1, *shape), drawn on the CPU, so that every device sees the same."""
    digest = hashlib.sha256(f"{key}:{shape}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    kept = torch.rand(1, *shape, generator=generator) >= share
    return kept / (1 - share) if share < 1 else torch.zeros(1, *shape)


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode, and each module in its own mode again afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    if not any(training for _, training in modes):
        yield
        return
    network.eval()
    try:
        yield
    finally:
        network.train(modes[0][1])  # for modules that do more than note their mode
        for module, training in modes:
            module.training = training
