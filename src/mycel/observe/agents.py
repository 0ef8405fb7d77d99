"""All agents of a cluster, reached by exec: one Observer per node, the API server's authority and no open port.

Each connection lives inside the generator that reads from it, so that it is opened, used and closed by one task.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

from grpclib.exceptions import GRPCError, StreamTerminatedError

from mycel.api import observer_pb2
from mycel.k8s.client import ApiClient
from mycel.k8s.errors import ApiError
from mycel.k8s.exec import Channel, ExecSession, open_exec
from mycel.k8s.resources import PODS
from mycel.observe.client import ObserverClient, connect_stream

T = TypeVar("T")

COMMAND = ("hubble-dial",)
CONTAINER = "cilium-agent"
_SELECTOR = "k8s-app=cilium"
_CONNECT_S = 10.0


class Agent(NamedTuple):
    """The agent's pod of a node."""

    node: str
    namespace: str
    pod: str
    running: bool


class AgentUnreachable(Exception):
    """A node's Observer does not answer; the message says why."""


class _ExecStream:
    """An exec session as a byte stream; what the command says on stderr is kept for the error."""

    def __init__(self, session: ExecSession) -> None:
        self._session = session
        self.complaint = ""

    async def read(self) -> bytes:
        while (piece := await self._session.read()) is not None:
            if piece.channel is Channel.STDOUT:
                return piece.data
            self.complaint = piece.data.decode(errors="replace").strip()
        return b""

    async def write(self, data: bytes) -> None:
        await self._session.write(data)


async def list_agents(client: ApiClient, *, namespace: str) -> list[Agent]:
    """Agent pods, by node. Raises ApiError."""
    found: list[Agent] = []
    for pod in (await client.list(PODS, namespace=namespace, label_selector=_SELECTOR)).items:
        node = pod.get("spec", {}).get("nodeName", "")
        running = pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        if node:
            found.append(Agent(node, pod["metadata"]["namespace"], pod["metadata"]["name"], running))
    return sorted(found)


@asynccontextmanager
async def connect_agent(client: ApiClient, agent: Agent) -> AsyncGenerator[ObserverClient]:
    """A client of one agent's Observer. Raises AgentUnreachable, also for what fails inside."""
    if not agent.running:
        raise AgentUnreachable(f"pod {agent.namespace}/{agent.pod} is not running")
    stream: _ExecStream | None = None
    try:
        async with open_exec(
            client, COMMAND, namespace=agent.namespace, pod=agent.pod, container=CONTAINER, stdin=True
        ) as session:
            stream = _ExecStream(session)
            async with connect_stream(stream, target=agent.node) as observer:
                yield observer
    except ApiError as problem:
        raise AgentUnreachable(f"exec in {agent.namespace}/{agent.pod}: {problem}") from problem
    except GRPCError as problem:
        raise AgentUnreachable(problem.message or problem.status.name) from problem
    except (StreamTerminatedError, OSError) as problem:
        raise AgentUnreachable((stream and stream.complaint) or str(problem)) from problem


async def follow_agent(
    client: ApiClient, agent: Agent, request: observer_pb2.GetFlowsRequest
) -> AsyncGenerator[observer_pb2.GetFlowsResponse]:
    """The flows of one node."""
    async with connect_agent(client, agent) as observer, observer.observer.GetFlows.open() as stream:
        await stream.send_message(request, end=True)
        async for response in stream:
            yield response


async def ask_agents(
    client: ApiClient, agents: list[Agent], question: Callable[[ObserverClient], Awaitable[T]]
) -> tuple[Mapping[str, T], Mapping[str, str]]:
    """Ask every agent the same at once: answers by node, and what was wrong by node."""
    answers: dict[str, T] = {}
    problems: dict[str, str] = {}

    async def ask(agent: Agent) -> None:
        try:
            async with asyncio.timeout(_CONNECT_S), connect_agent(client, agent) as observer:
                answers[agent.node] = await question(observer)
        except TimeoutError:
            problems[agent.node] = f"no answer within {_CONNECT_S:.0f} s"
        except AgentUnreachable as problem:
            problems[agent.node] = str(problem)

    async with asyncio.TaskGroup() as tasks:
        for agent in agents:
            tasks.create_task(ask(agent), name=f"ask {agent.node}")
    return answers, problems
