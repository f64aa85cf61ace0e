//! What a script changes for the whole process is found out, undone when nobody can have seen it, and reported
//! otherwise; what libraries keep for themselves is no change.

use automation_core::Concern;
use automation_core::executor::{Ending, RunEvent};
use automation_py::PythonExecutor;

use crate::{executor_with, overlapping, run, stdout, undisturbed};

/// A change, how it reads, and an expression that is true when it is undone.
const CHANGES: &[(&str, &str, &str)] = &[
    (
        "import json; json.dumps = None",
        "json.dumps was replaced",
        "json.dumps({}) == '{}'",
    ),
    (
        "import json; json.probe = 1",
        "json.probe was added",
        "not hasattr(json, 'probe')",
    ),
    (
        "import json; del json.loads",
        "json.loads was removed",
        "json.loads('1') == 1",
    ),
    (
        "import builtins; builtins.print = lambda *a, **k: None",
        "builtins.print was replaced",
        "print.__name__ == 'print'",
    ),
    (
        "import builtins; builtins.foo = 42",
        "builtins.foo was added",
        "not hasattr(__builtins__, 'foo')",
    ),
    (
        "import logging; logging.Logger.hello = lambda self: 1",
        "logging.Logger.hello was added",
        "not hasattr(logging.Logger, 'hello')",
    ),
    (
        "import json; json.JSONEncoder.default = None",
        "json.encoder.JSONEncoder.default was replaced",
        "callable(json.JSONEncoder.default)",
    ),
    (
        "import socket; socket.socket = None",
        "socket.socket was replaced",
        "socket.socket.__name__ == 'socket'",
    ),
    (
        "import threading; threading.Thread.start = None",
        "threading.Thread.start was replaced",
        "callable(threading.Thread.start)",
    ),
    (
        "import time; time.sleep = lambda _: None",
        "time.sleep was replaced",
        "time.sleep(0) is None and time.sleep.__name__ != '<lambda>'",
    ),
    (
        "import enum, socket; type.__setattr__(socket.AddressFamily, 'probe', 1)",
        "socket.AddressFamily.probe was added",
        "not hasattr(socket.AddressFamily, 'probe')",
    ),
    (
        "import logging; from unittest import mock; mock.patch('logging.info').start()",
        "logging.info was replaced",
        "type(logging.info) is type(lambda: 0)",
    ),
    (
        "import warnings; warnings.showwarning = lambda *a: None",
        "warnings.showwarning was replaced",
        "warnings.showwarning.__module__ == 'warnings'",
    ),
    (
        "import sys; sys.getrefcount = lambda _: 0",
        "sys.getrefcount was replaced",
        "sys.getrefcount.__name__ == 'getrefcount'",
    ),
    (
        "import gc; gc.disable()",
        "gc.enable was changed",
        "gc.isenabled()",
    ),
    (
        "import gc; gc.set_threshold(1, 2, 3)",
        "gc.set_threshold was changed",
        "gc.get_threshold() != (1, 2, 3)",
    ),
    (
        "import gc; gc.set_debug(gc.DEBUG_UNCOLLECTABLE)",
        "gc.set_debug was changed",
        "gc.get_debug() == 0",
    ),
    (
        "import sys; sys.setrecursionlimit(777)",
        "sys.setrecursionlimit was changed",
        "sys.getrecursionlimit() != 777",
    ),
    (
        "import socket; socket.setdefaulttimeout(7)",
        "socket.setdefaulttimeout was changed",
        "socket.getdefaulttimeout() is None",
    ),
    (
        "import threading; threading.settrace(print)",
        "threading.settrace was changed",
        "threading._trace_hook is None",
    ),
    (
        "import threading; threading.setprofile(print)",
        "threading.setprofile was changed",
        "threading._profile_hook is None",
    ),
    (
        "import csv; csv.field_size_limit(7)",
        "csv.field_size_limit was changed",
        "csv.field_size_limit() != 7",
    ),
    (
        "import locale; locale.setlocale(locale.LC_ALL, 'C.UTF-8' if locale.setlocale(locale.LC_ALL) == 'C' else 'C')",
        "locale.setlocale was changed",
        "True",
    ),
    (
        "import logging; logging.setLoggerClass(type('L', (logging.Logger,), {}))",
        "logging.setLoggerClass was changed",
        "logging.getLoggerClass() is logging.Logger",
    ),
    (
        "import logging; logging.captureWarnings(True)",
        "logging.captureWarnings was changed",
        "logging._warnings_showwarning is None and __import__('warnings').showwarning.__module__ == 'warnings'",
    ),
];

