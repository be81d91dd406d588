//! Sends spans off, in batches, by OTLP over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT as AGENT};
use hyper::{Request, StatusCode, Uri};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::otlp::{self, Resource};
use super::{Record, Waiting};
use crate::outgoing::{Outgoing, USER_AGENT, chain};

/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// For one attempt.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pauses before a batch is tried again, where that may help. Meanwhile spans wait in the queue.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// At the end of the process, for all that still waits.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// Of an answer, which nobody needs: read so that the connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `http` or `https`, with the path.
    pub url: String,
    /// For the receiver to know us by. Their values are secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `service.name`
    pub service: String,
    /// Who is believed to sign its certificate, beside whom this machine believes: PEM.
    pub authorities: Option<Vec<u8>>,
}

/// The task that sends.
#[derive(Debug)]
pub struct Exporter {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Exporter {
    /// Sends to whatever `target` is at the time; `None`: nowhere. Must be called on a runtime.
    pub fn start(
        waiting: Waiting,
        node: &str,
        target: impl Fn() -> Option<Target> + Send + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let sender = Sender {
            waiting,
            node: node.to_owned(),
            target,
            way: None,
            is_refused: false,
        };
        Self {
            task: tokio::spawn(sender.run(stopped)),
            stop,
        }
    }

    /// Sends what still waits, if that does not take long.
    pub async fn finish(self) {
        let _ = self.stop.send(());
        let _ = timeout(LAST_PATIENCE, self.task).await;
    }
}

struct Sender<T> {
    waiting: Waiting,
    node: String,
    target: T,
    /// To the last target that was used.
    way: Option<(Target, Outgoing)>,
    /// The receiver has not taken the last batch: said once.
    is_refused: bool,
}

/// Why a batch was not taken.
struct Refusal {
    why: String,
    may_pass: bool,
}

impl<T: Fn() -> Option<Target>> Sender<T> {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = self.waiting.records.recv_many(&mut batch, BATCH_MAX) => if count == 0 { return },
                _ = &mut stopped => break,
            }
            let gather = sleep(GATHER);
            tokio::pin!(gather);
            while batch.len() < BATCH_MAX {
                let room = BATCH_MAX - batch.len();
                tokio::select! {
                    count = self.waiting.records.recv_many(&mut batch, room) => if count == 0 { break },
                    () = &mut gather => break,
                    _ = &mut stopped => {
                        self.send(&batch, &[]).await;
                        return self.drain().await;
                    }
                }
            }
            tokio::select! {
                () = self.send(&batch, &PAUSES) => {}
                _ = &mut stopped => break,
            }
            batch.clear();
        }
        if !batch.is_empty() {
            self.send(&batch, &[]).await;
        }
        self.drain().await;
    }

    /// The rest, each batch once.
    async fn drain(&mut self) {
        self.waiting.records.close();
        let mut batch = Vec::new();
        while self.waiting.records.recv_many(&mut batch, BATCH_MAX).await > 0 {
            self.send(&batch, &[]).await;
            batch.clear();
        }
    }

    /// Tries until it is taken, cannot be, or the pauses are over.
    async fn send(&mut self, batch: &[Record], pauses: &[Duration]) {
        let count = batch.len() as u64;
        let mut pauses = pauses.iter();
        loop {
            // As configured now: a reload may be what mends it.
            let Some(target) = (self.target)() else {
                self.waiting.counts.refused.add(count);
                return;
            };
            match (self.attempt(target, batch).await, pauses.next()) {
                (Ok(()), _) => {
                    self.waiting.counts.exported.add(count);
                    if std::mem::take(&mut self.is_refused) {
                        tracing::info!("traces.otlp_url takes spans again");
                    }
                    return;
                }
                (Err(refusal), Some(pause)) if refusal.may_pass => sleep(*pause).await,
                (Err(Refusal { why, .. }), _) => {
                    self.waiting.counts.refused.add(count);
                    if !std::mem::replace(&mut self.is_refused, true) {
                        tracing::warn!(%why, "traces.otlp_url does not take spans: they are dropped and counted");
                    }
                    return;
                }
            }
        }
    }

    async fn attempt(&mut self, target: Target, batch: &[Record]) -> Result<(), Refusal> {
        let fatal = |why: String| Refusal {
            why,
            may_pass: false,
        };
        let passing = |why: String| Refusal {
            why,
            may_pass: true,
        };
        let uri: Uri = target
            .url
            .parse()
            .map_err(|error| fatal(format!("{error}")))?;
        if self.way.as_ref().is_none_or(|(known, _)| *known != target) {
            let authorities = target.authorities.as_deref();
            let outgoing = Outgoing::new(&uri, authorities, PATIENCE, 1)
                .map_err(|error| fatal(error.to_string()))?;
            self.way = Some((target, outgoing));
        }
        let Some((target, outgoing)) = &self.way else {
            return Ok(());
        };
        let resource = Resource {
            service: target.service.clone(),
            node: self.node.clone(),
        };
        let mut request = Request::post(uri)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(AGENT, USER_AGENT);
        for (name, value) in &target.headers {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from(otlp::request(&resource, batch)));
        let request = request
            .body(body)
            .map_err(|error| fatal(error.to_string()))?;
        let answered = async {
            let answer = outgoing
                .send(request)
                .await
                .map_err(|error| chain(&error))?;
            let status = answer.status();
            let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await;
            Ok::<_, String>(status)
        };
        let status = timeout(PATIENCE, answered)
            .await
            .map_err(|_| passing("no answer in time".into()))?
            .map_err(passing)?;
        match status {
            status if status.is_success() => Ok(()),
            // What OTLP names as worth another attempt.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(passing(format!("answered {status}"))),
            status => Err(fatal(format!("answered {status}"))),
        }
    }
}
