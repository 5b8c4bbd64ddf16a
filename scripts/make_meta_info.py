"""List the pictures of a folder, for `meta_info_file`: `python -m srkit.tools meta` by another door."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from srkit.tools.__main__ import main

sys.exit(main(["meta", *sys.argv[1:]]))
