"""`python -m jaxser.data_prep.demo` makes a demo corpus."""

import sys

from .corpus import main

if __name__ == "__main__":
    sys.exit(main())
