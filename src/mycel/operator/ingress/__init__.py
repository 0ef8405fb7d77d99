"""Ingresses of class cilium → a Service of type LoadBalancer and a CiliumEnvoyConfig each.

`model` reads them, `routes` and `listener` say what Envoy does, `translate` puts it together, all pure; `work` watches
and writes. Agents know nothing of Ingresses.
"""
