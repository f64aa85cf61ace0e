//! What children of a run write and read: its output, and nothing.

use crate::support::{Case, executor, run, stdout};

#[tokio::test]
async fn standard_input_is_empty() {
    let source = r#"
import os, subprocess
print(os.read(0, 10), open(0).read() == '', os.isatty(0), os.isatty(1))
print(subprocess.run(['cat'], stdout=subprocess.PIPE).stdout)
"#;
    assert_eq!(stdout(source).await, "b'' True False False\nb''\n");
}

#[tokio::test]
async fn children_write_into_their_run_and_in_its_order() {
    let executor = executor();
    for child in [
        "subprocess.run(['sh', '-c', command])",
        "subprocess.run(command, shell=True, close_fds=False)",
        "subprocess.run(command, shell=True, stdout=sys.stdout, stderr=sys.stderr)",
        "subprocess.run(command, shell=True, stdout=1, stderr=2)",
        "subprocess.run(command, shell=True, stdout=sys.__stdout__)",
        "subprocess.check_call(command, shell=True)",
        "os.system(command)",
        "os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', command], os.environ), 0)",
        "os.waitpid(os.posix_spawnp('sh', ['sh', '-c', command], os.environ, file_actions=[(os.POSIX_SPAWN_CLOSE, 0)]), 0)",
        "asyncio.run(wait())",
    ] {
        let source = format!(
            "import asyncio, os, subprocess, sys\ncommand = 'echo out; echo err >&2'\n\
             async def wait():\n    await (await asyncio.create_subprocess_shell(command)).wait()\n\
             print('before')\n{child}\nprint('after')\n"
        );
        let outcome = Case::new(&source).run(&executor).await;
        assert_eq!(
            outcome.output.stdout.text, "before\nout\nafter\n",
            "{child}: {outcome:?}"
        );
        assert_eq!(outcome.output.stderr.text, "err\n", "{child}");
    }
}

#[tokio::test]
async fn a_childs_environment_is_its_runs() {
    let source = r#"
import os, subprocess
os.environ['AUTOMATION_PROBE'] = 'own'
for start in (subprocess.call, lambda command, **_: os.system(command)):
    start('echo $AUTOMATION_PROBE', shell=True)
subprocess.call(['sh', '-c', 'echo $AUTOMATION_PROBE'], close_fds=False)
"#;
    assert_eq!(stdout(source).await, "own\nown\nown\n");
}

#[tokio::test]
async fn much_output_holds_up_nobody() {
    let outcome = run(
        "import subprocess\nsubprocess.run('head -c 5000000 /dev/zero; echo done', shell=True)",
    )
    .await;
    assert_eq!(outcome.output.stdout.bytes_total, 5_000_005);
    assert!(outcome.output.stdout.text.ends_with("done\n"));
    let source = "import os\nfor _ in range(100):\n    os.write(1, b'x' * 50_000)\n";
    assert_eq!(run(source).await.output.stdout.bytes_total, 5_000_000);
}

#[tokio::test]
async fn a_childs_progress_counts() {
    let case = Case::new("import os\nos.system('echo ::progress 40 copying')\n");
    let host = std::sync::Arc::clone(&case.host);
    case.run(&executor()).await;
    let events = format!("{:?}", host.events.lock());
    assert!(events.contains("copying"), "{events}");
}

#[tokio::test]
async fn children_of_runs_at_the_same_time_are_not_mixed_up() {
    let executor = executor();
    let run = |word: &str| {
        let source = format!(
            "import subprocess\nfor _ in range(20):\n    subprocess.run(['echo', '{word}'])\n    print('{word}')\n"
        );
        Case::new(&source).run(&executor)
    };
    let outcomes = tokio::join!(run("a"), run("b"), run("c"));
    for (outcome, word) in [(outcomes.0, "a"), (outcomes.1, "b"), (outcomes.2, "c")] {
        assert_eq!(outcome.output.stdout.text, format!("{word}\n").repeat(40));
    }
}
