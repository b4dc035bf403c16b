"""Mutant schemata: all mutants of a kernel file in one copy of it, each behind a switch that is set at run time.

A site is a place in the source and what can be done to it, in one or two variants:

    barrier     a barrier is left out
    bound       an operand of a comparison, of min or max, the start or the step of a loop: one more, one less
    index       a subscript, an argument that is a coordinate, an integer that is computed from such: one more, one less
    edge        the edge of a tile, the shape of a grid: one more, one less
    swap        the stride instead of the padding, the height instead of the width
    assignment  `=` becomes `+=`, and `+=` and its like `=`

The source is cut into tokens, no more. What tells templates from comparisons and declarations from expressions is how
clang-format spaces them. What cannot be switched at run time is left alone: template arguments, array bounds,
constexpr, consteval; what is checked of arguments (CHECK and `namespace checks`) is no kernel's.
"""
from __future__ import annotations

import re
from dataclasses import dataclass

TOKEN = re.compile(
    r"""(?P<directive>^[ \t]*\#(?:[^\n\\]|\\.|\\\n)*)
      | (?P<space>\s+|//[^\n]*|/\*.*?\*/)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<number>0[xX][\w.']*?[pP][+-]?\d+\w*|0[xX][\w']+|\d[\w.']*(?:[eE][+-]\d+)?)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<sign><<=|>>=|->|::|\+\+|--|<<|(?<=\s)>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|.)""",
    re.X | re.M | re.S,
)
PAIRS = {"(": ")", "[": "]", "{": "}"}
COMPARISONS = {"<", ">", "<=", ">=", "==", "!="}
LOWER = COMPARISONS | {"&&", "||", "?", ":", ",", ";"}  # what ends an operand of a comparison, with & | ^
COMPOUND = {"+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="}
BARRIERS = {"__syncthreads", "__syncwarp", "__syncthreads_or", "__syncthreads_and", "__syncthreads_count"}
CHECKING = re.compile(r"(CHECK|CUDA_CHECK|S?MEM|DYN_SMEM|SMEM)(_\w+)?|check_\w+|fail_check|__launch_bounds__|alignas|sizeof|static_assert")
INTEGERS = {"int", "unsigned", "bool", "int64_t", "uint64_t", "uint32_t", "uint16_t", "size_t"}
BOUNDING = {"min", "max"}
EDGES = {"ceil_div", "tiles_over", "pieces_of", "dim3", "rows_grid"}
COORDINATES = {"row", "offset_of", "begin", "end", "first_with", "end_with", "length", "at", "pixel", "index", "column", "only", "clip",
               "digits_of", "window_of", "windows_with", "range_of", "load_piece", "load_run", "store_run", "random_words", "random_below", "stretch",
               "pixel_tile", "forward_window", "backward_window", "forward_tile", "backward_data_tile", "backward_filters_tile",
               "clip_windows", "store_channels", "multiply", "columns_of"}
COORDINATED = {"Walk", "Column", "WindowRows"}  # types that are made of coordinates
TILES = {"quad", "depth", "lanes", "softmax_lanes", "limit_lanes", "threads_n", "thread_m", "thread_n", "pieces"}
PARTNERS = (("stride", "padding"), ("stride", "start"), ("height", "width"), ("down", "across"))
OURS = {"Shape"}  # bodies of what no kernel sees
# Bodies of what chooses the fastest of ways that give the same, where none is wrong; and of what is checked of arguments.
CHOICES = {"pick_tile", "pick_parts", "is_countable", "reach_of"}


@dataclass
class Token:
    kind: str
    text: str
    start: int
    spaced: bool  # after white space
    pair: int = -1  # its bracket's other one
    off: bool = False  # in no place where code can be switched

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True)
class Site:
    """`opening` goes before source[start:end], and `)` after it; labels[v - 1] is what variant v makes of it."""

    kind: str
    start: int
    end: int
    opening: str  # with {site} for its number
    closing: str
    labels: tuple[str, ...]
    variants: int = 0b110  # bit v: variant v is one


