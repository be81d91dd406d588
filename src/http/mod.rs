//! The HTTP API: one request in, one answer out. Contract sections 2, 3, 5 and 7.
//!
//! Not for: sockets and connections (`worker`), WebSocket upgrades (they never come here).

pub mod errors;
pub mod event_stream;
pub mod identity;
pub mod origin;
pub mod reply;
pub mod request;
pub mod routes;
pub mod status;
pub mod upgrade;

mod admin;
mod auth;
mod backend_api;
mod challenge;
mod history;
mod notifications;
mod refresh;
mod revocation;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::HeaderValue;
use hyper::http::request::Parts as Head;
use hyper::{Method, Request, Response};

use crate::access_backend::AccessBackend;
use crate::admission::{Admission, client_address};
use crate::auth::issuers::Issuers;
use crate::auth::revocation::id_of;
use crate::auth::trial::Event;
use crate::auth::{Authority, Identity, Refusal};
use crate::broker::{Broker, Store};
use crate::clock::Clock;
use crate::config::{Config, Live, Secret};
use crate::event_log::{Data, EventLog, Kind};
use crate::inbox::Inbox;
use crate::metrics::Counters;
use crate::peers::Peers;
use crate::presence::Presence;
use crate::router::Router;
use crate::tls::Endpoint;
use crate::trace::{Context, Role, Span, Tracer};
use crate::web;
use errors::ApiError;
use reply::Reply;
use request::Call;
use routes::{Route, Row};

/// What handlers work with. One per process.
pub struct Services {
    /// The configuration in force; see [`Services::config`].
    pub live: Live,
    /// How the listener speaks.
    pub tls: Endpoint,
    /// What time it is.
    pub clock: Clock,
    /// Events.
    pub broker: Arc<dyn Broker>,
    /// Records.
    pub store: Arc<dyn Store>,
    /// Tokens and keys.
    authority: ArcSwap<Authority>,
    /// Notifications.
    pub inbox: Inbox,
    /// Limits on who comes in.
    pub admission: Admission,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What happened to clients.
    pub event_log: EventLog,
    /// Whether the process is stopping: `/ready` says no.
    pub draining: AtomicBool,
    /// The name of this node.
    pub node: Arc<str>,
    /// The workers and who follows what.
    pub router: Arc<Router>,
    /// Who is in which channel.
    pub presence: Presence,
    /// The other nodes.
    pub peers: Peers,
    /// What requests cause.
    pub tracer: Arc<Tracer>,
    access_backend: ArcSwapOption<AccessBackend>,
}

/// What [`Services`] are made of.
pub struct Parts {
    /// See [`Services::live`].
    pub live: Live,
    /// See [`Services::tls`].
    pub tls: Endpoint,
    /// The HS256 key, from `auth::keys::secret`.
    pub secret: Secret,
    /// Whose tokens are believed beside our own.
    pub issuers: Issuers,
    /// See [`Services::clock`].
    pub clock: Clock,
    /// See [`Services::broker`].
    pub broker: Arc<dyn Broker>,
    /// See [`Services::store`].
    pub store: Arc<dyn Store>,
    /// See [`Services::counters`].
    pub counters: Arc<Counters>,
    /// See [`Services::event_log`].
    pub event_log: EventLog,
    /// See [`Services::node`].
    pub node: Arc<str>,
    /// See [`Services::router`].
    pub router: Arc<Router>,
    /// See [`Services::presence`].
    pub presence: Presence,
    /// See [`Services::peers`].
    pub peers: Peers,
    /// See [`Services::tracer`].
    pub tracer: Arc<Tracer>,
    /// See [`Services::access_backend()`].
    pub access_backend: Option<AccessBackend>,
}

impl Services {
    /// Puts them together.
    pub fn new(parts: Parts) -> Self {
        let config = parts.live.current();
        Self {
            authority: ArcSwap::from_pointee(
                Authority::new(&parts.secret, &config.auth)
                    .believing(parts.issuers)
                    .counting(Arc::clone(&parts.counters)),
            ),
            inbox: Inbox::new(
                Arc::clone(&parts.store),
                Arc::clone(&parts.broker),
                Arc::clone(&parts.counters),
                parts.event_log.clone(),
                parts.live.clone(),
                Arc::clone(&parts.tracer),
            ),
            admission: Admission::new(
                &config.limits,
                parts.clock.clone(),
                Arc::clone(&parts.counters),
                Arc::clone(&parts.store),
            ),
            live: parts.live,
            tls: parts.tls,
            clock: parts.clock,
            broker: parts.broker,
            store: parts.store,
            counters: parts.counters,
            event_log: parts.event_log,
            draining: AtomicBool::new(false),
            node: parts.node,
            router: parts.router,
            presence: parts.presence,
            peers: parts.peers,
            tracer: parts.tracer,
            access_backend: ArcSwapOption::new(parts.access_backend.map(Arc::new)),
        }
    }

