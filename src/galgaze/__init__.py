"""Galaxy morphology catalogues that also say where the network looked."""

from importlib.metadata import version

__version__ = version("galgaze")
