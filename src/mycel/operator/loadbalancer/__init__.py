"""Addresses for services of type LoadBalancer, out of CiliumLoadBalancerIPPools.

`pools` and `claims` read objects, `assign` decides, all pure; `work` watches and writes.
"""
