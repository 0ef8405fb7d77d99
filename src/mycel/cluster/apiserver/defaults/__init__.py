"""Values that Kubernetes fills in and clients rely on: one function per kind, changing the object in place."""

from mycel.cluster.apiserver.defaults.kinds import DEFAULTS

__all__ = ["DEFAULTS"]
