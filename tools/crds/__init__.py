"""The CustomResourceDefinitions of the mesh as Python values: `tools/gen_crds.py` makes the YAML.

Groups, kinds, short names, versions and printer columns are Cilium 1.19's, so that its manifests and tools
work; schemas are our own words for its documented semantics (https://docs.cilium.io/en/stable/network/kubernetes/policy/).
"""
