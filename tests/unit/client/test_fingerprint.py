import functools
import subprocess
import sys
import textwrap

from multihost.client.fingerprint import fingerprint


def make(source, name="f", **names):
    namespace = {"__name__": "somewhere", **names}
    exec(textwrap.dedent(source), namespace)
    return namespace[name]


BASE = """
    def helper(x):
        return x + 1
    def f(x, y=2):
        '''Words.'''
        return helper(x) * y if x in {"a", "b"} else [z for z in range(y)]
"""


def test_lines_files_comments_and_words_do_not_matter():
    moved = BASE.replace("    def f", "\n\n    # a comment\n    def f").replace(
        "Words", "Other words"
    )
    assert fingerprint(make(BASE)) == fingerprint(make(moved))


def test_it_is_the_same_in_another_process_with_another_hash_seed():
    program = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        from test_fingerprint import BASE, make
        from multihost.client.fingerprint import fingerprint
        print(fingerprint(make(BASE)).hex())
    """)
    seen = {
        subprocess.run(
            [sys.executable, "-c", program, str(__file__).rpartition("/")[0]],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {fingerprint(make(BASE)).hex()}


def test_a_changed_body_constant_default_or_helper_matters():
    base = fingerprint(make(BASE))
    for old, new in (
        ("* y", "+ y"),
        ("x + 1", "x + 2"),
        ("y=2", "y=3"),
        ('"b"', '"c"'),
        ("range(y)", "range(x)"),
    ):
        assert old in BASE
        assert fingerprint(make(BASE.replace(old, new))) != base, (old, new)


def test_global_values_do_not_matter_but_closure_values_do():
    source = "def f(x):\n    return x + LIMIT\n"
    assert fingerprint(make(source, LIMIT=1)) == fingerprint(make(source, LIMIT=2))

    def around(limit):
        return lambda x: x + limit

    assert fingerprint(around(1)) == fingerprint(around(1))
    assert fingerprint(around(1)) != fingerprint(around(2))


def test_recursion_and_mutual_reference_end():
    source = """
        def f(n):
            return n and g(n - 1)
        def g(n):
            return n and f(n - 1)
    """
    assert fingerprint(make(source)) == fingerprint(make(source))
    assert fingerprint(make(source)) != fingerprint(make(source.replace("g(n - 1)", "g(n - 2)")))


def test_partials_builtins_classes_and_callable_objects_have_one():
    class Callable:
        def __init__(self, step):
            self.step = step

        def __call__(self, x):
            return x + self.step

    things = [
        functools.partial(pow, 2),
        functools.partial(pow, 3),
        len,
        abs,
        int,
        Callable,
        Callable(1).__call__,
    ]
    prints = [fingerprint(thing) for thing in things]
    assert len(set(prints)) == len(things)
    assert prints == [fingerprint(thing) for thing in things]


def test_a_method_that_changed_changes_its_class():
    source = """
        class f:
            def run(self):
                return 1
            @property
            def size(self):
                return 2
            @staticmethod
            def make():
                return 3
    """
    base = fingerprint(make(source))
    for old, new in (("return 1", "return 7"), ("return 2", "return 7"), ("return 3", "return 7")):
        assert fingerprint(make(source.replace(old, new))) != base
