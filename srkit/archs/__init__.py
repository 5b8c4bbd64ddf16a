"""Networks: one a file, each always `lq -> sr`; importing this package registers them in `srkit.registry.ARCHS`."""

from srkit.archs.edge_informed import EdgeInformedSR
from srkit.archs.edge_network import EdgeGenerator
from srkit.archs.edge_srgan import EdgeSRGAN
from srkit.archs.edsr import EDSR
from srkit.archs.faces_sr import FacesSR
from srkit.archs.msrresnet import MSRResNet
from srkit.archs.patch_discriminator3d import PatchDiscriminator3D
from srkit.archs.resnet_generator import ResnetGenerator
from srkit.archs.rrdbnet import RRDBNet
from srkit.archs.spectral_discriminators import SNPatchDiscriminator, UNetDiscriminatorSN
from srkit.archs.srresnet import SRResNet
from srkit.archs.swish_discriminator import SwishDiscriminator
from srkit.archs.through_plane import ThroughPlane
from srkit.archs.vdsr import VDSR
from srkit.archs.vgg_discriminators import VGGAdaptiveDiscriminator, VGGStyleDiscriminator

__all__ = [
    "EDSR",
    "VDSR",
    "EdgeGenerator",
    "EdgeInformedSR",
    "EdgeSRGAN",
    "FacesSR",
    "MSRResNet",
    "PatchDiscriminator3D",
    "RRDBNet",
    "ResnetGenerator",
    "SNPatchDiscriminator",
    "SRResNet",
    "SwishDiscriminator",
    "ThroughPlane",
    "UNetDiscriminatorSN",
    "VGGAdaptiveDiscriminator",
    "VGGStyleDiscriminator",
]
