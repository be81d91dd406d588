//! The running server, as commands reach it: HTTP over the control socket.

pub mod table;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fanfare::config::{self, Config, Sources};
use fanfare::control::{self, INCOMPLETE};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// For the head of an answer. Longer than the server waits for its own parts.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the running server.
pub struct Operator {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

/// The server did not do it, and says why.
#[derive(Debug, thiserror::Error)]
#[error("{text} ({code}, HTTP {status})")]
pub struct Refused {
    status: u16,
    code: String,
    text: String,
}

impl Operator {
    /// Connects to the server of this configuration.
    pub fn connect(sources: &Sources) -> Result<Self, Failure> {
        Self::to(&socket(&config::load(sources)?)?)
    }

    /// Connects to a control socket.
    pub fn to(path: &Path) -> Result<Self, Failure> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let sender = runtime.block_on(async {
            let stream = control::connect(path)
                .await
                .map_err(|error| unreachable(path, &error))?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| Failure::Other(error.into()))?;
            tokio::spawn(connection);
            Ok::<_, Failure>(sender)
        })?;
        Ok(Self { runtime, sender })
    }

    /// The JSON answer of a request without a body.
    pub fn get(&mut self, path: &str) -> Result<Value, Failure> {
        self.json(Method::GET, path, None, &[])
    }

    /// The JSON answer of a request with one.
    pub fn post(
        &mut self,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        self.json(Method::POST, path, Some(body), headers)
    }

    /// Hands an answer over piece by piece.
    pub fn stream(
        &mut self,
        method: Method,
        path: &str,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let response = self.send(method, path, None, &[])?;
        let mut body = response.into_body();
        self.runtime.block_on(async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| Failure::Other(INCOMPLETE.into()))?;
                if let Some(data) = frame.data_ref() {
                    take(data)?;
                }
            }
            Ok(())
        })
    }

    /// Hands an answer that has no end over piece by piece, until `take` has enough, Ctrl-C, or the server is
    /// gone.
    pub fn follow(
        &mut self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> io::Result<bool>,
    ) -> Result<(), Failure> {
        let response = self.send(Method::GET, path, None, &[])?;
        let mut body = response.into_body();
        self.runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            loop {
                let frame = tokio::select! {
                    frame = body.frame() => frame,
                    _ = interrupt.recv() => return Ok(()),
                };
                let Some(Ok(frame)) = frame else {
                    return Err(Failure::Unreachable("the server has stopped".into()));
                };
                if let Some(data) = frame.data_ref()
                    && !take(data)?
                {
                    return Ok(());
                }
            }
        })
    }

    /// As [`Operator::get`]; a refusal is an answer, too.
    pub fn ask(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Result<Value, Refused>, Failure> {
        let response = self.answer(Method::GET, path, None, headers)?;
        let is_done = response.status().is_success();
        if is_done {
            let bytes = self.collect(response)?;
            let answer = serde_json::from_slice(&bytes);
            return answer.map(Ok).map_err(|error| Failure::Other(error.into()));
        }
        self.refusal(response).map(Err)
    }

    fn json(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        let response = self.send(method, path, body, headers)?;
        let bytes = self.collect(response)?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::Other(error.into()))
    }

    fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, Failure> {
        let response = self.answer(method, path, body, headers)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let refused = self.refusal(response)?;
        Err(Failure::Other(Box::new(refused)))
    }

    /// Whatever the server answers.
    fn answer(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = request
            .body(Full::new(body))
            .map_err(|error| Failure::Other(error.into()))?;
        let sending = self.sender.send_request(request);
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, sending).await })
            .map_err(|_| Failure::Other("the server does not answer".into()))?
            .map_err(|error| Failure::Other(error.into()))
    }

    /// Why it was not done.
    fn refusal(&self, response: Response<Incoming>) -> Result<Refused, Failure> {
        let status = response.status().as_u16();
        let said: Value = serde_json::from_slice(&self.collect(response)?).unwrap_or_default();
        let word = |key: &str| said[key].as_str().unwrap_or("unknown").to_owned();
        Ok(Refused {
            status,
            code: word("code"),
            text: word("error"),
        })
    }

    fn collect(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        let collected = self.runtime.block_on(response.into_body().collect());
        collected
            .map(|body| body.to_bytes())
            .map_err(|error| Failure::Other(error.into()))
    }
}

/// Where the server of this configuration listens for its operator.
pub fn socket(config: &Config) -> Result<PathBuf, Failure> {
    config.control_socket.clone().ok_or_else(|| {
        Failure::Other("control.socket is \"off\": there is no way to the running server".into())
    })
}

fn unreachable(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    Failure::Unreachable(match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{path}: permission denied; run this as the user of the server, or as root")
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "no server answers on {path}: is it running, with this configuration (--config FILE)?"
        ),
        _ => format!("{path}: {error}"),
    })
}
