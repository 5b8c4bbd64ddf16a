"""Datasets. Importing this registers them; the loader, which needs torch, is `srkit.data.loader`."""

from srkit.data.microscopy import MicroscopyPairedDataset
from srkit.data.paired_image import PairedImageDataset
from srkit.data.realesrgan import RealESRGANDataset
from srkit.data.sample import Sample
from srkit.data.single_image import SingleImageDataset
from srkit.data.volumes import VolumeDataset

__all__ = [
    "MicroscopyPairedDataset",
    "PairedImageDataset",
    "RealESRGANDataset",
    "Sample",
    "SingleImageDataset",
    "VolumeDataset",
]