@dataclass(frozen=True)
class Mutant:
    """`line`: where; `text`: its line of source, with what is changed marked."""

    file: str
    line: int
    kind: str
    text: str
    site: int
    variant: int

    @property
    def label(self) -> str:
        return f"{self.file}: {self.text}"


def tokens_of(source: str) -> list[Token]:
    """The tokens, without white space, comments, directives and what they compile for a GPU."""
    tokens: list[Token] = []
    spaced, hidden, at = True, [], 0
    while at < len(source):
        match = TOKEN.match(source, at)
        kind, text = match.lastgroup, match.group()
        at = match.end()
        if kind == "directive":
            hidden = conditional(text.split(), hidden)
        if kind in ("directive", "space"):
            spaced = True
            continue
        if not any(hidden):
            tokens.append(Token(kind, text, match.start(), spaced))
        spaced = False
    pair_brackets(tokens)
    return tokens


def conditional(words: list[str], hidden: list[bool]) -> list[bool]:
    """The stack of #if's after this directive: whether each hides what follows from a C++ compiler."""
    word = words[0].lstrip("#") or words[1]
    if word.startswith("if"):
        return [*hidden, any("__CUDA" in w for w in words) and word == "ifdef"]
    if word == "else":
        return [*hidden[:-1], not hidden[-1] if hidden[-1] or any("__CUDA" in w for w in words) else False]
    return hidden[:-1] if word == "endif" else hidden


def pair_brackets(tokens: list[Token]) -> None:
    open_: list[int] = []
    for i, token in enumerate(tokens):
        is_template = token.text == "<" and (not token.spaced or tokens[i - 1].text == "template")
        if token.text in PAIRS or is_template:
            open_.append(i)
        elif token.text in PAIRS.values():
            while tokens[open_[-1]].text == "<":  # it was a comparison
                open_.pop()
            first = open_.pop()
            tokens[first].pair, token.pair = i, first
        elif token.text == ">" and not token.spaced and open_ and tokens[open_[-1]].text == "<":
            first = open_.pop()
            tokens[first].pair, token.pair = i, first


