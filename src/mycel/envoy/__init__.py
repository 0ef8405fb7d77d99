"""The only room that will speak xDS: the node's Envoy, fed from the same plan as the kernel's maps.

Empty until layer 7 begins; it exists so that the layers are checked from the first day.
"""
