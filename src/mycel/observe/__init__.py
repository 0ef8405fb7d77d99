"""Where flows live and are served: the columnar store, the Observer and Peer services, metrics, and the
clients of both.

How an agent wires it (all in one event loop):

    from mycel.observe.pipeline import FlowPipeline
    from mycel.observe.server import serve

    pipeline = FlowPipeline(directory, node_name="kind-worker", cluster_name="default", capacity=65_535)
    async for batch in datapath.events():  # numpy array of abi.FlowEvent records, copied out of the ring
        pipeline.feed(batch)  # synchronous, a fraction of a millisecond
    pipeline.lost(count, cpu=3)  # what the kernel could not hand over; told once per window

    server = await serve("/var/run/cilium/hubble.sock", pipeline.store, peers=peers, version="1.19.4")
    text = pipeline.metrics.render()  # Prometheus text: hubble_flows_processed_total, hubble_drop_total, ...
    await server.aclose()

`directory` is a `flow.records.Directory`: `version`, `endpoint(address, identity)`, `labels(identity)`,
`services(address)`, `names(address)`, `interface(ifindex)`; see that Protocol. `peers` is an
`observe.peers.Peers`, a set of names and addresses that can change.
"""
