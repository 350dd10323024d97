"""The words of a sentence about motion, and what each says: the whole vocabulary of docs/say.md."""

from types import MappingProxyType
from typing import Final

_PICTURE: Final = r"(?:picture|frame|image|view|screen|photo)"
_OF_PICTURE: Final = rf"(?: of (?:the )?{_PICTURE})?"


def forms(*verbs: str) -> frozenset[str]:
    """Each verb as ``move``, ``moves``, ``moving``: English's regular forms, one of which is the right one."""
    found = set()
    for verb in verbs:
        found |= {
            verb,
            f"{verb}s",
            f"{verb}es",
            f"{verb}ing",
            f"{verb[:-1]}ing",
            f"{verb}{verb[-1]}ing",
            f"{verb[:-1]}ies",
        }
    return frozenset(found)


MOVE: Final = forms(
    "move", "go", "walk", "run", "drive", "fly", "roll", "drift", "slide", "glide", "head", "shift", "travel", "swim",
    "crawl", "come", "float", "rush", "race", "swing", "push", "pull", "drag", "send", "accelerate", "sail", "ride",
)  # fmt: skip
RISE: Final = forms("rise", "climb", "ascend")
SINK: Final = forms("sink", "descend")
FALL: Final = forms("fall", "drop")
JUMP: Final = forms("jump", "hop", "bounce")
SHAKE: Final = forms("shake", "tremble", "wiggle", "shiver")
ZIGZAG: Final = forms("zigzag")
GROW: Final = forms("grow", "expand", "enlarge", "swell")
SHRINK: Final = forms("shrink", "contract")
DOUBLE: Final = forms("double")
HALVE: Final = frozenset({"halve", "halves", "halving"})
BECOME: Final = forms("get", "become", "turn")
"""Say something only with bigger, smaller."""
STAY: Final = forms("stay", "hold", "pin", "keep", "wait", "rest", "remain", "freeze", "stand")
CAMERA: Final = forms("zoom", "pan", "tilt", "dolly")
"""The camera's alone: it need not be named."""
CAMERA_TURNS: Final = forms("turn", "rotate", "roll", "spin")
HELPERS: Final = frozenset(
    "is are be will should must can shall please let make have does do to and also now just again so there".split()
)
"""Said without any meaning of their own."""
ARTICLES: Final = frozenset("the a an my this that these those its their".split())
IT: Final = frozenset("it they them itself he she him her".split())
REST: Final = frozenset({"background", "everything else", "rest", "everything", "scenery", "all else"})
PREPOSITIONS: Final = frozenset(
    "by of on in with behind before under over above below into onto through around for at from near beside past "
    "across along between without until like".split()
)
"""Whatever they begin is not understood where no phrase below has taken it."""

NUMBERS: Final = MappingProxyType(
    {
        "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
        "nine": "9", "ten": "10", "twelve": "12", "fifteen": "15", "twenty": "20", "thirty": "30", "forty": "40",
        "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90", "hundred": "100",
    }
)  # fmt: skip
SHARES: Final = MappingProxyType({"half": 50, "third": 33, "quarter": 25, "fifth": 20, "tenth": 10})
WAYS: Final = MappingProxyType(
    {
        "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "top": (0, -1), "bottom": (0, 1),
        "upper": (0, -1), "lower": (0, 1),
    }
)  # fmt: skip
"""Right and down are positive, as in pictures."""

# Of phrases the first that fits is taken, everywhere in a clause, and what it says is kept under its name.
PHRASES: Final = (
    ("stay", r"(?:does|do|will|should)(?: not|n't) move|doesn't move|don't move|stands? still|(?:stays?|remains?) "
             r"(?:where (?:it is|they are)|still|put|in place)|in place|(?:is|are) (?:still|fixed|static)|still\b"),
    ("half", r"in the (?P<half>first|second) half"),
    ("ease_in", r"faster and faster|speeding up|speeds? up|accelerating"),
    ("ease_out", r"slower and slower|slowing down|slows? down|decelerating"),
    ("ease_in_out", r"smoothly|gently|softly"),
    ("arc", r"in an? (?:arc|curve|bow)"),
    ("zigzag", r"in an? zigzags?|in zigzags"),
    ("wave", r"in (?:a wave|waves)|in a wavy line"),
    ("swing", r"back and forth|to and fro|from side to side|side to side"),
    ("times", r"(?P<times>once|twice|\d+ times)(?! (?:its|the|their))"),
    ("percent_size", r"to (?P<percent_size>[\d.]+) ?%(?! ?,)(?: of (?:its|their) size)?"),
    ("multiple", r"(?:to )?(?P<multiple>twice|double|half|[\d.]+ times) (?:its|their|the)(?: own)? size"),
    ("in_size", r"in size"),
    ("bigger", r"bigger|larger|closer|nearer|toward(?:s)? (?:us|me|the (?:camera|viewer))"),
    ("smaller", r"smaller|away from (?:us|me|the (?:camera|viewer))|further away|away(?! from)"),
    ("point", r"to \[(?P<point>[^\]]*)\]"),
    ("out", rf"(?:out of|off)(?: the)? {_PICTURE}(?: (?:to|on|at) the (?P<out>left|right|top|bottom))?"),
    ("leave", rf"(?:leaves?|leaving) the {_PICTURE}(?: (?:to|on|at) the (?P<leave>left|right|top|bottom))?"),
    ("corner", rf"to the (?P<corner>(?:top|upper|bottom|lower)[- ](?:left|right)) corner{_OF_PICTURE}"),
    ("edge", rf"to the (?P<edge>left|right|top|bottom|upper|lower) (?:edge|side|border){_OF_PICTURE}"),
    ("end", rf"to the (?P<end>top|bottom){_OF_PICTURE}(?! left| right)"),
    ("middle", rf"to the (?:middle|cent(?:re|er)){_OF_PICTURE}"),
    ("diagonal", r"(?:to the )?(?P<diagonal>(?:upper|top|lower|bottom)[- ](?:left|right))"),
    ("pair", r"<(?P<pair>[a-z]+ [a-z]+)>"),
    ("amount", r"(?:by )?(?P<amount>[\d.]+ ?(?:%|px))"),
    ("degrees", r"(?:by )?(?P<degrees>[\d.]+) degrees?"),
    ("share", rf"(?:by )?(?:an? )?(?P<share>half|third|quarter|fifth|tenth)(?: of)?(?: (?:the|its|their) "
              rf"(?:{_PICTURE}|width|height|way|size))?"),
    ("little", r"an? (?:little|bit)|slightly|slowly|somewhat"),
    ("lot", r"a lot|far|much|an? long way|quickly|fast|strongly"),
    ("clockwise", r"clockwise"),
    ("anticlockwise", r"(?:counter|anti)-?clockwise"),
    ("diagonally", r"diagonally"),
    ("way", r"(?:to the )?(?P<way>left|right|up|down)(?:wards?)?"),
)  # fmt: skip
