"""What a new version of the contracts would break, told from two AsyncAPI documents; pure.

Within a topic's version old readers read new messages and new readers read old ones, so that a rule
of a field may not change at all: what is narrowed refuses old messages, what is widened surprises
old readers. Optional fields may be added, topics, and kinds of event, to a topic that there is too:
readers ignore what they do not know.
"""

from typing import Any

JsonObject = dict[str, Any]

# Words for people: they bind nobody.
_ANNOTATIONS = frozenset({"description", "title", "examples", "$comment"})
_LOWER_LIMITS = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_UPPER_LIMITS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_NESTED = frozenset({"properties", "required", "anyOf", "items", "$ref"})


def breaking_changes(released: JsonObject, current: JsonObject) -> list[str]:
    """Compare two versions of the contracts.

    Args:
        released: the older AsyncAPI document, as `asyncapi_document` makes it.
        current: the newer one.

    Returns:
        What readers or writers of the older one would stumble over, a line each; empty: nothing.
    """
    found: list[str] = []
    channels = {channel["address"]: channel for channel in current["channels"].values()}
    for channel in released["channels"].values():
        address = channel["address"]
        if address not in channels:
            found.append(f"topic {address} was removed or renamed")
            continue
        old, new = set(channel["messages"]), set(channels[address]["messages"])
        # A kind that is new in a topic breaks nobody: a reader skips what it does not know.
        found += [f"topic {address} carries no {name} any more" for name in sorted(old - new)]
    messages = current["components"]["messages"]
    for name, message in released["components"]["messages"].items():
        if name not in messages:
            found.append(f"event {name} was removed or renamed")
            continue
        for what in ("x-identity", "x-revised", "bindings"):
            if message.get(what) != messages[name].get(what):
                found.append(f"{name}: {what} was {message.get(what)}, is {messages[name][what]}")
        old_schema = _Schema(released, message["payload"])
        found += _differences(name, old_schema, _Schema(current, messages[name]["payload"]))
    return found


class _Schema:
    """One schema of a document, its reference followed."""

    def __init__(self, document: JsonObject, rule: JsonObject) -> None:
        while "$ref" in rule:
            target: Any = document
            for part in rule["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            rule = target
        self._document = document
        self.rule = rule

    def at(self, rule: JsonObject) -> "_Schema":
        return _Schema(self._document, rule)

    def options(self) -> dict[str, "_Schema"]:
        """Return the kinds of value that are accepted: by JSON type, or by constant."""
        options = [self.at(option) for option in self.rule.get("anyOf", [self.rule])]
        return {str(option.rule.get("type", "value")): option for option in options}


def _differences(path: str, old: _Schema, new: _Schema) -> list[str]:
    old_options, new_options = old.options(), new.options()
    found = [
        f"{path}: {kind} is not accepted any more" for kind in old_options.keys() - new_options
    ]
    found += [
        f"{path}: may be {kind} now, which older readers refuse"
        for kind in new_options.keys() - old_options
    ]
    for kind in [kind for kind in old_options if kind in new_options]:
        found += _of_kind(path, old_options[kind], new_options[kind])
    return found


def _of_kind(path: str, old: _Schema, new: _Schema) -> list[str]:
    found: list[str] = []
    old_fields, new_fields = old.rule.get("properties", {}), new.rule.get("properties", {})
    old_required, new_required = (
        set(old.rule.get("required", [])),
        set(new.rule.get("required", [])),
    )
    for name, rule in old_fields.items():
        where = f"{path}.{name}"
        if name not in new_fields:
            found.append(f"{where}: the field was removed or renamed")
            continue
        if name in new_required - old_required:
            found.append(f"{where}: required now, which older messages may lack")
        if name in old_required - new_required:
            found.append(f"{where}: may be missing now, which older readers refuse")
        found += _differences(where, old.at(rule), new.at(new_fields[name]))
    for name in sorted(new_required - set(old_fields)):
        found.append(f"{path}.{name}: a new field must be optional, older messages lack it")
    if "items" in old.rule and "items" in new.rule:
        found += _differences(f"{path}[]", old.at(old.rule["items"]), new.at(new.rule["items"]))
    for keyword in sorted((old.rule.keys() | new.rule.keys()) - _ANNOTATIONS - _NESTED):
        before, after = old.rule.get(keyword), new.rule.get(keyword)
        if _sorted(before) != _sorted(after):
            how = _direction(keyword, before, after)
            found.append(f"{path}: {how}: {keyword} was {before!r}, is {after!r}")
    return found


def _sorted(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, list) else value


def _direction(keyword: str, before: Any, after: Any) -> str:
    """Return whether a rule was narrowed or widened; changed where that can't be told."""
    if before is None:
        return "narrowed"
    if after is None:
        return "widened"
    if keyword == "enum" and set(map(str, after)) < set(map(str, before)):
        return "narrowed"
    if keyword == "enum" and set(map(str, after)) > set(map(str, before)):
        return "widened"
    if keyword in _LOWER_LIMITS:
        return "narrowed" if after > before else "widened"
    if keyword in _UPPER_LIMITS:
        return "narrowed" if after < before else "widened"
    return "changed"
