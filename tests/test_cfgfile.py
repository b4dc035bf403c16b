"""The INI reader: Python 2's SafeConfigParser with line numbers (SEMANTICS 1.1)."""

import pytest

from convnet.cfgfile import MAX_BYTES, normalise, parse_cfg, read_cfg, suggest
from convnet.errors import ConfigError, MissingInput


def texts(text):
    """{section: {key as written: text}} of a config text."""
    return {section.name: {value.key: value.text for value in section.keys.values()}
            for section in parse_cfg(text, "net.cfg")}


def value_of(line):
    [section] = parse_cfg(f"[a]\n{line}\n", "net.cfg")
    return section.keys["key"].text


def refused(text):
    with pytest.raises(ConfigError) as caught:
        parse_cfg(text, "net.cfg")
    return str(caught.value)


def write(tmp_path, data):
    path = tmp_path / "net.cfg"
    path.write_bytes(data)
    return path


def test_sections_and_keys_know_their_lines(tmp_path):
    path = write(tmp_path, b"# the net\n\n[data]\ntype=data\n\n[conv1]\ntype=conv\ninputs=data\n")
    data, conv1 = read_cfg(path)
    assert (data.name, data.line, data.file) == ("data", 3, str(path))
    assert (conv1.name, conv1.line) == ("conv1", 6)
    assert (conv1.keys["inputs"].text, conv1.keys["inputs"].line) == ("data", 8)


@pytest.mark.parametrize("key", ["filterSize", "FILTERSIZE", "filter_size", "_filtersize"])
def test_keys_match_in_any_case_and_without_underscores(key):
    [section] = parse_cfg(f"[a]\n{key} = 5\n", "net.cfg")
    assert section.keys["filtersize"].text == "5"
    assert section.keys["filtersize"].key == key
    assert normalise(key) == "filtersize"


def test_section_names_keep_their_case():
    assert texts("[A]\nx=1\n[a]\nx=2\n") == {"A": {"x": "1"}, "a": {"x": "2"}}


def test_a_section_that_comes_twice_merges_and_the_later_key_wins():
    a, b = parse_cfg("[a]\nx=1\ny=1\n[b]\n[a]\nX=2\n", "net.cfg")
    assert {key: value.text for key, value in a.keys.items()} == {"x": "2", "y": "1"}
    assert (a.line, a.keys["x"].line, b.name) == (1, 6, "b")


@pytest.mark.parametrize("line, text", [
    ("key=1", "1"),
    ("key: 1", "1"),
    ("key  =  1  ", "1"),
    ("key=a:b=c", "a:b=c"),
    ("key=", ""),
    ('key=""', ""),
    ("key=1 ; a comment", "1"),
    ("key=1\t;a comment ; and more", "1"),
    ("key= ; a comment", ""),
    ("key=;no blank", ";no blank"),
    ("key=1 # not a comment", "1 # not a comment"),
    ("key=dexp[base=0.02;tgtFactor=250;numSteps=4]", "dexp[base=0.02;tgtFactor=250;numSteps=4]"),
    ("key=dexp[base=1;numSteps=4] ; falls", "dexp[base=1;numSteps=4]"),
    ("key=100%(x)s %", "100%(x)s %"),
])
def test_values(line, text):
    assert value_of(line) == text


def test_comment_lines_are_skipped_wherever_they_start():
    assert texts("# a\n; b\nrem c\n[a]\nx=1\n  # d\n\t; e\n#y=2\n") == {"a": {"x": "1"}}


def test_an_indented_line_continues_the_value():
    [section] = parse_cfg("[a]\ninputs=b,\n\n  c,   ; the third\n\td\ny=1\n", "net.cfg")
    assert section.keys["inputs"].text == "b, c, d"
    assert section.keys["inputs"].line == 2
    assert section.keys["y"].text == "1"


def test_a_continued_schedule_is_not_taken_for_keys():
    assert value_of("key=dexp[base=1;\n  tgtFactor=250;\n  numSteps=4]") == (
        "dexp[base=1; tgtFactor=250; numSteps=4]")


def test_default_gives_keys_to_every_section_and_own_keys_win():
    a, b = parse_cfg("[a]\nx=1\n[DEFAULT]\nX=0\nmom_w=0.9\n[b]\n", "net.cfg")
    assert {key: value.text for key, value in a.keys.items()} == {"x": "1", "momw": "0.9"}
    assert {key: value.text for key, value in b.keys.items()} == {"x": "0", "momw": "0.9"}
    assert (b.keys["x"].line, b.keys["x"].from_default, a.keys["x"].from_default) == (4, True,
                                                                                      False)


