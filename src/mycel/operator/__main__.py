"""`python -m mycel.operator`."""

import sys

from mycel.operator.main import main

if __name__ == "__main__":
    sys.exit(main())
