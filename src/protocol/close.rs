//! Why a connection ends: one table of codes, texts and what the client should do next.

/// The reason the server closes a connection. Contract section 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Close {
    /// No token, or one that does not verify.
    Unauthorized,
    /// A message larger than `limits.message_bytes` (RFC 6455 section 7.4.1).
    TooBig,
    /// A frame that breaks RFC 6455.
    Protocol,
    /// Text that is not UTF-8 (RFC 6455 section 8.1).
    NotUtf8,
    /// This node stops; another, or this one in a moment, will take the client.
    ShuttingDown,
    /// The token's time is over.
    TokenExpired,
    /// The client does not read what it subscribed to.
    TooSlow,
    /// Events were lost on the way to this connection and cannot be replayed in place.
    Resync,
    /// The token or its family was revoked.
    Revoked,
    /// An operator or backend ended the connection.
    Disconnected,
    /// One connection more than this user may have.
    LimitReached,
    /// The client kept sending what was refused.
    TooManyErrors,
}

impl Close {
    /// Every reason, in the order of the table.
    pub const ALL: [Self; 12] = [
        Self::Unauthorized,
        Self::TooBig,
        Self::Protocol,
        Self::NotUtf8,
        Self::ShuttingDown,
        Self::TokenExpired,
        Self::TooSlow,
        Self::Resync,
        Self::Revoked,
        Self::Disconnected,
        Self::LimitReached,
        Self::TooManyErrors,
    ];

    /// (close code, reason text, whether the client should come back).
    const fn row(self) -> (u16, &'static str, bool) {
        match self {
            Self::Unauthorized => (1008, "Unauthorized", false),
            Self::TooBig => (1009, "message too big", true),
            Self::Protocol => (1002, "protocol error", true),
            Self::NotUtf8 => (1007, "invalid utf-8", true),
            Self::ShuttingDown => (4100, "shutting down", true),
            Self::TokenExpired => (4101, "token expired", true),
            Self::TooSlow => (4102, "too slow", true),
            Self::Resync => (4103, "resync", true),
            Self::Revoked => (4300, "revoked", false),
            Self::Disconnected => (4301, "disconnected", false),
            Self::LimitReached => (4302, "limit reached", false),
            Self::TooManyErrors => (4303, "too many errors", false),
        }
    }

    /// The WebSocket close code.
    pub const fn code(self) -> u16 {
        self.row().0
    }

    /// The text of the close frame and of the `disconnect` message.
    pub const fn reason(self) -> &'static str {
        self.row().1
    }

    /// Whether a client should connect again.
    pub const fn reconnect(self) -> bool {
        self.row().2
    }
}
