"""Where settings come from: defaults, one TOML file, the environment; each known by its place."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from alpha_pulse.contracts.errors import ConfigError

PREFIX = "ALPHA_PULSE_"
DEFAULT = "default"

ConfigT = TypeVar("ConfigT")
Key = tuple[str, str]  # section ("" is the top level), name


@dataclass(frozen=True)
class Setting:
    """One setting of a configuration, with its value."""

    section: str
    name: str
    value: Any
    is_secret: bool

    @property
    def key(self) -> Key:
        """Section and name."""
        return self.section, self.name

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable_of(self.section, self.name)

    @property
    def shown(self) -> Any:
        """The value as people may see it: no secret, no password inside an address."""
        if self.is_secret and self.value:
            return "***"
        return without_password(self.value) if isinstance(self.value, str) else self.value


@dataclass
class Found:
    """What the sources say: values by section, where each comes from, and what is wrong."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: dict[Key, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def variable_of(section: str, name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + (f"{section}_{name}" if section else name).upper()


def list_settings(config: Any) -> list[Setting]:
    """Return every setting of a configuration, in the order in which they are declared."""
    found: list[Setting] = []
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            found += [_setting(item.name, inner, value) for inner in fields(value)]
        else:
            found.append(_setting("", item, config))
    return found


def _setting(section: str, item: "Field[Any]", owner: Any) -> Setting:
    return Setting(section, item.name, getattr(owner, item.name), bool(item.metadata.get("secret")))


def without_password(text: str) -> str:
    """Return an address without the password that it may carry."""
    try:
        password = urlsplit(text).password if "@" in text and "://" in text else None
    except ValueError:
        return text
    return text.replace(f":{password}@", ":***@", 1) if password else text


def read_sources(
    default: ConfigT, path: Path | None, environ: Mapping[str, str], short_names: Mapping[str, Key]
) -> tuple[ConfigT, dict[Key, str]]:
    """Return the settings, and the place of each that is not a default.

    Args:
        default: what is not set stays as it is here.
        path: a TOML file; None: there is none.
        environ: environment variables, which stand above the file.
        short_names: variables beside those that a setting's own name gives.

    Returns:
        The settings, and a place by section and name: `FILE:LINE` or the name of a variable.

    Raises:
        ConfigError: names every unknown key and bad value with its place and what is allowed.
    """
    found = Found()
    _read_file(default, path, found)
    _read_environment(default, environ, short_names, found)
    config = _build(default, found)
    if found.problems:
        raise ConfigError("\n".join(found.problems))
    return config, found.places


# --- the file -----------------------------------------------------------------------------------


def _read_file(default: Any, path: Path | None, found: Found) -> None:
    if path is None:
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"expected a configuration file at {path}, found none that can be read: {error}"
        ) from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"expected TOML in {path}, found a mistake: {error}") from error
    known = [item.name for item in fields(default)]
    for key, value in document.items():
        where = f"{path}:{line_of(text, '', key)}"
        if key not in known:
            found.problems.append(_unknown(key, "the top level", where, known))
        elif not is_dataclass(getattr(default, key)):
            found.values.setdefault("", {})[key] = value
            found.places["", key] = where
        elif not isinstance(value, dict):
            found.problems.append(f"expected a table [{key}] at {where}, found {value!r}")
        else:
            _read_table(key, value, getattr(default, key), text, path, found)


def _read_table(
    section: str, table: dict[str, Any], default: Any, text: str, path: Path, found: Found
) -> None:
    known = [item.name for item in fields(default)]
    for name, value in table.items():
        where = f"{path}:{line_of(text, section, name)}"
        if name not in known:
            found.problems.append(_unknown(name, f"[{section}]", where, known))
        else:
            found.values.setdefault(section, {})[name] = value
            found.places[section, name] = where


def _unknown(key: str, table: str, where: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return (
        f"expected a known setting in {table}, found {key!r} at {where}; "
        f"allowed: {', '.join(known)}{hint}"
    )


def line_of(text: str, section: str, key: str) -> int:
    """Return the line of a key in a TOML text, 0 when it is written in an unusual way."""
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]*?)\s*\]+", line)
        if header:
            current = header[1].strip("\"'")
            if not section and current.split(".")[0] == key:
                return number
            continue
        name = re.match(r"\s*([\w.\"'-]+)\s*=", line)
        if name is None:
            continue
        parts = [part.strip("\"' ") for part in name[1].split(".")]
        if [*([current] if current else []), *parts][-2:] == [*([section] if section else []), key]:
            return number
        # kafka = { bootstrap = "…" }, or a dotted key of the section that is asked for
        if not current and parts[0] == (section or key):
            inline = section and re.search(rf"[{{,]\s*[\"']?{re.escape(key)}[\"']?\s*=", line)
            if inline or not section:
                return number
    return 0


# --- the environment ----------------------------------------------------------------------------


def _read_environment(
    default: Any, environ: Mapping[str, str], short_names: Mapping[str, Key], found: Found
) -> None:
    settings = {setting.key: setting for setting in list_settings(default)}
    names = {setting.variable: key for key, setting in settings.items()}
    for variable, key in {**names, **short_names}.items():
        text, place = environ.get(variable), variable
        file = environ.get(f"{variable}_FILE")
        if text is None and file and f"{variable}_FILE" not in names:
            place = f"{variable}_FILE"
            try:
                text = Path(file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                found.problems.append(
                    f"expected a secret in the file that {place} names, found none: {error}"
                )
        if text is not None:
            value: Any = text
            if isinstance(settings[key].value, tuple):
                value = [part.strip() for part in text.split(",") if part.strip()]
            found.values.setdefault(key[0], {})[key[1]] = value
            found.places[key] = place


# --- both ---------------------------------------------------------------------------------------


def _build(default: ConfigT, found: Found) -> ConfigT:
    changes: dict[str, Any] = {}
    for section, values in found.values.items():
        target: Any = getattr(default, section) if section else default
        converted: dict[str, Any] = {}
        for name, value in values.items():
            try:
                one = msgspec.convert({name: value}, type(target), strict=False)
            except msgspec.ValidationError as error:
                where = found.places[section, name]
                found.problems.append(_bad_value(section, name, type(target), where, str(error)))
            else:
                converted[name] = getattr(one, name)
        changes |= {section: replace(target, **converted)} if section else converted
    whole: Any = default
    return cast(ConfigT, replace(whole, **changes))


def _bad_value(section: str, name: str, owner: type, where: str, reason: str) -> str:
    # msgspec names the type or range that is expected, and no value: it may be a secret.
    table = f"[{section}] " if section else ""
    expected = get_type_hints(owner)[name]
    if get_origin(expected) is Literal:
        reason = f"allowed: {', '.join(get_args(expected))}"
    reason = re.sub(r" - at `\$\.\w+`$", "", reason)
    return f"expected another value of {table}{name} at {where}: {reason}"
