"""The scheduler: which node a pod goes to.

`snapshot` gathers nodes with the pods on them, `filters` say which nodes a pod fits and why not the others,
`affinity` holds the rules between pods, `scores` choose among those that fit, `loop` binds. All but `loop`
are pure.
"""
