"""Part pictures into train, val and test by slide, patient or person: `python -m srkit.tools split` by another door."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from srkit.tools.__main__ import main

sys.exit(main(["split", *sys.argv[1:]]))
