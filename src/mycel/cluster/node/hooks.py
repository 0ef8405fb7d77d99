"""postStart and preStop hooks: exec, httpGet, tcpSocket or sleep."""

from __future__ import annotations

import asyncio

from mycel.cluster.node import probes, runtime
from mycel.cluster.node.names import Object
from mycel.cluster.node.probes import Target


async def run_hook(hook: Object, target: Target, *, timeout_s: float) -> str:
    """Run the hook; what went wrong, or nothing."""
    if "sleep" in hook:
        await asyncio.sleep(min(timeout_s, float(hook["sleep"].get("seconds") or 0)))
        return ""
    if "exec" in hook:
        try:
            code, output = await runtime.execute(
                target.container, hook["exec"].get("command") or [], timeout_s=timeout_s
            )
        except TimeoutError:
            return f"no end within {timeout_s:g}s"
        return "" if code == 0 else f"exit code {code}: {output.decode(errors='replace').strip()[:500]}"
    outcome = await probes.check(hook | {"timeoutSeconds": timeout_s}, target)
    return "" if outcome.ok else outcome.message
