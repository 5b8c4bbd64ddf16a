"""LPIPS and DISTS: distances between features of classifiers. Their weights are files of others; without them, n/a."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from srkit.errors import DataError, DivergedError, RefusedError, WeightsError
from srkit.metrics.checks import require_pair
from srkit.registry import METRICS

_TRUNKS = {
    "alex": ("alexnet", "alexnet-owt-7be5be79.pth", (1, 4, 7, 9, 11)),
    "vgg": ("vgg16", "vgg16-397923af.pth", (3, 8, 15, 22, 29)),
    "squeeze": ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", (1, 4, 7, 9, 10, 11, 12)),
}
"""torchvision's name, its file in torch's cache, the ReLUs (and fire modules) whose output is compared."""

_SMALLEST_PX = 32


class _Learned(ABC):
    """Weights are looked for when built; `unavailable` then says which are missing."""

    better: Literal["higher", "lower"] = "lower"
    unavailable: str

    def _find(self, net: str, weights: str | None, package: str, heads: str, pip: str) -> None:
        self._net = net
        self._trunk, trunk_missing = _trunk_file(net, weights)
        spec = importlib.util.find_spec(package)  # found, not imported: it may not get on with the torchvision here
        folder = Path(spec.origin).parent if spec and spec.origin else None
        self._heads = folder / heads if folder and (folder / heads).is_file() else None
        heads_missing = "" if self._heads else f"the package {pip}, whose file {heads} is needed (pip install {pip})"
        missing = [m for m in (trunk_missing, heads_missing) if m]
        self.unavailable = f"{type(self).__name__} lacks {' and '.join(missing)}" if missing else ""
        self._network: Any = None

    def _features(self) -> Any:
        """The trunk's feature layers, on the CPU."""
        import torch
        import torchvision

        with torch.device("meta"):  # the classifier behind the features, half a gigabyte in VGG16, is never made
            network = getattr(torchvision.models, _TRUNKS[self._net][0])(weights=None).features.eval()
        state = {k.removeprefix("features."): v for k, v in _load(self._trunk).items() if k.startswith("features.")}
        try:
            network.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise WeightsError(f"{self._trunk} is no {_TRUNKS[self._net][0]} of torchvision: {error}") from error
        return network.requires_grad_(False)

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        import torch

        if gt.ndim != 3:
            raise DataError(f"{type(self).__name__} is for pictures (H, W, C), got {gt.shape}")
        require_pair(sr, gt, _SMALLEST_PX, type(self).__name__)
        pair = []
        for image in (sr, gt):
            channels = image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1)
            pixels = np.ascontiguousarray(channels / data_range, np.float32)
            pair.append(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        if self._network is None:
            self._network = self._features()
        with torch.no_grad():
            value = float(self._distance(*pair))
        if not np.isfinite(value):
            raise DivergedError(f"{type(self).__name__} is {value}: sr or gt holds values that are not finite")
        return value

    @abstractmethod
    def _distance(self, sr: Any, gt: Any) -> Any:
        """A scalar tensor for pictures (1, 3, H, W), 0 to 1; `_network` holds the trunk's layers, `_heads` names their weights."""

    def _normalized(self, image: Any) -> Any:
        """As ImageNet's classifiers are fed."""
        mean, std = (image.new_tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return (image - mean) / std


def _trunk_file(net: str, weights: str | None) -> tuple[Path | None, str]:
    """The file, or what is missing. Raises RefusedError for a path that names no file."""
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise RefusedError(f"weights: no such file: {path.resolve()}")
        return path, ""
    import torch

    name = _TRUNKS[net][1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    found = f"{path}; get https://download.pytorch.org/models/{name}, and put it there or name it under weights"
    return (path, "") if path.is_file() else (None, found)


def _load(path: Path | None) -> dict[str, Any]:
    import torch

    assert path is not None, "asked for although unavailable"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files
        raise WeightsError(f"{path}: damaged or not a weights file ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, expected a state dict")
    return content


@METRICS.register()
class LPIPS(_Learned):
    """Learned perceptual distance, 0 for identical pictures; lower is better.

    Needs the trunk's ImageNet weights (a file, never downloaded here) and the calibrated heads (version 0.1) that the
    package `lpips` brings; without them the value is n/a. Runs on the CPU, so that machines agree. A picture of one channel
    is shown as grey; under `test_y_channel: true` that is luma, and the value is no published LPIPS.

    Args:
        net: Trunk: alex (what papers report), vgg or squeeze.
        weights: State dict of torchvision's network; default: torch's cache.

    Shape: `sr` and `gt` (H, W, 3) or (H, W, 1), equal, 32 or more along both axes.
    Source: Zhang et al. 2018, arXiv:1801.03924, section 3, equation 1.
    """

    def __init__(self, net: Literal["alex", "vgg", "squeeze"] = "alex", weights: str | None = None) -> None:
        self._find(net, weights, "lpips", f"weights/v0.1/{net}.pth", "lpips")

    def _distance(self, sr: Any, gt: Any) -> Any:
        heads = [_load(self._heads)[f"lin{i}.model.1.weight"] for i in range(len(_TRUNKS[self._net][2]))]
        pair = [self._taps(image) for image in (sr, gt)]
        return sum(((a - b) ** 2 * head).sum(1).mean() for a, b, head in zip(*pair, heads, strict=True))

    def _taps(self, image: Any) -> list[Any]:
        # The heads were calibrated on pictures from -1 to 1 that were then shifted and scaled by these.
        shift, scale = (image.new_tensor(v).view(1, 3, 1, 1) for v in ((-0.03, -0.088, -0.188), (0.458, 0.448, 0.45)))
        x, taps = (image * 2 - 1 - shift) / scale, []
        for index, layer in enumerate(self._network):
            x = layer(x)
            if index in _TRUNKS[self._net][2]:
                taps.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return taps


@METRICS.register()
class DISTS(_Learned):
    """Structure and texture distance, 0 for identical pictures; lower is better. At the picture's own size.

    Needs torchvision's VGG16 and the weights of channels that the package `DISTS-pytorch` brings; without them the value is
    n/a. Runs on the CPU.

    Args:
        weights: State dict of torchvision's VGG16; default: torch's cache.

    Shape: as LPIPS.
    Source: Ding et al. 2020, arXiv:2004.07728, section 3, equations 2 to 6.
    """

    def __init__(self, weights: str | None = None) -> None:
        self._find("vgg", weights, "DISTS_pytorch", "weights.pt", "DISTS-pytorch")

    def _distance(self, sr: Any, gt: Any) -> Any:
        import torch

        heads = _load(self._heads)
        pair = [self._taps(image) for image in (sr, gt)]
        sizes = [tap.shape[1] for tap in pair[0]]
        total = heads["alpha"].sum() + heads["beta"].sum()
        alpha, beta = (torch.split(heads[key] / total, sizes, dim=1) for key in ("alpha", "beta"))
        likeness, tiny = sr.new_zeros(()), 1e-6
        for a, b, of_mean, of_structure in zip(*pair, alpha, beta, strict=True):
            mean_a, mean_b = (t.mean((2, 3), keepdim=True) for t in (a, b))
            var_a, var_b = (t.var((2, 3), correction=0, keepdim=True) for t in (a, b))
            covariance = ((a - mean_a) * (b - mean_b)).mean((2, 3), keepdim=True)
            likeness += (of_mean * (2 * mean_a * mean_b + tiny) / (mean_a**2 + mean_b**2 + tiny)).sum()
            likeness += (of_structure * (2 * covariance + tiny) / (var_a + var_b + tiny)).sum()
        return 1 - likeness

    def _taps(self, image: Any) -> list[Any]:
        """The picture and five ReLU outputs; where VGG takes the maximum, the root of a smoothed square is taken."""
        import torch

        window = torch.hann_window(5, periodic=False)[1:-1]
        kernel = torch.outer(window, window) / window.sum() ** 2
        x, taps = self._normalized(image), [image]
        for index, layer in enumerate(self._network):
            if isinstance(layer, torch.nn.MaxPool2d):
                weights = kernel.expand(x.shape[1], 1, 3, 3)
                squares = torch.nn.functional.conv2d(x * x, weights, stride=2, padding=1, groups=x.shape[1])
                x = (squares + 1e-12).sqrt()
            else:
                x = layer(x)
            if index in _TRUNKS["vgg"][2]:
                taps.append(x)
            if index == _TRUNKS["vgg"][2][-1]:
                break
        return taps
