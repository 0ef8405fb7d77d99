"""Kernel events become flows here: decode → enrich → filter → `flow.Flow` messages. Pure: arrays in, arrays
and bytes out.

A batch of events is a numpy array; names are interned and referred to by number; rows that differ only in
time, ports and sequence share one `Kind`, for which the protobuf message is built once. Sockets, clocks and
stores are in `observe`.
"""
