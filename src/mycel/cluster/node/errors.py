"""What running pods can fail with; `reason` is what kubelet would put into a status or an event."""

from __future__ import annotations


class NodeError(Exception):
    """Something of a pod cannot be done now; it is tried again."""

    reason = "Failed"


class SandboxError(NodeError):
    """The pod's network or namespaces cannot be made."""

    reason = "FailedCreatePodSandBox"


class CniError(SandboxError):
    """A CNI plugin or its configuration failed."""


class VolumeError(NodeError):
    """A volume cannot be set up."""

    reason = "FailedMount"


class ConfigError(NodeError):
    """The container's configuration names what is not there."""

    reason = "CreateContainerConfigError"


class RunError(NodeError):
    """runc refused the container. `code` is the exit code kubelet reports (128 when it never ran)."""

    reason = "RunContainerError"

    def __init__(self, message: str, *, code: int = 128) -> None:
        super().__init__(message)
        self.code = code


class ImageError(NodeError):
    """The image is not there."""

    reason = "ErrImagePull"

    def __init__(self, message: str, *, reason: str = "ErrImagePull") -> None:
        super().__init__(message)
        self.reason = reason
