"""Which cluster a command talks to: `--context`, `--kubeconfig` and `--namespace`, and a client for it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from mycel.k8s.client import ApiClient

MESH_NAMESPACE = "kube-system"
_F = TypeVar("_F", bound=Callable[..., Any])


class Target(NamedTuple):
    """A cluster to talk to (None: the current one) and the namespace the mesh lives in."""

    context: str | None
    kubeconfig: str | None
    namespace: str

    def client(self) -> ApiClient:
        """A client; use it with `async with`. Raises ConfigError when the kubeconfig does not do."""
        from mycel.k8s.client import ApiClient, Endpoint  # 0.2 s, so not for --help

        return ApiClient(Endpoint.from_kubeconfig(self.kubeconfig, self.context), user_agent="mycel-cli")


def cluster_options(function: _F) -> _F:
    """Adds the three options; the command gets them as one argument, `target`."""

    @click.option("--context", metavar="NAME", help="Context of the kubeconfig. Default: the current one.")
    @click.option("--kubeconfig", metavar="FILE", help="Default: $KUBECONFIG, else ~/.kube/config.")
    @click.option(
        "-n",
        "--namespace",
        metavar="NAME",
        envvar="CILIUM_NAMESPACE",
        default=MESH_NAMESPACE,
        show_default=True,
        help="Namespace the mesh is installed in.",
    )
    @functools.wraps(function)
    def wrapper(*args: Any, context: str | None, kubeconfig: str | None, namespace: str, **kwargs: Any) -> Any:
        return function(*args, target=Target(context, kubeconfig, namespace), **kwargs)

    return wrapper  # type: ignore[return-value]  # click reads the options from the wrapper


def asynchronous(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Let a coroutine be a click command: it runs in an event loop of its own."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(function(*args, **kwargs))

    return wrapper
