//! Throw-away PostgreSQL servers, made of the installed binaries. One serves most tests, each in a database of its
//! own; who wants to break a server starts one.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use automation_core::PostgresStorage;
use tokio_postgres::{Client, NoTls};

/// The user who may do everything, and the one that the server logs in as.
pub(crate) const SUPERUSER: &str = "super";
pub(crate) const USER: &str = "helpdesk";

const DEFAULT_PORT: u16 = 5432;

/// Keeps the server as long as this process lives, however that ends: its standard input is a pipe from here.
const KEEPER: &str = r#"
exec 3<&0
"$0" "$@" </dev/null >>"$PGDATA/log" 2>&1 3<&- &
server=$!
echo $server
(read -r _ <&3; kill -QUIT $server) 2>/dev/null &
reader=$!
exec 3<&-
wait $server
kill $reader 2>/dev/null
[ -e "$PGDATA/keep" ] || rm -rf "$PGDATA"
"#;

/// A running server.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
    options: Vec<&'static str>,
    keeper: Mutex<Option<Child>>,
    databases: AtomicUsize,
}

/// The server that most tests share. It does not sync: the machine stays up while it lives.
pub(crate) fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(&["fsync=off", "full_page_writes=off"]))
}

impl Cluster {
    /// Makes and starts a server.
    pub(crate) fn start(options: &[&'static str]) -> Self {
        Self::start_prepared(options, DEFAULT_PORT, |_| {})
    }

    /// Makes and starts a server that listens on a port of this machine too, whose certificate is `server.crt`.
    pub(crate) fn start_with_tls() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        Self::start_prepared(
            &["fsync=off", "listen_addresses=127.0.0.1", "ssl=on"],
            port,
            |folder| {
                let made = as_unprivileged(Path::new("openssl"))
                    .args([
                        "req",
                        "-x509",
                        "-newkey",
                        "rsa:2048",
                        "-nodes",
                        "-days",
                        "2",
                        "-subj",
                        "/CN=localhost",
                    ])
                    .args(["-addext", "subjectAltName=DNS:localhost"])
                    .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                    .arg("-keyout")
                    .arg(folder.join("server.key"))
                    .arg("-out")
                    .arg(folder.join("server.crt"))
                    .output()
                    .unwrap();
                assert!(
                    made.status.success(),
                    "openssl: {}",
                    String::from_utf8_lossy(&made.stderr)
                );
            },
        )
    }

    fn start_prepared(options: &[&'static str], port: u16, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("pg")
            .tempdir()
            .unwrap()
            .keep();
        if let Some((uid, gid)) = unprivileged() {
            std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        let data = folder.as_os_str();
        let made = as_unprivileged(&binary("initdb"))
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "-U",
                SUPERUSER,
                "-D",
            ])
            .arg(data)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        prepare(&folder);
        let cluster = Self {
            folder,
            port,
            options: options.to_vec(),
            keeper: Mutex::default(),
            databases: AtomicUsize::new(0),
        };
        cluster.run();
        cluster.sql(
            "postgres",
            &format!(
                "CREATE ROLE {USER} LOGIN CREATEROLE CREATEDB; CREATE DATABASE base OWNER {USER}"
            ),
        );
        cluster
    }