/// Imports, so that a change meets modules that are there; and what the change is undone to.
const IMPORTS: &str = "import csv, enum, gc, json, locale, logging, socket, sys, threading, time, warnings, unittest.mock\n";

#[tokio::test]
async fn each_change_of_a_run_that_is_alone_is_told_once_and_undone() {
    let _undisturbed = undisturbed();
    let executor = executor_with(1);
    stdout(&executor, IMPORTS).await;
    for (change, text, undone) in CHANGES {
        let (outcome, events) = run(&executor, change).await;
        assert_eq!(outcome.ending, Ending::Completed, "{change}: {outcome:?}");
        assert_eq!(outcome.concern, None, "{change}: {events:?}");
        let [RunEvent::Log { text: told }] = &*events else {
            panic!("{change}: {events:?}")
        };
        assert_eq!(
            told,
            &format!("{text} for the whole process, and was put back when the run ended")
        );
        let source = format!("{IMPORTS}import sys\nsys.stdout.write(str({undone}))");
        assert_eq!(stdout(&executor, &source).await, "True", "{change}");
    }
}

#[tokio::test]
async fn what_was_undone_by_the_script_is_no_change() {
    let _undisturbed = undisturbed();
    let executor = executor_with(1);
    let source = r#"
import gc, json, socket, sys, logging, locale
from unittest import mock
with mock.patch('json.dumps', lambda _: 'patched'), mock.patch.object(logging.Logger, 'info', None), \
     mock.patch.dict(sys.modules, {'probe_module': None}), mock.patch('time.sleep'):
    print(json.dumps({}))
gc.disable()
gc.enable()
limit = sys.getrecursionlimit()
sys.setrecursionlimit(limit + 1)
sys.setrecursionlimit(limit)
socket.setdefaulttimeout(3)
socket.setdefaulttimeout(None)
"#;
    for _ in 0..2 {
        let (outcome, events) = run(&executor, source).await;
        assert_eq!(outcome.output.stdout.text, "patched\n", "{outcome:?}");
        assert_eq!((outcome.concern, events), (None, vec![]));
    }
}

