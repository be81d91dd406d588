//! What is allowed and still deserves a loud word at start.

use super::{AllowedOrigins, Backend, Config, WalletProof, urls};

/// What `broker.redis.url` is unless somebody sets it.
const DEFAULT_REDIS_URL: &[u8] = b"redis://127.0.0.1:6379";

impl Config {
    /// Sentences for the operator, most urgent first. None of them with the defaults.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |when: bool, text: &str| {
            if when {
                warnings.push(text.to_owned());
            }
        };
        let public = !self.server.listen.ip().is_loopback();
        warn(
            public && self.auth.wallet_proof == WalletProof::None,
            "auth.wallet_proof is \"none\" and server.listen is no loopback address: whoever can connect \
             can sign in as any wallet",
        );
        warn(
            self.auth.legacy_wallet_identity,
            "auth.legacy_wallet_identity is on: whoever names a wallet can read and change its \
             notifications without a token",
        );
        warn(
            !self.metrics.listen.ip().is_loopback() && self.metrics.tokens.is_empty(),
            "metrics.listen is no loopback address and there is no metrics.token: whoever can connect can \
             read the statistics",
        );
        warn(
            !self.metrics.listen.ip().is_loopback()
                && !self.metrics.tokens.is_empty()
                && self.metrics.tls.is_none(),
            "metrics.token without metrics.tls: whoever is in between can read the token",
        );
        warn(
            public && self.server.allowed_origins == AllowedOrigins::Any,
            "server.allowed_origins is [\"*\"]: pages of every site may connect for their visitors",
        );
        warn(
            self.limits.dry_run,
            "limits.dry_run is on: whoever asks too often is let in, and only counted",
        );
        warn(
            self.auth.refresh_ttl <= self.auth.token_ttl.longest(),
            "auth.refresh_ttl is not longer than auth.token_ttl: a refresh token is dead before it is needed",
        );
        warn(
            public
                && self.auth.wallet_proof == WalletProof::Signature
                && self.server.public_url.is_empty(),
            "server.public_url is empty: sign-in messages name whatever host a request names, so a wallet cannot \
             tell its owner whether they are on a copy of your site",
        );
        warn(
            self.auth.refresh_ttl_max < self.auth.refresh_ttl,
            "auth.refresh_ttl_max is shorter than auth.refresh_ttl: no refresh token lives longer than it",
        );
        warn(
            self.broker.backend == Backend::Redis && self.auth.secret.is_none(),
            "auth.secret is not set and broker.backend is \"redis\": this node has a key of its own, and \
             the tokens of one node are not believed by another",
        );
        warn(
            self.broker.backend == Backend::Embedded
                && self.broker.redis.url.expose() != DEFAULT_REDIS_URL,
            "broker.redis.url (or REDIS_URL) is set, and broker.backend is \"embedded\": everything is kept here, \
             nothing in that Redis; broker.backend = \"redis\" would use it",
        );
        let asked = self.access_backend.as_ref();
        warn(
            asked.is_some_and(|backend| urls::is_exposed(&backend.url)),
            "channels.backend.url is http:// and not on this machine: whoever is in between can let anybody \
             into any channel",
        );
        let traces = self.traces.as_ref().map(|traces| &traces.target);
        warn(
            traces.is_some_and(|to| !to.headers.is_empty() && urls::is_exposed(&to.url)),
            "traces.headers without TLS: whoever is between here and traces.otlp_url can read them",
        );
        let limits = &self.limits;
        let event_bytes = limits
            .event_bytes
            .min(limits.message_bytes.max(limits.body_bytes));
        warn(
            limits.queue_bytes < event_bytes,
            "limits.queue_bytes is less than the largest event: one such event disconnects its subscribers",
        );
        warn(
            limits.body_bytes < limits.event_bytes && limits.event_bytes != usize::MAX,
            "limits.body_bytes is less than limits.event_bytes: backends cannot publish the largest events",
        );
        warnings
    }
}
