"""Cut pictures into tiles, lq and gt at once: `python -m srkit.tools slice` by another door."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from srkit.tools.__main__ import main

sys.exit(main(["slice", *sys.argv[1:]]))
