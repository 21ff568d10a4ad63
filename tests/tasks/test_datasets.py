"""Rows of GSM8K, SVAMP, MATH500, AIME and ProsQA: the first three of each, as they are published.

GSM8K (MIT, openai/grade-school-math), SVAMP (MIT, arkilpatel/SVAMP) and ProsQA (MIT,
facebookresearch/coconut) are quoted; the long ProsQA questions are cut to what their answers need.
"""

import json
import sys

import pytest

from sparing.errors import OptionError
from sparing.tasks.datasets import RowsTask
from sparing.tasks.find import find_tasks
from sparing.tasks.forms import INSTRUCTION
from tests.data import data_file

GSM8K = [
    {
        "question": "Natalia sold clips to 48 of her friends in April, and then she sold half as "
        "many clips in May. How many clips did Natalia sell altogether in April and May?",
        "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = "
        "<<48+24=72>>72 clips altogether in April and May.\n#### 72",
    },
    {
        "question": "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of "
        "babysitting. How much did she earn?",
        "answer": "Weng earns 12/60 = $<<12/60=0.2>>0.2 per minute.\nWorking 50 minutes, she "
        "earned 0.2 x 50 = $<<0.2*50=10>>10.\n#### 10",
    },
    {
        "question": "Betty is saving money for a new wallet which costs $100. Betty has only half "
        "of the money she needs. Her parents decided to give her $15 for that purpose, and her "
        "grandparents twice as much as her parents. How much more money does Betty need to buy the "
        "wallet?",
        "answer": "In the beginning, Betty has only 100 / 2 = $<<100/2=50>>50.\nBetty's "
        "grandparents gave her 15 * 2 = $<<15*2=30>>30.\nThis means, Betty needs 100 - 50 - 30 - "
        "15 = $<<100-50-30-15=5>>5 more.\n#### 5",
    },
]
SVAMP = [
    {
        "ID": "chal-1",
        "Body": "Each pack of dvds costs 76 dollars. If there is a discount of 25 dollars on each "
        "pack",
        "Question": "How much do you have to pay to buy each pack?",
        "Equation": "( 76.0 - 25.0 )",
        "Answer": 51.0,
        "Type": "Subtraction",
    },
    {
        "ID": "chal-2",
        "Body": "Dan had $ 3 left with him after he bought a candy bar. If he had $ 4 at the start",
        "Question": "How much did the candy bar cost?",
        "Equation": "( 4.0 - 3.0 )",
        "Answer": 1.0,
        "Type": "Subtraction",
    },
    {
        "ID": "chal-3",
        "Body": "Paco had 26 salty cookies and 17 sweet cookies. He ate 14 sweet cookies and 9 "
        "salty cookies.",
        "Question": "How many salty cookies did Paco have left?",
        "Equation": "( 26.0 - 9.0 )",
        "Answer": 17.0,
        "Type": "Subtraction",
    },
]
MATH500 = [
    {
        "problem": r"Convert the point $(0,3)$ in rectangular coordinates to polar coordinates.  "
        r"Enter your answer in the form $(r,\theta),$ where $r > 0$ and $0 \le \theta < 2 \pi.$",
        "solution": r"We have that $r = \sqrt{0^2 + 3^2} = 3.$ Therefore, the polar coordinates "
        r"are $\boxed{\left( 3, \frac{\pi}{2} \right)}.$",
        "answer": r"\left( 3, \frac{\pi}{2} \right)",
        "subject": "Precalculus",
        "level": 2,
        "unique_id": "test/precalculus/807.json",
    },
    {
        "problem": r"Define \[p = \sum_{k = 1}^\infty \frac{1}{k^2} \quad \text{and} \quad q = "
        r"\sum_{k = 1}^\infty \frac{1}{k^3}.\]Find a way to write \[\sum_{j = 1}^\infty "
        r"\sum_{k = 1}^\infty \frac{1}{(j + k)^3}\]in terms of $p$ and $q.$",
        "solution": r"We count the number of times $\frac{1}{n^3}$ appears in the sum: "
        r"$\boxed{p - q}.$",
        "answer": "p - q",
        "subject": "Intermediate Algebra",
        "level": 5,
        "unique_id": "test/intermediate_algebra/1994.json",
    },
    {
        "problem": r"If $f(x) = \frac{3x-2}{x-2}$, what is the value of $f(-2) +f(-1)+f(0)$? "
        "Express your answer as a common fraction.",
        "solution": r"$f(-2)+f(-1)+f(0)=2+\frac{5}{3}+1=\boxed{\frac{14}{3}}$",
        "answer": r"\frac{14}{3}",
        "subject": "Algebra",
        "level": 3,
        "unique_id": "test/algebra/2584.json",
    },
]
AIME = [
    {
        "ID": "2024-I-1",
        "Problem": "Every morning Aya goes for a $9$-kilometer-long walk and stops at a coffee "
        "shop afterwards. When she walks at a constant speed of $s$ kilometers per hour, the walk "
        "takes her 4 hours, including $t$ minutes spent in the coffee shop. When she walks $s+2$ "
        "kilometers per hour, the walk takes her 2 hours and 24 minutes, including $t$ minutes "
        r"spent in the coffee shop. Suppose Aya walks at $s+\frac{1}{2}$ kilometers per hour. Find "
        "the number of minutes the walk takes her, including the $t$ minutes spent in the coffee "
        "shop.",
        "Answer": 204,
    },
    {
        "ID": "2024-I-2",
        "Problem": r"There exist real numbers $x$ and $y$, both greater than 1, such that "
        r"$\log_x\left(y^x\right)=\log_y\left(x^{4y}\right)=10$. Find $xy$.",
        "Answer": "025",
    },
    {
        "ID": "2024-I-4",
        "Problem": r"Jen enters a lottery by picking $4$ distinct numbers from "
        r"$S=\{1,2,3,\cdots,9,10\}.$ $4$ numbers are randomly chosen from $S.$ She wins a prize if "
        "at least two of her numbers were $2$ of the randomly chosen numbers, and wins the grand "
        "prize if all four of her numbers were the randomly chosen numbers. The probability of her "
        r"winning the grand prize given that she won a prize is $\tfrac{m}{n}$ where $m$ and $n$ "
        "are relatively prime positive integers. Find $m+n$.",
        "Answer": 116,
    },
]
PROSQA = [
    {
        "question": "Every terpus is a brimpus. Every brimpus is a lempus. Tom is a terpus. "
        "Every rorpus is a scrompus. Is Tom a lempus or scrompus?",
        "answer": "Tom is a lempus.",
        "steps": ["Tom is a terpus.", "Every terpus is a brimpus.", "Every brimpus is a lempus."],
        "root": 1,
    },
    {
        "question": "Sally is a zhorpus. Every zhorpus is a zumpus. Every zumpus is a vumpus. "
        "Every wumpus is a fompus. Every vumpus is a worpus. Is Sally a fompus or worpus?",
        "answer": "Sally is a worpus.",
        "steps": [
            "Sally is a zhorpus.",
            "Every zhorpus is a zumpus.",
            "Every zumpus is a vumpus.",
            "Every vumpus is a worpus.",
        ],
        "root": 1,
    },
    {
        "question": "Every worpus is a shumpus. Fae is a tumpus. Every shumpus is a gwompus. "
        "Every tumpus is a worpus. Every zumpus is a bompus. Is Fae a gwompus or bompus?",
        "answer": "Fae is a gwompus.",
        "steps": [
            "Fae is a tumpus.",
            "Every tumpus is a worpus.",
            "Every worpus is a shumpus.",
            "Every shumpus is a gwompus.",
        ],
        "root": 0,
    },
]
SETS = {  # rows, reference answers, right answers, wrong answers
    "GSM8K": (
        GSM8K,
        ["72", "10", "5"],
        [r"\boxed{72}", "She earned $10.00.", "Betty needs 5 more"],
        ["48", "", "5 + 15 = 20"],
    ),
    "SVAMP": (
        SVAMP,
        ["51", "1", "17"],
        ["51.0", "It cost $1.", r"\boxed{17}"],
        ["25", "2", "14 + 9"],
    ),
    "MATH500": (
        MATH500,
        [r"\left( 3, \frac{\pi}{2} \right)", "p - q", r"\frac{14}{3}"],
        [r"\boxed{(3,\pi/2)}", "It is $p-q$.", r"\boxed{14/3}"],
        [r"\boxed{(3,\pi)}", r"\boxed{q-p}", r"\boxed{4.67}"],
    ),
    "AIME": (AIME, ["204", "025", "116"], [r"\boxed{204}", "25", "m+n = 116"], ["240", "52", "?"]),
    "ProsQA": (
        PROSQA,
        [row["answer"] for row in PROSQA],
        ["Tom is a lempus", "So, Sally is a worpus.", "Fae is a tumpus. Fae is a gwompus."],
        ["Tom is a scrompus.", "worpus", "Fae is a bompus."],
    ),
}