class Instrumenter:
    """Finds the sites of one file."""

    def __init__(self, name: str, source: str):
        self.name, self.source, self.tokens = name, source, tokens_of(source)
        self.sites: list[Site] = []
        self.spans: set[tuple[int, int]] = set()
        self.switch_off()
        self.find()

    # ---- what the tokens say ----

    def text(self, i: int) -> str:
        return self.tokens[i].text if 0 <= i < len(self.tokens) else ""

    def switch_off(self) -> None:
        """Marks the tokens that stay as they are."""
        for i, token in enumerate(self.tokens):
            if token.text == "<" and token.pair >= 0:
                self.off(i, token.pair)
            elif CHECKING.fullmatch(token.text) and self.text(i + 1) == "(":
                self.off(i + 1, self.tokens[i + 1].pair)
            elif token.text in ("using", "static_assert"):
                self.off(i, self.statement_end(i))
            elif token.text == "enum" or (token.text == "case" and not token.off):
                self.off(i, next(k for k in range(i, len(self.tokens)) if self.text(k) in ("{", ":")))
                if token.text == "enum":
                    brace = next(k for k in range(i, len(self.tokens)) if self.text(k) == "{")
                    self.off(brace, self.tokens[brace].pair)
            elif token.text == "constexpr":
                self.off_constexpr(i)
            elif token.text == "consteval":  # what the compiler computes, for its own checks
                brace = next(k for k in range(i, len(self.tokens)) if self.text(k) == "{")
                self.off(i, self.tokens[brace].pair)
            elif token.text in CHOICES and self.text(i + 1) == "(" and self.text(self.tokens[i + 1].pair + 1) == "{":
                self.off(i, self.tokens[self.tokens[i + 1].pair + 1].pair)
            elif token.text == "if" and self.text(i + 1) == "(" and self.text(self.tokens[i + 1].pair + 1) in ("fail_check", "throw"):
                self.off(i + 1, self.tokens[i + 1].pair)
            elif token.text in ("namespace", "struct"):
                brace = next((k for k in range(i, len(self.tokens)) if self.text(k) in ("{", ";")), i)
                if self.text(brace) == "{" and (self.text(brace - 1) == "checks" or self.text(i + 1) in OURS):
                    self.off(brace, self.tokens[brace].pair)

    def off(self, first: int, last: int) -> None:
        for token in self.tokens[first : last + 1]:
            token.off = True

    def off_constexpr(self, i: int) -> None:
        if self.text(i - 1) == "if":
            self.off(i + 1, self.tokens[i + 1].pair)
            return
        k = i
        while self.text(k) not in ("=", ";", "("):
            k = max(k, self.tokens[k].pair) + 1
        if self.text(k) != "(":  # an object, not a function
            self.off(i, self.statement_end(i))

    def statement_end(self, i: int) -> int:
        while self.text(i) != ";":
            i = max(i, self.tokens[i].pair) + 1
        return i

    def operand_end(self, i: int, ends: set[str]) -> int:
        """The last token of the operand that begins with token i."""
        k = i
        while k < len(self.tokens):
            token = self.tokens[k]
            if k > i and token.text in ends and not (token.text in "&|^*<>" and token.pair >= 0):
                return k - 1
            if token.text in ")]}" and token.pair < k:
                return k - 1
            k = (token.pair if token.pair > k else k) + 1
        raise ValueError(f"{self.name}: an operand without an end")

    def chain_start(self, i: int) -> int:
        """The first token of the postfix expression that ends with token i: a.b[c].d(e)."""
        while True:
            while self.text(i) in (")", "]") or (self.text(i) == ">" and self.tokens[i].pair >= 0):
                i = self.tokens[i].pair - 1
            if self.text(i - 1) not in (".", "->", "::"):
                return i
            i -= 2

    def statement_start(self, i: int) -> int:
        """The first token after the nearest ; { } or ( of a `for` around token i."""
        k = i - 1
        while k >= 0:
            text, pair = self.text(k), self.tokens[k].pair
            if text in (";", "{", "}") and not (text == "}" and self.is_list(pair)):
                break
            if text == "(" and self.text(k - 1) == "for":
                break
            if text == ")" and self.text(pair - 1) in ("if", "constexpr", "for", "while", "switch"):
                break
            k = pair - 1 if 0 <= pair < k else k - 1
        return k + 1

    def is_list(self, brace: int) -> bool:
        """Whether { begins a list of values, not a block."""
        before = self.text(brace - 1)
        if before in (")", "const", "else", "do", "try", ";", "{", "}", "") and not (before == "{" and self.is_list(brace - 1)):
            return False
        start = brace
        while start > 0 and self.text(start - 1) not in (";", "}", "{", "(", ")"):
            start -= 1
        if {self.text(k) for k in range(start, brace)} & {"struct", "namespace", "enum", "class"}:
            return False
        k = brace + 1
        while k < self.tokens[brace].pair:
            if self.text(k) == ";":
                return False
            k = max(k, self.tokens[k].pair) + 1
        return self.tokens[brace].pair > brace + 1

    def declares(self, start: int) -> bool:
        """Whether the statement that begins with token `start` declares something: a type, then a name."""
        k = start
        while self.text(k) in ("const", "static", "inline", "constexpr", "mutable"):
            k += 1
        if self.tokens[k].kind != "name" or self.text(k) in ("return", "else", "throw", "goto", "delete", "new", "case"):
            return False
        k += 1
        while self.text(k) == "::" or (self.text(k) == "<" and self.tokens[k].pair >= 0):
            k = k + 2 if self.text(k) == "::" else self.tokens[k].pair + 1
        while self.text(k) in ("*", "&", "const", "&&") and (self.text(k) == "const" or not self.tokens[k].spaced or not self.tokens[k + 1].spaced):
            k += 1
        if self.text(k) == "[":  # auto [a, b] =
            return self.text(k - 1) in ("auto", "&")
        return self.tokens[k].kind == "name"

    def arguments(self, opening: int) -> list[tuple[int, int]]:
        """First and last token of each of the things between brackets."""
        result, k, closing = [], opening + 1, self.tokens[opening].pair
        while k < closing:
            last = self.operand_end(k, {",", ";"})
            result.append((k, last))
            k = last + 2
        return result

    # ---- sites ----

    def add(self, kind: str, first: int, last: int, opening: str, *labels: str, closing: str = ")", variants: int = 0b110) -> None:
        if not self.tokens[first].off:
            start, end = self.tokens[first].start, self.tokens[last].end
            self.sites.append(Site(kind, start, end, opening, closing, labels, variants))

    def shift(self, kind: str, first: int, last: int, variants: int = 0b110) -> None:
        """One more and one less; once for each expression, whatever it is found as."""
        while self.text(first) == "(" and self.tokens[first].pair == last:
            first, last = first + 1, last - 1
        span = (self.tokens[first].start, self.tokens[last].end)
        if last < first or span in self.spans or self.tokens[first].kind == "string":
            return
        if self.text(first) == "[" or self.text(first) in ("true", "false", "nullptr", "stream", "__func__"):
            return
        self.spans.add(span)
        self.add(kind, first, last, "::mutation::shifted({site}, ", "+1", "-1", variants=variants)

    def find(self) -> None:
        for i, token in enumerate(self.tokens):
            if token.off:
                continue
            if token.text in COMPARISONS and token.spaced and token.pair < 0:
                self.shift("bound", i + 1, self.operand_end(i + 1, LOWER | {"&", "|", "^"}))
            elif token.text in BARRIERS:
                self.barrier(i)
            elif token.text == "=" or token.text in COMPOUND:
                self.assignment(i)
            elif token.text == "return":
                self.result(i)
            elif token.text == "[":
                self.subscript(i)
            elif token.text == "{" and self.is_list(i):
                for first, last in self.arguments(i):
                    if self.text(first) not in ("{", "."):
                        self.shift("index", first, last)
            elif token.kind == "name" and self.called(i):
                self.call(i)
            elif token.kind == "name" and self.constructed(i):
                for first, last in self.arguments(i + 1):
                    self.shift("index", first, last)
            if token.kind == "name":
                self.swap(i)
                self.tile(i)
            elif token.kind == "number":
                self.literal(i)
        self.sites.sort(key=lambda site: (site.start, -site.end))

    def called(self, i: int) -> bool:
        k = i + 1
        if self.text(k) == "<" and self.tokens[k].pair >= 0:
            k = self.tokens[k].pair + 1
        before = self.tokens[i - 1]
        declared = (before.kind == "name" and before.text not in ("return", "else")) or (before.text in ("*", "&", ">") and not before.spaced)
        return self.text(k) == "(" and (not declared or before.text == "::")

    def constructed(self, i: int) -> bool:
        """Whether name i is an object that is being declared, of a type whose arguments are coordinates."""
        if self.text(i + 1) != "(" or not self.declares(self.statement_start(i)) or not self.outermost(self.statement_start(i), i):
            return False
        names = [self.text(k) for k in range(self.statement_start(i), i)]
        return bool(COORDINATED & set(names[:2])) and self.text(self.tokens[i + 1].pair + 1) in (";", ",")

    def barrier(self, i: int) -> None:
        opening, closing = i + 1, self.tokens[i + 1].pair
        if self.tokens[i].text in ("__syncthreads", "__syncwarp"):
            self.add("barrier", i, closing, "if (!::mutation::variant({site})) ", "dropped", closing="", variants=0b10)
        else:
            vote = self.source[self.tokens[opening].start : self.tokens[closing].end]
            self.add("barrier", i, closing, f"(::mutation::variant({{site}}) ? int{vote} : ", "dropped", variants=0b10)

    def call(self, i: int) -> None:
        name = self.text(i)
        kind = "bound" if name in BOUNDING else "edge" if name in EDGES else "index" if name in COORDINATES else ""
        if not kind:
            return
        opening = next(k for k in range(i, len(self.tokens)) if self.text(k) == "(")
        for first, last in self.arguments(opening):
            if self.text(first) != "{":
                # Blocks too many find nothing to do: what a kernel's first line says, and its own mutants show.
                self.shift(kind, first, last, 0b100 if name == "rows_grid" else 0b110)

    def subscript(self, i: int) -> None:
        before = self.tokens[i - 1]
        if (before.spaced and before.text == "auto") or self.text(i + 1) == "[" or before.text == "[":
            return
        if not (before.kind == "name" or before.text in (")", "]")) or self.tokens[i].spaced:
            return
        first = i - 1
        while self.text(first) == "]":
            first = self.tokens[first].pair - 1
        if self.text(first) == ")" and self.text(self.tokens[first].pair + 1) == "&":  # T (&values)[32][32]
            self.off(i, self.tokens[i].pair)
            return
        start, ahead = self.statement_start(i), self.text(self.tokens[i].pair + 1)
        alone = self.text(first - 1) in (",", "*") or first > start
        if self.declares(start) and alone and ahead in (",", ";", "=", "{", "[") and self.outermost(start, i):
            self.off(i, self.tokens[i].pair)
            return
        self.shift("index", i + 1, self.tokens[i].pair - 1)

    def outermost(self, start: int, i: int) -> bool:
        """Whether token i is a declarator of the statement: in no brackets, after no `=` since the last comma."""
        k, value = start, False
        while k < i:
            value = self.text(k) == "=" or (value and self.text(k) != ",")
            k = max(k, self.tokens[k].pair) + 1
        return k == i and not value

    def assignment(self, i: int) -> None:
        first = self.chain_start(i - 1)
        while self.text(first - 1) == "*" and self.text(first - 2) in (";", "{", "}", ")", ","):
            first -= 1
        start, text = self.statement_start(i), self.text(i)
        if self.declares(start):
            if text == "=":
                self.definition(start, i)
            return
        before = self.text(first - 1)
        if before not in (";", "{", "}", ")", ",", "else", "=", *COMPOUND) or self.text(i + 1) in ("{", "default", "delete"):
            return
        if text in COMPOUND and self.in_for(i):
            self.shift("bound", i + 1, self.operand_end(i + 1, {",", ";"}))
            return
        label = "+=" if text == "=" else "="
        self.add("assignment", first, i - 1, "::mutation::target({site}, ", label, variants=0b10)

    def in_for(self, i: int) -> bool:
        opening = next((k for k in range(i, -1, -1) if self.text(k) == "(" and self.tokens[k].pair > i), -1)
        return self.text(opening - 1) == "for"

    def definition(self, start: int, i: int) -> None:
        """An integer gets its value."""
        names = [self.text(k) for k in range(start, i)]
        if set(names[:5]) & INTEGERS and not set(names) & {"*", "&", "auto", "["}:
            self.shift("bound" if self.in_for(i) else "index", i + 1, self.operand_end(i + 1, {",", ";"}))

    def result(self, i: int) -> None:
        """An integer is returned by a function."""
        depth, k = 0, i
        while k >= 0:
            depth += (self.text(k) == "}") - (self.text(k) == "{")
            if depth < 0 and self.text(k) == "{":
                depth, head = 0, k - 1 - (self.text(k - 1) == "const")
                if self.text(head) == ")":
                    name = self.tokens[head].pair - 1
                    if self.text(name) in ("if", "for", "while", "switch"):
                        k -= 1
                        continue
                    if self.tokens[name].kind == "name" and self.text(name - 1) in INTEGERS and self.text(i + 1) != ";":
                        self.shift("index", i + 1, self.operand_end(i + 1, {";"}))
                    return
            k -= 1

    def swap(self, i: int) -> None:
        name, first = self.text(i), self.chain_start(i)
        bare = first == i
        if self.text(i + 1) in ("(", "{") or (self.text(first - 1) == "." and self.text(first - 2) in ("{", ",")):
            return
        before = self.tokens[first - 1]
        if bare and (before.text in INTEGERS or (before.kind == "name" and before.text not in ("return", "else"))):
            return
        if bare and self.declares(self.statement_start(i)) and before.text in (",", "*", "&") and self.outermost(self.statement_start(i), i):
            return
        for pair in PARTNERS:
            if name in pair:
                other = pair[1 - pair.index(name)]
                if bare and other not in self.chunk(i):
                    continue
                if not bare and "stride" in pair and not (self.text(i - 2) == "conv" and "padding" in pair):
                    continue
                chain = self.source[self.tokens[first].start : self.tokens[i].start] + other
                self.add("swap", first, i, f"(::mutation::variant({{site}}) ? {chain} : ", f"-> {other}", variants=0b10)
                return

    def chunk(self, i: int) -> set[str]:
        """The names in the function or struct of namespace level around token i."""
        blocks, first, last = [], i, i
        for k, token in enumerate(self.tokens):
            if token.text == "{" and k < i < token.pair and "namespace" not in [self.text(b) for b in range(k - 4, k)]:
                blocks.append((k, token.pair))
        if blocks:
            first, last = blocks[0]
        while first > 0 and self.text(first - 1) not in (";", "}", "namespace"):
            first -= 1
        return {self.text(k) for k in range(first, last) if self.tokens[k].kind == "name" and self.text(k - 1) not in (".", "->")}

    def tile(self, i: int) -> None:
        name, scoped = self.text(i), self.text(i - 1) == "::"
        if not (name in TILES or (scoped and name in ("m", "n"))) or self.text(i + 1) in ("(", "<", "[") or self.text(i - 1) in (".", "->"):
            return
        first = self.chain_start(i)
        before = self.tokens[first - 1]
        if (before.kind == "name" and before.text != "return") or before.text in INTEGERS:
            return
        self.shift("edge", first, i)

    def literal(self, i: int) -> None:
        if re.fullmatch(r"\d+", self.text(i)) and int(self.text(i)) > 1:
            before, after = self.tokens[i - 1], self.tokens[i + 1]
            if (before.text in ("*", "/", "%") and before.spaced) or (after.text in ("*", "/", "%") and after.spaced):
                self.shift("edge", i, i)