    /// Who presents this token, now: it is good, and was not taken back.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn identify(&self, token: &str) -> Result<Identity, Refusal> {
        let authority = self.authority();
        let mut identity = authority.verify(token, self.clock.unix_ms())?;
        if identity.jti.is_none() {
            identity.jti = Some(id_of(token));
        }
        if self.router.revocations.cover(&identity) {
            let variant = identity.variant.as_deref();
            authority.trial().note(variant, Event::AuthFailure);
            return Err(Refusal::Revoked);
        }
        Ok(identity)
    }

    /// The configuration in force. For what is being done now: the next request may have another.
    pub fn config(&self) -> Arc<Config> {
        self.live.current()
    }

    /// Tokens and keys.
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.load_full()
    }

    /// Whom the rule `backend` asks.
    pub fn access_backend(&self) -> Option<Arc<AccessBackend>> {
        self.access_backend.load_full()
    }

    /// Puts another configuration in force, with what was made of it: everything that is asked for
    /// from now on goes by it.
    pub fn renew(&self, config: Arc<Config>, authority: Authority) {
        self.authority.store(Arc::new(authority));
        self.admission.rebound(&config.limits);
        self.live.replace(config);
    }

    /// Has somebody else, or nobody, asked by the rule `backend`.
    pub fn ask_access_backend(&self, backend: Option<AccessBackend>) {
        self.access_backend.store(backend.map(Arc::new));
    }

    /// Whether the process is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// In the extensions of a request: it came over the control socket, from the operator.
#[derive(Debug, Clone, Copy)]
pub struct Operator;

/// Answers one request, whatever it is. Requests that change something are finished even if the
/// client goes away and this future is dropped.
pub async fn handle<B>(
    services: &Arc<Services>,
    peer: SocketAddr,
    request: Request<B>,
) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
{
    let (head, body) = request.into_parts();
    let config = services.config();
    let ip = client_address(peer.ip(), &head.headers, &config.server.trusted_proxies);
    let shared = origin::Shared::of(&config.server.allowed_origins, &head.headers);
    let path = head.uri.path().to_owned();
    let method = head.method.clone();
    let found = routes::find(&path);
    let pattern = found.map_or("unmatched", |(row, _)| row.pattern);
    let mut span = trace(services, &config, found, &head);
    let context = span.as_ref().map(Span::context);
    let outcome = match admit(services, ip, found, &head) {
        Ok(()) => answer(services, ip, &path, found, head, body, context).await,
        Err(refused) => Err(refused),
    };
    let mut response = outcome.unwrap_or_else(|error| {
        report(services, &method, pattern, &error);
        error.into_response()
    });
    shared.tell(response.headers_mut());
    let status = response.status();
    let method = known(&method);
    if let Some(span) = &mut span {
        span.name(format!("{method} {pattern}"));
        span.say("http.request.method", method.into());
        span.say("http.route", pattern.into());
        span.say(
            "http.response.status_code",
            u64::from(status.as_u16()).into(),
        );
        if status.is_server_error() {
            span.fails(status.to_string());
        }
    }
    let label = format!("{method} {pattern} {}", status.as_u16());
    services.counters.http_responses.increment(&label);
    response
}