@pytest.mark.parametrize("form", SETS)
def test_the_first_three_rows_of_each_form(form):
    rows, references, right, wrong = SETS[form]
    task = RowsTask.of("rows", rows)
    assert task.form.name == form
    problems = task.problems(3, 0)
    assert [p.id for p in problems] == [1, 2, 3]
    assert [p.answer for p in problems] == references
    for problem, good, bad in zip(problems, right, wrong, strict=True):
        assert problem.question.endswith(INSTRUCTION) == (form != "ProsQA")
        assert task.grade(problem, good)
        assert not task.grade(problem, bad)


def test_the_question_is_all_that_is_asked():
    (first, *_) = RowsTask.of("rows", SVAMP).problems(3, 0)
    assert first.question == f"{SVAMP[0]['Body']} {SVAMP[0]['Question']}\n{INSTRUCTION}"
    (first, *_) = RowsTask.of("rows", PROSQA).problems(3, 0)
    assert first.question == PROSQA[0]["question"]


@pytest.mark.parametrize("form", SETS)
def test_fields_in_any_case(form):
    rows = SETS[form][0]
    upper = [{field.upper(): value for field, value in row.items()} for row in rows]
    asked, again = (RowsTask.of("rows", given).problems(3, 0) for given in (rows, upper))
    assert asked == again


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_files(tmp_path, suffix):
    file = tmp_path / f"rows{suffix}"
    lines = "\n".join(map(json.dumps, GSM8K)) + "\n\n"
    file.write_text(json.dumps(GSM8K, indent=1) if suffix == ".json" else lines)
    [task] = find_tasks(str(file))
    assert task.problems(9, 0) == RowsTask.of(str(file), GSM8K).problems(3, 0)


