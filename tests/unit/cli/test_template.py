"""Go's text/template as the chart uses it: each row is a template, its data and what Go and Helm print."""

from __future__ import annotations

from typing import Any

import pytest

from mycel.cli.chart.evaluate import Renderer
from mycel.cli.chart.template import TemplateError, parse


def render(text: str, **values: Any) -> str:
    return Renderer([parse("t", text)]).render("t", {"Values": values})


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("plain", {}, "plain"),
        ("{{ .Values.a }}", {"a": "x"}, "x"),
        ("{{ .Values.a }}", {"a": True}, "true"),
        ("{{ .Values.a }}", {"a": 8472}, "8472"),
        ("[{{ .Values.a }}]", {}, "[]"),
        # White space: a marker takes all of it, newlines too.
        ("a\n  {{- .Values.a }}\nb", {"a": "x"}, "ax\nb"),
        ("a {{ .Values.a -}}\n  b", {"a": "x"}, "a xb"),
        ("a\n{{/* said */}}\nb", {}, "a\n\nb"),
        ("a\n{{- /* said */ -}}\nb", {}, "ab"),
        # Truth: empty is false.
        ("{{ if .Values.a }}y{{ else }}n{{ end }}", {"a": 0}, "n"),
        ("{{ if .Values.a }}y{{ else }}n{{ end }}", {"a": []}, "n"),
        ("{{ if .Values.a }}y{{ else }}n{{ end }}", {"a": "false"}, "y"),
        ("{{ if .Values.a }}1{{ else if .Values.b }}2{{ else }}3{{ end }}", {"b": 1}, "2"),
        ("{{ if .Values.a }}1{{ else if .Values.b }}2{{ else }}3{{ end }}", {}, "3"),
        ("{{ if not .Values.a }}y{{ end }}", {"a": ""}, "y"),
        ("{{ if and .Values.a .Values.b }}y{{ end }}", {"a": 1, "b": 0}, ""),
        ('{{ or .Values.a "z" }}', {"a": ""}, "z"),
        ('{{ if eq .Values.a "x" "y" }}y{{ end }}', {"a": "y"}, "y"),
        ('{{ if ne .Values.a "x" }}y{{ end }}', {"a": "y"}, "y"),
        # Scopes.
        ("{{ with .Values.a }}{{ .b }}{{ else }}none{{ end }}", {"a": {"b": 1}}, "1"),
        ("{{ with .Values.a }}{{ .b }}{{ else }}none{{ end }}", {}, "none"),
        ("{{ range .Values.a }}<{{ . }}>{{ end }}", {"a": ["x", "y"]}, "<x><y>"),
        ("{{ range .Values.a }}{{ $.Values.b }}{{ end }}", {"a": [1, 2], "b": "z"}, "zz"),
        ("{{ range $k, $v := .Values.a }}{{ $k }}={{ $v }};{{ end }}", {"a": {"b": 2, "a": 1}}, "a=1;b=2;"),
        ("{{ range $i, $v := .Values.a }}{{ $i }}{{ $v }}{{ end }}", {"a": ["x", "y"]}, "0x1y"),
        ("{{ $x := .Values.a }}{{ $x }}{{ $x }}", {"a": "v"}, "vv"),
        # Functions and pipes: the piped value comes last.
        ('{{ .Values.a | default "d" }}', {}, "d"),
        ('{{ .Values.a | join "," | quote }}', {"a": ["x", "y"]}, '"x,y"'),
        ('{{ .Values.a | default "d" | quote }}', {"a": "x"}, '"x"'),
        ("{{ .Values.a | quote }}", {"a": True}, '"true"'),
        ("{{ .Values.a | quote }}", {"a": 'say "hi"\n'}, '"say \\"hi\\"\\n"'),
        ("[{{ .Values.a | quote }}]", {}, "[]"),
        ("{{ toYaml .Values.a }}", {"a": {"b": ["x", 1], "a": True}}, "a: true\nb:\n- x\n- 1"),
        ("x:{{ toYaml .Values.a | nindent 2 }}", {"a": {"b": 1, "c": 2}}, "x:\n  b: 1\n  c: 2"),
        ("{{ indent 2 .Values.a }}", {"a": "x\ny"}, "  x\n  y"),
        ("{{ toYaml .Values.a }}", {"a": "true"}, "'true'"),
        ("{{ b64enc .Values.a }}", {"a": "x"}, "eA=="),
        ('{{ define "d" }}<{{ . }}>{{ end }}{{ include "d" .Values.a }}', {"a": 1}, "<1>"),
        ('{{ define "d" }}a: 1{{ end }}{{ (include "d" . | fromYaml) | toYaml }}', {}, "a: 1"),
        ('{{ `raw` }}{{ "q\\"" }}', {}, 'rawq"'),
    ],
)
def test_renders_as_go_does(text: str, values: dict[str, Any], expected: str) -> None:
    assert render(text, **values) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ .Values.a.b }}", "has no field b"),
        ("{{ nope .Values.a }}", "no function nope"),
        ("{{ if .Values.a }}", "end is missing"),
        ("{{ end }}", "end without"),
        ('{{ block "x" . }}{{ end }}', "block is not supported"),
        ('{{ template "x" }}', "template is not supported"),
        ('{{ include "x" . }}', "no template defines x"),
        ("{{ $x }}", "$x is not defined"),
        ('{{ eq .Values "x" }}', "incompatible types"),
        ("{{ .Values }}", "cannot be printed"),
        ("{{ .Values.a | }}", "a value is missing"),
        ("{{ (.Values.a }}", ") is missing"),
        ("{{ .Values.a", "cannot be read"),
        ("{{ range .Values.s }}{{ end }}", "range needs a list"),
        ('{{ define "d" }}{{ include "d" . }}{{ end }}{{ include "d" . }}', "without end"),
    ],
)
def test_refuses_what_it_does_not_know(text: str, says: str) -> None:
    with pytest.raises(TemplateError, match=r"^t:\d+: ") as caught:
        render(text, s="text")
    assert says in str(caught.value)


def test_errors_name_the_line() -> None:
    with pytest.raises(TemplateError, match=r"^t:3: "):
        render("a\nb\n{{ .Values.a.b }}")
