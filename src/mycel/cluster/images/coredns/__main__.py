"""`python -m mycel.cluster.images.coredns -conf Corefile`."""

from mycel.cluster.images.coredns.main import main

raise SystemExit(main())