def instrument(name: str, source: str, first_site: int = 1) -> tuple[str, list[Mutant]]:
    """The file with all its mutants, numbered from `first_site`, and what they are."""
    sites = Instrumenter(name, source).sites
    insertions: list[tuple[int, int, int, str]] = []  # place, order there, order among equals
    mutants = []
    lines = source.splitlines()
    for number, site in enumerate(sites, first_site):
        insertions.append((site.start, 1, number, site.opening.replace("{site}", str(number))))
        insertions.append((site.end, 0, -number, site.closing))
        line = source.count("\n", 0, site.start)
        column = site.start - source.rfind("\n", 0, site.start) - 1
        after = site.end - source.rfind("\n", 0, site.end) - 1
        one_line = source.count("\n", site.start, site.end) == 0
        whole = lines[line]
        possible = [v for v in (1, 2) if site.variants >> v & 1]
        for variant in possible:
            mark = site.labels[variant - 1 if len(site.labels) > 1 else 0]
            changed = whole[column:after] if one_line else whole[column:] + " ..."
            text = whole[:column] + f"«{changed} {mark}»" + (whole[after:] if one_line else "")
            mutants.append(Mutant(name, line + 1, site.kind, text.strip(), number, variant))
    out, at = [], 0
    for place, _, _, text in sorted(insertions):
        out += [source[at:place], text]
        at = place
    return "".join([*out, source[at:]]), mutants
