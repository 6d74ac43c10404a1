"""What a hostile program may try where the recipe allows numpy: native code, its files, and values that tests trust."""

from tests.rewards.sandbox.hostile_programs import CONTAINED, FAIL, PASS, Hostile, escape


def _cheat(name: str, body: str, *tests: str, outcomes: tuple[str, ...] = FAIL) -> Hostile:
    asserts = tests or ("assert np.allclose(f(4), [1.0, 2.0])", "assert (f(4) == np.array([1.0, 2.0])).all()")
    fields = {
        "setup": "import numpy as np",
        "tests": [{"assert": text} for text in asserts],
    }
    return Hostile(f"numpy: {name}", f"import numpy as np\n{body}", fields, outcomes)


def _escape(name: str, body: str, tiers: str = "AB") -> Hostile:
    return escape(f"numpy: {name}", f"import numpy as np\nhome = os.path.dirname(np.__file__)\n{body}", tiers)


_EQUALS = "class E:\n    __hash__ = None\n    def __eq__(s, o): return True\n    def __sub__(s, o): return 0.0\n    def __float__(s): return 1.0\n"

WITH_NUMPY = [
    # --- Values that a test compares
    _cheat("an array without items", "def f(x): return np.empty(0)"),
    _cheat("an array without items that broadcasts", "def f(x): return np.empty((0, 1))"),
    _cheat("a list without items", "def f(x): return []", "assert np.allclose(f(4), 3.0)", "assert np.isclose(f(4), 3.0).all()"),
    _cheat("a list without items, by numpy's own asserts", "def f(x): return []", "np.testing.assert_allclose(f(4), 3.0)"),
    _cheat("not a number", "def f(x): return np.array([np.nan, np.nan])"),
    _cheat("masked items", "def f(x): return np.ma.masked_all(2)", outcomes=("fail", "unsupported")),
    _cheat("objects that equal everything", f"{_EQUALS}def f(x): return np.array([E(), E()], dtype=object)", outcomes=("fail", "unsupported")),
    _cheat("an array that equals everything", "class A(np.ndarray):\n    def __eq__(s, o): return np.array([True])\ndef f(x): return np.zeros(2).view(A)", outcomes=("fail", "unsupported")),
    _cheat("an array that is everybody's array", f"{_EQUALS}class A(E):\n    def __array__(s, *a, **k): return np.array([1.0, 2.0])\n    def all(s): return True\ndef f(x): return A()", outcomes=("fail", "unsupported")),
    _cheat("a function for all functions of arrays", "class A:\n    def __array_function__(s, *a): return True\n    def __array_ufunc__(s, *a, **k): return np.array([True])\ndef f(x): return A()", outcomes=("fail", "unsupported")),
    _cheat("a number that equals everything", "class N(np.float64):\n    def __eq__(s, o): return True\n    __hash__ = None\ndef f(x): return N(0)", "assert f(4) == 3.0", "assert abs(f(4) - 3.0) < 1e-6", outcomes=("fail", "unsupported")),
    _cheat("numpy replaced", "import sys, types\nfake = types.ModuleType('numpy')\nfake.allclose = lambda *a, **k: True\nsys.modules['numpy'] = np = fake\ndef f(x): return 0"),
    _cheat("numpy patched", "np.allclose = np.isclose = lambda *a, **k: True\ndef f(x): return [0, 0]"),
    _cheat("numpy's name taken", "class np:\n    allclose = staticmethod(lambda *a: True)\ndef f(x): return 0"),
    _cheat("a frame that says it is an array of anything",
           "import gc\ncodec = next(o for o in gc.get_objects() if type(o).__name__ == 'Codec')\n"
           "tails = [['O', [2], '00' * 16], ['f8', [0], ''], ['f8', [2**40], ''], ['f8', [-1], ''], ['U4', [1], 'ff' * 16],\n"
           "         ['f8,O', [1], '00' * 16], ['M8[s]', [1], '00' * 8], ['?', [2], '0203'], [None, None, None], ['f8', [1, 0], '']]\n"
           "calls = iter(tails)\ntype(codec).pack = lambda s, v, shared: ['a', *next(calls)]\ndef f(x): return 0",
           *["assert np.allclose(f(4), 3.0)"] * 4),
    # --- Native code
    _escape("files of the host by its own readers",
            "for p in ('/etc/passwd', '/proc/self/maps', '/proc/self/mem', '/dev/fd/3'):\n"
            "    for g in (np.fromfile, np.loadtxt, np.memmap, np.genfromtxt, np.load): attempt((p, g), lambda: g(p))\n"
            "attempt('url', lambda: np.lib.npyio.DataSource().open('http://127.0.0.1:45671/x'))"),
    _escape("its files changed",
            "for p in (np.__file__, home + '/version.py', home, os.path.dirname(home)):\n"
            "    attempt(p, lambda: open(p, 'r+b'))\n    attempt(p, lambda: os.truncate(p, 0))\n    attempt(p, lambda: os.chmod(p, 0o777))\n"
            "    attempt(p, lambda: os.unlink(p))\n    attempt(p, lambda: os.rename(p, p + 'x'))\n    attempt(p, lambda: os.utime(p))\n"
            "    attempt(p, lambda: os.link(p, home + '/MARK-HERE'))\n    attempt(p, lambda: os.symlink('/', p + '/MARK-HERE-l'))\n"
            "for d in (home, home + '/__pycache__', home + '/random', os.path.dirname(home)):\n"
            "    attempt(d, lambda: open(d + '/MARK-HERE', 'w'))\n    attempt(d, lambda: os.mkdir(d + '/MARK-HERE-d'))\n"
            "    attempt(d, lambda: np.save(d + '/MARK-HERE', [1]))\n    attempt(d, lambda: np.memmap(d + '/MARK-HERE', mode='w+', shape=1))\n"
            "attempt('remount', lambda: libc.syscall(165, b'none', home.encode(), None, 4128, None))"),
    _escape("what lies beside it",
            "side = os.path.dirname(home)\n"
            "for n in ('pydantic', 'pip', 'torch', 'sympy'):\n    attempt(n, lambda: __import__(n))\n"
            "    for p in (f'{side}/{n}', f'{home}/../{n}'): attempt(p, lambda: os.listdir(p))\n"
            "    for p in (f'{side}/{n}/__init__.py', f'{home}/../{n}/__init__.py'): attempt(p, lambda: open(p).read(1))\n"
            "attempt('list', lambda: [n for n in os.listdir(side) if not n.startswith('numpy')] or -1)\n"
            "import sys\nsys.path.append(side)\nattempt('by path', lambda: __import__('pydantic'))"),
    _escape("what the table of packages says", "import sys\nfinder = sys.meta_path[-1]\nfinder._modules['passwd'] = {'file': '/etc/passwd', 'folders': None}\nattempt('finder', lambda: __import__('passwd'))\nfinder._modules['pydantic'] = {'file': os.path.dirname(home) + '/pydantic/__init__.py', 'folders': [os.path.dirname(home) + '/pydantic']}\nattempt('finder', lambda: __import__('pydantic'))"),
    _escape("environment of the host", "names = {'HOME', 'PATH', 'LANG', 'PYTHONHASHSEED', 'PYTHONUTF8', 'PYTHONDONTWRITEBYTECODE', 'MALLOC_ARENA_MAX'}\nattempt('env', lambda: -1 if {n for n in os.environ if not n.endswith('_NUM_THREADS')} <= names else dict(os.environ))"),
    _escape("affinity and priorities", "attempt('affinity', lambda: os.sched_setaffinity(0, {0}))\nattempt('nice', lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))"),
    Hostile("numpy: reads beyond an array", "import numpy as np\nfrom numpy.lib.stride_tricks import as_strided\nx = np.zeros(1)\nprint(as_strided(x, (1 << 40,), (8,))[::1 << 20].sum())", CONTAINED, ("fail", "memory")),
    Hostile("numpy: looks for the answer in its memory", "import numpy as np\nfrom numpy.lib.stride_tricks import as_strided\nx = np.zeros(1, 'u1')\nfor n in range(0, 1 << 24, 1 << 16):\n    chunk = as_strided(x, (1 << 16,), (1,)).tobytes()\n    x = as_strided(x, (1,), (1,))\n    if b'contained' in chunk: print('contained')", CONTAINED, ("fail",)),
    Hostile("numpy: ends by a signal in native code", "import numpy as np, ctypes\nprint('contained', flush=True)\nctypes.string_at(0)", CONTAINED, FAIL),
    # --- Memory and threads
    Hostile("numpy: more memory than it may have", "import numpy as np\nx = [np.ones(1 << 20) for _ in range(1 << 12)]\nprint('contained')", CONTAINED, ("memory", "fail")),
    Hostile("numpy: one array too large", "import numpy as np\nnp.ones(1 << 36)\nprint('contained')", CONTAINED, FAIL),
    Hostile("numpy: a product too large", "import numpy as np\nx = np.ones((30000, 1)) @ np.ones((1, 30000))\nx += 1\nprint('contained')", CONTAINED, ("memory", "fail")),
    Hostile("numpy: native code without end", "import numpy as np\nx = np.random.rand(1500, 1500)\nwhile True: x = x @ x", CONTAINED | {"time_limit_s": 0.5}, ("timeout",)),
    Hostile("numpy: threads of its library without end",
            "import ctypes, glob, os, threading\nimport numpy as np\n"
            "for path in glob.glob(os.path.dirname(np.__file__) + '.libs/*openblas*'):\n"
            "    blas = ctypes.CDLL(path)\n    for name in ('openblas_set_num_threads', 'scipy_openblas_set_num_threads64_', 'openblas_set_num_threads64_'):\n"
            "        if hasattr(blas, name): getattr(blas, name)(64)\n"
            "x = np.random.rand(500, 500)\nx @ x\n"
            "import sys\nsys.stdout.write('done')", CONTAINED, ("fail", "memory", "timeout")),
    Hostile("numpy: stays within its bounds", "import numpy as np\nassert np.linalg.inv(np.eye(400) * 2).sum() == 200\nassert np.fft.fft([1, 2]).real.tolist() == [3, -1]\nprint('contained')", CONTAINED, PASS),
]  # fmt: skip