def test_rows_are_drawn_by_seed_without_replacement():
    rows = [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(50)]
    task = RowsTask.of("rows", rows)
    drawn = task.problems(20, 1)
    assert drawn == task.problems(20, 1) != task.problems(20, 2)
    assert len({p.id for p in drawn}) == 20
    assert all(p.answer == str(p.id - 1) for p in drawn)
    assert [p.id for p in task.problems(50, 1)] == list(range(1, 51))


GOOD = GSM8K[0]
MALFORMED = {
    "no rows": ("a.json", "[]", "must hold a row or more"),
    "no list": ("a.json", "{}", "must hold a list of objects, got a dict"),
    "no JSON": ("a.json", "[{]", "must be JSON"),
    "a line": ("a.jsonl", json.dumps(GOOD) + "\n{", "a.jsonl, row 2 must be JSON"),
    "no question": ("a.json", '[{"q": 1}]', "the field one of question, problem, prompt"),
    "no answer": ("a.json", '[{"prompt": 1}]', "as their answer, got prompt; name it with --ans"),
    "two questions": ("a.json", '[{"prompt": 1, "input": 2, "output": 3}]', "--question-field"),
    "no object": ("a.json", "[3]", "got no fields"),
    "csv fields": ("a.csv", "question,answer\na,1\nb\n", "row 2 must have 2 fields as its header"),
    "csv quotes": ("a.csv", 'question,answer\n"a"b,1\n', "a.csv, line 2 must be CSV"),
    "csv empty": ("a.csv", "", "must hold a row or more"),
    "csv alone": ("a.csv", "question,answer\n", "must hold a row or more"),
    "a field": ("a.json", json.dumps([GOOD, {"question": "?"}]), "the field answer (GSM8K form)"),
    "a row": ("a.json", json.dumps([GOOD, 3]), "row 2 has not"),
    "hashes": (
        "a.json",
        json.dumps([GOOD, {"question": "?", "answer": "72"}]),
        "row 2, answer must end in '#### '",
    ),
    "empty": ("a.json", json.dumps([GOOD | {"question": " "}]), "row 1, question must be a string"),
    "kind": ("a.json", json.dumps([GOOD | {"question": [1]}]), "row 1, question must be a string"),
    "number": ("a.json", json.dumps([AIME[0] | {"Answer": None}]), "row 1, answer must be a str"),
}


@pytest.mark.parametrize(("name", "content", "said"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_one_line_that_names_the_row(tmp_path, name, content, said):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(OptionError) as error:
        find_tasks(str(file))
    assert said in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


class Hub:
    """The package datasets, as far as it is called, over data sets in memory."""

    def __init__(self, configurations):
        self.configurations = configurations

    def get_dataset_config_names(self, name):
        return list(self.configurations)

    def get_dataset_split_names(self, name, configuration):
        return list(self.configurations[configuration])

    def load_dataset(self, name, configuration, split):
        return self.configurations[configuration][split]


@pytest.mark.parametrize(
    "configurations",
    [
        {"main": {"train": GSM8K, "test": AIME}, "socratic": {}},
        {"default": {"train": AIME}},
        {"AIME2024": {"all": AIME}},
    ],
)
def test_a_hub_id_is_read_from_its_test_split(monkeypatch, configurations):
    monkeypatch.setitem(sys.modules, "datasets", Hub(configurations))
    [task] = find_tasks("org/name")
    assert (task.name, task.form.name, len(task.rows)) == ("org/name", "AIME", 3)


@pytest.mark.parametrize(
    ("configurations", "said"),
    [
        ({"one": {}, "two": {}}, "must have the configuration default or main, got one, two"),
        ({"main": {"a": [], "b": []}}, "the split test or validation or train, got a, b"),
        ({"main": 3}, "org/name must be a readable data set, got TypeError"),
    ],
)
def test_a_hub_id_that_leaves_a_choice_or_fails(monkeypatch, configurations, said):
    monkeypatch.setitem(sys.modules, "datasets", Hub(configurations))
    with pytest.raises(OptionError) as error:
        find_tasks("org/name")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("file", "form", "rows"),
    [
        ("gsm8k_train.jsonl", "GSM8K", 7473),
        ("svamp.json", "SVAMP", 1000),
        ("prosqa_valid.json", "ProsQA", 300),
    ],
)
def test_whole_sets_where_they_are(file, form, rows):
    path = data_file(file)
    [task] = find_tasks(str(path))
    assert task.form.name == form
    assert len(task.rows) == rows
    for problem in task.problems(20, 0):
        assert task.grade(problem, problem.answer)
