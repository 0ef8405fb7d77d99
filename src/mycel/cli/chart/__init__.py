"""The Helm chart in `deploy/chart`, rendered without Helm.

`template` parses the part of Go's text/template the chart uses, `evaluate` runs it with the functions of
`functions`, `values` merges and checks settings, `load` turns the chart into objects. It stays a chart:
Helm v3 renders the same objects from it. What the subset leaves out is an error here, never a difference.
"""
