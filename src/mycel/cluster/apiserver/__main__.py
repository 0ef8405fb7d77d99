"""`python -m mycel.cluster.apiserver`."""

import sys

from mycel.cluster.apiserver.main import main

if __name__ == "__main__":
    sys.exit(main())
