"""Everything one run of a container needs, brought together: image, folder, files, environment, mounts → the OCI
bundle.

`pods` says when; this says with what.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import NamedTuple

from mycel.cluster import linux
from mycel.cluster.images import catalog, rootfs
from mycel.cluster.images.catalog import Image
from mycel.cluster.images.store import ImageStore
from mycel.cluster.lifecycle import cgroups
from mycel.cluster.node import bundle, dns, env, runtime, sandbox, volumes
from mycel.cluster.node.bundle import Bind, Surroundings
from mycel.cluster.node.errors import ConfigError, ImageError
from mycel.cluster.node.names import ContainerId, Object, PodFiles, key_of, uid_of
from mycel.cluster.node.objects import Objects
from mycel.cluster.node.settings import NodeSettings
from mycel.cluster.node.state import ContainerState, PodState

_MESSAGE_LIMIT = 4096


class Found(NamedTuple):
    """An image that is there."""

    image: Image
    image_id: str
    root: Path | None = None  # of a loaded image; built-in ones are made on the spot


class Starter:
    """Makes containers of this node."""

    def __init__(self, settings: NodeSettings, objects: Objects) -> None:
        self._settings = settings
        self._objects = objects
        self._images = ImageStore(settings.images)
        self._bounding = bundle.bounding_set(_bounding_mask())
        self._devices = bundle.machine_devices()
        self._hierarchies = cgroups.hierarchies()

    @staticmethod
    def new_id() -> ContainerId:
        """64 hexadecimal characters, as every runtime gives."""
        return ContainerId(uuid.uuid4().hex + uuid.uuid4().hex)

    def hostname(self, pod: Object) -> str:
        """Inside the pod."""
        return self._settings.name if pod["spec"].get("hostNetwork") else dns.hostname_of(pod)

    def image(self, pod: Object, container: Object) -> Found:
        """The container's image. Raises ImageError with what to do."""
        del pod
        reference = container.get("image") or ""
        try:
            image = catalog.find(reference)
        except catalog.InvalidReference as exc:
            raise ImageError(
                f'Failed to apply default image tag "{reference}": {exc}', reason="InvalidImageName"
            ) from exc
        loaded = self._images.find(reference)
        if loaded is not None:
            return Found(loaded[0], f"sha256:{loaded[1].parent.name}", loaded[1])
        if image is None:
            if container.get("imagePullPolicy") == "Never":
                text = f'Container image "{reference}" is not present with pull policy of Never'
                raise ImageError(text, reason="ErrImageNeverPull")
            raise ImageError(
                f'Failed to pull image "{reference}": there is no registry here and no built-in image of that name; '
                f"bring it with: mycel cluster load-image ARCHIVE.tar (built in: {', '.join(catalog.known())})"
            )
        return Found(image, f"mycel.built-in/{image.name}")

    async def create(
        self, pod: Object, container: Object, state: PodState, files: PodFiles, container_id: ContainerId
    ) -> None:
        """Write the bundle and let the runtime create the container. Raises NodeError kinds."""
        found = self.image(pod, container)
        image = found.image
        held = state.container(container["name"])
        lookup = await self._objects.lookup(pod)
        try:
            variables = env.build(pod, container, await self._objects.services(), lookup)
        except env.ConfigMissing as exc:
            raise ConfigError(str(exc)) from exc
        own = {**image.env, **variables}
        arguments = [env.expand(word, own) for word in bundle.command(container, image.entrypoint, image.arguments)]
        if not arguments:
            raise ConfigError(f"container {container['name']}: neither the image nor the pod says which command to run")
        uid, _, _ = bundle.user(pod, container, image.user)
        context = {**(pod["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
        if context.get("runAsNonRoot") and uid == 0:
            raise ConfigError("container has runAsNonRoot and image will run as root")
        folder = files.bundle(container_id)
        folder.mkdir(parents=True, exist_ok=True)
        if found.root is None:
            rootfs.build(image, folder / "rootfs")
        else:
            _layered(found.root, folder)
        own_network = not pod["spec"].get("hostNetwork")
        hostname = self.hostname(pod)
        (folder / "rootfs/etc/hostname").write_text(hostname + "\n")
        around = Surroundings(
            rootfs=str(folder / "rootfs"),
            hostname=hostname,
            cgroups_path=f"/{self._settings.cgroup}/pod{uid_of(pod)}/{container_id}",
            namespaces=self._namespaces(pod, state, files, own_network=own_network),
            binds=self._binds(pod, container, found, files, own, root=folder / "rootfs"),
            bounding=self._bounding,
            devices=self._devices,
            shm=str(files.base / "shm") if not pod["spec"].get("hostIPC") else "/dev/shm",  # noqa: S108
            environment=bundle.environment(image.env, variables, path=catalog.PATH, hostname=hostname, uid=uid),
            arguments=arguments,
            workdir=image.workdir,
            image_user=image.user,
        )
        working = container.get("workingDir") or image.workdir
        (folder / "rootfs" / working.lstrip("/")).mkdir(parents=True, exist_ok=True)
        await runtime.create(
            container_id,
            folder,
            bundle.config(pod, container, around),
            files.log(container["name"], held.restarts),
            stdin=bool(container.get("stdin")),
            tty=bool(container.get("tty")),
        )

    def shared_memory(self, files: PodFiles) -> None:
        """The pod's shared memory, one for all its containers."""
        folder = files.base / "shm"
        if not folder.is_mount():
            folder.mkdir(parents=True, exist_ok=True)
            linux.mount(
                "shm",
                folder,
                "tmpfs",
                linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC,
                "mode=1777,size=67108864",
            )

    def network_files(self, pod: Object, state: PodState, files: PodFiles) -> None:
        """hosts and resolv.conf of the pod."""
        node = dns.parse(Path("/etc/resolv.conf").read_text())
        resolver = dns.resolver(
            pod,
            cluster_dns=self._settings.cluster_dns,
            cluster_domain=self._settings.cluster_domain,
            node=node,
        )
        (files.base / "resolv.conf").write_text(resolver.text())
        text = dns.hosts(
            pod,
            addresses=state.addresses,
            hostname=self.hostname(pod),
            node_hosts=Path("/etc/hosts").read_text(),
        )
        (files.base / "hosts").write_text(text)

    def termination_message(self, container: Object, files: PodFiles, held: ContainerState) -> str:
        """What the container left behind for its status, or with FallbackToLogsOnError the end of its log."""
        try:
            text = (files.container(container["name"]) / "termination-log").read_text(errors="replace")[:_MESSAGE_LIMIT]
        except OSError:
            text = ""
        if text or container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return text
        exit_ = runtime.exit_of(ContainerId(held.container))
        if exit_ is None or exit_.code == 0:
            return ""
        try:
            lines = files.log(container["name"], held.restarts).read_text(errors="replace").splitlines()[-80:]
        except OSError:
            return ""
        return "\n".join(line.split(" ", 3)[-1] for line in lines)[-2048:]

    def out_of_memory(self, uid: str, container_id: ContainerId) -> bool:
        """Whether the kernel killed something of the container for its memory limit; asked before it is deleted."""
        where = f"{self._settings.cgroup}/pod{uid}/{container_id}"
        files = [self._hierarchies.unified / where / "memory.events"]
        files += [root / where / "memory.oom_control" for root in self._hierarchies.legacy if root.name == "memory"]
        for path in files:
            with contextlib.suppress(OSError):
                counts = dict(line.split(" ", 1) for line in path.read_text().splitlines())
                if counts.get("oom_kill", "0") != "0":
                    return True
        return False

    def link_log(self, pod: Object, container: Object, files: PodFiles, held: ContainerState) -> None:
        """The link in /var/log/containers that log collectors look for; logs of runs before the last are removed."""
        key = key_of(pod)
        link = self._settings.container_logs / f"{key.name}_{key.namespace}_{container['name']}-{held.container}.log"
        self._settings.container_logs.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(files.log(container["name"], held.restarts))
        for old in range(held.restarts - 2, -1, -1):
            path = files.log(container["name"], old)
            if not path.exists():
                break
            path.unlink()
        for stale in self._settings.container_logs.glob(f"{key.name}_{key.namespace}_{container['name']}-*.log"):
            if not stale.exists():
                stale.unlink()

    def release(self, uid: str) -> None:
        """Remove the pod's control groups and shared memory."""
        for hierarchy in (self._hierarchies.unified, *self._hierarchies.legacy):
            folder = hierarchy / self._settings.cgroup / f"pod{uid}"
            for found, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(found).rmdir()
        base = self._settings.pods / uid
        for point in linux.mounts_under(base):
            with contextlib.suppress(OSError):
                linux.umount(point)
        shutil.rmtree(base / "bundles", ignore_errors=True)

    def _namespaces(self, pod: Object, state: PodState, files: PodFiles, *, own_network: bool) -> dict[str, str]:
        pins = sandbox.pins(uid_of(pod), files.base)
        found: dict[str, str] = {}
        if own_network:
            found |= {"network": str(pins["net"]), "uts": str(pins["uts"])}
        if not pod["spec"].get("hostIPC"):
            found["ipc"] = str(pins["ipc"])
        if pod["spec"].get("shareProcessNamespace"):
            for held in state.containers.values():
                if held.running:
                    pid = (files.bundle(ContainerId(held.container)) / "pid").read_text().strip()
                    found["pid"] = f"/proc/{pid}/ns/pid"
                    break
        return found

    def _binds(
        self, pod: Object, container: Object, image: Found, files: PodFiles, variables: dict[str, str], *, root: Path
    ) -> list[Bind]:
        found: list[Bind] = []
        if image.root is None:
            layered = rootfs.own_layers(image.image)
            found += [
                Bind(path, path, read_only=True, below=f"{root}{path}" if path in layered else "")
                for path in rootfs.SHARED
                if Path(path).exists()
            ]
        if image.image.carries_mesh:
            found += [Bind(path, path, read_only=True) for path in self._settings.install_roots]
        mounted = {mount["mountPath"].rstrip("/") for mount in container.get("volumeMounts") or []}
        for name in ("hosts", "resolv.conf"):
            if f"/etc/{name}" not in mounted:
                found.append(Bind(str(files.base / name), f"/etc/{name}"))
        own = files.container(container["name"])
        own.mkdir(parents=True, exist_ok=True)
        message = own / "termination-log"
        message.write_bytes(b"")
        message.chmod(0o666)
        found.append(Bind(str(message), container.get("terminationMessagePath") or "/dev/termination-log"))
        return found + volumes.binds(pod, container, files, variables)


def _layered(lower: Path, folder: Path) -> None:
    """A writable layer of the container over a loaded image."""
    for name in ("upper", "work", "rootfs"):
        (folder / name).mkdir(exist_ok=True)
    if not (folder / "rootfs").is_mount():
        data = f"lowerdir={lower},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        linux.mount("overlay", folder / "rootfs", "overlay", data=data)


def _bounding_mask() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0