    /// Starts the server, and waits until it answers. One that was killed leaves children that end a moment later; as
    /// long as they live, a new one refuses to start.
    pub(crate) fn run(&self) {
        let begin = Instant::now();
        while !self.runs() {
            assert!(begin.elapsed() < Duration::from_secs(60), "{}", self.log());
            self.stop();
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = std::fs::remove_file(self.folder.join("keep"));
    }

    /// Starts the server, and returns whether it came to answer.
    fn runs(&self) -> bool {
        let pid = self.spawn();
        while !self.answers() {
            if !is_alive(&pid) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Starts the server behind a keeper; returns its process id.
    fn spawn(&self) -> String {
        let mut keeper = as_unprivileged(Path::new("/bin/sh"));
        keeper.args(["-c", KEEPER]).arg(binary("postgres"));
        let fixed = [
            "listen_addresses=",
            "max_connections=200",
            "wal_level=minimal",
            "max_wal_senders=0",
        ];
        for option in fixed.iter().chain(&self.options) {
            keeper.args(["-c", option]);
        }
        let sockets = format!("unix_socket_directories={}", self.folder.display());
        let port = format!("port={}", self.port);
        keeper
            .args(["-c", &sockets, "-c", &port])
            .env("PGDATA", &self.folder);
        let mut keeper = keeper
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        let mut output = BufReader::new(keeper.stdout.take().unwrap());
        output.read_line(&mut pid).unwrap();
        *self.keeper.lock().unwrap() = Some(keeper);
        pid.trim().to_owned()
    }

    fn answers(&self) -> bool {
        let asked = self
            .psql("postgres", SUPERUSER)
            .args(["-c", "SELECT 1"])
            .output();
        asked.unwrap().status.success()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Kills the server, as a crash of the machine would end it. It can be run again.
    pub(crate) fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        File::create(self.folder.join("keep")).unwrap();
        let killed = Command::new("kill").args(["-9", pid]).status().unwrap();
        assert!(killed.success());
        self.stop();
        while is_alive(pid) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(&self) {
        let keeper = self.keeper.lock().unwrap().take();
        if let Some(keeper) = keeper {
            end(keeper);
        }
    }

    /// Runs SQL as the superuser.
    pub(crate) fn sql(&self, database: &str, sql: &str) {
        self.sql_as(database, SUPERUSER, sql).unwrap();
    }

    /// Runs SQL as a user; answers with what went wrong.
    pub(crate) fn sql_as(&self, database: &str, user: &str, sql: &str) -> Result<(), String> {
        let mut psql = self.psql(database, user);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), sql).unwrap();
        let done = psql
            .args(["-v", "ON_ERROR_STOP=1", "-f"])
            .arg(file.path())
            .output()
            .unwrap();
        if done.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&done.stderr).into_owned())
        }
    }

    fn psql(&self, database: &str, user: &str) -> Command {
        let mut psql = Command::new(binary("psql"));
        psql.args(["-X", "-q", "-h"])
            .arg(&self.folder)
            .args(["-U", user, "-d", database, "-p"])
            .arg(self.port.to_string());
        psql
    }

    /// Returns the schema of a database as `pg_dump` writes it.
    pub(crate) fn dump(&self, database: &str) -> String {
        let dumped = Command::new(binary("pg_dump"))
            .args(["--schema-only", "-h"])
            .arg(&self.folder)
            .args(["-U", SUPERUSER, database])
            .output()
            .unwrap();
        assert!(
            dumped.status.success(),
            "{}",
            String::from_utf8_lossy(&dumped.stderr)
        );
        let text = String::from_utf8(dumped.stdout).unwrap();
        // A random word of each dump.
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Makes an empty database.
    pub(crate) fn empty(&self) -> String {
        let name = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {USER}"));
        name
    }

    /// Makes a database with our tables.
    pub(crate) fn database(&self) -> String {
        static TEMPLATE: OnceLock<()> = OnceLock::new();
        TEMPLATE.get_or_init(|| {
            shared()
                .sql_as("base", USER, PostgresStorage::schema())
                .unwrap();
        });
        let name = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE base OWNER {USER}"),
        );
        name
    }

    /// Returns the URL of a database, for the server's user.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_of(database, USER)
    }

    /// Returns the URL of a database for a user.
    pub(crate) fn url_of(&self, database: &str, user: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{user}@{folder}:{}/{database}", self.port)
    }

    /// Connects beside the backend, as a person's tool would.
    pub(crate) async fn client(&self, database: &str, user: &str) -> Client {
        let url = self.url_of(database, user);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_alive(pid: &str) -> bool {
    let mut asked = Command::new("kill");
    asked.args(["-0", pid]).stderr(Stdio::null());
    asked.status().unwrap().success()
}

/// Lets a keeper end its server.
fn end(mut keeper: Child) {
    drop(keeper.stdin.take());
    keeper.wait().unwrap();
}

/// Returns a program of the newest PostgreSQL that is installed.
pub(crate) fn binary(name: &str) -> PathBuf {
    installed(name).unwrap_or_else(|| {
        panic!("{name} is missing: these tests start a PostgreSQL server; install the package postgresql (make setup-test does)")
    })
}

/// Returns a program of the newest PostgreSQL, if one is installed.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let version = version.unwrap();
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin").join(name)))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    found.sort();
    let found = found.pop().map(|(_, path)| path);
    let on_path = || {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders)
            .map(|folder| folder.join(name))
            .find(|path| path.exists())
    };
    found.or_else(on_path)
}

/// PostgreSQL refuses to run as root; returns as whom it runs instead.
fn unprivileged() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata("/proc/self").map_or(1, |own| own.uid()) != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    ["postgres:", "nobody:"].iter().find_map(|name| {
        let user = users.lines().find(|line| line.starts_with(name))?;
        let mut ids = user.split(':').skip(2).map(|id| id.parse().unwrap());
        Some((ids.next()?, ids.next()?))
    })
}

fn as_unprivileged(program: &Path) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/");
    command
}
