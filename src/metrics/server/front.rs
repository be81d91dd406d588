//! The bounded front: whom it lets through, for how long, and how much of them it reads.
//!
//! Only a method and a path of its own making go to tiny_http, one request a connection, whether it
//! came plain or by TLS.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::answers::Answers;
use super::head::{self, Head, Refusal};
use super::{CONNECTIONS, Door};
use crate::auth::api_key;
use crate::tls::{self, Spoken};
use crate::web;

/// Connections at a time. A silent one costs a file descriptor and a few hundred bytes; one more
/// is told 503.
const MOST_CONNECTIONS: usize = 512;
/// Connections that are being told 503; one more is closed without a word.
const MOST_REFUSED: usize = 64;
/// Connections that wait for tiny_http or hold an answer: each answer may be a few hundred kilobytes.
const MOST_ANSWERS: usize = 64;
/// Requests inside tiny_http, which has a thread for each.
const MOST_ASKED: usize = 4;
/// Bytes of an answer: `/stats` with the most and longest names stays far below.
const MOST_ANSWER_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of a pipelined rest that are read away before closing.
const MOST_REST_BYTES: u64 = 64 * 1024;

const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const REST_TIMEOUT: Duration = Duration::from_secs(1);
/// For answers in flight when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// After a failed accept: without file descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

// Whoever is let through finds a place among the answers before its turn can be over.
const _: () = assert!(MOST_ASKED <= MOST_ANSWERS && MOST_ANSWERS <= MOST_CONNECTIONS);

struct Front {
    door: Door,
    answers: Arc<Answers>,
    holding: Semaphore,
    asking: Semaphore,
    /// Whether only this machine reaches the listener.
    is_private: bool,
}

/// Accepts until it is told to stop, or its handle is dropped.
pub(super) async fn run(
    listener: std::net::TcpListener,
    door: Door,
    answers: Arc<Answers>,
    mut stopped: oneshot::Receiver<()>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "metrics: cannot listen"),
    };
    let front = Arc::new(Front {
        door,
        answers,
        holding: Semaphore::new(MOST_ANSWERS),
        asking: Semaphore::new(MOST_ASKED),
        is_private: listener
            .local_addr()
            .is_ok_and(|address| address.ip().is_loopback()),
    });
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let refused = Arc::new(Semaphore::new(MOST_REFUSED));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if let Ok(place) = Arc::clone(&connections).try_acquire_owned() {
            let front = Arc::clone(&front);
            tokio::spawn(async move {
                front.receive(stream).await;
                drop(place);
            });
        } else if let Ok(place) = Arc::clone(&refused).try_acquire_owned() {
            tokio::spawn(async move {
                refuse(stream, Refusal::Busy).await;
                drop(place);
            });
        }
        // In a burst of connections that are already dead, each is noticed and gone before the next is
        // accepted, instead of taking a place from a living one.
        tokio::task::yield_now().await;
    }
    drop(listener);
    let all = u32::try_from(MOST_CONNECTIONS).unwrap_or(u32::MAX);
    let _ = timeout(STOP_TIMEOUT, connections.acquire_many(all)).await;
}

impl Front {
    /// A connection, encrypted if this listener is.
    async fn receive(&self, stream: TcpStream) {
        let Some(acceptor) = self.door.tls.acceptor() else {
            return self.converse(stream).await;
        };
        let shaken = timeout(HEAD_TIMEOUT, async {
            match tls::first_words(&stream).await? {
                Spoken::Tls => acceptor.accept(stream).await.map(Some),
                Spoken::Http => {
                    refuse(stream, Refusal::Plain).await;
                    Ok(None)
                }
                Spoken::Other => Ok(None),
            }
        });
        // What is wrong, the peer has been told by an alert.
        if let Ok(Ok(Some(stream))) = shaken.await {
            self.converse(stream).await;
        }
    }

    /// Whether whoever asks may read. The files of the dashboard hold no figures: it asks for the token.
    fn lets_in(&self, path: &str, token: Option<&[u8]>) -> bool {
        let config = self.door.config.current();
        let tokens = &config.metrics.tokens;
        tokens.is_empty()
            || token.is_some_and(|token| api_key::is_known(token, tokens))
            || web::dashboard(path).is_some()
    }

