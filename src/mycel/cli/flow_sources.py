"""Where `mycel hubble` gets its answers: a file, one server, or every agent of a cluster.

Flows come as an async generator of responses whatever their source; questions with one answer are asked of all
servers at once.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import click

from mycel.api import observer_pb2, relay_pb2
from mycel.cli.errors import BadInput, Failure
from mycel.observe.client import BadServerAddress, ObserverClient, TlsFiles, connect

_F = TypeVar("_F", bound=Callable[..., Any])
T = TypeVar("T")
_NAMESPACE = "kube-system"
_UNARY_S = 12.0
_ALL = 2**64 - 1
_MOST_LAST = 1_000_000

Flows = AsyncGenerator[observer_pb2.GetFlowsResponse]


class Source(NamedTuple):
    """One server, or (empty `server`) the agents of a cluster."""

    server: str
    tls: TlsFiles | None
    context: str | None
    kubeconfig: str | None
    namespace: str


class Answers(NamedTuple):
    """What was answered and what went wrong, by node (or by server)."""

    answers: Mapping[str, Any]
    problems: Mapping[str, str]


def source_options(function: _F) -> _F:
    """Adds the options that choose the source; the command gets them as one argument, `source`."""

    @click.option(
        "--server",
        envvar="HUBBLE_SERVER",
        default="",
        metavar="ADDRESS",
        help="unix:///path, host:port or tls://host:port. Default: every agent of the cluster.",
    )
    @click.option("--tls", is_flag=True, help="Use TLS.")
    @click.option("--tls-allow-insecure", is_flag=True, help="Do not verify the server's certificate.")
    @click.option("--tls-ca-cert-files", multiple=True, metavar="FILE", help="Certificate authorities.")
    @click.option("--tls-client-cert-file", default="", metavar="FILE", help="Client certificate; implies TLS.")
    @click.option("--tls-client-key-file", default="", metavar="FILE", help="Its key; implies TLS.")
    @click.option("--tls-server-name", default="", metavar="NAME", help="Name in the server's certificate.")
    @click.option("--kube-context", "--context", "kube_context", metavar="NAME", help="Context of the kubeconfig.")
    @click.option("--kubeconfig", metavar="FILE", help="Default: $KUBECONFIG, else ~/.kube/config.")
    @click.option("--kube-namespace", default=_NAMESPACE, show_default=True, help="Namespace of the agents.")
    @wraps(function)
    def wrapper(
        *args: Any,
        server: str,
        tls: bool,
        tls_allow_insecure: bool,
        tls_ca_cert_files: tuple[str, ...],
        tls_client_cert_file: str,
        tls_client_key_file: str,
        tls_server_name: str,
        kube_context: str | None,
        kubeconfig: str | None,
        kube_namespace: str,
        **kwargs: Any,
    ) -> Any:
        if bool(tls_client_cert_file) != bool(tls_client_key_file):
            raise BadInput("--tls-client-cert-file and --tls-client-key-file belong together")
        files = None
        if tls or tls_client_cert_file or server.startswith("tls://"):
            files = TlsFiles(
                tls_ca_cert_files, tls_client_cert_file, tls_client_key_file, tls_server_name, tls_allow_insecure
            )
        source = Source(server, files, kube_context, kubeconfig, kube_namespace)
        return function(*args, source=source, **kwargs)

    return wrapper  # type: ignore[return-value]  # click reads the options from the wrapper


def flows(source: Source, request: observer_pb2.GetFlowsRequest) -> Flows:
    """Flows of the server, or of all agents in the order of time. Raises Failure, and BadInput for a filter that no
    server would understand.
    """
    from mycel.flow.errors import FilterError
    from mycel.flow.filter import FlowFilters

    try:
        FlowFilters(request.whitelist, request.blacklist)
    except FilterError as exc:
        raise BadInput(str(exc)) from exc
    return _server_flows(source, request) if source.server else _agent_flows(source, request)


async def _server_flows(source: Source, request: observer_pb2.GetFlowsRequest) -> Flows:
    with _server_errors(source.server):
        async with (
            connect(source.server, tls=source.tls) as client,
            client.observer.GetFlows.open() as stream,
        ):
            await stream.send_message(request, end=True)
            async for response in stream:
                yield response


async def _agent_flows(source: Source, request: observer_pb2.GetFlowsRequest) -> Flows:
    from mycel.observe.agents import follow_agent, list_agents
    from mycel.observe.merge import merge, node_status

    async with _cluster(source) as client:
        agents = await list_agents(client, namespace=source.namespace)
        if not agents:
            raise _no_agents(source)
        connected = node_status(relay_pb2.NODE_CONNECTED, [agent.node for agent in agents])
        connected.node_name = "mycel"
        yield connected
        failed = 0
        streams = {agent.node: follow_agent(client, agent, request) for agent in agents}
        async with aclosing(merge(streams, follow=request.follow)) as merged:
            async for response in merged:
                if response.HasField("node_status"):
                    response.node_name = "mycel"
                    failed += response.node_status.state_change == relay_pb2.NODE_ERROR
                yield response
        if failed == len(agents):
            raise Failure(
                "not one agent could be asked for flows",
                hint="mycel status says what is wrong with the agents.",
            )


async def ask(source: Source, question: Callable[[ObserverClient], Awaitable[T]]) -> Answers:
    """The same question for the server or for every agent. Raises Failure when nobody answers."""
    if source.server:
        with _server_errors(source.server):
            async with asyncio.timeout(_UNARY_S), connect(source.server, tls=source.tls) as client:
                return Answers({source.server: await question(client)}, {})
    from mycel.observe.agents import ask_agents, list_agents

    async with _cluster(source) as client:
        agents = await list_agents(client, namespace=source.namespace)
        if not agents:
            raise _no_agents(source)
        answers, problems = await ask_agents(client, agents, question)
    if not answers:
        node, problem = next(iter(problems.items()))
        raise Failure(f"no agent answers; {node}: {problem}", hint="mycel status says more.")
    return Answers(answers, problems)


async def first_answer(source: Source, question: Callable[[ObserverClient], Awaitable[T]]) -> T:
    """A question that one server is enough for, and that may take for ever: the first agent that can be reached."""
    if source.server:
        with _server_errors(source.server):
            async with connect(source.server, tls=source.tls) as client:
                return await question(client)
    from mycel.observe.agents import AgentUnreachable, connect_agent, list_agents

    async with _cluster(source) as client:
        problem = ""
        for agent in await list_agents(client, namespace=source.namespace):
            try:
                async with connect_agent(client, agent) as observer:
                    return await question(observer)
            except AgentUnreachable as unreachable:
                problem = f"no agent answers; {agent.node}: {unreachable}"
        raise Failure(problem, hint="mycel status says more.") if problem else _no_agents(source)


def _cluster(source: Source) -> Any:
    from mycel.k8s.client import ApiClient, Endpoint

    return ApiClient(Endpoint.from_kubeconfig(source.kubeconfig, source.context), user_agent="mycel-hubble")


def _no_agents(source: Source) -> Failure:
    return Failure(
        f"there are no agents (pods with k8s-app=cilium) in namespace {source.namespace}",
        hint="mycel install --wait installs the mesh; --server asks one Observer directly.",
    )


class _server_errors:
    """Turns what a connection raises into a sentence."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: object) -> None:
        from grpclib.exceptions import GRPCError, StreamTerminatedError

        match problem:
            case GRPCError():
                raise Failure(f"{self._server}: {problem.message or problem.status.name}") from problem
            case BadServerAddress():
                raise BadInput(str(problem)) from problem
            case TimeoutError():
                raise Failure(f"{self._server}: no answer in time") from problem
            case OSError() | StreamTerminatedError():
                raise Failure(
                    f"{self._server}: {problem}",
                    hint="Is a Hubble server listening there? Without --server every agent is asked.",
                ) from problem
            case _:
                return


