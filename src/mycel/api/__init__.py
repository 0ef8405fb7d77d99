"""Generated from api/*.proto by tools/gen_api.py: Hubble's messages and grpclib stubs. Nothing here is edited by hand.

`flow_pb2`, `observer_pb2`, `relay_pb2`, `peer_pb2`, `health_pb2` hold messages; `*_grpc` hold service stubs.
"""
