"""Names that option files of the BasicSR family use for what srkit calls otherwise: the one table of them."""

from __future__ import annotations

from collections.abc import Mapping

ALIASES: Mapping[str, Mapping[str, str]] = {
    "recipe": {
        "SRModel": "Supervised",
        "SRModelMicroscopy": "Supervised",
        "SRGANModel": "Adversarial",
        "ESRGANModel": "Adversarial",
        "RealESRNetModel": "Supervised",
        "RealESRGANModel": "Adversarial",
    },
    "metric": {
        "calculate_psnr": "PSNR",
        "calculate_psnr_micro": "PSNR",
        "psnr": "PSNR",
        "calculate_ssim": "SSIM",
        "calculate_ssim_micro": "SSIM",
        "ssim": "SSIM",
        "calculate_msssim": "MSSSIM",
        "msssim": "MSSSIM",
        "ms_ssim": "MSSSIM",
        "calculate_mse": "MSE",
        "mse": "MSE",
        "mae": "MAE",
    },
    "scheduler": {
        "MultiStepRestartLR": "MultiStepLR",
    },
}
"""Kind of component -> family's name -> srkit's name (the class name)."""

ABSENT: Mapping[str, Mapping[str, str]] = {
    "metric": {
        "calculate_niqe": "NIQE needs the statistics of good pictures of your own kind: `srkit fit-niqe FOLDER -o model.npz`, then `{type: NIQE, model: model.npz}`; or remove it"
    },
}
"""Kind of component -> name that the family's own files use and srkit does not have -> why."""


def canonical(kind: str, name: str) -> str:
    """srkit's name for `name`; a name without alias is its own."""
    return ALIASES.get(kind, {}).get(name, name)


def spellings(kind: str, name: str) -> tuple[str, ...]:
    """`name` and every alias of it."""
    return (name, *(alias for alias, own in ALIASES.get(kind, {}).items() if own == name))
