//! Standard input's number, what goes between descriptors, and what comes when the output is closed.

use crate::support::{Case, executor, stdout};

#[tokio::test]
async fn standard_input_is_a_stream_with_a_number() {
    let source = r#"
import fcntl, os, select, subprocess, sys, termios
print(repr(sys.stdin.read()), repr(sys.stdin.buffer.read()), sys.stdin.name, sys.stdin.isatty())
print(subprocess.run(['cat'], stdin=sys.stdin, stdout=subprocess.PIPE).stdout)
print(select.select([sys.stdin], [], [], 0)[0] == [sys.stdin])
for close in (lambda: os.close(sys.stdin.fileno()), lambda: termios.tcgetattr(1)):
    try: close()
    except (OSError, termios.error) as error: print(type(error).__name__)
sys.stdin.close()
print(open(0).read() == '')
"#;
    let expected = "'' b'' <stdin> False\nb''\nTrue\nPermissionError\nerror\nTrue\n";
    for _ in 0..2 {
        assert_eq!(stdout(source).await, expected);
    }
}

#[tokio::test]
async fn what_goes_between_descriptors_goes_into_the_run() {
    let source = r#"
import fcntl, os, tempfile
file = tempfile.TemporaryFile()
file.write(b'text\n')
file.flush()
for offset in (None, 0):
    try: os.pwrite(1, b'lost', 0)
    except OSError as error: print(error.errno)
if hasattr(os, 'splice'):
    print(os.splice(file.fileno(), 1, 5, offset_src=0))
print(os.sendfile(1, file.fileno(), 0, 5))
print(fcntl.fcntl(1, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY)
"#;
    let text = stdout(source).await;
    let text = text.replace("text\n5\ntext\n5\n", "text\n5\n");
    assert_eq!(text, "29\n29\ntext\n5\nTrue\n");
}

/// What ends with the run finds its output closed, and not another's file under the same number.
#[tokio::test]
async fn what_is_written_too_late_is_written_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let source = format!(
        "import asyncio, os\nos.write(1, b'x')\nclass Late(asyncio.AbstractEventLoop):\n\
         \x20   def is_closed(self, os=os, opened=[]):\n\
         \x20       others = [os.open({path:?}, os.O_CREAT | os.O_WRONLY) for _ in range(8)]\n\
         \x20       print(os.write(1, b'late'))\n        [os.close(other) for other in others]\n\
         \x20       return True\n    def __del__(self, os=os):\n        os._exit(3)\nasyncio.set_event_loop(Late())\n"
    );
    let executor = executor();
    for _ in 0..2 {
        let outcome = Case::new(&source).run(&executor).await;
        assert_eq!(outcome.output.stdout.text, "x4\n", "{outcome:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}
