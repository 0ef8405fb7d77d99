"""The images this machine brings along: references → specs → root folders. There is no registry.

An image here is a small tree over the machine's own /usr. What has to be a program of ours (an HTTP echo, a JSON
mock, cluster DNS) is a module of this package, started by the image's entrypoint.
"""
