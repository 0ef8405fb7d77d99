"""Objects as `kubectl get` shows them: meta.k8s.io Tables, with the columns of the real server's printers."""

from mycel.cluster.apiserver.tables.render import table

__all__ = ["table"]