/// The span of a request, if it is to be recorded. Who asks whether the server lives asks for ever.
fn trace(
    services: &Services,
    config: &Config,
    found: Option<(&'static Row, Option<&str>)>,
    head: &Head,
) -> Option<Span> {
    if found.is_some_and(|(row, _)| matches!(row.route, Route::Health | Route::Ready)) {
        return None;
    }
    let traceparent = head.headers.get("traceparent");
    let traceparent = traceparent.map(HeaderValue::as_bytes);
    services
        .tracer
        .request(config.sampling(), traceparent, Role::Server)
}

/// The budget of the address; backends have none, and who asks whether the server lives needs none.
fn admit(
    services: &Services,
    ip: IpAddr,
    found: Option<(&'static Row, Option<&str>)>,
    head: &Head,
) -> Result<(), ApiError> {
    if found.is_some_and(|(row, _)| matches!(row.route, Route::Health | Route::Ready)) {
        return Ok(());
    }
    if is_operator(head) || identity::is_backend(services, &head.headers) {
        return Ok(());
    }
    services
        .admission
        .request(ip)
        .map_err(ApiError::rate_limited)
}

fn is_operator(head: &Head) -> bool {
    head.extensions.get::<Operator>().is_some()
}

async fn answer<B>(
    services: &Arc<Services>,
    ip: IpAddr,
    path: &str,
    found: Option<(&'static Row, Option<&str>)>,
    head: Head,
    body: B,
    trace: Option<Context>,
) -> Result<Reply, ApiError>
where
    B: Body<Data = Bytes>,
{
    let Some((row, id)) = found else {
        return file(services, path, &head);
    };
    if matches!(row.route, Route::TestPage | Route::Library) {
        return file(services, path, &head);
    }
    if head.method == Method::OPTIONS {
        let mut reply = reply::options(&row.allow());
        if origin::is_preflight(&head.method, &head.headers) {
            origin::permit(&row.allow(), reply.headers_mut());
        }
        return Ok(reply);
    }
    let Some(method) = row.method(&head.method) else {
        return Err(ApiError::method(&row.allow()));
    };
    let config = services.config();
    let limits = &config.limits;
    let body = match *method {
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE => {
            request::read_body(&head.headers, body, limits.body_bytes, limits.body_timeout).await?
        }
        _ => Bytes::new(),
    };
    if let Some(token) = identity::bearer(&head.headers) {
        services.authority().learn(token).await;
    }
    let call = Call {
        method: method.clone(),
        operator: is_operator(&head),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        id: id.map(routes::decoded).transpose()?,
        ip,
        body,
        trace,
    };
    if *method == Method::GET {
        return dispatch(services, row.route, &call).await;
    }
    let route = row.route;
    let services = Arc::clone(services);
    let mut handler = Box::pin(async move { dispatch(&services, route, &call).await });
    // Most are done at the first poll; a task would only cost them two switches.
    let first = std::future::poll_fn(|context| Poll::Ready(handler.as_mut().poll(context)));
    if let Poll::Ready(outcome) = first.await {
        return outcome;
    }
    tokio::spawn(handler)
        .await
        .unwrap_or_else(|_| Err(ApiError::internal("a handler panicked")))
}

async fn dispatch(services: &Services, route: Route, call: &Call) -> Result<Reply, ApiError> {
    match (route, &call.method) {
        (Route::Wallet, &Method::POST) => auth::sign_in(services, call).await,
        (Route::Wallet, _) => auth::verify(services, call),
        (Route::Challenge, _) => challenge::challenge(services, call).await,
        (Route::Refresh, _) => refresh::refresh(services, call).await,
        (Route::Logout, _) => revocation::logout(services, call).await,
        (Route::Revoke, _) => revocation::revoke(services, call).await,
        (Route::Notifications, &Method::POST) => notifications::add(services, call).await,
        (Route::Notifications, &Method::PATCH) => notifications::patch(services, call).await,
        (Route::Notifications, &Method::PUT) => notifications::put(services, call).await,
        (Route::Notifications, &Method::DELETE) => notifications::delete(services, call).await,
        (Route::Notifications, _) => notifications::list(services, call).await,
        (Route::NotificationsClear, _) => notifications::clear(services, call).await,
        (Route::NotificationRead, _) => notifications::read_one(services, call).await,
        (Route::Publish, _) => backend_api::publish(services, call).await,
        (Route::Broadcast, _) => backend_api::broadcast(services, call).await,
        (Route::History, _) => history::read(services, call).await,
        (Route::Presence, _) => admin::presence(services, call).await,
        (Route::Channels, _) => admin::channels(services, call).await,
        (Route::Connections, _) => admin::connections(services, call).await,
        (Route::Disconnect, _) => admin::disconnect(services, call).await,
        (Route::Users, _) => backend_api::put_user(services, call).await,
        (Route::Health, _) => Ok(status::health(services)),
        (Route::Ready, _) => Ok(status::ready(services)),
        (Route::Keys, _) => Ok(status::keys(services)),
        (Route::OpenApi, _) => Ok(status::openapi()),
        (Route::Root, _) if services.config().server.test_page => {
            Ok(reply::redirect(routes::TEST_PAGE))
        }
        // Only what is no stream comes here: `event_stream::consider` takes the rest.
        (Route::EventStream, _) => Err(ApiError::no_route()),
        (Route::Root | Route::Socket | Route::TestPage | Route::Library, _) => {
            Err(ApiError::upgrade_required())
        }
    }
}

/// A file for the browser: of the library always, of the test page where there is one.
fn file(services: &Services, path: &str, head: &Head) -> Result<Reply, ApiError> {
    let packed = web::asset(path)
        .filter(|packed| packed.asset.is_library || services.config().server.test_page)
        .ok_or_else(ApiError::no_route)?;
    match head.method {
        Method::GET | Method::HEAD => Ok(reply::asset(packed, &head.headers)),
        Method::OPTIONS => Ok(reply::options(&routes::allow(&[Method::GET]))),
        _ => Err(ApiError::method(&routes::allow(&[Method::GET]))),
    }
}

/// Counts and logs what was the server's fault.
fn report(services: &Services, method: &Method, pattern: &str, error: &ApiError) {
    let Some(fault) = &error.fault else {
        return;
    };
    services.counters.errors.increment();
    services.event_log.record(
        Kind::Error,
        &Data {
            reason: Some(error.code),
            message: Some(fault),
            ..Data::default()
        },
    );
    tracing::error!(%method, route = pattern, code = error.code, %fault, "a request failed");
}

/// The method, with no word that came from outside.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];
    let known = KNOWN.iter().find(|known| **known == method.as_str());
    known.copied().unwrap_or("OTHER")
}

#[cfg(test)]
pub(crate) mod tests;
