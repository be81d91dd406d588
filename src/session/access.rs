//! Who may do what with which channel.

use super::Identity;
use crate::config::Access;
use crate::protocol::ChannelKey;

/// What a client wants to do with a channel, as a backend is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Follow it, look back, see who is there.
    Subscribe,
    /// Publish to it.
    Publish,
}

impl Action {
    /// On the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
        }
    }
}

/// Whether a rule lets this client at this channel, as far as that is known here: with
/// [`Access::Backend`] the answer is yes, and the backend has to be asked before anything is done.
pub fn allows(access: Access, identity: &Identity, channel: &ChannelKey) -> bool {
    match access {
        Access::Any | Access::Backend => true,
        Access::Own => channel.id() == &*identity.user_id,
        Access::Token => identity
            .channels
            .iter()
            .any(|claim| covers(claim, channel.as_str())),
        Access::None => false,
    }
}

/// Whether an entry of the `channels` claim names this key: exactly, or up to its trailing `*`.
fn covers(claim: &str, key: &str) -> bool {
    match claim.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => claim == key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(access: Access, key: &str) -> bool {
        let identity = Identity {
            user_id: "u_1".into(),
            wallet: None,
            jti: None,
            family: None,
            issued_at_ms: 0,
            expires_at_ms: 0,
            variant: None,
            channels: vec!["room_7".to_owned(), "team_a*".to_owned()].into(),
        };
        allows(access, &identity, &ChannelKey::parse(key, 255).unwrap())
    }

    #[test]
    fn own_is_the_whole_id_and_nothing_near_it() {
        assert!(allowed(Access::Own, "feed_u_1"));
        for key in [
            "feed_u_10",
            "feed_u",
            "feed_U_1",
            "feed_feed_u_1",
            "feed_u_1 ",
        ] {
            assert!(!allowed(Access::Own, key), "{key}");
        }
    }

    #[test]
    fn the_claim_names_channels_exactly_or_by_prefix() {
        for key in ["room_7", "team_a", "team_abc"] {
            assert!(allowed(Access::Token, key), "{key}");
        }
        for key in ["room_77", "room_8", "team_b"] {
            assert!(!allowed(Access::Token, key), "{key}");
        }
    }

    #[test]
    fn any_is_all_and_none_is_nobody() {
        assert!(allowed(Access::Any, "post_1"));
        assert!(!allowed(Access::None, "feed_u_1"));
    }
}
