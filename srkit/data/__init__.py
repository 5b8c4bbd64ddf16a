"""Datasets. Importing this registers them; the loader, which needs torch, is `srkit.data.loader`."""

from srkit.data.inplane_slices import SelfSupervisedSlices
from srkit.data.microscopy import MicroscopyPairedDataset
from srkit.data.paired_image import PairedImageDataset
from srkit.data.realesrgan import RealESRGANDataset
from srkit.data.sample import Sample
from srkit.data.single_image import SingleImageDataset
from srkit.data.slides import SlideDataset
from srkit.data.volumes import VolumeDataset

__all__ = [
    "MicroscopyPairedDataset",
    "PairedImageDataset",
    "RealESRGANDataset",
    "Sample",
    "SelfSupervisedSlices",
    "SingleImageDataset",
    "SlideDataset",
    "VolumeDataset",
]
