"""What objects are made of: one table of types for checking, OpenAPI, patches and protobuf bodies.

`tables/*.types` are facts of the Kubernetes API (field names, types, protobuf numbers, merge keys). Everything
here is pure: values in, values or problems out.
"""
