"""The HTTP reference of the documentation site, made from the service's own OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.main import create_app
from app.settings import Settings

Node = Mapping[str, Any]
HEAD = """# HTTP

Made from the OpenAPI document, which every gateway serves at `/openapi.json` and shows at `/docs`.
[Requests](../requests.md) says how pictures, parameters and forms are sent. Every failure is
`application/problem+json` with a `code` and what to do ([`Problem`](schemas.md#problem)); only `/v1/embeddings`
answers errors in OpenAI's form.

"""
_PAGE = re.compile(r"`?docs/([a-z_-]+)\.md`?")
_ORDER = ("detection", "depth", "flow", "clip", "places", "videos", "sessions", "operation")


def pages() -> Mapping[str, str]:
    """Return the pages by their names on the site."""
    document = json.loads(json.dumps(create_app(Settings()).openapi()))
    return {
        "reference/http.md": HEAD + "\n".join(_paths(document)),
        "reference/schemas.md": "\n".join(_schemas(document["components"]["schemas"])),
    }


def _paths(document: Node) -> Iterator[str]:
    operations = [
        (_ORDER.index(operation["tags"][-1]), method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    operations.sort(key=lambda row: row[0])
    yield "| route | |\n|---|---|"
    for _, method, path, operation in operations:
        yield f"| [`{method} {path}`](#{operation['operationId']}) | {operation['summary']} |"
    for _, method, path, operation in operations:
        yield from _operation(method, path, operation)


def _operation(method: str, path: str, operation: Node) -> Iterator[str]:
    yield f"\n## `{method} {path}` {{ #{operation['operationId']} }}\n\n{_sentence(operation['summary'])}\n"
    if text := operation.get("description"):
        yield f"{_linked(text)}\n"
    if parameters := operation.get("parameters"):
        yield "| parameter | type | default | |\n|---|---|---|---|"
        yield from map(_parameter, parameters)
        yield ""
    if body := operation.get("requestBody"):
        yield "| body | |\n|---|---|"
        yield from (f"| `{media}` | {_body(content)} |" for media, content in body["content"].items())
        yield ""
    yield "| status | form | |\n|---|---|---|"
    yield from (_response(status, response) for status, response in operation["responses"].items())
    yield from _example(operation["responses"])


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _parameter(parameter: Node) -> str:
    schema = parameter["schema"]
    default = schema.get("default")
    shown = "" if default is None or default == [] else f"`{json.dumps(default)}`"
    where = "" if parameter["in"] == "query" else f" ({parameter['in']})"
    required = " **required**" if parameter.get("required") and parameter["in"] != "path" else ""
    text = _cell(parameter.get("description") or schema.get("description") or "")
    return f"| `{parameter['name']}`{where}{required} | {_type(schema)} | {shown} | {text} |"


def _body(content: Node) -> str:
    schema = content["schema"]
    names = ", ".join(f"`{name}`" for name in schema.get("properties", {}))
    text = _cell(schema.get("description") or "")
    return " ".join(filter(None, (names or _type(schema), text)))


def _response(status: str, response: Node) -> str:
    forms = ", ".join(f"`{media}`" for media in response.get("content", {}))
    types = {_type(content.get("schema", {})) for content in response.get("content", {}).values()}
    named = ", ".join(sorted(name for name in types if "schemas.md" in name))
    text = _cell(response["description"])
    return f"| {status} | {forms} | {': '.join(filter(None, (named, text)))} |"


def _example(responses: Node) -> Iterator[str]:
    content = responses.get("200", responses.get("202", {})).get("content", {}).get("application/json", {})
    examples = [content["example"]] if "example" in content else []
    examples += [one["value"] for one in content.get("examples", {}).values()]
    if examples:
        yield f"\n``` json\n{json.dumps(examples[0], indent=2, ensure_ascii=False)}\n```"


def _schemas(schemas: Mapping[str, Node]) -> Iterator[str]:
    yield "# Schemas\n\nObjects of the answers, from the OpenAPI document.\n"
    for name, schema in sorted(schemas.items()):
        yield f"## {name} {{ #{name.lower()} }}\n"
        if text := schema.get("description"):
            yield f"{text}\n"
        properties = schema.get("properties", {})
        if not properties:
            yield f"{_type(schema)}\n"
            continue
        yield "| field | type | |\n|---|---|---|"
        for field, of in properties.items():
            optional = "" if field in schema.get("required", ()) else " (may be absent)"
            text = _cell(of.get("description") or "")
            yield f"| `{field}`{optional} | {_type(of)} | {text} |"
        yield ""


def _type(schema: Node) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](schemas.md#{name.lower()})"
    if "anyOf" in schema:
        common = {key: value for key, value in schema.items() if key != "anyOf"}  # limits, mostly
        return " or ".join(dict.fromkeys(_type({**common, **one}) for one in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}" if "items" in schema else "list"
    return kind if kind == "null" else f"{kind}{_limits(schema)}"


def _limits(schema: Node) -> str:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    if least is None and most is None:
        return f" (at most {schema['maxLength']:,} characters)" if "maxLength" in schema else ""
    above = ">" if "exclusiveMinimum" in schema else "≥"
    below = "<" if "exclusiveMaximum" in schema else "≤"
    parts = [f"{above} {_number(least)}"] if least is not None else []
    parts += [f"{below} {_number(most)}"] if most is not None else []
    return f" ({', '.join(parts)})"


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _cell(text: str) -> str:
    """Text that fits in a cell of a table."""
    return _linked(" ".join(text.split()).replace("|", "\\|"))


def _linked(text: str) -> str:
    """Text whose names of pages are links to them."""
    return _PAGE.sub(r"[\1](../\1.md)", text)