/// What scripts do all day.
const BENIGN: &[&str] = &[
    "import tempfile; tempfile.gettempdir(); tempfile.mkstemp(); tempfile.TemporaryDirectory().cleanup()",
    "import re; [re.compile(f'a{n}+') for n in range(600)]; re.purge(); re.sub('a', 'b', 'c')",
    "import random; random.random(); random.seed(3); random.shuffle([1, 2]); random.setstate(random.getstate())",
    "import warnings\nfor _ in range(3): warnings.warn('w')\nwarnings.simplefilter('error'); warnings.resetwarnings()",
    "import logging; logging.basicConfig(level=10); logging.info('x'); logging.getLogger('a.b').warning('y'); logging.addLevelName(5, 'FIVE')",
    "import logging.config; logging.config.dictConfig({'version': 1, 'root': {'level': 'INFO'}})",
    "import argparse; argparse.ArgumentParser().parse_args([])",
    "import linecache, traceback\ntry: 1/0\nexcept Exception: traceback.print_exc(); linecache.checkcache()",
    "import decimal; decimal.getcontext().prec = 3; decimal.Decimal(1) / 3",
    "import typing, abc, collections.abc\nclass A(abc.ABC):\n    x: typing.Optional[int]\ncollections.abc.Sized.register(A); typing.get_type_hints(A)",
    "import dataclasses, enum\n@dataclasses.dataclass\nclass D: x: int = 1\nclass E(enum.Enum): A = 1\nE(1); dataclasses.asdict(D())",
    "import subprocess; subprocess.run(['true']); subprocess.run('echo x', shell=True, capture_output=True)",
    "import threading, queue; t = threading.Thread(target=print); t.start(); t.join(); queue.Queue().put(1); threading.Timer(0, print).start()",
    "import concurrent.futures as f\nwith f.ThreadPoolExecutor(2) as pool: list(pool.map(str, range(3)))",
    "import asyncio\nasync def main(): await asyncio.gather(asyncio.sleep(0), asyncio.to_thread(print))\nasyncio.run(main())",
    "import json, csv, io, configparser, xml.etree.ElementTree as e; csv.writer(io.StringIO()).writerow([1]); e.fromstring('<a/>'); json.loads('[1]')",
    "import urllib.request, urllib.parse, http.client\ntry: urllib.request.urlopen('http://127.0.0.1:9/')\nexcept OSError: pass",
    "import socket; a, b = socket.socketpair(); a.close(); b.close(); socket.getaddrinfo('127.0.0.1', 1)",
    "import ssl, hashlib, hmac, secrets; ssl.create_default_context(); hashlib.sha256(b'').hexdigest(); secrets.token_hex()",
    "import sqlite3; c = sqlite3.connect(':memory:'); c.execute('create table t (a)'); c.execute('select datetime()').fetchall(); c.close()",
    "import shutil, pathlib, glob, os; shutil.which('sh'); shutil.disk_usage('/'); list(pathlib.Path('/').glob('e*')); os.path.expanduser('~')",
    "import datetime, zoneinfo, time, calendar, locale; datetime.datetime.strptime('2020', '%Y'); time.strftime('%c'); calendar.month(2020, 1); locale.getlocale(); zoneinfo.available_timezones()",
    "import email.message, smtplib, mimetypes; m = email.message.EmailMessage(); m.set_content('x'); str(m); mimetypes.guess_type('a.txt')",
    "import platform, getpass, pwd, uuid, ipaddress; platform.platform(); platform.python_version(); uuid.uuid1(); uuid.uuid4(); ipaddress.ip_network('10.0.0.0/8')",
    "import pickle, copy, zlib, gzip, bz2, lzma, zipfile, tarfile, base64; pickle.loads(pickle.dumps([1])); copy.deepcopy({}); gzip.decompress(gzip.compress(b''))",
    "import functools, itertools, collections, statistics, fractions, heapq, bisect, operator; functools.lru_cache(len); collections.namedtuple('N', 'a b')(1, 2); statistics.mean([1, 2])",
    "import unittest\nclass T(unittest.TestCase):\n    def test(self): pass\nunittest.main(argv=['x'], exit=False)",
    "import multiprocessing, ctypes, ctypes.util, select, signal, resource; multiprocessing.cpu_count(); signal.getsignal(2); resource.getrusage(0)",
    "import importlib.metadata, pkgutil, inspect, ast, tokenize; list(importlib.metadata.distributions())[:1]; inspect.getsource(ast.parse); list(pkgutil.iter_modules())[:1]",
    "import gettext, textwrap, string, pprint, difflib, html, shlex, struct, array; gettext.gettext('x'); pprint.pformat({}); list(difflib.ndiff(['a'], ['b'])); textwrap.dedent(''); string.Template('$a').substitute(a=1)",
    "import os, sys; os.environ['A'] = 'b'; sys.path.insert(0, '/x'); sys.argv.append('y'); os.umask",
    "import encodings.idna, codecs; 'ü'.encode('idna'); 'x'.encode('utf-16'); codecs.lookup('cp1252'); b'x'.decode('latin-1')",
    "import http.server, socketserver, xmlrpc.client, ftplib, imaplib, poplib, telnetlib",
    "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()): print(1)\nwith contextlib.suppress(OSError): pass",
    "import code, cmd, pdb, doctest, timeit, cProfile, pstats, trace; timeit.timeit('1', number=1); cProfile.Profile().runcall(int)",
    "import atexit, weakref, gc, faulthandler; atexit.register(print); gc.collect(); weakref.WeakSet()",
    "import runpy; runpy.run_path('/dev/null'); import graphlib, plistlib, netrc, optparse; optparse.OptionParser()",
];

