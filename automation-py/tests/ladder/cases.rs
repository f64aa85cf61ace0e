//! What scripts do when their deadline passes, and what is to come of it.

/// What ends a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The exception.
    Exception,
    /// A trace function that raises at every line.
    Trace,
    /// Its wait is ended, and the exception is found.
    Wait,
    /// The programs that it started are killed.
    Kill,
    /// Nothing: its thread is abandoned.
    Abandoned,
}

impl End {
    /// Returns the words of the table.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Exception => "exception",
            Self::Trace => "exception at every line",
            Self::Wait => "ended wait, exception",
            Self::Kill => "killed children, ended wait, exception",
            Self::Abandoned => "nothing; abandoned, `still_running`",
        }
    }

    /// Returns whether the script keeps the GIL busy, so that others beside it would be measured as well.
    pub(crate) const fn computes(self) -> bool {
        matches!(self, Self::Exception | Self::Trace | Self::Abandoned)
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) end: End,
    pub(crate) source: &'static str,
}

const fn row(end: End, name: &'static str, source: &'static str) -> Row {
    Row { name, end, source }
}

/// An argument of `sleep` that no other program has, so that what is left can be found.
pub(crate) const MARK: &str = "8.0731";

#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    row(End::Exception, "`while True: pass`", "while True: pass\n"),
    row(End::Exception, "loop with `except Exception`", "while True:\n try:\n  while True: x = 1\n except Exception: pass\n"),
    row(End::Exception, "loop in `finally`", "try:\n while True: pass\nfinally:\n while True: pass\n"),
    row(End::Exception, "loop in a thread, joined", "import threading\ndef f():\n while True: pass\nt = threading.Thread(target=f)\nt.start(); t.join()\n"),
    row(End::Exception, "loops in a daemon thread and in the script", "import threading\ndef f():\n while True: pass\nthreading.Thread(target=f, daemon=True).start()\nf()\n"),
    row(End::Exception, "threads started all the time", "import threading\nwhile True:\n t = threading.Thread(target=int)\n t.start(); t.join()\n"),
    row(End::Trace, "`except BaseException`, loop first", "while True:\n try:\n  while True: x = 1\n except BaseException: pass\n"),
    row(End::Trace, "`except BaseException`, statement first", "while True:\n try:\n  x = 1\n  while True: x = 2\n except BaseException: pass\n"),
    row(End::Trace, "`except BaseException` around calls", "def f():\n for i in range(1000): pass\nwhile True:\n try:\n  f()\n except BaseException: pass\n"),
    row(End::Trace, "`except BaseException`, nested", "def f():\n while True:\n  try:\n   y = 1\n   while True: y = 2\n  except BaseException: z = 1\nwhile True:\n try:\n  q = 1\n  f()\n except BaseException: w = 1\n"),
    row(End::Trace, "30 nested `finally` with loops", "def g(d):\n try:\n  while True: pass\n finally:\n  if d: g(d - 1)\ng(30)\n"),
    row(End::Trace, "`except BaseException` around sleeps", "import time\nwhile True:\n try: time.sleep(5)\n except BaseException: pass\n"),
    row(End::Trace, "`except BaseException` in a thread, joined", "import threading\ndef f():\n while True:\n  try:\n   x = 1\n   while True: x = 2\n  except BaseException: pass\nt = threading.Thread(target=f)\nt.start(); t.join()\n"),
    row(End::Wait, "`time.sleep`", "import time\ntime.sleep(8)\n"),
    row(End::Wait, "`from time import sleep`", "from time import sleep\nsleep(8)\n"),
    row(End::Wait, "`sleep` kept under another name", "import time\nclass K: nap = staticmethod(time.sleep)\nK.nap(8)\n"),
    row(End::Wait, "sleep in a `finally`", "import time\ntry:\n time.sleep(8)\nfinally:\n time.sleep(8)\n"),
    row(End::Wait, "socket `recv`", "import socket\na, b = socket.socketpair()\na.recv(1)\n"),
    row(End::Wait, "socket `recv` with its own time-out", "import socket\na, b = socket.socketpair()\na.settimeout(8)\na.recv(1)\n"),
    row(End::Wait, "socket `accept`", "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0)); s.listen()\ns.accept()\n"),
    row(End::Wait, "UDP `recvfrom`", "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 0))\ns.recvfrom(10)\n"),
    row(End::Wait, "socket `sendall` to nobody", "import socket\na, b = socket.socketpair()\na.sendall(b'x' * 10_000_000)\n"),
    row(End::Wait, "socket as a file, `readline`", "import socket\na, b = socket.socketpair()\na.makefile('rb').readline()\n"),
    row(End::Wait, "`Lock`", "import threading\nl = threading.Lock(); l.acquire(); l.acquire()\n"),
    row(End::Wait, "`with Lock` that another holds", "import threading\nl = threading.Lock(); l.acquire()\nwith l: pass\n"),
    row(End::Wait, "`Lock` with a time-out", "import threading\nl = threading.Lock(); l.acquire(); l.acquire(timeout=8)\n"),
    row(End::Wait, "`RLock`", "import threading, time\nl = threading.RLock()\nt = threading.Thread(target=lambda: (l.acquire(), time.sleep(8)), daemon=True)\nt.start(); time.sleep(0.01)\nl.acquire()\n"),
    row(End::Wait, "`Condition.wait`", "import threading\nc = threading.Condition()\nwith c: c.wait()\n"),
    row(End::Wait, "`Condition.wait` with a time-out", "import threading\nc = threading.Condition(threading.Lock())\nwith c: c.wait(8)\n"),
    row(End::Wait, "`Event.wait`", "import threading\nthreading.Event().wait()\n"),
    row(End::Wait, "`Semaphore.acquire`", "import threading\nthreading.Semaphore(0).acquire()\n"),
    row(End::Wait, "`Barrier.wait`", "import threading\nthreading.Barrier(2).wait()\n"),
    row(End::Wait, "`Queue.get`", "import queue\nqueue.Queue().get()\n"),
    row(End::Wait, "`Queue.put` into a full one", "import queue\nq = queue.Queue(1)\nq.put(1); q.put(2)\n"),
    row(End::Wait, "`SimpleQueue.get`", "import queue\nqueue.SimpleQueue().get()\n"),
    row(End::Wait, "`Thread.join`", "import threading\ne = threading.Event()\nt = threading.Thread(target=e.wait, daemon=True)\nt.start(); t.join()\n"),
    row(End::Wait, "a pool that waits for its work", "import time\nfrom concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as p: list(p.map(time.sleep, [8, 8]))\n"),
    row(End::Wait, "a shared `multiprocessing` lock", "import multiprocessing\nl = multiprocessing.Lock(); l.acquire(); l.acquire()\n"),
    row(End::Wait, "`select`", "import os, select\nr, w = os.pipe()\nselect.select([r], [], [], 8)\n"),
    row(End::Wait, "`poll`", "import os, select\nr, w = os.pipe()\np = select.poll(); p.register(r, select.POLLIN)\np.poll()\n"),
    row(End::Wait, "`epoll`", "import select\nselect.epoll().poll(8)\n"),
    row(End::Wait, "`os.read` of a pipe", "import os\nr, w = os.pipe()\nos.read(r, 1)\n"),
    row(End::Wait, "a pipe as a file, `readline`", "import os\nr, w = os.pipe()\nopen(r).readline()\n"),
    row(End::Wait, "`open` of a named pipe", "import os, tempfile\nd = tempfile.TemporaryDirectory()\np = os.path.join(d.name, 'p')\nos.mkfifo(p)\nopen(p)\n"),
    row(End::Wait, "`fcntl.flock` that another holds", "import fcntl, tempfile\na = tempfile.NamedTemporaryFile()\nb = open(a.name)\nfcntl.flock(a, fcntl.LOCK_EX)\nfcntl.flock(b, fcntl.LOCK_EX)\n"),
    row(End::Wait, "`asyncio.sleep`", "import asyncio\nasync def main(): await asyncio.sleep(8)\nasyncio.run(main())\n"),
    row(End::Wait, "`asyncio`, a task that catches its cancellation", "import asyncio\nasync def main():\n while True:\n  try: await asyncio.sleep(8)\n  except asyncio.CancelledError: pass\nasyncio.run(main())\n"),
    row(End::Wait, "`asyncio.to_thread`", "import asyncio, time\nasync def main(): await asyncio.to_thread(time.sleep, 8)\nasyncio.run(main())\n"),
    row(End::Kill, "`subprocess.run`", "import subprocess\nsubprocess.run(['sleep', '8.0731'])\n"),
    row(End::Kill, "shell with grandchildren, output captured", "import subprocess\nsubprocess.run(['sh', '-c', 'sleep 8.0731 & (sleep 8.0731; true); true'], capture_output=True)\n"),
    row(End::Kill, "`os.system`", "import os\nos.system('sleep 8.0731; true')\n"),
    row(End::Kill, "`os.popen`", "import os\nos.popen('sleep 8.0731; true').read()\n"),
    row(End::Kill, "a program that ignores SIGTERM and SIGINT", "import subprocess\nsubprocess.run(['sh', '-c', 'trap \"\" TERM INT; sleep 8.0731; sleep 8.0731'])\n"),
    row(End::Kill, "`asyncio` subprocess", "import asyncio\nasync def main():\n p = await asyncio.create_subprocess_exec('sleep', '8.0731')\n await p.wait()\nasyncio.run(main())\n"),
    row(End::Kill, "`subprocess.run` in a thread, joined", "import subprocess, threading\nt = threading.Thread(target=subprocess.run, args=(['sleep', '8.0731'],))\nt.start(); t.join()\n"),
    row(End::Abandoned, "`sum(range(...))`", "sum(range(2 * 10**8))\n"),
    row(End::Abandoned, "catastrophic regular expression", "import re\nre.match(r'(a+)+$', 'a' * 27 + 'b')\n"),
    row(End::Abandoned, "big integers", "x = 3 ** (10**7)\n"),
    row(End::Abandoned, "C code without the GIL", "import hashlib\nhashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**7)\n"),
    row(End::Abandoned, "a foreign call that computes", "import ctypes\nlibm = ctypes.CDLL('libm.so.6')\nlibm.jn.argtypes = [ctypes.c_int, ctypes.c_double]\nlibm.jn(2 * 10**9, 3e9)\n"),
    row(End::Abandoned, "a foreign call that keeps the GIL", "import ctypes\nlibm = ctypes.PyDLL('libm.so.6')\nlibm.jn.argtypes = [ctypes.c_int, ctypes.c_double]\nlibm.jn(2 * 10**9, 3e9)\n"),
];
