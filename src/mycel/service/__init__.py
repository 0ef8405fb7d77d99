"""Services turned into frontends and backends: which addresses answer, which targets serve, in which order.

Pure: values of `model` in, values out. Map rows are made of them in `plan`.
"""