def read_lines(path: str) -> Iterator[str]:
    """Lines of a file, or of standard input for `-`. Raises OSError."""
    if path == "-":
        yield from sys.stdin
        return
    with open(path, encoding="utf-8") as file:
        yield from file


async def file_flows(lines: Iterator[str], request: observer_pb2.GetFlowsRequest) -> Flows:
    """Flows of a file in the order they are read, through the request's filters; follow is ignored."""
    from google.protobuf import json_format

    from mycel.flow.filter import FlowFilters

    filters = FlowFilters(request.whitelist, request.blacklist)
    since_ns = request.since.ToNanoseconds() if request.HasField("since") else None
    until_ns = request.until.ToNanoseconds() if request.HasField("until") else None
    number = 0 if request.number == _ALL else request.number
    if not request.first and number > _MOST_LAST:
        raise BadInput(f"--last must be at most {_MOST_LAST}, not {number}")
    last: deque[observer_pb2.GetFlowsResponse] = deque(maxlen=number)
    shown = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            response = json_format.Parse(line, observer_pb2.GetFlowsResponse(), ignore_unknown_fields=True)
        except json_format.ParseError as problem:
            click.echo(f"a line that is no flow is left out: {problem}: {line.strip()[:120]}", err=True)
            continue
        at_ns = response.time.ToNanoseconds()
        if (since_ns is not None and at_ns < since_ns) or (until_ns is not None and at_ns > until_ns):
            continue
        if not filters.matches(response.flow) or (request.whitelist and not response.HasField("flow")):
            continue
        if number and not request.first:
            last.append(response)
            continue
        yield response
        shown += 1
        if number and shown >= number:
            return
    for response in last:
        yield response


def now_ns() -> int:
    """Wall clock."""
    return time.time_ns()
