"""The INI files of cuda-convnet, read with line numbers.

The language is that of Python 2's SafeConfigParser, which the originals used (SEMANTICS 1.1): keys
in any case, sections that appear twice merge and the later key wins, `;` after a blank starts a
comment, `=` or `:` divides key from value, an indented line continues the value above it, and
[DEFAULT] gives keys to every section. Three departures: keys match with underscores dropped too,
`%` is an ordinary character, and a comment may be indented.
"""

import codecs
import difflib
import errno
import os
import re
from dataclasses import dataclass, field

from convnet.errors import ConfigError, MissingInput

# The largest of the family's 119 pairs is under 100 kB and has some 100 layers.
MAX_BYTES = 1_000_000
MAX_SECTIONS = 2_000
MAX_NAME = 200  # letters of a section
MAX_TOLD = 100  # errors of a kind that are worth telling

_SECTION = re.compile(r"\[([^]]*)\](.*)")
_KEY = re.compile(r"([^:=]*)[:=](.*)")
_COMMENT = re.compile(r"\s;.*")  # of a value; `dexp[base=1;tgtFactor=2]` has none
_NEWLINE = re.compile(r"\r\n?|\n")  # str.splitlines() would also split at latin-1's \x85


@dataclass(frozen=True)
class Value:
    """What a key was given: its text without comments, where, and the key's own spelling."""

    text: str
    line: int
    key: str
    from_default: bool = False  # it stands in [DEFAULT], and perhaps suits other sections only


@dataclass
class Section:
    """A section, merged: `line` is where it first appears, `keys` go by `normalise(key)`."""

    name: str
    line: int
    file: str
    keys: dict[str, Value] = field(default_factory=dict)


def normalise(key: str) -> str:
    """The form in which keys are compared: `filter_size`, `filterSize`, `FilterSize` are one."""
    return key.lower().replace("_", "")


def suggest(word: str, candidates) -> str:
    """`; did you mean X?` for the nearest candidate, or nothing where none is near."""
    if len(word) > MAX_TOLD:
        return ""
    spellings = {normalise(candidate): candidate for candidate in reversed(list(candidates))}
    near = difflib.get_close_matches(normalise(word), spellings, n=1)
    return f"; did you mean {spellings[near[0]]}?" if near else ""


def read_cfg(path) -> list[Section]:
    """The sections of a config file, in the order in which they first appear."""
    return parse_cfg(read_text(path), os.fspath(path))


def read_text(path) -> str:
    """The text of a config file: UTF-8 with or without a byte order mark, else latin-1."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        if error.errno == errno.EISDIR:
            raise MissingInput(f"{path}: is a directory; expected a config file in it") from None
        raise MissingInput(f"{path}: cannot read this config file: {error.strerror}; check the "
                           "path and its permissions") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: more than {MAX_BYTES // 1_000_000} MB; expected a config file, "
                          "which is text of some kilobytes")
    if b"\0" in data:
        raise ConfigError(f"{path}: a binary file (it has zero bytes); expected a config file, "
                          "which is text in UTF-8")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # never fails; old files have such letters in comments


def parse_cfg(text: str, file: str) -> list[Section]:
    """The sections of a config text; `file` names it in messages. ConfigError tells every bad line."""
    defaults = Section("DEFAULT", 0, file)
    sections = {"DEFAULT": defaults}
    section = last_key = None  # the key that an indented line would continue
    continued: dict[tuple[str, str], list[str]] = {}  # joined at the end, not line by line
    errors: list[str] = []

    for number, line in enumerate(_NEWLINE.split(text), start=1):
        words = line.split(None, 1)
        if not words or words[0][0] in "#;" or (words[0].lower() == "rem" and line[0] in "rR"):
            continue  # ConfigParser knows DOS's `rem` as a comment too
        if len(errors) == MAX_TOLD:
            break
        where = f"{file}:{number}"
        try:
            if line[0].isspace():
                _check_indented(line.strip(), where, last_key)
                continued.setdefault((section.name, last_key), []).append(_value(line))
            elif header := _SECTION.match(line):
                name, last_key = _section_name(header, where), None
                section = sections.setdefault(name, Section(name, number, file))
                if len(sections) > MAX_SECTIONS:
                    raise ConfigError(f"{where}: [{name}]: expected at most {MAX_SECTIONS} sections")
            elif (pair := _KEY.match(line)) and pair[1].strip():
                if section is None:
                    raise ConfigError(f"{where}: {shown(line)}: a key before any section; "
                                      "expected a line [section] above it")
                key = pair[1].strip()
                last_key = normalise(key)
                section.keys[last_key] = Value(_value(pair[2]), number, key)
                continued.pop((section.name, last_key), None)
            else:
                raise ConfigError(f"{where}: {shown(line)}: expected [section] or key=value")
        except ConfigError as error:
            errors.append(str(error))
            if len(sections) > MAX_SECTIONS:
                break
    if errors:
        raise ConfigError("\n".join(errors))

    for (name, key), more in continued.items():
        old = sections[name].keys[key]
        text = " ".join(filter(None, (old.text, *more)))
        sections[name].keys[key] = Value(text, old.line, old.key)
    del sections["DEFAULT"]
    for section in sections.values():
        for key, value in defaults.keys.items():
            inherited = Value(value.text, value.line, value.key, from_default=True)
            section.keys.setdefault(key, inherited)
    return list(sections.values())


def _section_name(header: re.Match, where: str) -> str:
    name, rest = header[1].strip(), header[2].strip()
    if not name:
        raise ConfigError(f"{where}: {shown(header[0])}: empty section name; expected [name]")
    if len(name) > MAX_NAME or not name.isprintable():
        raise ConfigError(f"{where}: {shown(header[0])}: expected a section name of at most "
                          f"{MAX_NAME} letters that can be printed")
    # ConfigParser drops what follows the bracket in silence; a setting must not vanish so.
    if "=" in rest and rest[0] not in "#;":
        raise ConfigError(f"{where}: {shown(header[0])}: expected nothing after [{name}]; "
                          f"put {shown(rest)} on a line of its own")
    return name


def _check_indented(text: str, where: str, last_key: str | None):
    """An indented line continues a value. Two that plainly do not would be lost in silence."""
    if last_key is None:
        raise ConfigError(f"{where}: {shown(text)}: expected [section] or key=value at the start "
                          "of the line (an indented line continues the value above; none is)")
    if re.fullmatch(r"\[[^]=,;]+\](\s*[#;].*)?", text):
        raise ConfigError(f"{where}: {shown(text)}: an indented line continues the value above; "
                          "expected a section at the start of the line: remove the blanks")


def _value(text: str) -> str:
    value = _COMMENT.sub("", text).strip() if ";" in text else text.strip()
    return "" if value == '""' else value


def shown(text: str, limit: int = 80) -> str:
    """A text as a message may quote it: short, and with nothing that a terminal would obey."""
    text = text.strip()
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."
