"""Labelled sets of images, to train and to evaluate on: published ones, and folders with a table."""

from galgaze.images.datasets.batches import read_mirabest
from galgaze.images.datasets.labelled import LabelledSet, read_labelled_set
from galgaze.images.datasets.labelled_folder import LabelTable, read_labelled_directory, read_labelled_folder
from galgaze.images.datasets.pickles import MIRABEST_MD5, PICKLE_GLOBALS, read_array_pickle

__all__ = [
    "MIRABEST_MD5",
    "PICKLE_GLOBALS",
    "LabelTable",
    "LabelledSet",
    "read_array_pickle",
    "read_labelled_directory",
    "read_labelled_folder",
    "read_labelled_set",
    "read_mirabest",
]
