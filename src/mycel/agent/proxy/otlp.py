"""What is read of logs that Envoy sends by OTLP, over gRPC: opentelemetry-proto 1.0, `logs/v1/logs.proto`.

In a pool of its own and with bytes for texts: what clients send need not be UTF-8, and would cost its whole message.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
_Field = descriptor_pb2.FieldDescriptorProto
_BYTES, _FIXED64 = _Field.TYPE_BYTES, _Field.TYPE_FIXED64
# message: (field, its number, its type or the message it is, whether it is repeated)
_MESSAGES: dict[str, tuple[tuple[str, int, Any, bool], ...]] = {
    "Export": (("resource_logs", 1, "ResourceLogs", True),),
    "ResourceLogs": (("scope_logs", 2, "ScopeLogs", True),),
    "ScopeLogs": (("log_records", 2, "LogRecord", True),),
    "LogRecord": (("time_unix_nano", 1, _FIXED64, False), ("body", 5, "AnyValue", False)),
    "AnyValue": (("string_value", 1, _BYTES, False),),
}


def records(data: bytes) -> Iterator[Any]:
    """The records (`time_unix_nano`, `body.string_value`) of an ExportLogsServiceRequest.

    Raises ValueError for bytes that are none.
    """
    try:
        message: Any = export_class().FromString(data)
    except DecodeError as exc:
        raise ValueError(f"{len(data)} bytes are no message of OTLP: {exc}") from exc
    for each in message.resource_logs:
        for scope in each.scope_logs:
            yield from scope.log_records


@functools.cache
def export_class() -> Any:
    """ExportLogsServiceRequest, of what is read here."""
    file = descriptor_pb2.FileDescriptorProto(name="otlp.proto", package="otlp", syntax="proto3")
    for name, fields in _MESSAGES.items():
        made = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            of = {"type_name": f".otlp.{kind}", "type": _Field.TYPE_MESSAGE} if kind in _MESSAGES else {"type": kind}
            made.field.add(name=field, number=number, label=label, **of)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("otlp.Export"))
