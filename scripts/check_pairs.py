"""Find pairs that are shifted against each other, or are no pairs: `python -m srkit.tools check-pairs` by another door."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from srkit.tools.__main__ import main

sys.exit(main(["check-pairs", *sys.argv[1:]]))