#[tokio::test]
async fn what_scripts_do_all_day_is_no_change() {
    let _undisturbed = undisturbed();
    let executor = executor_with(1);
    // The second time nothing is imported any more, the third time nothing is new.
    for turn in 0..3 {
        for source in BENIGN {
            let source = source.replace(", telnetlib", "");
            let (outcome, events) = run(&executor, &format!("{source}\n# {turn}\n")).await;
            assert_eq!(outcome.ending, Ending::Completed, "{source}: {outcome:?}");
            assert_eq!(
                (outcome.concern, events),
                (None, vec![]),
                "{source} ({turn})"
            );
        }
    }
}

#[tokio::test]
async fn a_setting_that_another_run_could_see_is_a_contamination_and_is_undone_when_no_run_is_left()
{
    let _undisturbed = undisturbed();
    stdout(&executor_with(1), IMPORTS).await;
    let changes = CHANGES.iter().filter(|(change, ..)| {
        // Before 3.12 names are looked at in runs that are alone only.
        cfg!(Py_3_12) || change.contains(".set") && !change.contains("__")
    });
    for (change, text, undone) in changes {
        if change.contains("time.sleep") || change.contains("Thread.start") {
            continue;
        }
        let [first, second] = overlapping(change, "pass", "").await;
        assert_eq!(second.0.concern, None, "{change}");
        assert_eq!(
            first.0.concern,
            Some(Concern::Contaminated),
            "{change}: {first:?}"
        );
        let told = format!("{text} for the whole process, while other runs could see it");
        assert_eq!(
            first.1,
            [RunEvent::Contamination { text: told }],
            "{change}"
        );
        let source = format!("{IMPORTS}import sys\nsys.stdout.write(str({undone}))");
        assert_eq!(stdout(&executor_with(1), &source).await, "True", "{change}");
    }
}

#[tokio::test]
async fn what_another_run_changed_since_is_left_alone() {
    let _undisturbed = undisturbed();
    let [first, second] = overlapping(
        "import sys; sys.setrecursionlimit(1234)",
        "import sys; sys.setrecursionlimit(2345)",
        "",
    )
    .await;
    let since =
        "sys.setrecursionlimit was changed for the whole process, and once more since, by others";
    for (outcome, events) in [&first, &second] {
        assert_eq!(outcome.concern, Some(Concern::Contaminated));
        assert!(
            matches!(&**events, [RunEvent::Contamination { .. }]),
            "{events:?}"
        );
    }
    let _ = since;
    let source = "import sys; print(sys.getrecursionlimit())";
    assert_eq!(stdout(&executor_with(1), source).await, "1000\n");
}

#[tokio::test]
async fn switched_off_nothing_is_looked_for() {
    let _undisturbed = undisturbed();
    let off = PythonExecutor::builder()
        .workers(1)
        .contamination_checks(false)
        .build()
        .unwrap();
    let (outcome, events) = run(&off, "import json, gc; json.probe_off = 1; gc.disable()").await;
    assert_eq!((outcome.concern, events), (None, vec![]));
    let source =
        "import json, gc; print(json.probe_off, gc.isenabled()); gc.enable(); del json.probe_off";
    assert_eq!(stdout(&off, source).await, "1 False\n");
}
