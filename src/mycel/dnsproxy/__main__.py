"""`python -m mycel.dnsproxy`."""

import sys

from mycel.dnsproxy.main import main

if __name__ == "__main__":
    sys.exit(main())
