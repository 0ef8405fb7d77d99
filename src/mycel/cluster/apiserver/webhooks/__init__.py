"""ValidatingWebhookConfigurations: which of them a write concerns, and asking those."""

from mycel.cluster.apiserver.webhooks.ask import Webhooks
from mycel.cluster.apiserver.webhooks.match import Operation, Write

__all__ = ["Operation", "Webhooks", "Write"]
