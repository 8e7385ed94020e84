"""``python -m wgan_fast`` is ``wgan-fast``."""

import sys

from wgan_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
