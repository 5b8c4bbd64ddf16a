"""Packaging of srkit; the dependency list lives in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).resolve().parent
lines = [line.split("#")[0].strip() for line in (here / "requirements.txt").read_text().splitlines()]
requirements = [line for line in lines if line]
medical = [r for r in requirements if re.match(r"nibabel|torchio", r)]  # heavy, and needed for volumes only
wsi = ["openslide-python>=1.4", "openslide-bin>=4.0"]  # whole slides; the second is the library itself
export = ["onnx>=1.20", "onnxscript>=0.7", "onnxruntime>=1.26"]  # 110 MB
report = ["matplotlib>=3.10", "jinja2>=3.1"]  # pages and figures
demo = ["gradio>=6.31"]  # the page of `srkit demo`; brings its web server
extras = {
    "medical": medical,
    "lmdb": ["lmdb>=1.4"],
    "community": ["spandrel>=0.4"],  # networks and weights of others
    "wsi": wsi,
    "export": export,  # networks for other programs
    "report": report,
    "demo": demo,
    "metrics": ["lpips>=0.1.4", "DISTS-pytorch>=0.1"],  # their heads; trunks are files of their own
    "dev": [
        *medical,
        *wsi,
        *export,
        *report,
        *demo,
        "lmdb>=1.4",
        "pytest>=8",
        "pytest-timeout",
        "pytest-xdist",
        "ruff>=0.6",
        "mypy>=1.11",
        "types-PyYAML",
        "jsonschema>=4",
    ],
}

setup(
    name="srkit",
    version=re.search(r'__version__ = "(.+)"', (here / "srkit/__init__.py").read_text()).group(1),
    description="Config-driven super-resolution training for images and volumes",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["srkit", "srkit.*"]),
    package_data={"srkit": ["py.typed"], "srkit.models": ["*.safetensors", "*.md"], "srkit.report": ["*.j2"]},
    install_requires=[r for r in requirements if r not in medical],
    extras_require=extras,
    entry_points={
        "console_scripts": [
            "srkit-train = srkit.train:entry",
            "srkit-test = srkit.test:entry",
            "srkit-infer = srkit.infer:entry",
            "srkit = srkit.tools.__main__:entry",
        ]
    },
)