def test_default_written_in_small_letters_is_a_section_like_any_other():
    assert texts("[default]\nx=1\n[a]\n") == {"default": {"x": "1"}, "a": {}}


@pytest.mark.parametrize("data", [
    b"[a]\nname=\xc3\xa9\n",                 # UTF-8
    b"\xef\xbb\xbf[a]\nname=\xc3\xa9\n",     # with a byte order mark
    b"[a]\nname=\xe9\n",                     # latin-1
    b"[a]\r\nname=\xc3\xa9\r\n",
    b"[a]\rname=\xc3\xa9\r",
    b"[a]\nname=\xc3\xa9",                   # no newline at the end
])
def test_encodings_and_line_ends(tmp_path, data):
    [section] = read_cfg(write(tmp_path, data))
    assert (section.keys["name"].text, section.keys["name"].line) == ("é", 2)


def test_latin_1_next_line_letter_does_not_shift_line_numbers(tmp_path):
    [section] = read_cfg(write(tmp_path, b"[a]\n# \x85 \xe9\nx=1\n"))
    assert section.keys["x"].line == 3


@pytest.mark.parametrize("text, message", [
    ("[a]\nx=1\ntype conv\n", "net.cfg:3: type conv: expected [section] or key=value"),
    ("[a]\n=5\n", "net.cfg:2: =5: expected [section] or key=value"),
    ("[a\nx=1\n", "net.cfg:1: [a: expected [section] or key=value"),
    ("\nx=1\n[a]\n", "net.cfg:2: x=1: a key before any section; expected a line [section] above"),
    ("[]\n", "net.cfg:1: []: empty section name"),
    ("[ ]\n", "net.cfg:1: [ ]: empty section name"),
    ("[a] x=1\n", "net.cfg:1: [a] x=1: expected nothing after [a]; put x=1 on a line of its own"),
    ("[a]\n  x=1\n", "net.cfg:2: x=1: expected [section] or key=value at the start of the line"),
    ("[b]\ny=1\n[a]\n  x=1\n", "net.cfg:4: x=1: expected [section] or key=value at the start"),
    ("[a]\nx=1\n  [b]\ny=2\n", "net.cfg:3: [b]: an indented line continues the value above"),
])
def test_a_line_that_says_nothing_is_named(text, message):
    assert message in refused(text)


def test_a_section_header_may_carry_a_comment():
    assert texts("[a] ; see x=1\nx=2\n") == {"a": {"x": "2"}}


def test_messages_are_short_and_printable():
    message = refused("[a]\n\x1b[31m" + "z" * 1000 + "\n")
    assert "\\x1b" in message and "\x1b" not in message
    assert len(message) < 200


def test_all_bad_lines_are_told():
    assert refused("[a]\nx\ny=1\n[]\n").splitlines() == [
        "net.cfg:2: x: expected [section] or key=value",
        "net.cfg:4: []: empty section name; expected [name]"]


def test_names_are_printable_and_neither_they_nor_the_sections_without_end():
    assert "that can be printed" in refused("[a\x1b]\n") and "that can be printed" in refused(f"[{'a' * 201}]\n")
    assert "at most 2000 sections" in refused("".join(f"[{i}]\n" for i in range(5000)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingInput, match=r"absent\.cfg: .*No such file"):
        read_cfg(tmp_path / "absent.cfg")


def test_a_directory_is_not_a_config(tmp_path):
    with pytest.raises(MissingInput, match="is a directory"):
        read_cfg(tmp_path)


def test_a_binary_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="binary"):
        read_cfg(write(tmp_path, b"[a]\nx=\0\n"))


def test_a_huge_file_is_refused_without_being_read_whole(tmp_path):
    path = write(tmp_path, b"")
    with open(path, "r+b") as file:
        file.truncate(MAX_BYTES * 100_000)  # sparse: 1 TB that nobody can read into memory
    with pytest.raises(ConfigError, match="more than 1 MB"):
        read_cfg(path)


@pytest.mark.parametrize("word, candidates, answer", [
    ("filtersSize", ["channels", "filterSize"], "; did you mean filterSize?"),
    ("FILTER_SIZE", ["filterSize"], "; did you mean filterSize?"),
    ("pool2c", {"pool2a": 1, "conv1": 2}, "; did you mean pool2a?"),
    ("xyz", ["channels", "filterSize"], ""),
    ("xyz", [], ""),
])
def test_suggest(word, candidates, answer):
    assert suggest(word, candidates) == answer