    /// Whether this is nobody's to see without a token, and there is none to ask for.
    fn hides(&self, head: &Head) -> bool {
        head.path == CONNECTIONS
            && (!self.is_private || head.is_by_name)
            && self.door.config.current().metrics.tokens.is_empty()
    }

    /// One request and its answer.
    async fn converse(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let head = match timeout(HEAD_TIMEOUT, read_head(&mut stream)).await {
            Ok(Ok(head)) => head,
            Ok(Err(_)) => return,
            Err(_) => Err(Refusal::Timeout),
        };
        let head = head.and_then(
            |head| match self.lets_in(&head.path, head.token.as_deref()) {
                true if self.hides(&head) => Err(Refusal::TokenRequired),
                true => Ok(head),
                false => Err(Refusal::Unauthorized),
            },
        );
        match head {
            Ok(head) => {
                let asked = async {
                    // Held while the answer is: a client that does not read costs its place, no more.
                    let place = self.holding.acquire().await;
                    (place, self.ask(&head).await)
                };
                let (place, answer) = tokio::select! {
                    asked = asked => asked,
                    () = reset(&mut stream) => return,
                };
                let sent = send(&mut stream, answer.unwrap_or_else(Refusal::response)).await;
                drop(place);
                if sent.is_ok() {
                    part(stream).await;
                }
            }
            Err(refusal) => refuse(stream, refusal).await,
        }
    }

    /// tiny_http's response to this request, as bytes.
    async fn ask(&self, head: &Head) -> Result<Vec<u8>, Refusal> {
        let answer = timeout(ANSWER_TIMEOUT, async {
            let _turn = self.asking.acquire().await.map_err(io::Error::other)?;
            self.exchange(head).await
        });
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::warn!(%error, "metrics: no answer");
                Err(Refusal::Busy)
            }
            Err(_) => Err(Refusal::Busy),
        }
    }

    async fn exchange(&self, head: &Head) -> io::Result<Vec<u8>> {
        let Head {
            method,
            path,
            query,
            ..
        } = head;
        let divider = if query.is_empty() { "" } else { "?" };
        let generation = self.answers.generation();
        let connected = UnixStream::connect(self.answers.socket()).await;
        let mut upstream = connected.inspect_err(|_| self.answers.reopen(generation))?;
        let request = format!(
            "{method} {path}{divider}{query} HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n"
        );
        upstream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let mut upstream = upstream.take(MOST_ANSWER_BYTES);
        upstream.read_to_end(&mut answer).await?;
        // tiny_http does not let its callers set this field, and the connection does end here.
        let status_end = answer
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        answer.splice(status_end + 2..status_end + 2, *b"Connection: close\r\n");
        Ok(answer)
    }
}

async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, refusal: Refusal) {
    if send(&mut stream, refusal.response()).await.is_ok() {
        part(stream).await;
    }
}

/// Ready when the peer has reset the connection: then nobody waits for the answer, and its place in
/// the queue is free. The end of its data is no such sign. Swallows what is pipelined.
async fn reset(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = stream.take(MOST_REST_BYTES);
    if tokio::io::copy(&mut rest, &mut tokio::io::sink())
        .await
        .is_ok()
    {
        pending::<()>().await;
    }
}

/// Sends the whole response and says that nothing follows.
async fn send(stream: &mut (impl AsyncWrite + Unpin), response: Vec<u8>) -> io::Result<()> {
    timeout(WRITE_TIMEOUT, async {
        stream.write_all(&response).await?;
        stream.shutdown().await
    })
    .await?
}

/// Closes so that the peer gets to read the response: closing with unread bytes would reset the
/// connection.
async fn part(stream: impl AsyncRead + Unpin) {
    let mut rest = stream.take(MOST_REST_BYTES);
    let mut nowhere = tokio::io::sink();
    let _ = timeout(REST_TIMEOUT, tokio::io::copy(&mut rest, &mut nowhere)).await;
}

/// Reads until the head is complete or cannot become acceptable any more.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Head, Refusal>> {
    let mut bytes = Vec::with_capacity(512);
    loop {
        let room = head::MOST_BYTES - bytes.len();
        if (&mut *stream)
            .take(room as u64)
            .read_buf(&mut bytes)
            .await?
            == 0
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(head) = head::parse(&bytes) {
            return Ok(head);
        }
    }
}
