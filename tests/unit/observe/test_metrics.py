"""Counters over flows."""

from mycel.observe.pipeline import FlowPipeline
from tests.unit.flow.samples import Names, event, events


def test_text_exposition() -> None:
    """Flows by kind, drops by reason, under Hubble's names."""
    pipeline = FlowPipeline(Names(), node_name="n1")
    pipeline.feed(events(event(), event(), event(kind=1, sub_type=133, verdict=2, protocol=17), event(kind=129)))
    lines = pipeline.metrics.render().splitlines()
    labels = 'protocol="TCP",subtype="to-endpoint",type="Trace",verdict="FORWARDED"'
    assert f"hubble_flows_processed_total{{{labels}}} 2" in lines
    assert any('type="L7"' in line for line in lines)
    assert 'hubble_drop_total{protocol="UDP",reason="Policy denied"} 1' in lines
    assert "hubble_lost_events_total 0" in lines
    assert lines.count("# TYPE hubble_drop_total counter") == 1
