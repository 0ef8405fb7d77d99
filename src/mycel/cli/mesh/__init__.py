"""What installing, checking and removing the mesh is made of, apart from the commands that do it.

`detect` looks at a cluster, `settings` turns that and the command line into values of the chart (pure),
`release` keeps Helm's record of what was installed, `certificates` makes the mesh's own, `objects` writes to
the cluster, `health` judges what a cluster says of itself (pure), `agents` asks the agents themselves.
"""
