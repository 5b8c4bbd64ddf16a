"""A local web page that enlarges what is dropped on it: `srkit demo` by another door."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from srkit.tools.__main__ import main

sys.exit(main(["demo", *sys.argv[1:]]))
