"""Where an answer is stated in a text, and its notation made plain for Math-Verify.

Rewritten are: currency, signs, spaces and commas between thousands, mixed numbers, powers of ten.
"""

import re
import unicodedata
from decimal import Decimal

SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")  # 1½ is 1 1/2
MINUS = re.compile(
    r"[\u2212\uFE63\uFF0D]|(?<![\w)])(?<!\d\s)(?:[\u2010-\u2014]|(?:minus|negative)\s)(?=\s?[\d.\\])"
)
CURRENCY = re.compile(r"\\\$|(?:\\text\{)?[€£¥₹¢]\}?|\bUSD\b|\bEUR\b")
THIN = re.compile(r"(?<=\d)(?:\\[,;: !]|\{,\}|[\u00A0\u2000-\u200A\u202F])+(?=\d{3}(?!\d))")
COMMAS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,(?:\\!)?\d{3})+(?![\d,])")
POWER = r"10\s*(?:\^|\*\*)\s*\{?\s*([+-]?\s?\d{1,2})\b\s*\}?"
SCIENTIFIC = re.compile(
    rf"(?<![\w.^])(?:(\d+(?:\.\d+)?)\s*(?:\\times|\\cdot|[×·x*])\s*)?{POWER}"
    r"|(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,2})\b"
)
MIXED = re.compile(
    r"(?<![\d.,/^_{])(\d+)(?:\s|\\[, ]|~)*"
    r"(?:(?<=[\s~])(\d+)\s*/\s*(\d+)(?![\d/])|\\[dtc]?frac\s*\{?(\d+)\}?\s*\{?(\d+)\}?)"
)
QUANTITY = re.compile(  # of words, which are no function and no percentage
    r"([-+]?\d[\d.,/ ]*|[-+]?\\[dt]?frac\{\d+\}\{\d+\})\s*"
    r"(?!percent|pct|mod|sin|cos|tan|log|sqrt|and\b|or\b)[A-Za-z]{3,}(?:[ /-][A-Za-z]+)*\.?"
)
BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
STATED = re.compile(
    r"(?:\banswers?\b[^.\n:=]{0,60}?(?:\b(?:is|are|was)\b|[:=])|<answer>)[:\s]*", re.IGNORECASE
)
PROSE = re.compile(r"(?<!\\)\b[^\W\d_]{4,}")
MARKED = re.compile(r"(?<![\w*`])(\*{1,3}|`)(?=\S)([^*`\n]+?)(?<=\S)\1(?![\w*`])")  # Markdown
DEGREES = re.compile(r"\s*°\s*[CF]?\b|°")
WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|bf|rm)\s*\{([^{}]*)\}")
LISTED = re.compile(r",|;|\band\b|\bor\b|\\text\s*\{\s*(?:and|or)\s*\}")
ANSWER, BOXED = "answer: ", "\\boxed{"  # how what ``stated`` gives begins
SMALL = re.compile(r"(?<![\d.])0?\.(0+)[1-9]")


def plain(text: str) -> str:
    """The same text in the notation that Math-Verify reads."""
    text = RAISED.sub(lambda found: f"^{{{found[0].translate(SUPERSCRIPTS)}}}", text)
    text = VULGAR.sub(" ", MINUS.sub("-", CURRENCY.sub("", THIN.sub("", text))))
    text = DEGREES.sub("", MARKED.sub(r"\2", text))
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/")
    if not re.search(r"[(\[{]\s*\d", text):  # there commas separate
        text = COMMAS.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = MIXED.sub(improper, SCIENTIFIC.sub(decimal, text)).strip()
    quantity = QUANTITY.fullmatch(text)
    return quantity[1].strip() if quantity else text


def decimal(found: re.Match[str]) -> str:
    """A number times a power of ten, written out."""
    exponent = (found[2] or found[4]).replace(" ", "")
    return format(Decimal(f"{found[1] or found[3] or 1}e{exponent}"), "f")


def improper(found: re.Match[str]) -> str:
    """``1 1/2`` as ``3/2``; unchanged where the fraction is no proper one."""
    whole, top, bottom = int(found[1]), int(found[2] or found[4]), int(found[3] or found[5])
    if top >= bottom:
        return found[0]
    total = whole * bottom + top
    return f"{total}/{bottom}" if found[2] else f"\\frac{{{total}}}{{{bottom}}}"


def zeros(text: str) -> int:
    """The most zeros between the point and the first digit of a number in a text."""
    return max((len(found) for found in SMALL.findall(text)), default=0)


def bare(text: str) -> str:
    """A value without box, text commands, dollars, stars and a full stop."""
    if boxed := re.fullmatch(r"\\boxed\{(.*)\}", text, re.DOTALL):
        text = boxed[1]
    return WRAPPED.sub(r"\1", WRAPPED.sub(r"\1", text)).strip(" \n*$.`\"'")


def stated(text: str, count: int = 1) -> str:
    """The part of a text that states its answer, made plain.

    It is the last box (``count`` boxes, where so many values are wanted), else what follows the
    last ``####``, else the rest of the line behind "answer is" or "answer:", else all. A box that
    has no end is no answer.
    """
    if found := boxes(text):
        chosen = found if count == 1 else found[-count:]
        if None in chosen[-1:]:
            return ""
        if count == 1 or len(LISTED.split(str(found[-1]))) == count:
            chosen = found[-1:]
        return boxed(", ".join(unwrapped(each) for each in chosen if each))
    _, mark, behind = text.rpartition("####")
    if mark and behind.strip():
        return plain(behind.strip().split("\n")[0])
    text = plain(text).replace("</answer>", "")
    *_, last = [None, *STATED.finditer(text)]
    behind = bare(text[last.end() :] if last else text)
    if (count > 1 or behind[:1] in "([-") and not PROSE.search(behind):
        return boxed(behind)  # all of it is a value
    return f"{ANSWER}{text[last.end() :]}" if last else text


def boxed(content: str) -> str:
    return f"{BOXED}{plain(content)}}}"


def unwrapped(content: str) -> str:
    """The content of a text command that is all there is."""
    found = WRAPPED.fullmatch(content)
    return found[1] if found else content


def boxes(text: str) -> list[str | None]:
    """The contents of all boxes in order, without empty ones; None for one that has no end."""
    found: dict[int, str | None] = {}  # by start
    opened: list[int | None] = []  # braces; with a start where they are a box's
    for brace in BRACE.finditer(text):
        if brace["box"]:
            opened.append(brace.end())
            found[brace.end()] = None
        elif brace[0] == "{":
            opened.append(None)
        elif brace[0] == "}":
            start = opened.pop() if opened else None
            if start is not None:
                found[start] = text[start : brace.start()].strip()
    return [content for content in found.values() if content != ""]


def parts(reference: str) -> int:
    """The number of values that a reference lists; 1 for a tuple, a set or an interval."""
    text = plain(reference)
    if re.match(r"\\?(?:left)?\s*\\?[(\[{]", text):
        return 1
    return 2 if "\\pm" in text else len(LISTED.split(text))
