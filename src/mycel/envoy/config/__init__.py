"""CiliumEnvoyConfig and CiliumClusterwideEnvoyConfig: what users say to Envoy. Pure.

`read` makes an EnvoyConfig (`model`) of an object: `refuse` says what may not be in it, `fill` what is added, `names`
what things are called and refer to. docs/envoy-config.md is the page.
"""
