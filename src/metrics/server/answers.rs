//! tiny_http on a private Unix socket, and what it answers.

use std::fs::{self, DirBuilder};
use std::io::{self, Cursor};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tiny_http::{Header, Request, Response, Server};
use uuid::Uuid;

use super::Source;
use crate::metrics::hour::Hour;
use crate::metrics::render;
use crate::metrics::roster::{self, Asked, Roster};
use crate::web::{self, Asset};

/// Threads that compose and write answers. With two, a scrape does not wait for the other one.
const RESPONDERS: usize = 2;
/// How the directory is called, with a UUID behind it.
const PREFIX: &str = "fanfare-";
/// The socket in it.
const SOCKET: &str = "metrics";
/// Before another attempt to open the socket.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

/// The part behind the front.
pub(super) struct Answers {
    source: Source,
    hour: Arc<Hour>,
    roster: Roster,
    /// Only this user may enter it, so nobody else can connect.
    dir: PathBuf,
    socket: PathBuf,
    stopping: AtomicBool,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    /// Counts the sockets that were bound.
    generation: u64,
    /// To wake its responders.
    server: Option<Arc<Server>>,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Answers {
    /// Makes the directory and binds the socket in it.
    pub fn open(
        source: Source,
        hour: Arc<Hour>,
        roster: Roster,
    ) -> io::Result<(Arc<Self>, Arc<Server>)> {
        let dir = std::env::temp_dir().join(format!("{PREFIX}{}", Uuid::new_v4().simple()));
        let answers = Self {
            source,
            hour,
            roster,
            socket: dir.join(SOCKET),
            dir,
            stopping: AtomicBool::new(false),
            running: Mutex::default(),
        };
        let server = answers.bind()?;
        Ok((Arc::new(answers), server))
    }

    /// Where tiny_http listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Answers until it is stopped. An accept error ends tiny_http for good, and someone may tidy
    /// the socket away: then it is made anew.
    pub fn run(&self, first: Arc<Server>) {
        if let Some(folder) = self.dir.parent() {
            tidy(folder);
        }
        let mut bound = Ok(first);
        loop {
            match bound {
                Ok(server) => self.serve(server),
                Err(error) => {
                    tracing::error!(%error, "metrics: cannot open the private socket");
                    thread::sleep(REOPEN_PAUSE);
                }
            }
            if self.stopping.load(Ordering::SeqCst) {
                break;
            }
            bound = self.bind();
        }
    }

    /// Ends [`Answers::run`].
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(server) = &self.running().server {
            wake(server);
        }
    }

    /// Which socket it is that a caller is about to connect to.
    pub fn generation(&self) -> u64 {
        self.running().generation
    }

    /// Makes [`Answers::run`] start over with a new socket, unless it did since `generation`: callers
    /// that fail together ask for one new socket, not for one each.
    pub fn reopen(&self, generation: u64) {
        let running = self.running();
        if let (Some(server), true) = (&running.server, running.generation == generation) {
            wake(server);
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bind(&self) -> io::Result<Arc<Server>> {
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let server = Arc::new(Server::http_unix(&self.socket).map_err(io::Error::other)?);
        {
            let mut running = self.running();
            running.generation += 1;
            running.server = Some(Arc::clone(&server));
        }
        // Stopped meanwhile: nobody would wake the responders any more.
        if self.stopping.load(Ordering::SeqCst) {
            wake(&server);
        }
        Ok(server)
    }

    /// Until a responder ends; that one wakes the others.
    fn serve(&self, server: Arc<Server>) {
        thread::scope(|scope| {
            for n in 0..RESPONDERS {
                let spawned = thread::Builder::new()
                    .name(format!("metrics-{n}"))
                    .spawn_scoped(scope, || self.respond_to_all(&server));
                if let Err(error) = spawned {
                    tracing::error!(%error, "metrics: cannot start a thread");
                    wake(&server);
                    thread::sleep(REOPEN_PAUSE);
                }
            }
        });
        // Dropping the last one removes the socket's file: before the next one is bound.
        self.running().server = None;
    }

    fn respond_to_all(&self, server: &Server) {
        while let Ok(request) = server.recv() {
            let response = panic::catch_unwind(AssertUnwindSafe(|| self.response(&request)))
                .unwrap_or_else(|_| error(500, "Internal error", "internal"));
            // The front went away: nobody is waiting.
            let _ = request.respond(response);
        }
        wake(server);
    }

    fn response(&self, request: &Request) -> Response<Cursor<Vec<u8>>> {
        let url = request.url();
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        if let Some(asset) = web::dashboard(path) {
            return file(asset);
        }
        match path {
            "/stats" => answer(200, JSON, render::stats(&(self.source)())),
            "/metrics" => answer(
                200,
                render::METRICS_CONTENT_TYPE,
                render::metrics(&(self.source)()),
            ),
            super::CONNECTIONS => self.connections(query),
            "/hour" => answer(200, JSON, self.hour.since(0)),
            _ => match path.strip_prefix("/hour/").map(str::parse) {
                Some(Ok(from)) => answer(200, JSON, self.hour.since(from)),
                _ => error(404, "Not found", "not_found"),
            },
        }
    }
}

impl Answers {
    fn connections(&self, query: &str) -> Response<Cursor<Vec<u8>>> {
        let Some(asked) = Asked::parse(query) else {
            return error(400, "What is asked for cannot be", "invalid_query");
        };
        match roster::page(&self.roster, asked) {
            Some(page) => answer(200, JSON, page),
            None => error(503, "The workers are busy", "busy"),
        }
    }
}

/// Removes what processes that were killed have left in `folder`: directories whose socket nobody answers.
/// One that somebody has only just bound is made anew by its owner, as [`Answers::run`] does it.
pub(super) fn tidy(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        id.is_some_and(|id| id.len() == 32 && Uuid::try_parse(id).is_ok())
    });
    for dir in ours.map(|entry| entry.path()) {
        let socket = dir.join(SOCKET);
        let refused = UnixStream::connect(&socket)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if refused {
            let _ = fs::remove_file(socket);
            let _ = fs::remove_dir(dir);
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_dir(&self.dir);
    }
}

const JSON: &str = "application/json";

/// Each call to `unblock` ends one `recv`; one too many does no harm to a server that is leaving.
fn wake(server: &Server) {
    for _ in 0..RESPONDERS {
        server.unblock();
    }
}

fn error(status: u16, error: &str, code: &str) -> Response<Cursor<Vec<u8>>> {
    answer(
        status,
        JSON,
        format!(r#"{{"error":"{error}","code":"{code}"}}"#),
    )
}

/// A file of the dashboard.
fn file(asset: &Asset) -> Response<Cursor<Vec<u8>>> {
    let mut response = answer(200, asset.content_type, asset.body);
    let policy = ("Content-Security-Policy", web::CONTENT_SECURITY_POLICY);
    for (name, value) in [policy, ("Referrer-Policy", "no-referrer")] {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    response
}

fn answer(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Response<Cursor<Vec<u8>>> {
    let mut response = Response::from_data(body)
        .with_status_code(status)
        // The front forwards bytes, also to clients of HTTP/1.0: no chunks.
        .with_chunked_threshold(usize::MAX);
    let headers = [
        ("Content-Type", content_type),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ];
    for (name, value) in headers {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    response
}
