"""The only room that talks to the Kubernetes API: client, informers, exec, and the parsing of its objects.

Past this room nobody of the mesh sees raw JSON; the embedded cluster's controllers, which are clients like
any other, ask for plain dicts. Nothing here decides anything.
"""
