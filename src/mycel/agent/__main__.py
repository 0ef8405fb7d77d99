"""`python -m mycel.agent`."""

import sys

from mycel.agent.main import main

if __name__ == "__main__":
    sys.exit(main())
