//! The application that the rule `backend` asks: a small HTTP server which answers as it is told and
//! keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::Pki;

/// What the application was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `POST /access HTTP/1.1`
    pub line: String,
    /// In lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The body, as far as it is text.
    pub body: String,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// How the application answers.
#[derive(Debug, Clone)]
pub struct Answering {
    pub status: u16,
    pub body: String,
    pub after: Duration,
}

/// A running one. Its threads end with the process.
pub struct Application {
    addr: SocketAddr,
    scheme: &'static str,
    answering: Arc<Mutex<Answering>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Application {
    /// Starts one that answers everything with 200 and this body.
    pub fn start(body: &str) -> Self {
        Self::start_as(body, None)
    }

    /// The same over TLS, with a certificate of this authority that ends in so many days.
    pub fn start_tls(body: &str, pki: &Pki, days: i64) -> Self {
        Self::start_as(body, Some(pki.server("localhost", days)))
    }

    fn start_as(body: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let application = Self {
            addr: listener.local_addr().unwrap(),
            scheme: if tls.is_some() { "https" } else { "http" },
            answering: Arc::new(Mutex::new(Answering {
                status: 200,
                body: body.to_owned(),
                after: Duration::ZERO,
            })),
            asked: Arc::default(),
        };
        let (answering, asked) = (application.answering.clone(), application.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answering, asked) = (answering.clone(), asked.clone());
                let (stream, tls) = (stream.unwrap(), tls.clone());
                // A connection that ends early is the other side's business.
                std::thread::spawn(move || match tls {
                    None => serve(stream, &answering, &asked),
                    Some(tls) => {
                        let tls = ServerConnection::new(tls).unwrap();
                        serve(StreamOwned::new(tls, stream), &answering, &asked)
                    }
                });
            }
        });
        application
    }

    /// For `channels.backend.url`.
    pub fn url(&self) -> String {
        format!("{}://{}/access?from=fanfare", self.scheme, self.addr)
    }

    /// From now on.
    pub fn answer(&self, status: u16, body: &str) {
        self.change(|answering| {
            answering.status = status;
            answering.body = body.to_owned();
        });
    }

    /// From now on, after so long.
    pub fn delay(&self, after: Duration) {
        self.change(|answering| answering.after = after);
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn change(&self, change: impl FnOnce(&mut Answering)) {
        change(&mut self.answering.lock().unwrap());
    }
}

fn serve(
    stream: impl Read + Write,
    answering: &Mutex<Answering>,
    asked: &Mutex<Vec<Asked>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.split_once(':') else {
                break;
            };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(0, |(_, value)| value.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        asked.lock().unwrap().push(Asked {
            line: line.trim().to_owned(),
            headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        });
        let Answering {
            status,
            body,
            after,
        } = answering.lock().unwrap().clone();
        std::thread::sleep(after);
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} Told\r\nContent-Length: {length}\r\n\r\n{body}");
        let stream = reader.get_mut();
        stream.write_all(answer.as_bytes()).ok()?;
        stream.flush().ok()?;
    }
}
