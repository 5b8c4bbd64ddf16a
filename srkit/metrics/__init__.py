"""Metrics on prepared arrays, the protocols that prepare them, and summaries of their values."""

from __future__ import annotations

from srkit.metrics.edges import EdgeF1, EdgePrecision, EdgeRecall
from srkit.metrics.errors import MAE, MSE, NRMSE, PSNR, LRConsistency
from srkit.metrics.learned import DISTS, LPIPS
from srkit.metrics.msssim import MSSSIM
from srkit.metrics.niqe import NIQE
from srkit.metrics.protocol import PROTOCOLS, Prepared, Protocol, custom_protocol, protocol_named
from srkit.metrics.ssim import SSIM, SliceSSIM
from srkit.metrics.stains import StainPSNR, StainSSIM
from srkit.metrics.summary import summarize

__all__ = [
    "DISTS",
    "LPIPS",
    "MAE",
    "MSE",
    "MSSSIM",
    "NIQE",
    "NRMSE",
    "PROTOCOLS",
    "PSNR",
    "SSIM",
    "EdgeF1",
    "EdgePrecision",
    "EdgeRecall",
    "LRConsistency",
    "Prepared",
    "Protocol",
    "SliceSSIM",
    "StainPSNR",
    "StainSSIM",
    "custom_protocol",
    "protocol_named",
    "summarize",
]
