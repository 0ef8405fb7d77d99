"""The program behind the coredns image name: a small DNS server that reads a Corefile.

`corefile` parses the file and `config` gives it meaning; `kubernetes`, `local`, `hosts` and `cache` answer from memory
(pure); `forward` asks other servers; `chain` puts the plugins of a server block in CoreDNS' own order; `server` has the
sockets, `health` the two HTTP ports, `sources` the watch on the Kubernetes API. Nothing here is used by the mesh.
"""
