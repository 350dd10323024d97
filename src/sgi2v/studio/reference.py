"""The API's reference as one plain page made from its OpenAPI schema: no script, nothing from any other host."""

import json
from collections.abc import Iterator
from html import escape

from sgi2v.records import Json

_INTRODUCTION = """<p>{description} The schema is <a href="/openapi.json">openapi.json</a>.</p>
<p>Try it from a terminal: <code>curl http://{{this address}}/api/jobs</code>; where a token is asked for, add
<code>-H "Authorization: Bearer TOKEN"</code>.</p>"""


def page(title: str, body: str, go_to: str | None = None) -> str:
    """A page of the studio that needs no script; with `go_to` it goes on there by itself."""
    follow = f'<meta http-equiv="refresh" content="0;url={escape(go_to)}">' if go_to else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>{follow}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="stylesheet" href="/static/pages.css"></head><body><main>{body}</main></body></html>'
    )


def reference(schema: Json) -> str:
    """Every operation with its parameters, body and answers, then the shapes of the JSON."""
    info = schema["info"]
    head = f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
    parts = [head, _INTRODUCTION.format(description=escape(info.get("description", "")))]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts.extend(_operation(path, method, operation))
    parts.append("<h1>Shapes</h1>")
    for name, shape in schema.get("components", {}).get("schemas", {}).items():
        parts.append(f'<section id="{escape(name)}"><h2>{escape(name)}</h2>{_shape(shape)}</section>')
    return page(info["title"], "\n".join(parts))


def _operation(path: str, method: str, operation: Json) -> Iterator[str]:
    yield f'<section><h2><span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code></h2>'
    yield f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p><table>"
    for parameter in operation.get("parameters", []):
        about = escape(parameter.get("description", ""))
        yield _row(f"{parameter['in']} {parameter['name']}", f"{_type(parameter['schema'])} {about}")
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        yield _row("body", f"{escape(kind)} {_type(body.get('schema', {}))}")
    for status, answer in operation["responses"].items():
        for kind, body in (answer.get("content") or {"": {}}).items():
            about = escape(answer.get("description", ""))
            yield _row(f"answers {status}", f"{about} {escape(kind)} {_type(body.get('schema', {}))}")
    yield "</table></section>"


def _shape(shape: Json) -> str:
    rows = [
        _row(name, f"{_type(inner)} {escape(inner.get('description', ''))}")
        for name, inner in shape.get("properties", {}).items()
    ]
    return f"<p>{escape(shape.get('description', ''))}</p><table>{''.join(rows)}</table>"


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f'<a href="#{escape(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(inner) for inner in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {})) or 'anything'}"
    limits = {
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "maxLength",
        "pattern",
        "default",
        "enum",
    }
    told = "".join(f", {name} {json.dumps(value)}" for name, value in schema.items() if name in limits)
    return escape(f"{schema.get('type', '')}{told}")


def _row(name: str, text: str) -> str:
    return f"<tr><th>{escape(name)}</th><td>{text}</td></tr>"
