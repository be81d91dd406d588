//! The control socket: the API and what only an operator may do, over a Unix socket.
//!
//! Whoever may open the socket's file is the operator: permissions of the file system decide, and no key
//! is asked for. `fanfare stats`, `backup` and the other commands come this way.
//!
//! Not for: what the network may reach.

mod following;
mod listen;
mod stream;
mod tail;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::broker::embedded::Embedded;
use crate::broker::embedded::copy::Extra;
use crate::http::errors::ApiError;
use crate::http::{self, Operator, Services, reply};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::metrics::{Observed, render};

pub use listen::{Socket, bind, connect};
pub use stream::INCOMPLETE;
pub use tail::TAILS_MAX;

/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 64;
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How requests over this socket appear where an address is noted.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

type Body = BoxBody<Bytes, io::Error>;

/// What the operator's requests are answered from.
#[derive(Clone)]
pub struct Parts {
    /// The API.
    pub services: Arc<Services>,
    /// Figures.
    pub observed: Arc<Observed>,
    /// The database in this process, if it is the store.
    pub embedded: Option<Arc<Embedded>>,
    /// Files that belong into a backup: name and path.
    pub extras: Vec<(&'static str, PathBuf)>,
    /// For what only the main thread can do. It stops the service when its other end is dropped.
    pub ask: mpsc::Sender<Asked>,
}

/// What the main thread is asked for, and where the answer goes.
#[derive(Debug)]
pub enum Asked {
    /// Read the configuration again: `{"ok":true,"changes":[..],"warnings":[..]}`, or `ok` is false,
    /// `error` says why, and nothing was changed.
    Reload(oneshot::Sender<Value>),
}

/// Serves until nobody listens to [`Parts::ask`] any more.
pub async fn run(socket: Socket, parts: Parts) {
    let ended = parts.ask.clone();
    tokio::select! {
        () = accept(socket, parts) => {}
        () = ended.closed() => {}
    }
}

async fn accept(socket: Socket, parts: Parts) {
    let tails = Arc::new(Semaphore::new(TAILS_MAX));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match socket.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "the control socket");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (parts, tails) = (parts.clone(), tails.clone());
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let (parts, tails) = (parts.clone(), tails.clone());
                async move { Ok::<_, Infallible>(answer(&parts, &tails, request).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_headers(HEADERS_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the control socket ended");
            }
        });
    }
}

async fn answer(
    parts: &Parts,
    tails: &Arc<Semaphore>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let outcome = match (request.method(), request.uri().path()) {
        (&Method::GET, "/control/status") => Ok(whole(status(parts))),
        (&Method::GET, "/control/stats") => Ok(whole(stats(parts))),
        (&Method::GET, "/control/tail") => tail::tail(parts, tails, request.uri().query()).await,
        (&Method::POST, "/control/follow") => following::follow(parts, request.uri().query()),
        (&Method::POST, "/control/backup") => backup(parts).await,
        (&Method::POST, "/control/reload") => reload(parts).await,
        (_, path) if path.starts_with("/control/") => Err(ApiError::no_route()),
        _ => {
            request.extensions_mut().insert(Operator);
            return whole(http::handle(&parts.services, PEER, request).await);
        }
    };
    outcome.unwrap_or_else(|error: ApiError| whole(error.into_response()))
}

fn whole(reply: reply::Reply) -> Response<Body> {
    reply.map(|body| body.map_err(|never| match never {}).boxed())
}

/// Who answers here.
fn status(parts: &Parts) -> reply::Reply {
    reply::ok(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": parts.services.node,
        "pid": std::process::id(),
        "embedded": parts.embedded.is_some(),
        "draining": parts.services.is_draining(),
    }))
}

/// What `/stats` of the metrics listener says.
fn stats(parts: &Parts) -> reply::Reply {
    reply::text(
        "application/json",
        render::stats(&parts.observed.snapshot()).into(),
    )
}

/// What came of reading the configuration again.
async fn reload(parts: &Parts) -> Result<Response<Body>, ApiError> {
    let (reply, answer) = oneshot::channel();
    let stopping = || {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "The server is stopping",
        )
    };
    parts
        .ask
        .send(Asked::Reload(reply))
        .await
        .map_err(|_| stopping())?;
    Ok(whole(reply::ok(&answer.await.map_err(|_| stopping())?)))
}

/// The database and what belongs to it, as one stream.
async fn backup(parts: &Parts) -> Result<Response<Body>, ApiError> {
    let Some(embedded) = &parts.embedded else {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "not_embedded",
            "The store is Redis: back Redis up with its own tools",
        ));
    };
    embedded.settle().await?;
    let mut extras = Vec::new();
    for (name, path) in &parts.extras {
        match std::fs::read(path) {
            Ok(bytes) => extras.push(Extra { name, bytes }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(ApiError::internal(&format!("{}: {error}", path.display())));
            }
        }
    }
    let embedded = Arc::clone(embedded);
    let body = stream::from_thread("backup", move |out| {
        embedded
            .dump(&extras, out, &mut |_, _| {})
            .map(drop)
            .map_err(io::Error::other)
    })
    .map_err(|error| ApiError::internal(&error.to_string()))?;
    let mut response = Response::new(body);
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/gzip"),
    );
    Ok(response)
}
